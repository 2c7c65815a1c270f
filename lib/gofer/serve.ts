// Serve: the launch duties of a server in their order (docs/protocol/launch.md), then the loop until every connection is gone.
// Whoever starts it, a stub as its child or a daemon as a standby, gives the launch. Never writes to FDs 0 to 2. Control plane.

import { Errno, errnoName } from "../base/errno.ts";
import { explain } from "../base/error.ts";
import { CHANNELS_PER_CONNECTION_MAX, MISS_DEADLINE_MS } from "../base/limits.ts";
import { COUNTER_BYTES, COUNTER_COUNT, Count, counters, useCounters } from "../serve/counters.ts";
import { TRACE_BYTES, Trace, useTrace } from "../serve/trace.ts";
import { CLOCK_ORIGIN_MS } from "../sys/clock.ts";
import { native } from "../sys/native.ts";
import { JOURNAL_VERSION, JOURNAL_VERSION_OFFSET } from "../transport/socket-journal.ts";
import type { Tree } from "../tree/tree.ts";
import {
  type AdoptedFd,
  dropConnection,
  isToLeave,
  keepFds,
  Role,
  receiveAdopted,
  sendReady,
  sendServing,
} from "./adopt.ts";
import { parseGoferArguments } from "./argv.ts";
import {
  mountsJson,
  parseSpec,
  rootAmong,
  type ServedMount,
  type Spec,
  servedMounts,
} from "./bundle.ts";
import { directRoots, withRoot } from "./direct.ts";
import { harden } from "./harden.ts";
import { log, logTo, logToFile, tellCaller } from "./log.ts";
import { type Keeper, type Legacy, Loop, type Sandbox } from "./loop.ts";
import { DEFAULT_STATE } from "./mount.ts";
import { fileMountpoints, makeMountpoints, readlinkIn } from "./mountpoints.ts";
import { readText } from "./plan.ts";
import { type OpenedTree, openTree, shareFds, takeOver } from "./trees.ts";

/** What a stub tells its server. */
export interface Launch {
  /** Our end of the socket to the stub. */
  readonly stubFd: number;
  /** The words that runsc gave its gofer, after argv[0]. */
  readonly words: readonly string[];
  /** BURROW_*: the environment that runsc was started with. */
  readonly settings: Readonly<Record<string, string | undefined>>;
  /** The process goes on to serve others: it gives up nothing. */
  readonly isRehearsal?: boolean;
}

/** As many FDs as the hard limit allows: each inode of a host directory or upper that the sandbox knows is one. */
export const OPEN_FILES = 1_048_576;
const O_RDWR = 2;

