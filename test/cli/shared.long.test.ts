// Owns: proof that real sandboxes share a server by `burrow run --shared`: two that read and write all the while have one, another's end
// and the server's leave them whole, and burrow gofer says who serves whom and relieves it. Needs root, runsc and this machine's Python.
// Plane: control.
import type { ChildProcess } from "node:child_process";
import tap, { type Test, test } from "tap";
import { daemonStatus } from "../../lib/cache/client.ts";
import { readServers } from "../../lib/gofer/server-list.ts";
import { findRevisions } from "../conformance/runsc.ts";
import { until } from "../suite/wait.ts";
import { shared, skip } from "./python-node.ts";
import { saidSuccessors } from "./server-of.ts";

const { found } = findRevisions();

/** Says "ready", works until a line comes in, and prints how often and what went wrong. */
const WORK = `
import hashlib, json, os, random, sys, threading
root = next(p for p in sys.path if "/python3" in p and not p.endswith(".zip"))
files = [p for d, _, names in os.walk(root) for p in [os.path.join(d, f) for f in names] if os.path.isfile(p)][:400]
own, running, fails, count, sums = sys.argv[1], True, [], 0, {}
def work(i):
    global count
    r = random.Random(i)
    while running:
        try:
            f = r.choice(files)
            s = hashlib.sha256(open(f, "rb").read()).digest()
            if sums.setdefault(f, s) != s: fails.append(f)
            if os.path.exists(f + ".missing"): fails.append("exists")
            t = "/tmp/%d-%d" % (i, r.randrange(5))
            with open(t, "w") as o: o.write(own)
            if open(t).read() != own: fails.append(t)
            if not set(os.listdir("/tmp")) <= {"%d-%d" % (a, b) for a in range(2) for b in range(5)}: fails.append("names")
        except OSError as e: fails.append(repr(e))
        count += 1
threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
for t in threads: t.start()
print("ready", flush=True)
sys.stdin.readline()
running = False
for t in threads: t.join()
print(json.dumps({"count": count, "fails": fails[:5]}))
`;

class Worker {
  readonly child: ChildProcess;
  readonly exited: Promise<number | null>;
  stdout = "";
  stderr = "";

  constructor(child: ChildProcess) {
    this.child = child;
    child.stdout!.setEncoding("utf8").on("data", (text: string) => {
      this.stdout += text;
    });
    child.stderr!.setEncoding("utf8").on("data", (text: string) => {
      this.stderr += text;
    });
    this.exited = new Promise((resolve) => child.on("close", resolve));
  }

  get isReady(): boolean {
    return this.stdout.includes("ready");
  }

  /** Ends it, and judges its work. */
  async end(t: Test): Promise<void> {
    this.child.stdin!.end("stop\n");
    t.equal(await this.exited, 0, this.stderr);
    const said = JSON.parse(this.stdout.split("\n")[1] ?? "null") as {
      count: number;
      fails: string[];
    };
    t.same(said.fails, []);
    t.ok(said.count > 0, `${said.count} rounds`);
  }
}

for (const revision of found) {
  test(`${revision.name}: sandboxes share a server`, { skip, timeout: 400_000 }, async (t) => {
    const { node, base } = await shared(t);
    node.env["BURROW_RUNSC"] = revision.path;
    node.env["BURROW_SHARED_SANDBOXES"] = "30";
    await node.run(["daemon", "stop"]);
    t.match(await node.run(["run", "--base", base, "--", "/bin/sh", "-c", "true"]), { code: 0 });
    const isReady = async () => (await daemonStatus(node.cache))?.now.standbys === 1;
    const servers = () => readServers(node.cache);
    const start = async (own: string, tenant = "acme") => {
      const words = ["run", "--shared", "--tenant", tenant, "--base", base];
      const flags = ["--runsc-flag=--dcache=40"]; // so that it keeps asking
      const command = ["--", "/usr/bin/python3", "-c", WORK, own];
      const worker = new Worker(node.start([...words, ...flags, ...command], { keepsInput: true }));
      t.ok(await until(() => worker.isReady || worker.child.exitCode !== null), worker.stderr);
      return worker;
    };
    t.ok(await until(isReady), "a standby waits");
    const first = await start("first");
    const second = await start("second");
    const [server] = servers();
    t.equal(server?.stubs.length, 2, "both have one server");
    const told = (await daemonStatus(node.cache))?.shared;
    t.same(told, { most: 30, servers: 1, sandboxes: 2, placed: 2, refused: 0 });
    const ls = JSON.parse((await node.run(["gofer", "ls", "--json"])).stdout) as {
      pid: number;
      shared: { pid: number; tenant: string } | null;
    }[];
    t.same(
      ls.map((row) => row.shared),
      [0, 1].map(() => ({ pid: server!.pid, tenant: "acme" })),
    );
    const brief = ["run", "--shared", "--tenant=acme", "--base", base, "--stats", "--json"];
    const stats = (await node.run([...brief, "--", "/bin/sh", "-c", ":"])).stderr;
    t.same(JSON.parse(stats.trim().split("\n").at(-1)!).sharing, { isShared: true });
    const third = await start("third");
    third.child.kill("SIGKILL");
    await third.exited;
    t.ok(await until(() => servers()[0]?.stubs.length === 2), "another's end is its own");
    const upgraded = await node.run(["gofer", "upgrade", `${ls[0]!.pid}`]);
    t.equal(upgraded.code, 0, upgraded.stderr);
    t.ok(await until(() => servers()[0]?.stubs.length === 1), "one is relieved");
    t.ok(await until(isReady), "a standby waits");
    const other = await start("other", "other");
    t.same(
      servers()
        .map(({ tenant }) => tenant)
        .sort(),
      ["acme", "other"],
    );
    const fourth = await start("fourth");
    t.equal(servers().find(({ tenant }) => tenant === "acme")?.stubs.length, 2);
    process.kill(server!.pid, "SIGKILL");
    t.ok(await until(() => servers().every(({ tenant }) => tenant === "other")));
    for (const worker of [first, second, other, fourth]) await worker.end(t);
    for (const { stderr } of [second, fourth]) t.equal(saidSuccessors(stderr), 1, stderr);
    await node.run(["daemon", "stop"]);
    t.ok(await until(() => servers().length === 0));
  });
}
if (found.length === 0) tap.pass("skipped", { skip: skip || "no runsc" });
