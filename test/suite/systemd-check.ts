// What is done under systemd, in a user-mode Linux (systemd-guest.sh): the units of docs/systemd are started, restarted, reloaded, killed and
// stopped while a sandbox's gofer has files open and reads that wait. Its argument: which boot of the same disk it is. Prints a line of
// Judgement for each thing that must hold.

import { execFile, spawn } from "node:child_process";
import fs from "node:fs";
import net from "node:net";
import { promisify } from "node:util";
import { ensureIndex, openCache } from "../../lib/cache/cache.ts";
import { daemonStatus } from "../../lib/cache/client.ts";
import { cachePath, lazyFolder, socketPath, standbyFolder } from "../../lib/cache/layout.ts";
import { errnoOf } from "../../lib/store/node-error.ts";
import { Mid } from "../../lib/wire/lisafs/mid.ts";
import { HotStub } from "../conformance/hot.ts";
import { exited, type Files, noise, type Published, publish } from "./daemon-node.ts";
import { walkTo } from "./lisafs-calls.ts";
import type { LisafsClient } from "./lisafs-client.ts";
import { OriginServer } from "./origin-server.ts";
import { sleep, until } from "./wait.ts";

export interface Judgement {
  readonly name: string;
  readonly isRight: boolean;
  readonly seen: string;
}

/** As the units and the docs have them. */
const CACHE = "/var/cache/burrow";
const STATE = "/var/lib/burrow";
const SERVICE = "burrow-daemon.service";
const SOCKET = "burrow-daemon.socket";
const PRELOAD = "burrow-preload.service";
const CGROUP = `/sys/fs/cgroup/system.slice/${SERVICE}`;
const STORE = "/run/disk/store";
/** man statfs(2). */
const FUSE_SUPER_MAGIC = 0x65735546;
/** Where the client is told to wait: as long as a gofer does. */
const PATIENCE_MS = 60_000;

/** Each as large as what comes along with a file that is asked for, so that most wait for an origin of their own. */
const FILES: Files = {
  ...Object.fromEntries(Array.from({ length: 24 }, (_, i) => [`s${i}`, noise(600_000 + i, i + 1)])),
  large0: noise(5_000_007, 100),
  large1: noise(5_000_013, 101),
};

function judge(name: string, isRight: boolean, seen: unknown = ""): void {
  const judgement: Judgement = { name, isRight, seen: String(seen) };
  process.stdout.write(`\n@@ judged ${JSON.stringify(judgement)}\n`);
}

const exec = promisify(execFile);

/** Runs a program: its exit code and all that it said. */
async function run(...[program, ...words]: [string, ...string[]]): Promise<[number, string]> {
  try {
    const { stdout, stderr } = await exec(program, words);
    return [0, `${stdout}${stderr}`.trim()];
  } catch (error) {
    const { code, stdout, stderr } = error as { code: number; stdout: string; stderr: string };
    return [code, `${stdout}${stderr}`.trim()];
  }
}

async function systemctl(...words: string[]): Promise<void> {
  const [code, said] = await run("systemctl", ...words);
  if (code !== 0) throw new Error(`systemctl ${words.join(" ")}: ${said}`);
}

async function property(unit: string, name: string): Promise<string> {
  return (await run("systemctl", "show", "--value", `--property=${name}`, unit))[1];
}

const mainPid = async () => Number(await property(SERVICE, "MainPID"));
const stateOf = (unit: string) => property(unit, "ActiveState");
const cgroupOf = (pid: number) => fs.readFileSync(`/proc/${pid}/cgroup`, "utf8").trim();

/** A sandbox: a stub with a server, whose client this is, and an origin that answers or doesn't. */
class Sandbox {
  readonly origin: OriginServer;
  readonly stub: HotStub;
  readonly client: LisafsClient;
  readonly #published: Published;
  readonly #teardowns: (() => void | Promise<void>)[];

