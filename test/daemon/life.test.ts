// The life of a daemon: one per cache, started on demand, ended when idle or told to; and what it takes from a peer.

import { spawnSync } from "node:child_process";
import fs from "node:fs";
import { fileURLToPath } from "node:url";
import { type Test, test } from "tap";
import { Errno } from "../../lib/base/errno.ts";
import { BLOCK_BYTES } from "../../lib/base/limits.ts";
import { daemonStatus, ensureDaemon, isDaemonUp, stopDaemon } from "../../lib/cache/client.ts";
import { encodeAskBlob, encodeBare, Frame } from "../../lib/cache/mailbox-wire.ts";
import { daemonConfig } from "../../lib/daemon/config.ts";
import { startDaemon } from "../../lib/daemon/supervisor.ts";
import { digestOf } from "../../lib/store/hash.ts";
import { native } from "../../lib/sys/native.ts";
import { hasEnded, ownerOf } from "../../lib/sys/owner.ts";
import { exited, MailboxClient, noise, publish, TestNode } from "../suite/daemon-node.ts";
import { scene } from "../suite/daemon-scene.ts";
import { sleep, until } from "../suite/wait.ts";

function newNode(t: Test): TestNode {
  const node = new TestNode();
  t.teardown(() => node.close());
  return node;
}

test("of many daemons for one cache one lives, also over a killed one's socket", async (t) => {
  const node = newNode(t);
  const first = await node.start();
  first.kill("SIGKILL");
  await exited(first);
  t.ok(fs.existsSync(`${node.cache}/daemon.sock`), "a killed daemon leaves its socket");
  t.equal(await isDaemonUp(node.cache), false);
  const racers = Array.from({ length: 4 }, () => node.spawn());
  const ended = () => racers.filter(({ exitCode }) => exitCode !== null);
  await until(async () => ended().length >= 3 && (await isDaemonUp(node.cache)));
  const status = await node.status();
  t.same(
    ended().map(({ exitCode }) => exitCode),
    [0, 0, 0],
  );
  t.ok(racers.some((racer) => racer.pid === status.pid && racer.exitCode === null));
  t.ok(await until(() => node.output.match(/already running/g)?.length === 3), node.output);
});

test("who stops a daemon waits for the end of its process, and no longer than told", async (t) => {
  const node = newNode(t);
  // Its socket and its lock are gone by then: threads that write would hold it up so, too.
  const program = `${node.root}/slow-end.mjs`;
  const daemon = fileURLToPath(new URL("../suite/daemon-program.js", import.meta.url));
  const given = { cache: node.cache, state: node.state, idleMs: 0, standbys: 0 };
  fs.writeFileSync(
    program,
    `import fs from "node:fs";
    process.on("exit", () => {
      while (!fs.existsSync(${JSON.stringify(`${node.root}/end`)}))
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 20);
    });
    process.argv[2] = ${JSON.stringify(JSON.stringify(given))};
    await import(${JSON.stringify(daemon)});`,
  );
  const child = node.spawnCommand([process.execPath, program]);
  t.ok(await until(() => isDaemonUp(node.cache)), node.output);
  const early = stopDaemon(node.cache, 500);
  await t.rejects(early, { code: "BURROW_DAEMON", message: new RegExp(`pid ${child.pid}`) });
  t.ok(await until(async () => !(await isDaemonUp(node.cache))), "nobody is served any more");
  t.equal(child.exitCode, null, "and it is still there");
  fs.writeFileSync(`${node.root}/end`, "");
  await exited(child);
  const next = ownerOf((await node.start()).pid!);
  t.equal(await stopDaemon(node.cache), true);
  t.ok(hasEnded(next));
});

test("a cache whose path is longer than a socket's name has a daemon of its own", async (t) => {
  const long = "long".repeat(50);
  const nodes = [newNode(t), newNode(t)];
  const shared = nodes[0]!.root;
  for (const [i, node] of nodes.entries()) {
    node.cache = `${shared}/${long}/cache${i}`;
    await node.start();
  }
  const [first, second] = [await nodes[0]!.status(), await nodes[1]!.status()];
  t.not(first.pid, second.pid);
  t.equal(first["cache"], nodes[0]!.cache);
  t.same(fs.readdirSync(shared), [long], "no socket under a name cut off");
  const { digest } = await publish(nodes[0]!.store, { a: noise(10) });
  const client = await nodes[0]!.connect(nodes[0]!.mount(nodes[0]!.store, digest));
  t.match(await client.askBlob(0, 0), { errno: 0 });
  client.close();
  // The gofer's way to it.
  const fd = native.connectUnix(`${nodes[1]!.cache}/daemon.sock`);
  t.ok(fd >= 0, String(fd));
  native.closeFd(fd);
  t.equal(native.connectUnix(`${shared}/${long}/none/daemon.sock`), -Errno.ENOENT);
  t.equal(native.connectUnix(`${shared}/${long}/${long}`), -Errno.ENAMETOOLONG);
  t.equal(await stopDaemon(nodes[0]!.cache), true);
  t.equal(fs.existsSync(`${nodes[0]!.cache}/daemon.sock`), false);
  t.equal(await isDaemonUp(nodes[1]!.cache), true);
});