/** runsc holds these open while it works in our mount namespace: wait until it closed its end. */
function waitForEof(fds: readonly AdoptedFd[], role: number): void {
  for (const adopted of fds) {
    if (adopted.role !== role) continue;
    const byte = new Uint8Array(1);
    for (let got = 1; got > 0 || got === -Errno.EINTR; ) got = native.readFd(adopted.fd, byte);
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

/** The file for figures that a variable names; < 0: none. */
export function openFigures(path: string | undefined): number {
  return path === undefined ? -1 : native.openAt(-1, path, O_RDWR, 0);
}

/** A file that others may map, too, whose FD it takes; undefined for none. */
function mapFile(fd: number, bytes: number): ArrayBuffer | undefined {
  if (fd < 0) return undefined;
  const mapped = native.map(fd, 0, bytes, true);
  native.closeFd(fd);
  return typeof mapped === "number" ? undefined : mapped;
}

/** Counters in a file that others may map, whose FD it takes; undefined for none. */
export function mapCounters(fd: number): Float64Array | undefined {
  const mapped = mapFile(fd, COUNTER_BYTES);
  return mapped === undefined ? undefined : new Float64Array(mapped, 0, COUNTER_COUNT);
}

/** Has counters, and a trace of all requests, be in the files that $BURROW_COUNTERS and $BURROW_TRACE name. */
function mapFigures(settings: Launch["settings"]): void {
  const counted = mapCounters(openFigures(settings["BURROW_COUNTERS"]));
  if (counted !== undefined) useCounters(counted);
  const traced = mapFile(openFigures(settings["BURROW_TRACE"]), TRACE_BYTES);
  if (traced !== undefined) useTrace(new Trace(traced, CLOCK_ORIGIN_MS));
}

/** MISS_DEADLINE_MS, or what $BURROW_MISS_DEADLINE_MS says: 1 ms to a day. */
export function missDeadlineMs(text: string | undefined): number {
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
  Role.memory,
  Role.fdSocket,
  Role.upper,
  Role.fdPeer,
  Role.journal,
  Role.reads,
]);

function showCpu({ user, system }: NodeJS.CpuUsage): string {
  return `${Math.round(user / 1000)} ms of CPU and ${Math.round(system / 1000)} in the kernel`;
}

/** Refuses what a predecessor of another version noted, while that may still go on serving. */
function checkJournals(adopted: readonly AdoptedFd[]): void {
  const version = Buffer.alloc(4);
  for (const { role, fd } of adopted) {
    if (role !== Role.journal) continue;
    const got = native.preadFd(fd, version, JOURNAL_VERSION_OFFSET);
    const is = got === version.length ? version.readUInt32LE(0) : 0;
    if (is === JOURNAL_VERSION) continue;
    throw new Error(`the journals are of version ${is}; this program reads ${JOURNAL_VERSION}`);
  }
}

/** What of the mounts is served: trees and sockets by the mount's position. */
export interface Opened {
  readonly mounts: readonly ServedMount[];
  /** undefined: a predecessor's client has ended it. */
  readonly trees: readonly (OpenedTree | undefined)[];
}

/** Throws when there aren't as many connections as mounts. */
export function checkSockets(adopted: readonly AdoptedFd[], mounts: readonly ServedMount[]): void {
  const sockets = adopted.filter(({ role }) => role === Role.io);
  if (sockets.length === mounts.length) return;
  throw new Error(`${sockets.length} io-fds for ${mounts.length} mounts`);
}

/** Tells the sandbox its mounts, whose root this tree is, if it is served. Takes the FD. */
export function tellMounts(fd: number, spec: Spec, root: Tree | undefined): void {
  writeMounts(
    fd,
    mountsJson(spec, (path) => (root === undefined ? root : readlinkIn(root, path))),
  );
}

/** The FD of a role and a connection. */
export function fdOf(
  adopted: readonly AdoptedFd[],
  role: number,
  index: number,
): number | undefined {
  return adopted.find((each) => each.role === role && each.index === index)?.fd;
}

/** Reads the spec and opens every tree, which another server may be serving; a first server tells the sandbox its mounts. Throws when the launch can't be served. */
function openMounts(launch: Launch, adopted: readonly AdoptedFd[], isServing: boolean): Opened {
  const { words, settings } = launch;
  const args = parseGoferArguments(words);
  waitForEof(adopted, Role.syncChroot);
  waitForEof(adopted, Role.syncNvproxy);
  const spec = parseSpec(readText(fdOf(adopted, Role.spec, 0)!, "config.json"));
  const mounts = servedMounts(spec, args);
  const mountsFd = fdOf(adopted, Role.mounts, 0);
  if (mountsFd !== undefined) checkSockets(adopted, mounts);
  const state = settings["BURROW_STATE"] ?? DEFAULT_STATE;
  const roots = args.isDirect ? directRoots(mounts, state) : undefined;
  const files = args.wantsFiles ? fileMountpoints(spec, mounts) : [];
  const trees = mounts.map((mount, i) => {
    if (fdOf(adopted, Role.io, i) === undefined) return undefined;
    const predecessor = { upperFd: fdOf(adopted, Role.upper, i), isServing };
    const opened = openTree(mount, state, args.special, predecessor, files[i]);
    return roots === undefined ? opened : withRoot(opened, roots[i]!);
  });
  if (mountsFd !== undefined) {
    for (const [i, paths] of files.entries()) {
      const { tree, mailbox } = trees[i]!;
      const isView = mailbox !== undefined;
      if (!isView) makeMountpoints(mounts[i]!, tree, paths, log);
    }
    tellMounts(mountsFd, spec, trees[rootAmong(mounts)]?.tree);
  }
  const fdLimit = native.setNoFile(Math.min(args.fdLimit ?? OPEN_FILES, OPEN_FILES));
  if (fdLimit > 0) {
    shareFds(
      trees.flatMap((opened) => opened?.tree ?? []),
      fdLimit,
    );
  }
  return { mounts, trees };
}

/** What the stub kept of a connection; undefined when no server had it. */
function legacyOf(adopted: readonly AdoptedFd[], index: number): Legacy | undefined {
  const memoryFd = fdOf(adopted, Role.journal, index);
  const watchFd = fdOf(adopted, Role.reads, index);
  if (memoryFd === undefined || watchFd === undefined) return undefined;
  const channelMemoryFd = fdOf(adopted, Role.memory, index);
  const ends = (role: number) =>
    adopted.filter((each) => each.role === role && each.index === index);
  const channels = ends(Role.fdSocket).flatMap(({ sub, fd }) => {
    const peer = ends(Role.fdPeer).find((each) => each.sub === sub);
    if (channelMemoryFd === undefined || peer === undefined) return [];
    return {
      number: sub,
      memoryFd: native.dupFd(channelMemoryFd),
      serverFd: fd,
      clientFd: peer.fd,
    };
  });
  return { memoryFd, watchFd, channels };
}

/** What the loop has the stub keep and drop. */
export function keeperOf(stubFd: number): Keeper {
  return {
    keepChannel: (index, channel, { memoryFd, serverFd, clientFd }) => {
      keepFds(stubFd, [
        { role: Role.memory, index, sub: 0, fd: memoryFd },
        { role: Role.fdSocket, index, sub: channel, fd: serverFd },
        { role: Role.fdPeer, index, sub: channel, fd: clientFd },
      ]);
    },
    keepJournal: (index, memoryFd, watchFd) => {
      keepFds(stubFd, [
        { role: Role.journal, index, sub: 0, fd: memoryFd },
        { role: Role.reads, index, sub: 0, fd: watchFd },
      ]);
    },
    drop: (index) => dropConnection(stubFd, index),
  };
}

/** The FDs to serve on, when their server has ended. What was adopted before is closed, but what trees took. */
function waitForTurn(stubFd: number, adopted: readonly AdoptedFd[]): readonly AdoptedFd[] {
  if (sendReady(stubFd) < 0) native.exitNow(1);
  const { fds } = receiveAdopted(stubFd);
  const taken = new Set<number>([Role.upper, Role.debugLog]);
  for (const { role, fd } of adopted) if (!taken.has(role)) native.closeFd(fd);
  for (const { role, fd } of fds) if (taken.has(role)) native.closeFd(fd);
  return fds;
}

/** Has a loop serve a sandbox's mounts on the FDs that its stub gave. Throws when one can't be served. */
export function addConnections(
  loop: Loop,
  sandbox: Sandbox,
  stubFd: number,
  { mounts, trees }: Opened,
  adopted: readonly AdoptedFd[],
): void {
  for (const [i, opened] of trees.entries()) {
    const socketFd = fdOf(adopted, Role.io, i);
    if (opened === undefined || socketFd === undefined) continue;
    const { tree, isReadOnly, mailbox, directFd, upperFd = -1 } = opened;
    if (upperFd >= 0) keepFds(stubFd, [{ role: Role.upper, index: i, sub: 0, fd: upperFd }]);
    const failed = loop.add(
      sandbox,
      i,
      socketFd,
      tree,
      isReadOnly,
      mailbox,
      legacyOf(adopted, i),
      directFd,
    );
    if (failed < 0) throw new Error(`can't serve ${mounts[i]!.destination}: ${errnoName(failed)}`);
  }
}

/** The launch duties, then the loop. Throws when the launch can't be served. */
export function serve(launch: Launch): void {
  const { stubFd, settings } = launch;
  const { fds, isPreparing } = receiveAdopted(stubFd);
  for (const { role, fd } of fds) if (!USED.has(role)) native.closeFd(fd);
  // --log is left alone: with --log-format=json, as containerd asks for, others parse it.
  const logFd = fdOf(fds, Role.debugLog, 0);
  if (settings["BURROW_LOG"] === undefined && logFd !== undefined) logTo(logFd);
  checkJournals(fds);
  const { mounts, trees } = openMounts(launch, fds, isPreparing);
  mapFigures(settings);
  const adopted = isPreparing ? waitForTurn(stubFd, fds) : fds;
  if (isPreparing) {
    for (const [i, opened] of trees.entries())
      if (opened !== undefined) takeOver(opened, mounts[i]!);
  }
  const isSuccessor = adopted.some(({ role }) => role === Role.journal);
  if (isSuccessor) counters[Count.restarts]!++;

  const loop = new Loop();
  const sandbox = {
    keeper: keeperOf(stubFd),
    log,
    missDeadlineMs: missDeadlineMs(settings["BURROW_MISS_DEADLINE_MS"]),
    mountCount: mounts.length,
    channelsMax: CHANNELS_PER_CONNECTION_MAX,
    counters: undefined,
  };
  addConnections(loop, sandbox, stubFd, { mounts, trees }, adopted);
  const served = trees.filter((opened) => opened !== undefined);
  if (launch.isRehearsal !== true) harden(served, ["channels"], settings["BURROW_HARDEN"], log);
  loop.watch(stubFd, () => {
    if (isToLeave(stubFd)) loop.stop();
  });
  sendServing(stubFd);
  const atStart = process.cpuUsage();
  const how = isSuccessor ? "serving on" : "serving";
  log(`${how} ${mounts.length} mounts after ${showCpu(atStart)}`);
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
