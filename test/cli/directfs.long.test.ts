// Owns: proof that sandboxes work on a view themselves by `burrow run --directfs`: it is the same tree as by the gofer, the second sandbox
// asks nobody, a killed FUSE server is a pause, and an absolute symlink leads to nothing of the host's. Needs root, /dev/fuse, a runsc of 2024 or later and this machine's Python. Plane: control.
import fs from "node:fs";
import { test } from "tap";
import { daemonStatus } from "../../lib/cache/client.ts";
import { findRevisions } from "../conformance/runsc.ts";
import { directServers } from "../suite/direct-scene.ts";
import { noFuse } from "../suite/fuse.ts";
import { pidsOf } from "../suite/processes.ts";
import { sleep, until } from "../suite/wait.ts";
import { shared, skip } from "./python-node.ts";

const { found } = findRevisions();

/** What a sandbox sees of the tree: names, types, modes, sizes, times, targets, content; and that none of it can be written. */
const LOOK = `
import hashlib, json, os, stat
lines = []
for top in ["/usr", "/etc", "/bin", "/lib"]:
    for d, dirs, files in os.walk(top):
        dirs.sort()
        for p in sorted(os.path.join(d, f) for f in files + dirs):
            s = os.lstat(p)
            what = os.readlink(p) if stat.S_ISLNK(s.st_mode) else ""
            if stat.S_ISREG(s.st_mode) and os.access(p, os.R_OK): what = hashlib.sha256(open(p, "rb").read()).hexdigest()
            lines.append((p, s.st_mode, s.st_uid, s.st_nlink, s.st_size if not stat.S_ISDIR(s.st_mode) else 0, s.st_mtime_ns, what))
def refused(action):
    try: action()
    except OSError as e: return e.errno
open("/tmp/own", "w").write("x" * 100000)
said = [refused(lambda: open("/usr/new", "w")), refused(lambda: os.unlink(lines[0][0])), refused(lambda: open("/usr/nowhere"))]
said.append(open("/tmp/own").read() == "x" * 100000)
print(json.dumps({"count": len(lines), "digest": hashlib.sha256(repr(lines).encode()).hexdigest(), "said": said}))
`;

/** Reads all files again and again for 16 s. */
const READ = `
import os, time
files = [os.path.join(d, f) for d, _, names in os.walk("/usr/lib") for f in names]
files = [f for f in files if os.path.isfile(f)]
end, count, fails = time.time() + 16, 0, []
print("ready", flush=True)
while time.time() < end:
    try: open(files[count % len(files)], "rb").read()
    except OSError as e: fails.append(repr(e))
    count += 1
print(count, fails[:3])
`;

/** The sandbox's kernel. */
function sentryOf(state: string): number | undefined {
  return pidsOf(
    (words) => words[0] === "runsc-sandbox" && words.some((word) => word.includes(state)),
  )[0];
}

for (const revision of found) {
  const why = Number(revision.name) < 2024 ? "this revision has no directfs" : noFuse || skip;
  test(`${revision.name}: a sandbox works on its view itself`, {
    skip: why,
    timeout: 400_000,
  }, async (t) => {
    const { node, base } = await shared(t);
    node.env["BURROW_RUNSC"] = revision.path;
    const look = async (...words: string[]) => {
      const ran = await node.run(["run", "--base", base, ...words, "--", "python3", "-c", LOOK]);
      t.equal(ran.code, 0, ran.stderr);
      return ran;
    };
    const asked = await look();
    const first = await look("--directfs");
    t.equal(first.stdout, asked.stdout, "the same tree");
    const stats = `${node.state}/stats.json`;
    const second = await look("--directfs", "--stats-file", stats);
    t.equal(second.stdout, asked.stdout);
    const { counters } = JSON.parse(fs.readFileSync(stats, "utf8"));
    t.notOk(counters.requests.Walk, "its gofer is asked for no name");
    const directs = async () => (await daemonStatus(node.cache))?.direct;
    t.ok(await until(async () => (await directs())?.users === 0));
    t.match(await directs(), { views: 1, shared: 1 }, "one mount for both");

    const reading = node.run(["run", "--base", base, "--directfs", "--", "python3", "-c", READ]);
    t.ok(await until(() => sentryOf(node.state) !== undefined));
    for (let kills = 0; kills < 3; kills++) {
      await sleep(3_000);
      for (const pid of directServers(node.state)) process.kill(pid, "SIGKILL");
    }
    // Where an absolute symlink of a view would lead a sentry that follows it.
    const root = `/proc/${sentryOf(node.state)}/root`;
    t.same(fs.readdirSync(`${root}/`).sort(), ["etc", "proc"], "runsc's, not the host's");
    t.same(
      fs.readdirSync(`${root}/etc`).filter((name) => name !== "localtime"),
      [],
    );
    t.match(await reading, { code: 0, stdout: /^ready\n\d+ \[\]\n$/ });

    const both = await node.run(["run", "--base", base, "--directfs", "--writable", "--", "true"]);
    t.match(both, { code: 2, stderr: /--directfs and --writable.*leave one of them out/ });
    t.match(await node.run(["daemon", "stop"]), { code: 0 });
  });
}
