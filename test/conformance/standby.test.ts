// Owns: a standby with the real stub: what docs/protocol/adopt.md, section 7, promises of being found, taken, passed over, and of every
// end. Needs root: unshare and the upper of a rehearsal. Plane: control.
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import t from "tap";
import { native } from "../../lib/sys/native.ts";
import { Mid } from "../../lib/wire/lisafs/mid.ts";
import { pair } from "../suite/gofer-process.ts";
import { LisafsClient } from "../suite/lisafs-client.ts";
import { type Teardown, temporary } from "../suite/served.ts";
import { makeView } from "../suite/view-cache.ts";
import { until } from "../suite/wait.ts";
import { exitOf, ROOT, STUB } from "./runsc.ts";

const PROGRAM = path.join(ROOT, "dist/standby.cjs");
const GOFER = path.join(ROOT, "dist/gofer.cjs");
const missing = [STUB, PROGRAM].find((file) => !fs.existsSync(file));
const skip =
  missing !== undefined ? `${missing} isn't built` : process.getuid?.() !== 0 ? "not root" : "";
if (skip) {
  t.pass("skipped", { skip });
  process.exit(0);
}

const SOCK_STREAM = 1;

interface Standby {
  readonly child: ChildProcess;
  readonly pid: number;
  readonly folder: string;
  /** What the daemon holds: its end ends one that waits. */
  readonly link: import("node:net").Socket;
}

/** A standby that waits. */
async function wait(
  t: Teardown & Pick<typeof import("tap").default, "equal">,
  folder = temporary(t),
): Promise<Standby> {
  const name = fs.readdirSync(folder).length === 0 ? "one" : "two";
  const child = spawn(process.execPath, ["--no-warnings", PROGRAM, path.join(folder, name)], {
    stdio: ["ignore", "ignore", "inherit", "pipe"],
    env: { PATH: process.env["PATH"] },
  });
  t.teardown(async () => {
    child.kill("SIGKILL");
    await exitOf(child);
  });
  const link = child.stdio[3] as import("node:net").Socket;
  link.on("error", () => {});
  const said = await new Promise((resolve) => link.once("data", resolve));
  t.equal(String(said), "+", "it says that it waits");
  return { child, pid: child.pid!, folder, link };
}

interface Run {
  readonly stub: ChildProcess;
  readonly log: () => string;
  readonly errors: () => string;
  /** Waits for the mounts; a client of the root. */
  mount(): LisafsClient;
  /** Pids of the stub's own children. */
  children(): string[];
}

/** The stub as runsc starts it, over a view with a file "hello", or `root`. `command` comes before it. */
function startStub(
  t: Teardown & Pick<typeof import("tap").default, "equal">,
  folder: string,
  env: Record<string, string> = {},
  command: string[] = [],
  root?: string,
): Run {
  const directory = temporary(t);
  const source = root ?? makeView(directory, { hello: "world" });
  const config = path.join(directory, "config.json");
  fs.writeFileSync(config, JSON.stringify({ root: { path: source, readonly: true }, mounts: [] }));
  const spec = fs.openSync(config, "r");
  const [mounts, mountsChild] = pair(SOCK_STREAM);
  const [io, ioChild] = pair(SOCK_STREAM);
  // A shell's $0 is the bundle's directory.
  const before = command[0] === "sh" ? [...command, directory] : command;
  const words = [...before, STUB, "gofer", "--bundle", directory];
  const log = path.join(directory, "log");
  const errors = path.join(directory, "errors");
  const stderr = fs.openSync(errors, "w");
  const stub = spawn(words[0]!, [...words.slice(1), "--spec-fd=3", "--mounts-fd=4", "--io-fds=5"], {
    stdio: ["ignore", "ignore", stderr, spec, mountsChild, ioChild],
    env: {
      PATH: process.env["PATH"],
      BURROW_NODE: process.execPath,
      BURROW_GOFER: GOFER,
      BURROW_STATE: directory,
      BURROW_LOG: log,
      BURROW_STANDBYS: folder,
      ...env,
    },
  });
  for (const fd of [spec, stderr, mountsChild, ioChild]) native.closeFd(fd);
  const open = new Set([mounts, io]);
  t.teardown(async () => {
    for (const fd of open) native.closeFd(fd);
    stub.kill("SIGKILL");
    await exitOf(stub);
  });
  const read = (file: string) => (fs.existsSync(file) ? fs.readFileSync(file, "utf8") : "");
  return {
    stub,
    log: () => read(log),
    errors: () => read(errors) + read(log),
    mount() {
      const bytes = Buffer.alloc(4096);
      let text = "";
      for (let got = 1; got > 0; ) {
        got = native.readFd(mounts, bytes);
        text += bytes.toString("utf8", 0, Math.max(0, got));
      }
      if (text !== "[]") throw new Error(`mounts: ${text}\n${this.errors()}`);
      open.delete(io);
      return LisafsClient.mount(io, 1);
    },
    children: () =>
      fs
        .readFileSync(`/proc/${stub.pid}/task/${stub.pid}/children`, "utf8")
        .split(" ")
        .filter(Boolean),
  };
}

