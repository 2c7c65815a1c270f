// Owns: FIFOs and Unix sockets of a host directory that is passed through, by runsc's flags --host-fifo and --host-uds: refused and
// allowed as by runsc's own gofer, and a sandbox and a process of the host talk to each other. Plane: control.
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import * as fs from "node:fs";
import * as net from "node:net";
import * as os from "node:os";
import * as path from "node:path";
import t, { type Test as Subtest } from "tap";
import { until } from "../suite/wait.ts";
import {
  Bench,
  exitOf,
  findRevisions,
  type Gofer,
  hostGofer,
  type Revision,
  ROOT,
  stockGofer,
} from "./runsc.ts";

t.setTimeout(300_000);
const { found, reasons } = findRevisions();
for (const reason of reasons) t.comment(`not tested: ${reason}`);

const directory = fs.mkdtempSync(path.join(os.tmpdir(), "burrow-special-"));
t.teardown(() => fs.rmSync(directory, { recursive: true }));
const program = path.join(directory, "talk");
const source = path.join(ROOT, "test/conformance/talk.c");
const built = spawnSync("cc", ["-std=gnu11", "-static", "-Wall", "-o", program, source]);
const skip = found.length === 0 ? reasons.join("; ") : built.status !== 0 && "no C compiler (cc)";

/** What the sandbox does in /mnt/data with each special file, a line each. */
const script = (bound: string) => `cd /mnt/data
for what in connect-stream connect-packets connect-grams open-fifo write-fifo "bind-stream ${bound}"; do
  echo "$what: $(/bin/talk $what)"
done`;

interface Ran {
  readonly lines: string[];
  /** Names, types and modes that were left in the directory. */
  readonly tree: string[];
}

/** Servers of the host in its directory, and what came to each. */
class Host {
  readonly data: string;
  readonly #children: ChildProcess[] = [];
  readonly #server: net.Server;

  constructor(bench: Bench) {
    this.data = path.join(bench.dir, "data");
    fs.mkdirSync(this.data);
    this.#server = net.createServer((peer) => peer.end("from the host"));
  }

  async start(): Promise<void> {
    const { data } = this;
    this.#server.listen(path.join(data, "stream.sock"));
    for (const kind of ["serve-packets", "serve-grams"]) this.#talk(kind);
    spawnSync("mkfifo", [path.join(data, "fifo"), path.join(data, "fifo2")]);
    // Either end of a FIFO waits for the other.
    this.#talk("feed-fifo");
    this.#talk("drain-fifo");
    const names = ["stream.sock", "packets.sock", "grams.sock"];
    await until(() => names.every((name) => fs.existsSync(path.join(data, name))));
  }

  #talk(kind: string): void {
    this.#children.push(spawn(program, [kind], { cwd: this.data, stdio: "ignore" }));
  }

  /** Waits for a socket that the sandbox binds, and says something to it. */
  async greet(): Promise<void> {
    const name = path.join(this.data, "bound.sock");
    if (!(await until(() => fs.existsSync(name)))) return;
    const done = spawn(program, ["greet"], { cwd: this.data, stdio: "ignore" });
    await exitOf(done);
  }

  async stop(): Promise<void> {
    for (const child of this.#children) child.kill("SIGKILL");
    await Promise.all(this.#children.map(exitOf));
    this.#server.close();
  }
}

async function runOver(
  t: Subtest,
  gofer: Gofer,
  revision: Revision,
  flags: string[],
): Promise<Ran> {
  const bench = new Bench(gofer, revision, "ptrace");
  t.teardown(() => bench.close());
  const host = new Host(bench);
  await host.start();
  const canBind = flags.some((flag) => /uds=(create|all)/.test(flag));
  const bundle = bench.bundle(script(canBind ? "wait" : ""), (spec) => {
    fs.copyFileSync(program, path.join(bench.dir, "tree/bin/talk"));
    spec.mounts.push({
      destination: "/mnt/data",
      type: "bind",
      source: host.data,
      options: ["rw"],
    });
  });
  const words = ["--file-access-mounts=shared", ...flags, "run", "-bundle", bundle, bench.id("a")];
  const [run] = await Promise.all([
    bench.outcomeOf(bench.argv(...words)),
    canBind ? host.greet() : undefined,
  ]);
  await host.stop();
  t.equal(run.code, 0, run.stderr);
  t.same(await bench.leftovers(), []);
  const tree = fs.readdirSync(host.data).map((name) => {
    const { mode, uid, gid } = fs.lstatSync(path.join(host.data, name));
    return `${name} ${mode.toString(8)} ${uid}:${gid}`;
  });
  return { lines: run.stdout.trim().split("\n"), tree };
}

const REFUSED = "connect ECONNREFUSED";
const CONNECTED = ["told from the host", "told packet from the host", "send 4"];
const NO_FIFO = ["open EPERM", "open EPERM"];
/** With which flags what comes of each step of the script. */
const WANTED: readonly (readonly [flags: string[], lines: string[]])[] = [
  [[], [REFUSED, REFUSED, REFUSED, ...NO_FIFO, "listen 0"]],
  [["--host-uds=open"], [...CONNECTED, ...NO_FIFO, "listen 0"]],
  [["--host-uds=create"], [REFUSED, REFUSED, REFUSED, ...NO_FIFO, "told hello, sandbox"]],
  [
    ["--host-uds=all", "--host-fifo=open"],
    [...CONNECTED, "told piped", "write 5", "told hello, sandbox"],
  ],
];

if (skip) t.pass("skipped", { skip });
else {
  for (const revision of found) {
    for (const [flags, wanted] of WANTED) {
      t.test(`${revision.name}: special files with ${flags.join(" ") || "no flags"}`, async (t) => {
        const ours = await runOver(t, hostGofer, revision, flags);
        t.same(
          ours.lines.map((line) => line.replace(/^.*?: /, "")),
          wanted,
        );
        // 2022's own gofer refuses special files when they are walked to; either waits for a FIFO, at times for ever.
        if (revision.name === "2022" || flags.includes("--host-fifo=open")) return;
        const stock = await runOver(t, stockGofer, revision, flags);
        t.same(ours.lines, stock.lines);
        t.same(ours.tree, stock.tree);
      });
    }
  }
}
