// The typed face of native/addon/hostfs.c: system calls on files by FD, for the host and upper trees. Every function
// returns >= 0 or -errno and follows no symlink; names are one component in latin1. Any plane.

import { native } from "./native.ts";

/** Where statNode, lookupAt and the creating calls put what they found in a Float64Array(STAT_FIELDS). */
export const StatField = {
  /** Low 53 bits of the inode number, and the 11 above them: a double holds no more. */
  ino: 0,
  inoHigh: 1,
  devMajor: 2,
  devMinor: 3,
  mode: 4,
  nlink: 5,
  uid: 6,
  gid: 7,
  rdevMajor: 8,
  rdevMinor: 9,
  size: 10,
  blocks: 11,
  blockSize: 12,
  atimeSec: 13,
  atimeNs: 14,
  mtimeSec: 15,
  mtimeNs: 16,
  ctimeSec: 17,
  ctimeNs: 18,
  /** createAt and bindAt alone: the FD that they opened. */
  openFd: 19,
} as const;
export const STAT_FIELDS = 20;

/** Where statfsFd puts what it found in a Float64Array(STATFS_FIELDS). */
export const StatFsField = {
  blockSize: 0,
  blocks: 1,
  blocksFree: 2,
  blocksAvailable: 3,
  files: 4,
  filesFree: 5,
  nameLength: 6,
} as const;
export const STATFS_FIELDS = 7;

/** Bytes of a handle of handleOf. */
export const HANDLE_BYTES = 48;

/** struct linux_dirent64 as readDents leaves it behind the position. man getdents64(2). */
export const Dirent64 = {
  ino: 0,
  /** The position behind the record: seekDents takes it. */
  next: 8,
  length: 16,
  type: 18,
  name: 19,
} as const;
/** Records start here in readDents's buffer; before them is the position of the first. */
export const DENTS_START = 8;

/** O_PATH and what a tree opens with. man open(2), values of amd64. */
export const O_PATH = 0o10000000;
export const O_DIRECTORY = 0o200000;
export const O_NOFOLLOW = 0o400000;
export const O_NOATIME = 0o1000000;
export const UTIME_NOW = 0x3fffffff;
export const UTIME_OMIT = 0x3ffffffe;
/** uid or gid that leaves the owner as it is. */
export const NO_ID = 0xffffffff;

/** native/addon/hostfs.c. FDs returned are the caller's; those given are borrowed. */
interface HostFsFunctions {
  statNode(fd: number, out: Float64Array): number;
  /** An O_PATH FD of the component itself (a symlink's own), its attributes in `out`. */
  lookupAt(dirFd: number, name: string, out: Float64Array): number;
  /** Opens the inode behind an O_PATH FD, unlinked or not, non-blocking. procFd: a kept FD of /proc/self/fd. */
  reopenFd(procFd: number, fd: number, flags: number): number;
  /** The three creating calls: an O_PATH FD of the new inode, with this mode and owner (in a set-group-id directory with its group); else nothing is left. */
  createAt(
    procFd: number,
    dirFd: number,
    name: string,
    flags: number,
    mode: number,
    uid: number,
    gid: number,
    out: Float64Array,
  ): number;
  /** A directory, FIFO, socket or whiteout (a character device 0:0), as the type in `mode` says. */
  makeAt(
    procFd: number,
    dirFd: number,
    name: string,
    mode: number,
    uid: number,
    gid: number,
    out: Float64Array,
  ): number;
  symlinkAt(
    target: string,
    dirFd: number,
    name: string,
    uid: number,
    gid: number,
    out: Float64Array,
  ): number;
  linkAt(procFd: number, fd: number, dirFd: number, name: string): number;
  /** A character device 0:0, which needs no right since Linux 5.8. */
  whiteoutAt(dirFd: number, name: string): number;
  unlinkAt(dirFd: number, name: string, isDirectory: boolean): number;
  renameAt(
    oldDirFd: number,
    oldName: string,
    newDirFd: number,
    newName: string,
    flags: number,
  ): number;
  /** A socket connected to the one behind an O_PATH FD; never waits. native/addon/hostsock.c. */
  connectAt(procFd: number, fd: number, type: number): number;
  /** A socket bound to a new name: the O_PATH FD of its inode, its own FD in `out` (StatField.openFd). */
  bindAt(
    procFd: number,
    dirFd: number,
    name: string,
    type: number,
    mode: number,
    uid: number,
    gid: number,
    out: Float64Array,
  ): number;
  listenFd(fd: number, backlog: number): number;
  readlinkFd(fd: number, out: Uint8Array): number;
  chmodFd(procFd: number, fd: number, mode: number): number;
  chownFd(fd: number, uid: number, gid: number): number;
  utimensFd(
    fd: number,
    atimeSec: number,
    atimeNs: number,
    mtimeSec: number,
    mtimeNs: number,
  ): number;
  truncateFd(fd: number, size: number): number;
  /** Fills out (HANDLE_BYTES) with what openHandle finds the inode by, whatever its names become; -EOPNOTSUPP. */
  handleOf(fd: number, out: Uint8Array): number;
  /** An O_PATH FD of a handle's inode, on the mount of mountFd; -ESTALE, -EPERM without CAP_DAC_READ_SEARCH. */
  openHandle(mountFd: number, handle: Uint8Array): number;
  syncFd(fd: number): number;
  allocateFd(fd: number, mode: number, offset: number, length: number): number;
  /** Position at out[0], records from DENTS_START on: their bytes, 0 at the end. */
  readDents(fd: number, out: Uint8Array): number;
  /** Goes to the position at bytes[offset]: a record's `next`, or the one in front of the records. */
  seekDents(fd: number, bytes: Uint8Array, offset: number): number;
  statfsFd(fd: number, out: Float64Array): number;
  /** Xattrs want an FD that is open for real, not O_PATH. */
  getXattr(fd: number, name: string, out: Uint8Array): number;
  setXattr(fd: number, name: string, value: Uint8Array, flags: number): number;
  listXattr(fd: number, out: Uint8Array): number;
  removeXattr(fd: number, name: string): number;
  /**
   * The FD of a new file system that is attached nowhere; 0 when `mount`, not -1, is one that gets other options. lib/sys/new-mount.ts.
   */
  newMount(type: string, options: Uint8Array, attributes: number, mount: number): number;
  /** A private copy of the mounts at and below an O_PATH FD, nosuid and nodev; -EPERM without CAP_SYS_ADMIN. */
  cloneMount(fd: number, isReadOnly: boolean): number;
}

export const hostFs: HostFsFunctions = native as unknown as HostFsFunctions;