const walked = (client: LisafsClient, name: string): number =>
  client.call(Mid.Walk, { fd: client.rootFd, names: [name] }).payload.readUInt8(0);

t.test("serves a stub in place of a child, and ends with it", async (t) => {
  const standby = await wait(t);
  const run = startStub(t, standby.folder, {}, ["nice", "-n", "3"]);
  const client = run.mount();
  t.same(run.children(), [], "the stub has no child");
  t.equal(walked(client, "hello"), 0, "a file is found");
  t.equal(walked(client, "nothing"), 1, "another is missing");
  t.same(fs.readdirSync(`/proc/${standby.pid}/root/`), [], "it has given up the stub's root");
  const status = fs.readFileSync(`/proc/${standby.pid}/status`, "utf8");
  t.match(status, /^NoNewPrivs:\t1$/m);
  t.match(status, /^Umask:\t0000$/m);
  t.equal(
    os.getPriority(standby.pid),
    os.getPriority(run.stub.pid!),
    "it rehearsed at a low priority and serves at the stub's",
  );
  const title = fs.readFileSync(`/proc/${standby.pid}/cmdline`, "utf8");
  t.match(title, /^burrow-gofer gofer --bundle /, "ps tells whose it is");
  t.match(run.log(), /serving 1 mounts/, "it logs where the stub was told to");
  client.close();
  t.equal(await exitOf(run.stub), 0, "the stub ends as its server");
  t.equal(await exitOf(standby.child), 0);
});

t.test("a host directory stays read-only in the kernel, for donated FDs too", async (t) => {
  const standby = await wait(t);
  const directory = temporary(t);
  fs.writeFileSync(path.join(directory, "hello"), "world");
  const run = startStub(t, standby.folder, {}, [], directory);
  const client = run.mount();
  t.same(run.children(), []);
  const { payload } = client.call(Mid.Walk, { fd: client.rootFd, names: ["hello"] });
  const fd = Number(payload.readBigUInt64LE(3));
  const { fds, errno } = client.call(Mid.OpenAt, { fd, flags: 0 });
  t.equal(errno, 0);
  t.equal(fds.length, 1, "it is donated");
  t.throws(() => fs.openSync(`/proc/self/fd/${fds[0]}`, "r+"), { code: "EROFS" });
  client.takeBack(fds);
  client.close();
});

t.test("no thread of it keeps a low priority", async (t) => {
  const standby = await wait(t);
  const client = startStub(t, standby.folder).mount();
  for (const task of fs.readdirSync(`/proc/${standby.pid}/task`)) {
    const nice = fs
      .readFileSync(`/proc/${standby.pid}/task/${task}/stat`, "latin1")
      .split(") ")[1]!
      .split(" ")[16];
    t.equal(Number(nice), os.getPriority(), `thread ${task}, as all here`);
  }
  client.close();
});

