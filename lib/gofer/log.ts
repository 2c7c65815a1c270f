// The gofer's log: lines appended to an FD that runsc gave, or to $BURROW_LOG. FDs 0 to 2 are never written. Any plane; on
// the data plane only for bugs of ours.

import { native } from "../sys/native.ts";

const O_WRONLY = 1;
const O_CREAT = 0o100;
const O_APPEND = 0o2000;

let logFd = -1;

/** Logs to an FD that it takes. */
export function logTo(fd: number): void {
  logFd = fd;
}

/** Logs to a file, when it can be opened. */
export function logToFile(path: string): void {
  const fd = native.openAt(-1, path, O_WRONLY | O_CREAT | O_APPEND, 0o600);
  if (fd >= 0) logFd = fd;
}

export function log(line: string): void {
  if (logFd < 0) return;
  native.writeFd(logFd, Buffer.from(`${new Date().toISOString()} burrow gofer: ${line}\n`));
}