  private constructor(
    origin: OriginServer,
    published: Published,
    stub: HotStub,
    teardowns: (() => void | Promise<void>)[],
  ) {
    this.origin = origin;
    this.#published = published;
    this.stub = stub;
    this.#teardowns = teardowns;
    const t = { teardown: (action: () => void) => void teardowns.push(action) };
    this.client = stub.mount(t);
    for (const channel of this.client.channels) channel.timeoutMs = PATIENCE_MS;
  }

  static async start(origin: OriginServer, published: Published, name: string): Promise<Sandbox> {
    const source = `${STATE}/mounts/${name}`;
    const base = { snapshot: `sha256:${published.digest}`, origin: origin.url };
    const mount = { format: 1, kind: "view", cache: CACHE, base, grafts: [] };
    fs.mkdirSync(source, { recursive: true });
    fs.writeFileSync(`${source}/mount.json`, JSON.stringify(mount));
    await ensureIndex(openCache(CACHE), origin.url, published.digest);
    const teardowns: (() => void | Promise<void>)[] = [];
    const t = { teardown: (action: () => void | Promise<void>) => void teardowns.push(action) };
    const env = { BURROW_STATE: STATE, BURROW_STANDBYS: standbyFolder(CACHE) };
    const directory = fs.mkdtempSync("/run/t/stub-");
    const stub = new HotStub(t, directory, [{ source, isReadOnly: true }], env);
    stub.start();
    try {
      return new Sandbox(origin, published, stub, teardowns);
    } catch (cause) {
      throw new Error(`${cause}: ${stub.log}`, { cause });
    }
  }