t.test("is one stub's: the next has a child", async (t) => {
  const standby = await wait(t);
  const first = startStub(t, standby.folder).mount();
  const second = startStub(t, standby.folder);
  const client = second.mount();
  t.equal(second.children().length, 1);
  t.equal(walked(client, "hello"), 0);
  client.close();
  t.equal(await exitOf(second.stub), 0);
  t.equal(walked(first, "hello"), 0, "the first has its own still");
  first.close();
});

t.test("ends with a stub that is killed", async (t) => {
  const standby = await wait(t);
  const run = startStub(t, standby.folder);
  const client = run.mount();
  run.stub.kill("SIGKILL");
  t.equal(await exitOf(standby.child), 0);
  client.close();
});

t.test("SIGTERM ends the stub and its standby", async (t) => {
  const standby = await wait(t);
  const run = startStub(t, standby.folder);
  const client = run.mount();
  run.stub.kill("SIGTERM");
  t.equal(await exitOf(run.stub), 128 + 15);
  t.equal(await exitOf(standby.child), 0);
  t.notMatch(run.errors(), /server failed/, "which is no failure");
  client.close();
});

t.test(
  "killed while it serves: a child takes its place, then a standby that of the child",
  async (t) => {
    const standby = await wait(t);
    const run = startStub(t, standby.folder);
    const client = run.mount();
    standby.child.kill("SIGKILL");
    t.equal(client.call(Mid.FStat, { fd: client.rootFd }).errno, 0);
    t.match(run.errors(), /the server died and is replaced: signal 9/);
    t.equal(run.children().length, 1);
    const next = await wait(t, standby.folder);
    process.kill(Number(run.children()[0]), "SIGKILL");
    t.equal(client.call(Mid.FStat, { fd: client.rootFd }).errno, 0);
    t.equal(run.children().length, 0, "it is the standby that serves");
    client.close();
    t.equal(await exitOf(run.stub), 0);
    t.equal(await exitOf(next.child), 0);
  },
);

t.test("what can't be served is a failed start, as a child's", async (t) => {
  const standby = await wait(t);
  const run = startStub(t, standby.folder, {}, [
    "sh",
    "-c",
    'rm "$0"/mounts/*/mount.json; exec "$@"',
  ]);
  t.equal(await exitOf(run.stub), 1);
  t.match(run.errors(), /failed to start/);
  t.equal(await exitOf(standby.child), 1);
});

t.test("passed over: another build, another node's flags, none there", async (t) => {
  const standby = await wait(t);
  const other = path.join(temporary(t), "gofer.cjs");
  fs.writeFileSync(other, `require(${JSON.stringify(GOFER)});`);
  for (const env of [
    { BURROW_GOFER: other },
    { BURROW_NODE_FLAGS: "--no-opt" },
    { BURROW_STANDBYS: "" },
  ]) {
    const run = startStub(t, standby.folder, env as Record<string, string>);
    const client = run.mount();
    t.equal(run.children().length, 1, JSON.stringify(env));
    client.close();
    t.equal(await exitOf(run.stub), 0);
  }
  const run = startStub(t, standby.folder);
  const client = run.mount();
  t.same(run.children(), [], "it waited on, for one that fits");
  client.close();
});

t.test("passed over: one that says nothing, and a socket that nobody has", async (t) => {
  const standby = await wait(t);
  process.kill(standby.pid, "SIGSTOP");
  const run = startStub(t, standby.folder);
  const client = run.mount();
  t.equal(run.children().length, 1, "a stopped one");
  client.close();
  standby.child.kill("SIGKILL");
  await exitOf(standby.child);
  const next = startStub(t, standby.folder);
  const after = next.mount();
  t.equal(next.children().length, 1, "a dead one's socket");
  after.close();
});

