// Serve: the launch duties of a server in their order (docs/protocol/launch.md), then the loop until every connection is gone.
// Whoever starts it, a stub as its child or a daemon as a standby, gives the launch. Never writes to FDs 0 to 2. Control plane.

import { errnoName } from "../base/errno.ts";
import { explain } from "../base/error.ts";
import { MISS_DEADLINE_MS } from "../base/limits.ts";
import { type Name, nameOf, showName } from "../base/name.ts";
import { COUNTER_BYTES, COUNTER_COUNT, useCounters } from "../serve/counters.ts";
import { native } from "../sys/native.ts";
import { Attr, type Ino, type Tree } from "../tree/tree.ts";
import { type AdoptedFd, dropConnection, keepFds, Role, receiveAdopted } from "./adopt.ts";
import { parseGoferArguments } from "./argv.ts";
import { mountsJson, parseSpec, servedMounts } from "./bundle.ts";
import { log, logTo, logToFile, tellCaller } from "./log.ts";
import { Loop } from "./loop.ts";
import { DEFAULT_STATE } from "./mount.ts";
import { openTree, shareFds } from "./trees.ts";

/** What a stub tells its server. */
export interface Launch {
  /** Our end of the socket to the stub. */
  readonly stubFd: number;
  /** The words that runsc gave its gofer, after argv[0]. */
  readonly words: readonly string[];
  /** BURROW_*: the environment that runsc was started with. */
  readonly settings: Readonly<Record<string, string | undefined>>;
  /** The stub is no parent of ours: its end must end us, too. */
  readonly isStandby: boolean;
}

/** As many FDs as the hard limit allows: each inode of a host directory or upper that the sandbox knows is one. */
const OPEN_FILES = 1_048_576;
const SPEC_MAX_BYTES = 16 * 1024 * 1024;
const O_RDWR = 2;

/** Reads config.json from its start; the FD's offset is shared with runsc. */
function readSpec(fd: number): string {
  const parts: Buffer[] = [];
  let offset = 0;
  while (offset < SPEC_MAX_BYTES) {
    const part = Buffer.alloc(64 * 1024);
    const got = native.preadFd(fd, part, offset);
    if (got < 0) throw new Error(`can't read config.json: ${errnoName(got)}`);
    if (got === 0) break;
    parts.push(part.subarray(0, got));
    offset += got;
  }
  return Buffer.concat(parts).toString("utf8");
}

/** runsc holds these open while it works in our mount namespace: wait until it closed its end. */
function waitForEof(fds: readonly AdoptedFd[], role: number): void {
  for (const adopted of fds) {
    if (adopted.role !== role) continue;
    const byte = new Uint8Array(1);
    while (native.readFd(adopted.fd, byte) > 0);
    native.closeFd(adopted.fd);
  }
}

function writeMounts(fd: number, json: string): void {
  let rest = Buffer.from(json);
  while (rest.length > 0) {
    const written = native.writeFd(fd, rest);
    if (written < 0) throw new Error(`can't write the mounts: ${errnoName(written)}`);
    rest = rest.subarray(written);
  }
  native.closeFd(fd);
}

const scratch = new Attr();
const target = new Uint8Array(4096);

/** The target of a symlink in the root tree by its absolute path, or undefined. */
function readlinkIn(tree: Tree, path: string): string | undefined {
  let ino: number = tree.rootIno;
  const names = path.split("/").filter((name) => name !== "");
  for (const name of names) {
    const found = tree.lookup(ino as Ino, nameOf(name) as Name);
    if (found < 0) return undefined;
    ino = found;
  }
  if (tree.getattr(ino as Ino, scratch) < 0) return undefined;
  const length = tree.readlink(ino as Ino, target);
  return length < 0
    ? undefined
    : showName(Buffer.from(target.buffer, 0, length).toString("latin1"));
}

/** Counters in a file that others may map, when $BURROW_COUNTERS names one. */
function mapCounters(path: string | undefined): void {
  if (path === undefined) return;
  const fd = native.openAt(-1, path, O_RDWR, 0);
  if (fd < 0) return;
  const mapped = native.map(fd, 0, COUNTER_BYTES, true);
  native.closeFd(fd);
  if (typeof mapped !== "number") useCounters(new Float64Array(mapped, 0, COUNTER_COUNT));
}

