// Owns: proof that a sandbox at work notices nothing of a server that is killed again and again (pitfall A1): Python imports, lists,
// looks up and reads meanwhile, and every byte is compared. Needs root, runsc and this machine's Python. Plane: control.
import fs from "node:fs";
import tap, { test } from "tap";
import { findRevisions } from "../conformance/runsc.ts";
import { sleep, until } from "../suite/wait.ts";
import { shared, skip } from "./python-node.ts";

const { found } = findRevisions();
const KILLS = 100;
/** Between two kills: a server starts and serves for most of it. */
const KILL_MS = [300, 1_500] as const;

/** Prints one line of JSON: operations, failures and pauses over 50 ms in seconds; ends when a line comes in. */
const WORK = `
import hashlib, importlib, json, os, random, sys, threading, time
root = next(p for p in sys.path if "/python3" in p and not p.endswith(".zip"))
dirs = {d: sorted(ds + fs) for d, ds, fs in os.walk(root)}
files = [os.path.join(d, f) for d, names in dirs.items() for f in names if os.path.isfile(os.path.join(d, f))]
sums, fails, pauses, counts = {}, [], [], [0, 0, 0]
running = True
def look(r):
    kind, f = r.randrange(5), r.choice(files)
    if kind == 0:
        d = r.choice(list(dirs))
        if sorted(os.listdir(d)) != dirs[d]: fails.append("listing " + d)
    elif kind == 1:
        os.stat(f)
    elif kind == 2:
        if os.path.exists(f + ".missing%d" % r.randrange(10**9)): fails.append("exists " + f)
    else:
        s = hashlib.sha256(open(f, "rb").read()).digest()
        if sums.setdefault(f, s) != s: fails.append("bytes " + f)
def work(i):
    r = random.Random(i)
    while running:
        t = time.monotonic()
        try: look(r)
        except OSError as e: fails.append(repr(e))
        counts[i] += 1
        if time.monotonic() - t > 0.05: pauses.append(time.monotonic() - t)
threads = [threading.Thread(target=work, args=(i,)) for i in range(3)]
for t in threads: t.start()
print("ready", flush=True)
threading.Thread(target=lambda: (sys.stdin.readline(), globals().update(running=False))).start()
while running:
    for m in ["json", "decimal", "csv", "email.message", "xml.dom", "asyncio"]:
        for k in [k for k in sys.modules if k.split(".")[0] == m.split(".")[0]]: del sys.modules[k]
        try: importlib.import_module(m)
        except Exception as e: fails.append(m + repr(e))
for t in threads: t.join()
print(json.dumps({"operations": sum(counts), "fails": fails, "pauses": sorted(pauses)}))
`;

/** Pid of the server of a run, by what it alone maps; undefined while there is none. */
function serverOf(stub: string): number | undefined {
  for (const name of fs.readdirSync("/proc").filter((one) => /^\d+$/.test(one))) {
    try {
      if (!fs.readFileSync(`/proc/${name}/maps`, "latin1").includes("memfd:burrow-journal"))
        continue;
      if (fs.readlinkSync(`/proc/${name}/ns/mnt`) === stub) return Number(name);
    } catch {} // it ended meanwhile
  }
  return undefined;
}

/** The mount namespace of the stub among a process's descendants. */
function stubOf(state: string): string | undefined {
  for (const name of fs.readdirSync("/proc").filter((one) => /^\d+$/.test(one))) {
    try {
      const environ = fs.readFileSync(`/proc/${name}/environ`, "latin1");
      if (!fs.readFileSync(`/proc/${name}/cmdline`, "latin1").startsWith("runsc-gofer")) continue;
      if (environ.includes(`BURROW_STATE=${state}\0`))
        return fs.readlinkSync(`/proc/${name}/ns/mnt`);
    } catch {} // it ended meanwhile
  }
  return undefined;
}

for (const revision of found) {
  test(`${revision.name}: ${KILLS} kills at random, and no failed call`, {
    skip,
    timeout: 580_000,
  }, async (t) => {
    const { node, base } = await shared(t);
    node.env["BURROW_RUNSC"] = revision.path;
    node.env["BURROW_RESTARTS"] = "1000";
    const words = ["run", "--base", base, "--runsc-flag=--dcache=40", "--stats-file", "stats.json"];
    const child = node.start([...words, "--", "/usr/bin/python3", "-c", WORK], {
      keepsInput: true,
    });
    let out = "";
    child.stdout!.setEncoding("utf8").on("data", (text: string) => {
      out += text;
    });
    const exited = new Promise<number | null>((resolve) => child.on("exit", resolve));
    t.ok(await until(() => out.includes("ready")), "started");
    const stub = stubOf(node.env["BURROW_STATE"]!);
    t.ok(stub, "its stub is found");
    let killed = 0;
    while (killed < KILLS && child.exitCode === null) {
      await sleep(KILL_MS[0] + Math.random() * (KILL_MS[1] - KILL_MS[0]));
      const server = serverOf(stub!);
      if (server === undefined) continue; // the next is on its way
      process.kill(server, "SIGKILL");
      killed++;
    }
    child.stdin!.end("stop\n");
    t.equal(await exited, 0);
    t.equal(killed, KILLS);
    const { operations, fails, pauses } = JSON.parse(out.split("\n")[1]!);
    t.same(fails, []);
    const p99 = pauses[Math.floor(pauses.length * 0.99)];
    t.comment(
      `${operations} operations, ${pauses.length} over 50 ms, p99 ${p99} s, longest ${pauses.at(-1)} s`,
    );
    const { counters } = JSON.parse(fs.readFileSync(node.path("stats.json"), "utf8"));
    t.ok(counters.others.restarts >= KILLS / 2, `${counters.others.restarts} successors served`);
    t.same(node.leftovers(), []);
  });
}
if (found.length === 0) tap.pass("skipped", { skip: skip || "no runsc" });