/** Runs a command in a user namespace with all ids of ours, as runsc does for directfs; its maps are written from outside. */
const OUR_IDS = `
map() { awk '{ print $1, $1, $3 }' "/proc/self/$1" > "/proc/$$/$1"; }
own=$(readlink /proc/self/ns/user)
( (until [ "$(readlink /proc/$$/ns/user)" != "$own" ]; do sleep 0.01; done; map uid_map; map gid_map) & )
exec unshare --user sh -c 'until grep -q . /proc/self/gid_map; do sleep 0.01; done; exec "$@"' sh "$@"
`;

t.test("a stub in a user namespace has a child, unless ids are the same there", async (t) => {
  const standby = await wait(t);
  const run = startStub(t, standby.folder, {}, ["unshare", "--user", "--map-root-user", "--"]);
  const client = run.mount();
  t.equal(run.children().length, 1);
  client.close();
  const alike = startStub(t, standby.folder, {}, ["sh", "-c", OUR_IDS]);
  const served = alike.mount();
  const users = (pid: number) => fs.readlinkSync(`/proc/${pid}/ns/user`);
  t.not(users(alike.stub.pid!), users(process.pid));
  t.same(alike.children(), [], "it is the standby that serves");
  t.equal(walked(served, "hello"), 0);
  const status = fs.readFileSync(`/proc/${standby.pid}/status`, "utf8");
  t.match(status, /^CapEff:\t0{16}$/m, "and it has given up what it could do outside");
  served.close();
  t.equal(await exitOf(alike.stub), 0);
});

t.test("ends when it can't rehearse: its files are taken from under it", async (t) => {
  const folder = temporary(t);
  const child = spawn(process.execPath, ["--no-warnings", PROGRAM, path.join(folder, "one")], {
    stdio: ["ignore", "ignore", "ignore", "pipe"],
  });
  t.teardown(() => child.kill("SIGKILL"));
  const bundle = path.join(folder, "one.rehearsal/config.json");
  t.ok(await until(() => fs.existsSync(bundle)));
  while (child.exitCode === null && child.signalCode === null) {
    fs.rmSync(folder, { recursive: true, force: true, maxRetries: 10 });
    if (!(await until(() => child.exitCode !== null || fs.existsSync(bundle)))) break;
  }
  t.equal(child.exitCode, 1);
});

t.test("nonsense is refused, and it waits on", async (t) => {
  const standby = await wait(t);
  const script = `
import socket, struct, sys
def say(data):
    s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    s.connect(sys.argv[1])
    if data is not None: s.send(data)
    s.settimeout(5)
    if data is not None: assert s.recv(100) == b"", "answered"
    s.close()
M = 0x31575242
head = lambda kind, n, count=0: struct.pack("<IHHII", M, kind, count, 0, n)
say(None)
for data in [b"x", b"x" * 60000, head(4, 0), head(1, 0), head(4, 64) + bytes(64), head(4, 64, 3) + bytes(64),
             head(4, 70) + bytes(48) + struct.pack("<IIII", 2**32 - 1, 2**32 - 1, 2, 0) + b"a\\0b\\0c\\0"]:
    say(data)
`;
  const done = spawnSync("python3", ["-c", script, path.join(standby.folder, "one")], {
    encoding: "utf8",
  });
  t.equal(done.status, 0, done.stderr);
  const run = startStub(t, standby.folder);
  const client = run.mount();
  t.same(run.children(), []);
  client.close();
});

