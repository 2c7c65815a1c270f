// The CLI's end of the daemon's socket: is one there, what does it say, end it, start one. Control plane.

import { spawn } from "node:child_process";
import fs from "node:fs";
import net from "node:net";
import { tmpdir } from "node:os";
import { resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { BurrowError } from "../base/error.ts";
import type { PlaceFigures } from "../store/mirrors.ts";
import { errnoOf } from "../store/node-error.ts";
import { hasEnded, ownerOf, pidOf } from "../sys/owner.ts";
import type { AskFailure } from "./counters.ts";
import type { KeeperFacts } from "./keeper.ts";
import { encodeBare, FRAME_BYTES, Frame, frameBytes, frameType } from "./mailbox-wire.ts";
import type { OriginFigures } from "./origins.ts";
import type { ShelfFacts } from "./shelf.ts";
import { openSocketName, type SocketName } from "./socket-name.ts";

export interface EnsureOptions {
  readonly cache: string;
  readonly state: string;
  /** Program and arguments before the daemon's own; this program's CLI when missing. */
  readonly command?: readonly string[];
  /** How long a new daemon may take until it accepts. */
  readonly startMs?: number;
  /** Where its output goes; nowhere when missing. */
  readonly logFile?: string;
  /** Whether one that is there is known to be right. */
  readonly isKnown?: boolean;
}

/** One of the places where an origin lies: docs/origins.md has the fields. */
export type PlaceStatus = PlaceFigures;

/** The STATUS of a daemon: docs/protocol/mailbox.md. */
export interface DaemonStatus {
  readonly version: number;
  readonly pid: number;
  readonly cache: string;
  readonly state: string;
  /** The file that says where else origins lie, when it has one. */
  readonly originsFile?: string;
  readonly upMs: number;
  /** How often it was told to reload, and what was wrong the last time; missing from a daemon of an earlier version, and for other users. */
  readonly reloads?: { readonly done: number; readonly refused: number; readonly why: string };
  readonly now: {
    readonly connections: number;
    /** Servers that wait for a sandbox. */
    readonly standbys: number;
    readonly isIdle: boolean;
  };
  /** The counters of counters.ts. */
  readonly fetch: Readonly<Record<string, number>>;
  /** What the cache takes, and what had to go. */
  readonly room: RoomStatus;
  /** What was fetched, by origin. */
  readonly origins: Readonly<Record<string, OriginFigures>>;
  /** How late its loop is, ms: lib/daemon/loop-delay.ts. */
  readonly loop?: Readonly<Record<string, number>>;
  /** Servers that sandboxes share; missing where none may. */
  readonly shared?: SharedStatus;
  /** Views that sandboxes work on themselves; missing where nobody has asked for one. */
  readonly direct?: DirectStatus;
  /** The last ask that was answered with an errno. Other users than the daemon's own and root hear of no failure, origin or view. */
  readonly lastFailure?: AskFailure;
  /** The last of each mount, of a few of them; missing from a daemon of an earlier version. */
  readonly failures?: Readonly<Record<string, AskFailure>>;
}

/** The figures of lib/gofer/shared-figures.ts, by which `most` sandboxes may share one. */
export interface SharedStatus {
  readonly most: number;
  readonly servers: number;
  readonly sandboxes: number;
  readonly placed: number;
  readonly refused: number;
}

/** The figures of lib/daemon/direct-mounts.ts: what there is now, and what was since its start. */
export interface DirectStatus {
  /** Views that are mounts, and how many there may be. */
  readonly views: number;
  readonly most: number;
  /** Sandboxes that have one. */
  readonly users: number;
  /** Mounts that were begun; times that a sandbox found its view's there; those that there was no place for. */
  readonly made: number;
  readonly shared: number;
  readonly refused: number;
  /** Servers that followed one that was killed. */
  readonly restarts: number;
}

export interface RoomStatus extends KeeperFacts, ShelfFacts {}

/** Of one that lives and says nothing yet: on a machine of two cores with a hundred busy sandboxes 10 s were too few. */
const START_MS = 30_000;
/** What a daemon has begun to write it ends first. */
const STOP_MS = 30_000;
const POLL_MS = 20;
/** Where a service manager holds the socket, the daemon starts within this time, too. */
const REPLY_MS = 10_000;
/** What connecting to a daemon that isn't there gives. */
const NOT_THERE: ReadonlySet<string> = new Set(["ENOENT", "ECONNREFUSED", "ENOTDIR", "ECONNRESET"]);
const OUTPUT_MAX_CHARS = 2_000;

/** Whether a daemon accepts connections for a cache. */
export async function isDaemonUp(cache: string): Promise<boolean> {
  const socket = await connect(cache);
  socket?.destroy();
  return socket !== undefined;
}

/** What the daemon of a cache says of itself; undefined when none runs. */
export function daemonStatus(cache: string): Promise<DaemonStatus | undefined> {
  return askStatus(cache, Frame.status);
}

/** Has the daemon of a cache, if one runs, count what is there again, after others have removed some of it. */
export async function lookAgain(cache: string): Promise<void> {
  // One of an earlier build doesn't know how, and finds it out in time.
  await askStatus(cache, Frame.look).catch(() => undefined);
}

async function askStatus(cache: string, by: number): Promise<DaemonStatus | undefined> {
  const socket = await connect(cache);
  if (socket === undefined) return undefined;
  try {
    const out = Buffer.alloc(FRAME_BYTES);
    encodeBare(out, by, 1);
    socket.write(out);
    const frame = await receiveFrame(socket, cache);
    if (frameType(frame, 0) !== Frame.statusReply) throw daemonError("sent no status", cache);
    return JSON.parse(frame.toString("utf8", FRAME_BYTES)) as DaemonStatus;
  } finally {
    socket.destroy();
  }
}

/**
 * Ends the daemon of a cache by SIGTERM, so that the kernel decides who may: false when none runs. Resolves when its process has ended, and
 * with that all that it had begun to write; another daemon may serve the cache by then. BURROW_DAEMON when it hasn't within `waitMs`.
 */
export async function stopDaemon(cache: string, waitMs: number = STOP_MS): Promise<boolean> {
  const status = await daemonStatus(cache);
  if (status === undefined) return false;
  const { pid } = status;
  const owner = ownerOf(pid);
  const isSeen = pidOf(owner) !== undefined;
  signalDaemon(pid, "SIGTERM", cache);
  // Its socket goes first, while threads of it may still write: that alone is for where /proc hides it.
  const hasGone = async () => (isSeen ? hasEnded(owner) : !(await isDaemonUp(cache)));
  for (
    const untilMs = performance.now() + waitMs;
    performance.now() < untilMs;
    await sleep(POLL_MS)
  ) {
    if (await hasGone()) return true;
  }
  const what = `was told to end ${waitMs} ms ago, and its process (pid ${pid}) is still there: its disk may hang`;
  throw daemonError(what, cache);
}

/**
 * Has the daemon of a cache read its file of origins and credentials again: false when none runs. BURROW_DAEMON when it keeps what it had,
 * which says why, or can't be told.
 */
export async function reloadDaemon(cache: string, waitMs: number = START_MS): Promise<boolean> {
  const status = await daemonStatus(cache);
  if (status === undefined) return false;
  const { pid, reloads: before } = status;
  if (before === undefined) {
    const what = `can't reload (pid ${pid}): it is another user's, or of an earlier version, which a restart replaces`;
    throw daemonError(what, cache);
  }
  signalDaemon(pid, "SIGHUP", cache);
  for (
    const untilMs = performance.now() + waitMs;
    performance.now() < untilMs;
    await sleep(POLL_MS)
  ) {
    const { pid: now, reloads: after = before } = (await daemonStatus(cache)) ?? { pid: 0 };
    if (now !== pid) throw daemonError("ended meanwhile", cache);
    if (after.done > before.done) return true;
    if (after.refused > before.refused) throw daemonError(`keeps what it had: ${after.why}`, cache);
  }
  throw daemonError(`did not reload within ${waitMs} ms`, cache);
}

/** The kernel decides who may: BURROW_DAEMON. One that has just ended is none to be told. */
export function signalDaemon(pid: number, signal: NodeJS.Signals, cache: string): void {
  try {
    process.kill(pid, signal);
  } catch (error) {
    const { code } = errnoOf(error);
    if (code === "EPERM")
      throw daemonError(`is another user's (pid ${pid}): tell it as that user`, cache, error);
    if (code !== "ESRCH") throw error;
  }
}

/**
 * Has a daemon accept connections for a cache: the one there is, or a new one, detached. BURROW_DAEMON when none can be had, or the one
 * there is looks for mounts in another place.
 */
export async function ensureDaemon(options: EnsureOptions): Promise<void> {
  const { cache, state } = options;
  if (await isDaemonUp(cache)) {
    if (options.isKnown !== true) await checkState(cache, state);
    return;
  }
  const cli = fileURLToPath(new URL("../../burrow.cjs", import.meta.url));
  const command = options.command ?? [process.execPath, cli];
  const args = [...command.slice(1), "daemon", "start", "--cache", cache, "--state", state];
  // A file and not a pipe: the daemon outlives us and must not die of writing to nobody.
  const scratch = options.logFile === undefined ? fs.mkdtempSync(`${tmpdir()}/burrow-start-`) : "";
  const output = fs.openSync(options.logFile ?? `${scratch}/output`, "a+", 0o644);
  // It needs no name any more: who is ended while the daemon starts leaves nothing.
  if (scratch !== "") fs.rmSync(scratch, { recursive: true, force: true });
  try {
    const stdio: ["ignore", number, number] = ["ignore", output, output];
    const child = spawn(command[0] ?? process.execPath, args, { detached: true, stdio, cwd: "/" });
    await waitUntilUp(child, cache, options.startMs ?? START_MS, output);
    child.unref();
  } finally {
    fs.closeSync(output);
  }
}

/** To a daemon of another state directory the caller's mounts are unknown: each read in a sandbox would fail, and nothing say why. */
async function checkState(cache: string, state: string): Promise<void> {
  const found = await daemonStatus(cache);
  if (found === undefined || realPath(found.state) === realPath(state)) return;
  throw new BurrowError(
    "BURROW_DAEMON",
    `the daemon serves another state directory, ${found.state}`,
    { context: { cache, state, advice: "give that one, or another cache, or burrow daemon stop" } },
  );
}

function realPath(path: string): string {
  try {
    return fs.realpathSync(path);
  } catch {
    return resolve(path);
  }
}

async function waitUntilUp(
  child: ReturnType<typeof spawn>,
  cache: string,
  startMs: number,
  output: number,
): Promise<void> {
  let failure: string | undefined;
  child.once("error", (error) => {
    failure = `can't be started: ${error.message}`;
  });
  child.once("exit", (code, signal) => {
    // 0: another daemon was faster.
    if (code !== 0) failure = `ended at once with ${signal ?? `status ${code}`}`;
  });
  for (
    const untilMs = performance.now() + startMs;
    performance.now() < untilMs;
    await sleep(POLL_MS)
  ) {
    if (await isDaemonUp(cache)) return;
    if (failure !== undefined) throw daemonError(`${failure}: ${tailOf(output)}`, cache);
  }
  const said = tailOf(output) || "it lives, and has said nothing";
  throw daemonError(`did not accept within ${startMs} ms: ${said}`, cache);
}

function tailOf(fd: number): string {
  try {
    return fs.readFileSync(`/proc/self/fd/${fd}`, "utf8").slice(-OUTPUT_MAX_CHARS).trim();
  } catch {
    return "";
  }
}

/** A connected socket; undefined when nobody listens. */
async function connect(cache: string): Promise<net.Socket | undefined> {
  for (const untilMs = performance.now() + REPLY_MS; ; await sleep(POLL_MS)) {
    try {
      return await connectOnce(cache);
    } catch (error) {
      // As many wait already as may: it accepts them one by one.
      const isFull = error instanceof BurrowError && errnoOf(error.cause).code === "EAGAIN";
      if (!isFull || performance.now() >= untilMs) throw error;
    }
  }
}

function connectOnce(cache: string): Promise<net.Socket | undefined> {
  let address: SocketName;
  const isNotThere = (error: unknown) => NOT_THERE.has(errnoOf(error).code);
  try {
    address = openSocketName(cache);
  } catch (error) {
    if (isNotThere(error)) return Promise.resolve(undefined);
    return Promise.reject(daemonError("can't be connected to", cache, error));
  }
  return new Promise<net.Socket | undefined>((resolve, reject) => {
    const socket = net.connect(address.name);
    socket.once("connect", () => resolve(socket));
    socket.on("error", (error) => {
      // ECONNRESET: it listened, and ended meanwhile.
      if (isNotThere(error)) resolve(undefined);
      else reject(daemonError("can't be connected to", cache, error));
    });
  }).finally(() => address.close());
}

function receiveFrame(socket: net.Socket, cache: string): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    let got: Buffer = Buffer.alloc(0);
    const timer = setTimeout(() => reject(daemonError("does not answer", cache)), REPLY_MS);
    const fail = () => {
      clearTimeout(timer);
      reject(daemonError("closed the connection", cache));
    };
    socket.once("close", fail);
    socket.on("data", (bytes) => {
      got = Buffer.concat([got, bytes]);
      const length = frameBytes(got, 0, got.length);
      if (length === 0) return;
      clearTimeout(timer);
      socket.removeListener("close", fail);
      if (length < 0) reject(daemonError("sent a frame that can't be", cache));
      else resolve(got.subarray(0, length));
    });
  });
}

function daemonError(what: string, cache: string, cause?: unknown): BurrowError {
  return new BurrowError("BURROW_DAEMON", `the daemon ${what}`, { cause, context: { cache } });
}
