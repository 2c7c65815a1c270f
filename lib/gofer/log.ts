// The gofer's log: lines appended to an FD that runsc gave, or to $BURROW_LOG. FDs 0 to 2 are never written. Any plane; on
// the data plane only for bugs of ours.

import { native } from "../sys/native.ts";

const O_WRONLY = 1;
const O_CREAT = 0o100;
const O_NOCTTY = 0o400;
const O_APPEND = 0o2000;
const O_NONBLOCK = 0o4000;
/** As long as the stub tells them: later the process of $BURROW_STDERR may be another. */
const CALLER_SECONDS = 10;

let logFd = -1;

/** Logs to an FD that it takes. */
export function logTo(fd: number): void {
  logFd = fd;
}

/** Logs to a file, when it can be opened. */
export function logToFile(path: string): void {
  const fd = openLog(path);
  if (fd >= 0) logFd = fd;
}

export function log(line: string): void {
  writeLine(logFd, line);
}

/** The log of one sandbox of several, on an FD that stays the caller's; < 0: none. */
export function logOf(fd: number): (line: string) => void {
  return (line) => writeLine(fd, line);
}

/** A log's file, to be appended to: an FD or -errno. */
export function openLog(path: string): number {
  // A FIFO that nobody reads would stop the broker, and with it all who start; one that is full a server, and all whom it serves.
  return native.openAt(-1, path, O_WRONLY | O_CREAT | O_APPEND | O_NONBLOCK, 0o600);
}

function writeLine(fd: number, line: string): void {
  if (fd < 0) return;
  native.writeFd(fd, Buffer.from(`${new Date().toISOString()} burrow gofer: ${line}\n`));
}

/**
 * Why the server ends, for who started runsc: to the file that $BURROW_STDERR names, while that is surely still theirs.
 * `startedMs`: when the stub came, by performance.now().
 */
export function tellCaller(line: string, path: string | undefined, startedMs: number): void {
  if (path === undefined || performance.now() - startedMs > CALLER_SECONDS * 1000) return;
  const fd = native.openAt(-1, path, O_WRONLY | O_APPEND | O_NOCTTY | O_NONBLOCK, 0);
  if (fd < 0) return;
  native.writeFd(fd, Buffer.from(`burrow gofer: ${line}\n`));
  native.closeFd(fd);
}
