// Copy-up: an inode of the lower tree gets one in the upper. Its attributes alone at first, which costs no bytes; the bytes when
// somebody writes, a piece at a time, so that a large file is never held, and a miss on the way lets others be served: the copy goes
// on when the request is run again. It is made in `work` and gets its name whole. Data plane.

import { Errno, MISS } from "../base/errno.ts";
import { S_IFDIR, S_IFLNK, S_IFREG } from "../base/file-types.ts";
import type { Name } from "../base/name.ts";
import { native } from "../sys/native.ts";
import { isMadeUp } from "./explanation.ts";
import { hasUpperData, NONE, type OverlayNode } from "./overlay-nodes.ts";
import { keepRecord, type OverlayParts, roomForInode } from "./overlay-parts.ts";
import type { OverlayRecord } from "./overlay-records.ts";
import {
  Attr,
  CreateRequest,
  type Ino,
  O_RDONLY,
  O_WRONLY,
  OpenResult,
  SetAttr,
  SetAttrRequest,
} from "./tree.ts";

/** Bytes that are read below and written above at once. */
const PIECE_BYTES = 1024 * 1024;
/** Largest xattr value and list of names. man xattr(7): 64 KiB. */
const XATTR_MAX_BYTES = 65_536;

const piece = new Uint8Array(PIECE_BYTES);
const from = new Attr();
const made = new Attr();
const request = new CreateRequest();
const change = new SetAttrRequest();
const opened = new OpenResult();
const xattrNames = Buffer.alloc(XATTR_MAX_BYTES);
const xattrValue = new Uint8Array(XATTR_MAX_BYTES);
const target = Buffer.alloc(4096);

/** Gives an inode of the upper the times that `times` has; nothing else of it changes but ctime. */
function setTimes(parts: OverlayParts, upper: Ino, times: Attr): number {
  change.mask = SetAttr.atime | SetAttr.mtime;
  change.atimeSec = times.atimeSec;
  change.atimeNs = times.atimeNs;
  change.mtimeSec = times.mtimeSec;
  change.mtimeNs = times.mtimeNs;
  const failed = parts.upper.setattr(upper, -1, change);
  return failed < 0 ? failed : -change.failureErrno;
}

function setSize(parts: OverlayParts, upper: Ino, handle: number, size: number): number {
  change.mask = SetAttr.size;
  change.size = size;
  const failed = parts.upper.setattr(upper, handle, change);
  return failed < 0 ? failed : -change.failureErrno;
}

/** Has the node be in the upper, its attributes at least: 0 or -errno. */
export function ensureUpper(parts: OverlayParts, node: OverlayNode): number {
  if (node.upper !== NONE) return 0;
  return node.type === S_IFDIR ? ensureDirectory(parts, node) : copyFile(parts, node);
}

/** The same for a directory and those above it. -ENOENT when it was removed. */
export function ensureDirectory(parts: OverlayParts, node: OverlayNode): number {
  if (node.upper !== NONE) return 0;
  if (node.isUnlinked) return -Errno.ENOENT;
  const above = ensureDirectory(parts, node.parent!);
  return above < 0 ? above : copyUp(parts, node);
}

function copyFile(parts: OverlayParts, node: OverlayNode): number {
  const above = node.parent === undefined ? 0 : ensureDirectory(parts, node.parent);
  return above < 0 ? above : copyUp(parts, node);
}

function copyUp(parts: OverlayParts, node: OverlayNode): number {
  const { upper, records, nodes } = parts;
  const full = roomForInode(parts);
  if (full < 0) return full;
  const failed = parts.lower.getattr(node.lower, from);
  if (failed < 0) return failed;
  const name = records.workName();
  const ino = makeCopy(parts, node, name);
  if (ino < 0) return ino;
  const record = recordOf(parts, node, ino as Ino);
  const done = typeof record === "number" ? record : dress(parts, node, ino as Ino, name, record);
  if (typeof record === "number" || done < 0) {
    if (typeof record !== "number") records.remove(record.hostIno);
    upper.unlink(records.work, name, node.type === S_IFDIR);
    upper.release(ino as Ino);
    return done;
  }
  nodes.setUpper(node, ino as Ino, record);
  return 0;
}