/** MISS_DEADLINE_MS, or what $BURROW_MISS_DEADLINE_MS says: 1 ms to a day. */
function missDeadlineMs(text: string | undefined): number {
  const ms = Number(text);
  return text !== undefined && ms >= 1 && ms <= 86_400_000 ? ms : MISS_DEADLINE_MS;
}

/** What the gofer serves, waits for or writes to; syncSentryExit is held to the end, since runsc writes to it. */
const USED = new Set<number>([
  Role.io,
  Role.spec,
  Role.mounts,
  Role.syncChroot,
  Role.syncNvproxy,
  Role.debugLog,
  Role.syncSentryExit,
]);

function showCpu({ user, system }: NodeJS.CpuUsage): string {
  return `${Math.round(user / 1000)} ms of CPU and ${Math.round(system / 1000)} in the kernel`;
}

/** The launch duties, then the loop. Throws when the launch can't be served. */
export function serve({ stubFd, words, settings, isStandby }: Launch): void {
  const adopted = receiveAdopted(stubFd);
  for (const { role, fd } of adopted) if (!USED.has(role)) native.closeFd(fd);
  const first = (role: number) => adopted.find((each) => each.role === role)?.fd;
  // --log is left alone: with --log-format=json, as containerd asks for, others parse it.
  const logFd = first(Role.debugLog);
  if (settings["BURROW_LOG"] === undefined && logFd !== undefined) logTo(logFd);
  const args = parseGoferArguments(words);
  waitForEof(adopted, Role.syncChroot);
  waitForEof(adopted, Role.syncNvproxy);
  const spec = parseSpec(readSpec(first(Role.spec)!));
  const mounts = servedMounts(spec, args);
  const sockets = adopted.filter(({ role }) => role === Role.io).sort((a, b) => a.index - b.index);
  if (sockets.length !== mounts.length) {
    throw new Error(`${sockets.length} io-fds for ${mounts.length} mounts`);
  }
  const state = settings["BURROW_STATE"] ?? DEFAULT_STATE;
  const opened = mounts.map((mount) => openTree(mount, state));
  writeMounts(
    first(Role.mounts)!,
    mountsJson(spec, (path) => readlinkIn(opened[0]!.tree, path)),
  );
  const fdLimit = native.setNoFile(Math.min(args.fdLimit ?? OPEN_FILES, OPEN_FILES));
  if (fdLimit > 0) {
    shareFds(
      opened.map(({ tree }) => tree),
      fdLimit,
    );
  }
  native.setNoNewPrivs();
  mapCounters(settings["BURROW_COUNTERS"]);

  const loop = new Loop(
    {
      keepChannel: (index, channel, memoryFd, socketFd) => {
        keepFds(stubFd, [
          { role: Role.memory, index, sub: 0, fd: memoryFd },
          { role: Role.fdSocket, index, sub: channel, fd: socketFd },
        ]);
      },
      drop: (index) => dropConnection(stubFd, index),
    },
    log,
    missDeadlineMs(settings["BURROW_MISS_DEADLINE_MS"]),
  );
  for (const [i, { tree, isReadOnly, mailbox }] of opened.entries()) {
    const failed = loop.add(i, sockets[i]!.fd, tree, isReadOnly, mailbox);
    if (failed < 0) throw new Error(`can't serve ${mounts[i]!.destination}: ${errnoName(failed)}`);
  }
  if (isStandby) loop.endWith(stubFd);
  const atStart = process.cpuUsage();
  log(`serving ${mounts.length} mounts after ${showCpu(atStart)}`);
  loop.run();
  log(`done after ${showCpu(process.cpuUsage(atStart))}`);
}

/** Serves a launch to its end, and says what ended it: the exit code. */
export function runServer(launch: Launch): number {
  const { settings } = launch;
  if (settings["BURROW_LOG"] !== undefined) logToFile(settings["BURROW_LOG"]);
  const startedMs = performance.now();
  try {
    process.umask(0);
    native.askForShortTurns(); // where the kernel has them
    serve(launch);
    return 0;
  } catch (error) {
    const reason = `failed to start: ${explain(error)}`;
    log(reason);
    // Who named a file reads it there.
    if (!settings["BURROW_LOG"]) tellCaller(reason, settings["BURROW_STDERR"], startedMs);
    return 1;
  }
}