  /** A small file that isn't on the node yet. */
  fresh(): string {
    for (const [name, { digest }] of this.#published.refs)
      if (name.startsWith("s") && !fs.existsSync(cachePath(CACHE, "blobs", digest))) return name;
    throw new Error("all is here");
  }

  async open(name: string): Promise<number> {
    const { errno, fds } = await this.client.callBeside(Mid.OpenAt, {
      fd: walkTo(this.client, name),
    });
    if (errno !== 0) throw new Error(`${name}: errno ${errno}`);
    if (fds.length !== 1) throw new Error(`${name}: ${fds.length} files donated`);
    return fds[0]!;
  }

  async isRight(name: string, fd: number): Promise<boolean> {
    const content = FILES[name]!;
    const got = Buffer.alloc(content.length);
    for (let at = 0; at < got.length; ) {
      const { bytesRead } = await promisify(fs.read)(fd, got, at, got.length - at, at);
      if (bytesRead === 0) return false;
      at += bytesRead;
    }
    return got.equals(content);
  }

  /** Has a file opened while its origin says nothing and `happening` goes on: whether it came right. */
  async over(happening: () => Promise<unknown>): Promise<string> {
    const { origin } = this;
    const name = this.fresh();
    const asked = origin.requests.length;
    origin.fault = () => "stall-headers";
    const opening = this.open(name).then(
      async (fd) => ((await this.isRight(name, fd)) ? "right" : "wrong bytes"),
      (error: Error) => error.message,
    );
    const isAsked = await until(() => origin.requests.length > asked);
    try {
      await happening();
      if (!isAsked) return "nothing was asked for";
    } finally {
      origin.fault = () => "none";
      origin.hangUp();
    }
    return opening;
  }

  async end(): Promise<number | null> {
    this.client.close();
    const code = await exited(this.stub.stub);
    for (const action of this.#teardowns.reverse()) await action();
    return code;
  }
}

/** Connects to the socket again and again until told to end: why how many were refused, "" for none. */
function connecting(): () => Promise<string> {
  let isOver = false;
  const refused = new Map<string, number>();
  const all = (async () => {
    for (; !isOver; await sleep(20)) {
      const socket = net.connect(socketPath(CACHE));
      await new Promise<void>((resolve) => {
        socket.once("connect", resolve).once("error", (error) => {
          const { code } = errnoOf(error);
          refused.set(code, (refused.get(code) ?? 0) + 1);
          resolve();
        });
      });
      socket.destroy();
    }
  })();
  return async () => {
    isOver = true;
    await all;
    return [...refused].map(([code, count]) => `${code} ${count} times`).join(", ");
  };
}

/** The daemon of the unit is another than `pid`, and answers. */
async function isAnother(pid: number): Promise<boolean> {
  return await until(async () => {
    const [now, status] = [await mainPid(), await daemonStatus(CACHE).catch(() => undefined)];
    return now !== 0 && now !== pid && status?.pid === now;
  });
}

async function units(): Promise<void> {
  const [code, said] = await run("systemd-analyze", "verify", SERVICE, SOCKET, PRELOAD);
  judge("systemd-analyze verify says nothing", code === 0 && said === "", said);
  for (const unit of [SERVICE, PRELOAD]) {
    const [, text] = await run("systemd-analyze", "security", "--no-pager", unit);
    const exposure = /exposure level for .*?: (\S+)/.exec(text)?.[1] ?? text;
    process.stdout.write(`\n@@ exposure ${unit} ${exposure}\n`);
  }
}

async function activation(sandbox: () => Promise<Sandbox>): Promise<Sandbox> {
  await systemctl("start", SOCKET);
  judge("the socket is there before the daemon", (await stateOf(SERVICE)) === "inactive");
  const made = await sandbox();
  const name = made.fresh();
  judge("who asks first starts the daemon", await made.isRight(name, await made.open(name)));
  const pid = await mainPid();
  judge("it is the unit's", (await daemonStatus(CACHE))?.pid === pid, pid);
  judge("in its cgroup", cgroupOf(pid) === `0::/system.slice/${SERVICE}`, cgroupOf(pid));
  const rights = await property(SERVICE, "CapabilityBoundingSet");
  judge("it can make no devices", / cap_net_bind/.test(rights) && !/mknod/.test(rights), rights);
  return made;
}

async function standbys(sandbox: () => Promise<Sandbox>): Promise<Sandbox> {
  const isWaiting = async () => (await daemonStatus(CACHE))?.now.standbys === 1;
  // Here, on one CPU whose system calls are slow, its rehearsal takes a while.
  const isThere = (await until(isWaiting)) || (await until(isWaiting)) || (await until(isWaiting));
  judge("a standby waits", isThere);
  const made = await sandbox();
  judge("a sandbox takes it", made.stub.servers().length === 0, made.stub.servers());
  const server = serverOf(made);
  const own = cgroupOf(process.pid);
  judge("it is in the sandbox's cgroup", cgroupOf(server) === own, cgroupOf(server));
  return made;
}

/** The process that serves a sandbox: its stub's child, or a standby. */
function serverOf({ stub }: Sandbox): number {
  const [child] = stub.servers();
  if (child !== undefined) return child;
  for (const name of fs.readdirSync("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    const words = fs.readFileSync(`/proc/${name}/cmdline`, "latin1").split("\0");
    if (words[0]?.startsWith("burrow-gofer") && words.join(" ").includes(stub.directory))
      return Number(name);
  }
  return 0;
}

/** All that ends a daemon, with a read that waits over each. */
async function ends(made: Sandbox): Promise<void> {
  const held = made.fresh();
  const heldFd = await made.open(held);
  const server = serverOf(made);
  const stays = async (what: string) => {
    judge(`${what}: the open file reads on`, await made.isRight(held, heldFd));
    judge(`${what}: the same server`, serverOf(made) === server);
  };

  let pid = await mainPid();
  const refused = connecting();
  const restarted = await made.over(async () => {
    const beganMs = performance.now();
    await systemctl("restart", SERVICE);
    process.stdout.write(`\n@@ restart ${Math.round(performance.now() - beganMs)} ms\n`);
  });
  judge("restart: a read that waits is right", restarted === "right", restarted);
  judge("restart: another daemon", await isAnother(pid));
  const counts = await refused();
  judge("restart: no connection is refused", counts === "", counts);
  await stays("restart");

  pid = await mainPid();
  const killed = await made.over(async () => {
    process.kill(pid, "SIGKILL");
    await isAnother(pid);
  });
  judge("SIGKILL: a read that waits is right", killed === "right", killed);
  await stays("SIGKILL");

  // More often than systemd takes by itself.
  for (let kills = 0; kills < 7; kills++) {
    pid = await mainPid();
    process.kill(pid, "SIGKILL");
    if (!(await isAnother(pid))) break;
  }
  const state = `${await stateOf(SERVICE)}, ${await stateOf(SOCKET)}`;
  judge("seven deaths in a row: it is there again", state === "active, active", state);

  pid = await mainPid();
  const starved = await made.over(async () => {
    // Its service manager makes it anew with each start.
    await until(() => fs.existsSync(`${CGROUP}/memory.max`));
    fs.writeFileSync(`${CGROUP}/memory.max`, "16M");
    await until(async () => (await mainPid()) !== pid);
    // With a new group the limit has gone.
    if (fs.existsSync(`${CGROUP}/memory.max`)) fs.writeFileSync(`${CGROUP}/memory.max`, "max");
    await isAnother(pid);
  });
  judge("out of memory: a read that waits is right", starved === "right", starved);
  const [, kernel] = await run("journalctl", "--no-pager", "-o", "cat", "-k");
  judge("out of memory: it was that", kernel.includes("Memory cgroup out of memory: Killed"));
  await stays("out of memory");
}

async function reload(): Promise<void> {
  const pid = await mainPid();
  await systemctl("reload", SERVICE);
  const reloads = async () => (await daemonStatus(CACHE))?.reloads;
  judge("reload: done when systemctl returns", (await reloads())?.done === 1);
  judge("reload: the same daemon", (await mainPid()) === pid);
  fs.writeFileSync("/etc/burrow/origins.json", "{}");
  const [code] = await run("systemctl", "reload", SERVICE);
  judge("reload: a file that can't be used is a failure of systemctl's", code !== 0);
  judge("reload: which changes nothing", (await mainPid()) === pid, (await reloads())?.why);
  fs.writeFileSync("/etc/burrow/origins.json", `{ "format": 1, "origins": {} }`);
}

async function stop(made: Sandbox): Promise<void> {
  const stopped = await made.over(async () => {
    await systemctl("stop", SOCKET);
    const states = `${await stateOf(SERVICE)}, ${await stateOf(SOCKET)}`;
    judge("stop: both are", states === "inactive, inactive", states);
    judge("stop: no socket is left", !fs.existsSync(socketPath(CACHE)));
    const procs = `${CGROUP}/cgroup.procs`;
    const left = () => (fs.existsSync(procs) ? fs.readFileSync(procs, "utf8").trim() : "");
    judge("stop: no process is left", await until(() => left() === ""), left());
    await systemctl("start", SOCKET);
  });
  judge("stop: a read that waits is right after the next start", stopped === "right", stopped);
}

/** With the drop-in of docs/daemon.md: to sandboxes that start then, large files are donated before they are here. */
async function lazy(sandbox: () => Promise<Sandbox>): Promise<void> {
  const folder = `/etc/systemd/system/${SERVICE}.d`;
  fs.mkdirSync(folder);
  const isOurs = (line: string) => line.includes(lazyFolder(CACHE));
  const mounts = () => fs.readFileSync("/proc/self/mountinfo", "utf8").split("\n").filter(isOurs);
  fs.copyFileSync("/opt/burrow/docs/systemd/lazy-mount.conf", `${folder}/lazy-mount.conf`);
  const before = await mainPid();
  await systemctl("daemon-reload");
  await systemctl("restart", SERVICE);
  await isAnother(before);
  const made = await sandbox();
  for (const [name, end] of [
    ["large0", () => systemctl("restart", SERVICE)],
    ["large1", async () => process.kill(await mainPid(), "SIGKILL")],
  ] as const) {
    const fd = await made.open(name);
    const { type } = fs.statfsSync(`/proc/self/fd/${fd}`);
    judge(`lazy mount: ${name} is donated from it`, type === FUSE_SUPER_MAGIC, type);
    const asked = made.origin.requests.length;
    made.origin.fault = () => "stall-headers";
    const reading = made.isRight(name, fd).catch((error: Error) => error.message);
    await until(() => made.origin.requests.length > asked);
    const pid = await mainPid();
    await end();
    await isAnother(pid);
    made.origin.fault = () => "none";
    made.origin.hangUp();
    const got = await reading;
    judge(`lazy mount: ${name} is read over the daemon's end`, got === true, got);
    fs.closeSync(fd);
  }
  await made.end();
  fs.rmSync(folder, { recursive: true });
  await systemctl("daemon-reload");
  await systemctl("restart", SERVICE);
  judge("lazy mount: there is one at most", mounts().length <= 1, mounts());
}

async function preload(origin: OriginServer, published: Published): Promise<void> {
  fs.writeFileSync("/etc/burrow/environment", `BURROW_STORE=${origin.url}\n`);
  fs.writeFileSync("/etc/burrow/preload", `sha256:${published.digest}\n`);
  const [code] = await run("systemctl", "start", PRELOAD);
  const [, journal] = await run("journalctl", "--no-pager", "-o", "cat", "-u", PRELOAD);
  judge("preload: it is done", code === 0 && (await stateOf(PRELOAD)) === "active", journal);
  const missing = [...published.refs].filter(
    ([, { digest }]) => !fs.existsSync(cachePath(CACHE, "blobs", digest)),
  );
  judge(
    "preload: all is here",
    missing.length === 0,
    missing.map(([name]) => name),
  );
}

async function firstBoot(origin: OriginServer, published: Published): Promise<void> {
  fs.writeFileSync("/etc/burrow/origins.json", `{ "format": 1, "origins": {} }`);
  fs.writeFileSync("/etc/burrow/environment", "BURROW_ORIGINS=/etc/burrow/origins.json\n");
  await units();
  const first = await activation(() => Sandbox.start(origin, published, "first"));
  await first.end();
  const made = await standbys(() => Sandbox.start(origin, published, "second"));
  await ends(made);
  await reload();
  await stop(made);
  judge("the sandbox ends well", (await made.end()) === 0);
  await lazy(() => Sandbox.start(origin, published, "lazy"));
  await preload(origin, published);
}

/** The power went: what stands on the disk is another boot's. */
async function secondBoot(origin: OriginServer, published: Published): Promise<void> {
  judge("next boot: the socket is there", (await stateOf(SOCKET)) === "active");
  const made = await Sandbox.start(origin, published, "third");
  const packs = origin.requests.filter(({ path }) => path.includes("packs")).length;
  const names = Object.keys(FILES).filter((name) => name.startsWith("s"));
  let right = 0;
  for (const name of names) if (await made.isRight(name, await made.open(name))) right++;
  judge("next boot: all is right", right === names.length, `${right} of ${names.length}`);
  const again = origin.requests.filter(({ path }) => path.includes("packs")).length - packs;
  judge("next boot: from the disk", again === 0, `${again} requests for packs`);
  await made.end();

  await systemctl("stop", SOCKET);
  const words = ["daemon", "start", "--idle", "0", "--standbys", "0"];
  const own = spawn("/opt/burrow/bin/burrow", words, { stdio: "ignore" });
  const isOwn = async () => (await daemonStatus(CACHE).catch(() => undefined))?.pid === own.pid;
  judge("one that was started by hand is there", await until(isOwn));
  await systemctl("start", SOCKET);
  await daemonStatus(CACHE).catch(() => undefined);
  judge("whoever asks by the unit's socket gets the unit's", await isAnother(own.pid!));
  judge("the other has ended well", (await exited(own)) === 0);
  const state = `${await stateOf(SERVICE)}, ${await stateOf(SOCKET)}`;
  judge("both units are well", state === "active, active", state);
}

const [boot] = process.argv.slice(2);
if (boot !== undefined) {
  const published = await publish(STORE, FILES);
  const origin = await OriginServer.start(STORE);
  try {
    await (boot === "1" ? firstBoot : secondBoot)(origin, published);
    process.stdout.write("\n@@ done\n");
  } catch (error) {
    const [, journal] = await run("journalctl", "--no-pager", "-n", "60");
    process.stdout.write(`\n${(error as Error).stack}\n${journal}\n`);
  }
  process.exit(0);
}