test("it ends when idle, not while someone is connected, and leaves nothing", async (t) => {
  const node = newNode(t);
  const { digest } = await publish(node.store, { a: noise(10) });
  const mountId = node.mount(node.store, digest);
  // A slow machine takes longer than that to connect.
  let idleMs = 300;
  const started = async () => {
    const daemon = await node.start({ idleMs });
    return { daemon, client: await node.connect(mountId) };
  };
  let both = await started().catch(() => undefined);
  for (; both === undefined && idleMs < 20_000; both = await started().catch(() => undefined))
    idleMs *= 2;
  if (both === undefined) throw new Error(node.output);
  const { daemon, client } = both;
  await sleep(3 * idleMs);
  t.equal(daemon.exitCode, null, "connected");
  client.close();
  t.equal(await exited(daemon), 0);
  t.equal(fs.existsSync(`${node.cache}/daemon.sock`), false);
  t.match(node.output, /"reason":"idle"/);
});

test("SIGTERM and SIGINT end it cleanly, also in the middle of work", async (t) => {
  const large = noise(40 * BLOCK_BYTES);
  const { node, server, published, mountId } = await scene(t, { large });
  server.delayMs = 50;
  for (const signal of ["SIGTERM", "SIGINT"] as const) {
    const daemon = await node.start();
    const client = await node.connect(mountId);
    const answer = client.askBlocks(0, published.row("large"), 0, 1);
    await sleep(60);
    daemon.kill(signal);
    t.equal(await exited(daemon), 0, signal);
    t.ok((await answer).errno !== 0 || (await answer).name !== "");
    t.same(node.names("partial"), []);
  }
});

test("signals that come again while it ends don't cut that short", async (t) => {
  const node = newNode(t);
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    node.output = "";
    const daemon = await node.start();
    let isGone = false;
    const gone = exited(daemon).then(() => {
      isGone = true;
    });
    while (!isGone) {
      daemon.kill(signal);
      // It reloads nothing by then, and ends all the same.
      daemon.kill("SIGHUP");
      await new Promise(setImmediate);
    }
    await gone;
    // By then a late one may end it otherwise than by 0.
    t.match(node.output, /"event":"ended"/, signal);
    t.equal(fs.existsSync(`${node.cache}/daemon.sock`), false, "its socket is gone");
  }
});

/** Stands in for a service manager: listens as the first word says, at a path or port, and runs the rest of its words with that socket as FD 3. */
const ACTIVATE = `import os, socket, sys
kind, at = sys.argv[1:3]
family = socket.AF_INET if kind == "tcp" else socket.AF_UNIX
listener = socket.socket(family)
listener.bind(("127.0.0.1", 0) if kind == "tcp" else at)
if kind != "tcp":
    os.chmod(at, 0o666)
listener.listen()
os.dup2(listener.fileno(), 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
os.execvp(sys.argv[3], sys.argv[3:])`;

test("a daemon that is handed the socket takes over from one that was started by hand", async (t) => {
  const node = newNode(t);
  const first = await node.start();
  const gone = exited(first);
  const path = `${node.cache}/daemon.sock`;
  // As systemd does with what stands there.
  fs.rmSync(path);
  const second = node.spawn({}, ["python3", "-c", ACTIVATE, "unix", path]);
  t.equal(await gone, 0, "the first is told to end, and ends well");
  const isUp = async () => (await daemonStatus(node.cache))?.pid === second.pid;
  t.ok(await until(isUp), `and leaves the socket of the other: ${node.output}`);
});

test("it takes no socket that isn't the cache's own, and says so", async (t) => {
  for (const kind of ["tcp", "elsewhere"]) {
    const node = newNode(t);
    fs.mkdirSync(node.cache, { recursive: true });
    const at = kind === "elsewhere" ? `${node.root}/other.sock` : `${node.cache}/daemon.sock`;
    const daemon = node.spawn({}, ["python3", "-c", ACTIVATE, kind, at]);
    t.ok(await until(() => daemon.exitCode !== null), `${kind}: it ends`);
    t.not(daemon.exitCode, 0, kind);
    t.match(node.output, /FD 3, which LISTEN_FDS speaks of, is no(t| unix socket)/);
    t.notMatch(node.output, /"started"/);
    daemon.kill("SIGKILL");
  }
});

