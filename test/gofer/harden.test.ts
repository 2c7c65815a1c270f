// Hardening: what the kernel says of a live server, what one that was taken over comes to, and which capabilities a tree that is written
// really needs. docs/design/0015-hardening.md.

import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import * as fs from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { test } from "tap";
import { Errno } from "../../lib/base/errno.ts";
import { Capability } from "../../lib/gofer/harden.ts";
import { Mid } from "../../lib/wire/lisafs/mid.ts";
import { GoferProcess, writeMount } from "../suite/gofer-process.ts";
import { checkHardened } from "../suite/hardened.ts";
import { errnoOf, stat, walkTo } from "../suite/lisafs-calls.ts";
import { LisafsClient } from "../suite/lisafs-client.ts";
import { serveHost, serveUpper, serveView, startGofer, temporary } from "../suite/served.ts";
import { makeView } from "../suite/view-cache.ts";
import { until } from "../suite/wait.ts";

const needsRoot = process.getuid?.() === 0 ? false : "needs root: capabilities and mounts";
const PROGRAM = fileURLToPath(new URL("../suite/hostile-program.js", import.meta.url));
const { chown, dacOverride, dacReadSearch, fowner, fsetid } = Capability;
const WRITERS = [chown, dacOverride, fowner, fsetid];
const DEVICES = [
  ["null", 0o020000],
  ["disk", 0o060000],
] as const;
const FILES = { hello: "world", "bin/tool": "x" };

test("over a view, no capability is left", { skip: needsRoot }, (t) => {
  const { gofer, client } = serveView(t, FILES);
  walkTo(client, "hello");
  checkHardened(t, gofer.pid, []);
  t.end();
});

test("a signal ends it, and not the filter", { skip: needsRoot }, async (t) => {
  const directory = temporary(t);
  const mounts = [{ destination: "/", source: makeView(directory, FILES), isReadOnly: true }];
  const gofer = GoferProcess.start({ mounts, env: { BURROW_STATE: directory } });
  const client = LisafsClient.mount(gofer.takeSocket(0), 1);
  gofer.child.kill("SIGTERM");
  t.equal(await gofer.exit, "SIGTERM");
  client.close();
  await gofer.stop();
});

test("over an upper, those of an owner of all its files", {
  skip: needsRoot,
}, (t) => {
  const { gofer, client } = serveUpper(t);
  stat(client, client.rootFd);
  checkHardened(t, gofer.pid, WRITERS);
  for (const [name, type] of DEVICES) {
    const asked = {
      fd: client.rootFd,
      name,
      mode: type | 0o640,
      uid: 0,
      gid: 8,
      major: 8,
      minor: 300,
    };
    t.equal(errnoOf(client, Mid.MknodAt, asked), 0);
    const { mode, uid, gid, rdevMajor, rdevMinor } = stat(client, walkTo(client, name));
    t.same([mode, uid, gid, rdevMajor, rdevMinor], [type | 0o640, 0, 8, 8, 300], name);
    t.equal(errnoOf(client, Mid.OpenAt, { fd: walkTo(client, name), flags: 0 }), Errno.EPERM);
    t.equal(errnoOf(client, Mid.MknodAt, asked), Errno.EEXIST);
    t.equal(errnoOf(client, Mid.MknodAt, { ...asked, name: "x", uid: 7 }), Errno.EPERM, "root's");
  }
  t.end();
});

test("no node is made but what keeps a device of a tmpfs, and whiteouts", {
  skip: needsRoot,
}, (t) => {
  const state = makeState(t);
  for (const kinds of ["view", "upper,host-rw"])
    t.equal(outcomeOf(state, kinds, "make nodes", "disk"), "SIGSYS", kinds);
  const beside = outcomeOf(state, "upper,host-rw", "make nodes", "fifo");
  t.match(beside, /^(E[A-Z]+,)*EACCES,(E[A-Z]+,)*tmpfs$/, "not beside a tmpfs");
  t.notOk(fs.existsSync(join(state, "node")));
  t.match(outcomeOf(state, "host-rw", "make nodes", "whiteout"), /elsewhere$/);
  t.equal(fs.statSync(join(state, "node")).rdev, 0, "which Linux lets anybody make");
  t.end();
});

test("over a directory of the host, that of a reader", { skip: needsRoot }, (t) => {
  const { gofer, client } = serveHost(t);
  stat(client, client.rootFd);
  checkHardened(t, gofer.pid, [dacReadSearch]);
  t.end();
});

