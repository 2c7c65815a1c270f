// A socket that a service manager made and hands over: it is there before the daemon is, and while it is started anew. man
// sd_listen_fds(3), systemd.socket(5). Control plane.

import fs from "node:fs";
import { errnoName } from "../base/errno.ts";
import { BurrowError } from "../base/error.ts";
import { native } from "../sys/native.ts";

/** SD_LISTEN_FDS_START. */
const FIRST_FD = 3;

/** The listening socket that was handed to this process, now its own alone; undefined when there is none. Throws BURROW_DAEMON for several. */
export function takeListener(): number | undefined {
  const { LISTEN_PID: pid, LISTEN_FDS: count } = process.env;
  for (const name of ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"]) delete process.env[name];
  if (pid !== String(process.pid) || count === undefined || count === "0") return undefined;
  if (count !== "1") {
    throw new BurrowError(
      "BURROW_DAEMON",
      `${count} sockets were handed over, where one is wanted`,
    );
  }
  if (!isSocket(FIRST_FD)) throw notOurs("is no socket");
  // Who hands it over leaves it open for whatever we start.
  const own = native.dupFd(FIRST_FD);
  if (own < 0) throw new BurrowError("BURROW_DAEMON", `can't take FD 3: ${errnoName(own)}`);
  fs.closeSync(FIRST_FD);
  return own;
}

/** Why the socket that was handed over can't be used. */
export function notOurs(why: string): BurrowError {
  return new BurrowError("BURROW_DAEMON", `FD 3, which LISTEN_FDS speaks of, ${why}`);
}

function isSocket(fd: number): boolean {
  try {
    return fs.fstatSync(fd).isSocket();
  } catch {
    return false;
  }
}