/** The record of a copy in `work`, or -errno. `from` is what it is a copy of. */
function recordOf(parts: OverlayParts, node: OverlayNode, ino: Ino): OverlayRecord | number {
  const failed = parts.upper.getattr(ino, made);
  if (failed < 0) return failed;
  const isMetadata = node.type === S_IFREG && from.size > 0;
  return { hostIno: made.ino, lower: node.lower, isMetadata, hidden: 0 };
}

/** An inode of the same type, mode, owner and size in `work`: its Ino in the upper. `from` is what it is a copy of. */
function makeCopy(parts: OverlayParts, node: OverlayNode, name: Name): number {
  const { upper, records } = parts;
  request.mode = from.mode & 0o7777;
  request.uid = from.uid;
  request.gid = from.gid;
  if (node.type === S_IFDIR) return upper.mkdir(records.work, name, request);
  if (node.type === S_IFLNK) {
    const length = parts.lower.readlink(node.lower, target);
    if (length < 0) return length;
    return upper.symlink(records.work, name, target.toString("latin1", 0, length), request);
  }
  if (node.type !== S_IFREG) return -Errno.EPERM;
  request.mode |= S_IFREG;
  const ino = upper.mknod(records.work, name, request);
  if (ino < 0 || from.size === 0) return ino;
  const failed = setSize(parts, ino as Ino, -1, from.size);
  if (failed === 0) return ino;
  upper.unlink(records.work, name, false);
  upper.release(ino as Ino);
  return failed;
}

/** Xattrs of the root below, and its times: a tree in which nothing was changed shows what is below it. */
export function dressRoot(parts: OverlayParts, root: OverlayNode, below: Attr): number {
  const failed = copyXattrs(parts, root, root.upper);
  return failed < 0 ? failed : setTimes(parts, root.upper, below);
}

/** Xattrs, times, record and at last the name of a copy in `work`. What has no name gets none of both. */
function dress(
  parts: OverlayParts,
  node: OverlayNode,
  ino: Ino,
  name: Name,
  record: OverlayRecord,
): number {
  const { upper, records } = parts;
  let failed = copyXattrs(parts, node, ino);
  if (failed === 0) failed = setTimes(parts, ino, from);
  if (failed < 0) return failed;
  if (node.isUnlinked) return upper.unlink(records.work, name, false);
  failed = records.put(record);
  if (failed < 0) return failed;
  if (node.lowerLinks > 1) {
    return upper.rename(records.work, name, records.links, `${node.lower}` as Name, 0);
  }
  const above = node.parent!.upper;
  // To have been copied up is no change of the directory that it lies in.
  failed = upper.getattr(above, from);
  if (failed === 0) failed = upper.rename(records.work, name, above, node.name, 0);
  // It has its name, and is none that can be taken back: other times are the lesser evil.
  if (failed === 0) setTimes(parts, above, from);
  return failed;
}

/** Those that the upper's file system takes: of others, and where it takes none, the copy has none. A copy isn't what a package gave. */
function copyXattrs(parts: OverlayParts, node: OverlayNode, ino: Ino): number {
  const length = parts.lower.listxattr(node.lower, xattrNames);
  let start = 0;
  for (let at = 0; at < length; at++) {
    if (xattrNames[at] !== 0) continue;
    const name = xattrNames.toString("latin1", start, at);
    start = at + 1;
    const size = isMadeUp(name) ? -1 : parts.lower.getxattr(node.lower, name, xattrValue);
    if (size < 0) continue;
    const failed = parts.upper.setxattr(ino, name, xattrValue.subarray(0, size), 0);
    if (failed === -Errno.ENOSPC) return failed;
  }
  return 0;
}

/**
 * Has the first `length` bytes of a regular file be in the upper, and no more when it was longer: 0, MISS when the request must wait
 * for bytes, -ENOSPC before any is fetched.
 */
export function ensureData(parts: OverlayParts, node: OverlayNode, length: number): number {
  if (hasUpperData(node)) return 0;
  const size = sizeBelow(parts, node);
  if (size < 0) return size;
  const wanted = Math.min(size, length);
  if (node.copy !== undefined && node.copy.length !== wanted) abandonCopy(parts, node);
  if (node.copy === undefined) {
    const failed = startCopy(parts, node, wanted);
    if (failed < 0) return failed;
  }
  const copied = goOn(parts, node);
  if (copied === MISS) return MISS;
  const failed = copied < 0 ? copied : finishCopy(parts, node, size);
  if (failed < 0) {
    abandonCopy(parts, node);
    return failed;
  }
  return 0;
}