t.test("files that only look like a stub's are refused, and it waits on", async (t) => {
  const standby = await wait(t);
  // A server that was taken over could make these in its tmpfs, and have another serve it the host.
  const forged = temporary(t);
  fs.mkdirSync(path.join(forged, "ns"));
  const settings = { BURROW_GOFER: GOFER, BURROW_NODE: process.execPath, BURROW_STATE: forged };
  const environ = Object.entries(settings).map((setting) => `${setting.join("=")}\0`);
  fs.writeFileSync(path.join(forged, "environ"), environ.join(""));
  fs.writeFileSync(path.join(forged, "cmdline"), `stub\0gofer\0--bundle\0${forged}\0`);
  for (const name of ["cgroup", "ns/mnt", "ns/user", "ns/cgroup"]) {
    fs.symlinkSync(`/proc/self/${name}`, path.join(forged, name));
  }
  for (const name of ["root", "cwd"]) fs.symlinkSync("/", path.join(forged, name));
  const script = `
import array, os, socket, struct, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
s.connect(sys.argv[1])
message = struct.pack("<IHHII", 0x31575242, 4, 1, 0, 0) + struct.pack("<IIII", 11, 0, 0, 0)
s.sendmsg([message], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [os.open(sys.argv[2], os.O_RDONLY)]))])
s.settimeout(5)
print(len(s.recv(100)))
`;
  const words = ["-c", script, path.join(standby.folder, "one"), forged];
  const { stdout, stderr } = spawnSync("python3", words, { encoding: "utf8" });
  t.equal(stdout, "0\n", stderr);
  const run = startStub(t, standby.folder);
  const client = run.mount();
  t.same(run.children(), []);
  client.close();
});

t.test("ends with the daemon while it waits, not while it serves", async (t) => {
  const waiting = await wait(t);
  waiting.link.destroy();
  t.equal(await exitOf(waiting.child), 0);
  const serving = await wait(t);
  const run = startStub(t, serving.folder);
  const client = run.mount();
  t.ok(
    await until(() => serving.link.readableEnded || serving.link.destroyed),
    "it lets go itself",
  );
  serving.link.destroy();
  t.equal(walked(client, "hello"), 0, "it serves on");
  client.close();
});

const CGROUP = "/sys/fs/cgroup";
const hierarchy = fs.existsSync(`${CGROUP}/cgroup.procs`) ? CGROUP : `${CGROUP}/pids`;
const name = `burrow-standby-${process.pid}`;
let noCgroup: string | false = false;
try {
  fs.mkdirSync(`${hierarchy}/${name}`);
} catch (error) {
  noCgroup = `no cgroup can be made: ${String(error)}`;
}
t.teardown(async () => {
  // Busy until the last of it is reaped.
  if (!noCgroup) await until(() => spawnSync("rmdir", [`${hierarchy}/${name}`]).status === 0);
});

t.test("enters the stub's cgroup: what it uses is the sandbox's", { skip: noCgroup }, async (t) => {
  const standby = await wait(t);
  const enter = `echo $$ > ${hierarchy}/${name}/cgroup.procs; exec "$@"`;
  const run = startStub(t, standby.folder, {}, ["sh", "-c", enter]);
  const client = run.mount();
  t.same(run.children(), []);
  t.match(fs.readFileSync(`/proc/${standby.pid}/cgroup`, "utf8"), name);
  client.close();
  await exitOf(run.stub);
  await exitOf(standby.child);
});

t.test("servers have short turns of the CPU, standby or child", async (t) => {
  const [major = 0, minor = 0] = os.release().split(".").map(Number);
  const slice = (pid: string | number) =>
    /^se\.slice\s*:\s*(\d+)/m.exec(fs.readFileSync(`/proc/${pid}/sched`, "utf8"))?.[1];
  if (major * 1000 + minor < 6012 || slice("self") === undefined) {
    t.pass("skipped", { skip: "this kernel doesn't show a task's slice" });
    return;
  }
  const standby = await wait(t);
  const one = startStub(t, standby.folder);
  const first = one.mount();
  t.equal(slice(standby.pid), "100000");
  const two = startStub(t, standby.folder);
  const second = two.mount();
  t.equal(slice(two.children()[0]!), "100000");
  first.close();
  second.close();
});
