// One daemon per cache: an flock on daemon.lock, which the kernel gives up when its holder dies, however it dies. Control plane.

import fs from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { BurrowError } from "../base/error.ts";
import { signalDaemon } from "../cache/client.ts";
import { DAEMON_LOCK } from "../cache/layout.ts";
import { lockFile } from "../sys/lock.ts";
import { ownOwner, pidOf } from "../sys/owner.ts";

/** A lock that others could open they could hold. */
const LOCK_MODE = 0o600;
/** As long as `burrow daemon stop` waits for one that ends, and gofers for the next. */
const TAKE_OVER_MS = 30_000;
const POLL_MS = 100;

/** Takes the lock: its FD, which holds it while open. undefined when a live daemon has it. */
export function takeLock(cache: string): number | undefined {
  const fd = openLock(`${cache}/${DAEMON_LOCK}`);
  let isOurs: boolean;
  try {
    isOurs = lockFile(fd);
  } catch (cause) {
    fs.closeSync(fd);
    throw new BurrowError("BURROW_DAEMON", "can't lock the cache", { cause, context: { cache } });
  }
  if (isOurs) {
    fs.ftruncateSync(fd, 0);
    fs.writeSync(fd, `${process.pid}\n${ownOwner()}\n`, 0);
    return fd;
  }
  fs.closeSync(fd);
  return undefined;
}

/**
 * Takes the lock from a daemon that has it: tells it to end, and waits. For who was handed the cache's socket, by which that one can't be
 * reached any more. Throws BURROW_DAEMON where nothing tells who has it, or it doesn't end.
 */
export async function takeLockOver(cache: string): Promise<number> {
  let told: number | undefined;
  for (const end = performance.now() + TAKE_OVER_MS; performance.now() < end; ) {
    const lock = takeLock(cache);
    if (lock !== undefined) return lock;
    const pid = holderOf(cache);
    if (pid !== undefined && pid !== told) {
      signalDaemon(pid, "SIGTERM", cache);
      told = pid;
    }
    await sleep(POLL_MS);
  }
  const who =
    told === undefined ? "another daemon, of another machine or container," : `pid ${told}`;
  throw new BurrowError("BURROW_DAEMON", `${who} holds the cache and doesn't end`, {
    context: { cache },
  });
}

/** The pid of who has the lock; undefined where it can't be seen from here. It noted itself before anyone could connect to it. */
function holderOf(cache: string): number | undefined {
  try {
    const [, owner = ""] = fs.readFileSync(`${cache}/${DAEMON_LOCK}`, "utf8").split("\n");
    return pidOf(owner);
  } catch {
    return undefined;
  }
}

/** Anything but a file is left to whoever put it there: two daemons could remove it under each other, and both hold a lock. */
function openLock(path: string): number {
  const { O_RDWR, O_CREAT, O_NOFOLLOW, O_NONBLOCK } = fs.constants;
  let fd = -1;
  try {
    fd = fs.openSync(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK, LOCK_MODE);
    const stat = fs.fstatSync(fd);
    if (!stat.isFile()) throw new Error("no regular file");
    if ((stat.mode & 0o777) !== LOCK_MODE) fs.fchmodSync(fd, LOCK_MODE);
    return fd;
  } catch (cause) {
    if (fd >= 0) fs.closeSync(fd);
    throw new BurrowError("BURROW_DAEMON", "can't open the cache's lock", {
      cause,
      context: { path },
    });
  }
}