/** "" for a file that is gone. */
function textOf(path: string): string {
  try {
    return fs.readFileSync(path, "utf8");
  } catch {
    return "";
  }
}

test("it serves on a socket that it is handed, and leaves its name", async (t) => {
  const node = newNode(t);
  fs.mkdirSync(node.cache, { recursive: true });
  const prefix = ["python3", "-c", ACTIVATE, "stream", `${node.cache}/daemon.sock`];
  const daemon = node.spawn({}, prefix);
  // Connecting works before the daemon is there: who connects waits.
  t.ok(await until(() => isDaemonUp(node.cache)));
  t.equal((await node.status()).pid, daemon.pid);
  const { ino } = fs.statSync(`${node.cache}/daemon.sock`);
  const facts = `/proc/${daemon.pid}/fdinfo`;
  const inherited = () =>
    fs.readdirSync(facts).filter((fd) => {
      if (Number(fd) <= 2) return false;
      const flags = /^flags:\s*([0-7]+)/m.exec(textOf(`${facts}/${fd}`));
      return (Number.parseInt(flags?.[1] ?? "2000000", 8) & 0o2000000) === 0;
    });
  // Node itself opens some files of the system so for a moment, such as /proc/self/stat for its memory.
  await until(() => inherited().length === 0);
  t.same(inherited(), [], "what it starts doesn't inherit it");
  daemon.kill("SIGTERM");
  t.equal(await exited(daemon), 0);
  t.equal(fs.statSync(`${node.cache}/daemon.sock`).ino, ino, "the name is the manager's");
});

test("ensureDaemon starts one, finds it again, and says why it can't", async (t) => {
  const node = newNode(t);
  const program = `${node.root}/start.mjs`;
  const daemon = fileURLToPath(new URL("../suite/daemon-program.js", import.meta.url));
  fs.writeFileSync(
    program,
    `const at = (name) => process.argv[process.argv.indexOf(name) + 1];
    process.argv[2] = JSON.stringify({ cache: at("--cache"), state: at("--state") });
    await import(${JSON.stringify(daemon)});`,
  );
  const options = { cache: node.cache, state: node.state, command: [process.execPath, program] };
  t.equal(await daemonStatus(node.cache), undefined);
  await ensureDaemon(options);
  const status = await daemonStatus(node.cache);
  await ensureDaemon(options);
  t.equal((await daemonStatus(node.cache))?.pid, status?.pid);
  t.equal(await stopDaemon(node.cache), true);
  t.equal(await stopDaemon(node.cache), false);
  // Two at once: one of the two daemons gives way, perhaps after the other was seen.
  const other = { ...options, cache: `${node.root}/other` };
  await Promise.all([ensureDaemon(other), ensureDaemon(other)]);
  t.ok(await daemonStatus(other.cache));
  t.teardown(async () => {
    for (let i = 0; i < 3; i++) {
      await stopDaemon(other.cache);
      await sleep(200);
    }
  });
  const broken = {
    ...options,
    command: [process.execPath, "-e", "console.error('no luck'); process.exit(3)", "--"],
  };
  await t.rejects(ensureDaemon(broken), { code: "BURROW_DAEMON", message: /status 3: no luck/ });
});

test("a peer that breaks the protocol is dropped, and only that peer", async (t) => {
  const node = newNode(t);
  const { digest } = await publish(node.store, { a: noise(10) });
  await node.start();
  const id = node.mount(node.store, digest);
  const good = await node.connect(id);
  const ask = Buffer.alloc(64);
  const bad: [string, Buffer][] = [
    ["a length past the maximum", Buffer.from([0xff, 0xff, 0xff, 0xff])],
    ["a length too short", Buffer.from([1, 0, 0, 0, 0])],
    ["an unknown type", ask.subarray(0, encodeBare(ask, 77, 1))],
    ["STOP", Buffer.from(ask.subarray(0, encodeBare(ask, Frame.stop, 1)))],
    ["an ask cut short", Buffer.from(ask.subarray(0, encodeBare(ask, Frame.askBlob, 1)))],
    ["an answer", Buffer.from(ask.subarray(0, encodeBare(ask, Frame.answer, 1)))],
  ];
  for (const [what, bytes] of bad) {
    const client = await MailboxClient.connect(node.cache, id);
    client.send(bytes);
    t.ok(await until(() => client.isClosed), what);
    client.close();
  }
  const silent = await MailboxClient.connect(node.cache, "no-such-mount");
  t.equal(silent.welcome, Errno.ENOENT);
  silent.send(ask.subarray(0, encodeAskBlob(ask, 1, 0, 0)));
  t.ok(await until(() => silent.isClosed), "an ask without a welcome");
  t.equal((await good.askBlob(0, 0)).errno, 0);
});