test("BURROW_HARDEN: off, log, and what it doesn't know", { skip: needsRoot }, async (t) => {
  const directory = temporary(t);
  const source = makeView(directory, FILES);
  const mounts = [{ destination: "/", source, isReadOnly: true }];
  const env = { BURROW_STATE: directory };
  for (const mode of ["off", "log"]) {
    const gofer = startGofer(t, mounts, { ...env, BURROW_HARDEN: mode });
    const client = LisafsClient.mount(gofer.takeSocket(0), 1);
    if (mode === "log") checkHardened(t, gofer.pid, []);
    else {
      const status = fs.readFileSync(`/proc/${gofer.pid}/status`, "latin1");
      t.match(status, /^Seccomp:\s+0$/m);
      t.match(status, /^NoNewPrivs:\s+1$/m);
      t.match(gofer.log, /not hardened/, "the log says so");
    }
    client.close();
  }
  const wrong = GoferProcess.start({ mounts, env: { ...env, BURROW_HARDEN: "yes" } });
  t.equal(await wrong.exit, 1);
  t.match(wrong.log, /BURROW_HARDEN is on, log or off/);
  await wrong.stop();
});

/** The outcome of an act of a server that was taken over: "SIGSYS", or what the program says. */
function outcomeOf(
  state: string,
  kinds: string,
  act: string,
  argument = "",
  command: readonly string[] = [],
): unknown {
  const own = [process.execPath, "--no-warnings", PROGRAM, state, kinds, act, argument];
  const [program = "", ...words] = [...command, ...own];
  const { signal, stdout, stderr } = spawnSync(program, words, {
    encoding: "utf8",
    timeout: 150_000, // filling a heap took over 60 s at a load of 25
  });
  if (signal !== null) return signal;
  try {
    return JSON.parse(stdout) as unknown;
  } catch {
    return stdout + stderr;
  }
}

function makeState(t: Parameters<typeof temporary>[0]): string {
  const state = temporary(t);
  makeView(state, FILES);
  writeMount(state, "upper", { kind: "upper", sizeBytes: 1e6, inodes: 64, mode: 0o755 });
  fs.writeFileSync(join(state, "cache/stage.key"), "secret", { mode: 0o600 });
  fs.writeFileSync(join(state, "canary"), "host");
  return state;
}

test("a server that was taken over has no way to the host", { skip: needsRoot }, (t) => {
  const state = makeState(t);
  const killed = ["spawn", "thread", "mount", "namespace", "another's FD", "listen", "inet socket"];
  for (const act of [...killed, "execve", "raise a limit", "another filter"]) {
    t.equal(outcomeOf(state, "view,upper", act), "SIGSYS", act);
  }
  t.equal(outcomeOf(state, "view", "connect to a path", join(state, "x")), "SIGSYS");
  for (const act of ["open of a path", "read of a path", "write by a path"]) {
    t.equal(outcomeOf(state, "view,upper", act), "ENOENT", act);
  }
  t.equal(outcomeOf(state, "view,upper", "read of the working directory"), "ENOENT");
  t.end();
});

test("no thread is left out, whatever its number", { skip: needsRoot }, async (t) => {
  const act = "stay with a thread whose number is far away";
  const child = spawn(process.execPath, [PROGRAM, makeState(t), "view", act], {
    stdio: ["ignore", "pipe", "ignore"],
  });
  t.teardown(() => child.kill("SIGKILL"));
  const [said] = await once(child.stdout!, "data");
  t.equal(String(said), "hardened");
  checkHardened(t, child.pid!, []);
  const last = fs.readdirSync(`/proc/${child.pid}/task`).map(Number).at(-1)!;
  t.ok(last > child.pid! + 64, "one was far away");
});

test("V8 works on, and dies as it would", { skip: needsRoot }, (t) => {
  const state = makeState(t);
  t.equal(outcomeOf(state, "view,upper", "work"), "done, true", "compiles, collects, gives back");
  t.equal(outcomeOf(state, "view,upper", "abort"), "SIGABRT");
  const little = ["env", "NODE_OPTIONS=--max-old-space-size=40"];
  t.equal(outcomeOf(state, "view,upper", "fill the heap", "", little), "SIGABRT", "out of memory");
  t.end();
});

