// One daemon per cache: an flock on daemon.lock, which the kernel gives up when its holder dies, however it dies. Node has no
// flock, so flock(1) of util-linux takes it on our open file: the lock belongs to the open file description, which the
// two processes share, and stays when flock(1) is gone. Control plane.

import { spawnSync } from "node:child_process";
import fs from "node:fs";
import { BurrowError } from "../base/error.ts";
import { DAEMON_LOCK } from "../cache/layout.ts";

/** Exit status of flock(1) when the lock is taken, set by us so that no other failure looks like it. */
const TAKEN = 99;

/** A lock that others could open they could hold. */
const LOCK_MODE = 0o600;

/** Takes the lock: its FD, which holds it while open. undefined when a live daemon has it. */
export function takeLock(cache: string): number | undefined {
  const fd = openLock(`${cache}/${DAEMON_LOCK}`);
  const args = ["--nonblock", "--exclusive", "--conflict-exit-code", String(TAKEN), "3"];
  const result = spawnSync("flock", args, { stdio: ["ignore", "ignore", "pipe", fd] });
  if (result.status === 0) {
    fs.ftruncateSync(fd, 0);
    fs.writeSync(fd, `${process.pid}\n`, 0);
    return fd;
  }
  fs.closeSync(fd);
  if (result.status === TAKEN) return undefined;
  throw new BurrowError("BURROW_DAEMON", "can't lock the cache: flock (util-linux) failed", {
    cause: result.error,
    context: { cache, output: String(result.stderr ?? "").trim() },
  });
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