test("a full disk: ENOSPC for that ask, nothing half kept, the daemon goes on", async (t) => {
  const node = newNode(t);
  if (process.getuid?.() !== 0) {
    t.comment("skipped: mounting a tmpfs needs root");
    return;
  }
  const disk = `${node.root}/disk`;
  fs.mkdirSync(disk);
  if (spawnSync("mount", ["-t", "tmpfs", "-o", "size=3m", "tmpfs", disk]).status !== 0) {
    t.comment("skipped: no right to mount a tmpfs");
    return;
  }
  t.teardown(() => spawnSync("umount", ["-l", disk]));
  node.cache = `${disk}/cache`;
  const files = {
    small: noise(200_000, 2),
    fits: noise(1000, 3),
    large: noise(14 * BLOCK_BYTES, 4),
  };
  const published = await publish(node.store, files);
  await node.start({ background: true, memoryBytes: 0 });
  const client = await node.connect(node.mount(node.store, published.digest));
  const freeBytes = () => {
    const { bfree, bsize } = fs.statfsSync(disk);
    return bfree * bsize;
  };
  const beforeBytes = freeBytes();
  t.equal((await client.askBlob(0, published.row("large"))).errno, Errno.ENOSPC);
  t.same(node.names("partial"), [], "a blob that can't fit leaves no partial file");
  // A thread closes what had the space; what was free again after the ballast would do for the small one.
  t.ok(await until(() => freeBytes() > beforeBytes - 100_000), "its space comes back");
  t.throws(() => fs.writeFileSync(`${disk}/ballast`, Buffer.alloc(4_000_000)), { code: "ENOSPC" });
  t.equal((await client.askBlob(0, published.row("small"))).errno, Errno.ENOSPC);
  t.same(node.names("tmp"), []);
  fs.rmSync(`${disk}/ballast`);
  t.equal((await client.askBlob(0, published.row("small"))).errno, 0, "room again");
  t.equal((await client.askBlob(0, published.row("fits"))).errno, 0);
  const digest = published.refs.get("small")!.digest;
  t.equal(digestOf(fs.readFileSync(node.blobPath(digest))), digest);
  const { fetch } = await node.settled();
  t.equal(fetch["noSpace"], 2);
});

test("demand is not starved by background streams", async (t) => {
  const smalls = Object.fromEntries(
    Array.from({ length: 8 }, (_, i) => [`f${i}`, noise(900_000, i + 50)]),
  );
  const larges = Object.fromEntries(
    Array.from({ length: 4 }, (_, i) => [`l${i}`, noise(80 * BLOCK_BYTES, i + 1)]),
  );
  const { node, server, published, mountId } = await scene(t, { ...smalls, ...larges });
  server.delayMs = 20;
  await node.start();
  const client = await node.connect(mountId);
  const ask = async (name: string) => {
    const startedMs = performance.now();
    const seen = server.requests.length;
    t.equal((await client.askBlob(0, published.row(name))).errno, 0);
    const ms = performance.now() - startedMs;
    return { ms, seen, until: server.requests.length };
  };
  await ask("f0");
  const idle = await ask("f1");
  await Promise.all([0, 1, 2, 3].map((i) => client.askBlocks(0, published.row(`l${i}`), 0, 1)));
  const busy = [await ask("f4"), await ask("f5"), await ask("f6")];
  // Its own request, and of the two turns of background work one under way and the next ones before its answer is seen.
  for (const { seen, until } of busy) {
    t.ok(until - seen <= 1 + 2 * 4, `${until - seen} requests meanwhile`);
  }
  const times = busy.map(({ ms }) => ms.toFixed(0)).join(", ");
  t.comment(`900 kB on demand: ${idle.ms.toFixed(0)} ms idle; ${times} ms beside four streams`);
  const { fetch } = await node.settled();
  t.equal(fetch["blobs"], 5 + 4, "the streams end, too");
});

test("starting and stopping leaves no descriptor open", async (t) => {
  const node = newNode(t);
  const { digest } = await publish(node.store, { a: noise(10), large: noise(9 * BLOCK_BYTES) });
  const config = daemonConfig({ cache: node.cache, state: node.state, idleMs: 0 });
  const id = node.mount(node.store, digest);
  const count = () => fs.readdirSync("/proc/self/fd").length;
  const round = async () => {
    const daemon = await startDaemon(config, () => undefined);
    t.ok(daemon !== undefined);
    const client = await node.connect(id);
    await client.askBlob(0, 0);
    await client.askBlob(0, 1);
    client.close();
    daemon?.stop("test");
    t.equal(await daemon?.ended, "test");
  };
  await round();
  await sleep(50);
  const before = count();
  for (let i = 0; i < 3; i++) await round();
  await sleep(50);
  t.equal(count(), before);
});