test("directory FDs lead nowhere else", { skip: needsRoot }, (t) => {
  const state = makeState(t);
  for (const kinds of ["view", "view,upper", "view,upper,host"]) {
    const at = (act: string, ...paths: string[]) => outcomeOf(state, kinds, act, paths.join(":"));
    const files = ["etc/passwd", "passwd", "canary", "stage.key", "cache/stage.key"];
    t.equal(at("open outside", ...files), "nowhere", `${kinds}: files`);
    t.equal(at("look outside", "stage.key"), "nowhere", `${kinds}: its attributes`);
    const folders = ["mounts", "task", "root/etc", "proc/1", "1/root", "sys/kernel"];
    t.equal(at("list outside", ...folders), "nowhere", `${kinds}: folders`);
    t.equal(at("write outside", "sys/kernel/core_pattern"), "nowhere", `${kinds}: core_pattern`);
  }
  t.end();
});

test("the cache can be read and not written", { skip: needsRoot }, (t) => {
  const state = makeState(t);
  const blobs = join(state, "cache/blobs");
  const shard = fs.readdirSync(blobs)[0]!;
  const path = join(shard, fs.readdirSync(join(blobs, shard))[0]!);
  for (const kinds of ["view", "view,upper"]) {
    t.match(outcomeOf(state, kinds, "serve", `nothing:${path}`), /^\S+ opened/, "what it serves");
    t.equal(outcomeOf(state, kinds, "write in the cache", path), "nowhere", kinds);
    t.equal(outcomeOf(state, kinds, "make in the cache", `${shard}/new`), "nowhere", kinds);
  }
  t.notOk(fs.existsSync(join(blobs, shard, "new")));
  t.end();
});

test("the one name that is connected to is the daemon's", { skip: needsRoot }, (t) => {
  const state = makeState(t);
  const connect = (name: string) => outcomeOf(state, "view", "connect to a name", name);
  t.equal(connect("daemon.sock"), -Errno.ENOENT, "which doesn't run");
  t.equal(connect("standby/standby-1-0"), "SIGSYS", "no standby");
  t.equal(connect("../x/y/z.so"), -Errno.ENOENT, "nothing above");
  t.end();
});

test("of the capabilities that are left none is too many", { skip: needsRoot }, (t) => {
  const state = makeState(t);
  const without = (name: string) =>
    outcomeOf(state, "upper", "writes of any owner", "", ["setpriv", `--bounding-set=-${name}`]);
  t.equal(without("net_raw"), "", "with all of them all is done");
  t.equal(without("chown"), "owner");
  t.equal(without("dac_override"), "open");
  t.match(without("fowner"), /^mode/);
  t.equal(without("fsetid"), "set-group-id");
  t.end();
});

/** Listens where daemons of caches would, and prints what the first to come says there. */
const LISTENER = `
import socket, sys
listeners = []
for path in sys.argv[1:]:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    listener.settimeout(20)
    listeners.append(listener)
print("listening", flush=True)
for listener in listeners:
    print(listener.accept()[0].recv(200), flush=True)
`;

test("daemons that come later are found, of one cache and of several", {
  skip: needsRoot,
}, async (t) => {
  for (const count of [1, 2]) {
    const states = Array.from({ length: count }, () => temporary(t));
    const mounts = states.map((state, i) => {
      makeView(state, FILES, ["hello"]);
      const source = join(states[0]!, `mounts/view${i}`);
      fs.cpSync(join(state, "mounts/view"), source, { recursive: true });
      return { destination: i === 0 ? "/" : `/mnt${i}`, source, isReadOnly: true };
    });
    const env = { BURROW_STATE: states[0]!, BURROW_MISS_DEADLINE_MS: "1500" };
    const gofer = startGofer(t, mounts, env);
    const clients = mounts.map((_, i) => LisafsClient.mount(gofer.takeSocket(i), 1));
    const paths = states.map((state) => join(state, "cache/daemon.sock"));
    const listener = spawn("python3", ["-c", LISTENER, ...paths], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    t.teardown(() => listener.kill("SIGKILL"));
    let said = "";
    listener.stdout.on("data", (part: Buffer) => {
      said += part.toString();
    });
    t.ok(await until(() => said.includes("listening")));
    for (const client of clients) {
      const fd = walkTo(client, "hello");
      t.equal(errnoOf(client, Mid.OpenAt, { fd, flags: 0 }), Errno.EIO, "which don't answer");
    }
    t.ok(
      await until(() => said.includes(`view${count - 1}`)),
      `asked for all of ${count} views: ${said}`,
    );
    for (const client of clients) client.close();
  }
});
