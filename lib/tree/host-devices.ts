// Device nodes of an upper: names with a number, which open nothing. Real ones take CAP_MKNOD, and who has that makes a node of a disk as
// well; so a character device is kept as a FIFO and a block device as a socket, which no server ever opens and an upper has none of
// besides, and a real character device is a whiteout, as in Linux's overlayfs. docs/design/0015-hardening.md. Data plane.
//
// The number stands in the times, in seconds past 2^34 (the year 2514): on tmpfs these have 64 bits. The sandbox is shown the rest.

import { Errno } from "../base/errno.ts";
import { S_IFBLK, S_IFCHR, S_IFIFO, S_IFMT, S_IFREG, S_IFSOCK } from "../base/file-types.ts";
import { hostFs, StatField, UTIME_NOW } from "../sys/hostfs.ts";
import type { Attr, CreateRequest, SetAttrRequest } from "./tree.ts";

/** Seconds of a time as it is shown; what is above them is half a device's number. */
const SECONDS = 2 ** 34;
const HALF_BITS = 16;
const HALF = 2 ** HALF_BITS;
/** linux/kdev_t.h, MINORBITS; a dev_t has 32 bits. */
const MINORS = 2 ** 20;
const MAJORS = 2 ** 12;

/**
 * What mknod makes on the host: a regular file as it is, a device as a scratch upper keeps it; elsewhere but in an upper a whiteout,
 * which Linux lets anybody make (fs/namei.c, vfs_mknod), and runsc's gofer of 2026 as well (fsgofer/lisafs.go, Mknod). 0 for all else.
 */
export function keptType(request: CreateRequest, isUpper: boolean, isScratch: boolean): number {
  const type = request.mode & S_IFMT;
  if (type === S_IFREG) return type;
  if (isScratch && type === S_IFCHR) return S_IFIFO;
  if (isScratch && type === S_IFBLK) return S_IFSOCK;
  const isWhiteout = type === S_IFCHR && request.rdevMajor === 0 && request.rdevMinor === 0;
  return isWhiteout && !isUpper ? S_IFCHR : 0;
}

/** A device's number as the times of a new inode have it, whose attributes are in `stat`: 0, -EINVAL for what is no number, -errno. */
export function putNumber(fd: number, stat: Float64Array, request: CreateRequest): number {
  const { rdevMajor, rdevMinor } = request;
  if (rdevMajor >= MAJORS || rdevMinor >= MINORS) return -Errno.EINVAL;
  const number = rdevMajor * MINORS + rdevMinor;
  const atimeSec = stat[StatField.atimeSec]! + Math.floor(number / HALF) * SECONDS;
  const mtimeSec = stat[StatField.mtimeSec]! + (number % HALF) * SECONDS;
  const [atimeNs, mtimeNs] = [stat[StatField.atimeNs]!, stat[StatField.mtimeNs]!];
  const failed = hostFs.utimensFd(fd, atimeSec, atimeNs, mtimeSec, mtimeNs);
  stat[StatField.atimeSec] = atimeSec;
  stat[StatField.mtimeSec] = mtimeSec;
  return failed;
}

/** Parts a device's number from its times. */
export function showNumber(attr: Attr): void {
  const number = Math.floor(attr.atimeSec / SECONDS) * HALF + Math.floor(attr.mtimeSec / SECONDS);
  attr.rdevMajor = Math.floor(number / MINORS);
  attr.rdevMinor = number % MINORS;
  attr.atimeSec %= SECONDS;
  attr.mtimeSec %= SECONDS;
}

/** utimensat(2) of a device, which keeps its number; `stat` is scratch. Times out of range become its ends, as by Linux. -errno. */
export function setTimes(
  fd: number,
  stat: Float64Array,
  { atimeSec, mtimeSec }: SetAttrRequest,
  atimeNs: number,
  mtimeNs: number,
): number {
  const failed = hostFs.statNode(fd, stat);
  if (failed < 0) return failed;
  // Of now as the kernel would have it, which has milliseconds.
  const nowMs = Date.now();
  const nowNs = (nowMs % 1000) * 1_000_000;
  return hostFs.utimensFd(
    fd,
    secondsOf(stat[StatField.atimeSec]!, atimeNs === UTIME_NOW ? nowMs / 1000 : atimeSec),
    atimeNs === UTIME_NOW ? nowNs : atimeNs,
    secondsOf(stat[StatField.mtimeSec]!, mtimeNs === UTIME_NOW ? nowMs / 1000 : mtimeSec),
    mtimeNs === UTIME_NOW ? nowNs : mtimeNs,
  );
}

/** Seconds with the half of a number that stands above the old ones. With UTIME_OMIT nobody reads them. */
function secondsOf(old: number, asked: number): number {
  const shown = Math.min(Math.max(Math.floor(asked), 0), SECONDS - 1);
  return Math.floor(old / SECONDS) * SECONDS + shown;
}
