// One daemon per cache: an flock on daemon.lock, which the kernel gives up when its holder dies, however it dies. Control plane.

import fs from "node:fs";
import { BurrowError } from "../base/error.ts";
import { DAEMON_LOCK } from "../cache/layout.ts";
import { lockFile } from "../sys/lock.ts";

/** A lock that others could open they could hold. */
const LOCK_MODE = 0o600;

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
    fs.writeSync(fd, `${process.pid}\n`, 0);
    return fd;
  }
  fs.closeSync(fd);
  return undefined;
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