function sizeBelow(parts: OverlayParts, node: OverlayNode): number {
  const failed = parts.lower.getattr(node.lower, from);
  return failed < 0 ? failed : from.size;
}

function startCopy(parts: OverlayParts, node: OverlayNode, length: number): number {
  const { upper, lower, space } = parts;
  let failed = upper.statfs(upper.rootIno, space);
  if (failed < 0) return failed;
  if (length > space.blocksAvailable * space.blockSize) return -Errno.ENOSPC;
  let lowerHandle = -1;
  if (length > 0) {
    failed = lower.open(node.lower, O_RDONLY, opened);
    if (failed < 0) return failed;
    if (opened.hostFd >= 0 && opened.ownsFd) native.closeFd(opened.hostFd);
    lowerHandle = opened.handle;
  }
  failed = ensureUpper(parts, node);
  if (failed === 0) failed = upper.open(node.upper, O_WRONLY, opened);
  if (failed < 0) {
    if (lowerHandle >= 0) lower.close(node.lower, lowerHandle);
    return failed;
  }
  const times = new Attr();
  upper.getattr(node.upper, times);
  node.copy = { lowerHandle, upperHandle: opened.handle, length, times, done: 0 };
  return 0;
}

function goOn(parts: OverlayParts, node: OverlayNode): number {
  const { upper, lower } = parts;
  const job = node.copy!;
  while (job.done < job.length) {
    const bytes = piece.subarray(0, Math.min(PIECE_BYTES, job.length - job.done));
    const got = lower.read(node.lower, job.lowerHandle, job.done, bytes);
    if (got < 0) return got;
    if (got === 0) return -Errno.EIO;
    for (let at = 0; at < got; ) {
      const put = upper.write(node.upper, job.upperHandle, job.done + at, bytes.subarray(at, got));
      if (put < 0) return put;
      at += put;
    }
    job.done += got;
  }
  return 0;
}

/**
 * The copy has the bytes that it shall have: from now on they are the file's. They are on the disk before the record says so, or a
 * machine that loses its power would leave zeros in their place.
 */
function finishCopy(parts: OverlayParts, node: OverlayNode, size: number): number {
  const { upper } = parts;
  const { length, upperHandle, times } = node.copy!;
  let failed = length < size ? setSize(parts, node.upper, upperHandle, length) : 0;
  if (failed === 0) failed = setTimes(parts, node.upper, times);
  if (failed === 0 && length > 0) failed = upper.fsync(node.upper, upperHandle);
  if (failed === 0) failed = keepRecord(parts, node, { ...node.record!, isMetadata: false });
  if (failed < 0) return failed;
  endCopy(parts, node);
  return 0;
}

function endCopy(parts: OverlayParts, node: OverlayNode): void {
  const job = node.copy;
  if (job === undefined) return;
  node.copy = undefined;
  parts.upper.close(node.upper, job.upperHandle);
  if (job.lowerHandle >= 0) parts.lower.close(node.lower, job.lowerHandle);
}

/** Gives up a copy that was begun: the bytes stay those below. */
export function abandonCopy(parts: OverlayParts, node: OverlayNode): void {
  if (node.copy === undefined) return;
  const size = sizeBelow(parts, node);
  const { upperHandle, times } = node.copy;
  setSize(parts, node.upper, upperHandle, 0);
  if (size > 0) setSize(parts, node.upper, upperHandle, size);
  setTimes(parts, node.upper, times);
  endCopy(parts, node);
}

/** Times that were set while a copy is on its way: those that it ends with. */
export function keepTimes(parts: OverlayParts, node: OverlayNode, { mask }: SetAttrRequest): void {
  const { times } = node.copy!;
  if (parts.upper.getattr(node.upper, parts.attr) < 0) return;
  if ((mask & SetAttr.atime) !== 0) {
    times.atimeSec = parts.attr.atimeSec;
    times.atimeNs = parts.attr.atimeNs;
  }
  if ((mask & SetAttr.mtime) !== 0) {
    times.mtimeSec = parts.attr.mtimeSec;
    times.mtimeNs = parts.attr.mtimeNs;
  }
}
