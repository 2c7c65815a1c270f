// What a writable host tree does to names and attributes. The caller has checked that the tree is writable. Each
// function first asks for room, then makes one change, which the kernel does whole or not at all. Data plane.

import { Errno } from "../base/errno.ts";
import { S_IFBLK, S_IFCHR, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG } from "../base/file-types.ts";
import type { Name } from "../base/name.ts";
import { hostFs, NO_ID, StatField, UTIME_OMIT } from "../sys/hostfs.ts";
import { native } from "../sys/native.ts";
import { keptType, putNumber, setTimes } from "./host-devices.ts";
import type { HostNode, HostParts } from "./host-nodes.ts";
import {
  type CreateRequest,
  type Ino,
  O_RDONLY,
  O_WRONLY,
  type OpenResult,
  SetAttr,
  type SetAttrRequest,
} from "./tree.ts";

/** FD of a directory in which a new inode may get a node: -EBADF, -EMFILE. */
function roomIn(parts: HostParts, dir: Ino): number {
  const parent = parts.nodes.get(dir);
  if (parent === undefined) return -Errno.EBADF;
  return parts.nodes.hasRoom ? parent.fd : -Errno.EMFILE;
}

export function create(
  parts: HostParts,
  dir: Ino,
  name: Name,
  request: CreateRequest,
  flags: number,
  out: OpenResult,
): number {
  const dirFd = roomIn(parts, dir);
  if (dirFd < 0) return dirFd;
  if (!parts.files.hasRoom || !parts.share.hasRoom(2)) return -Errno.EMFILE;
  const { mode, uid, gid } = request;
  const fd = hostFs.createAt(parts.procFd, dirFd, name, flags, mode, uid, gid, parts.stat);
  if (fd < 0) return fd;
  const openFd = parts.stat[StatField.openFd]!;
  const ino = parts.nodes.take(fd, parts.stat);
  if (ino < 0) {
    native.closeFd(openFd);
    hostFs.unlinkAt(dirFd, name, false);
    return ino;
  }
  out.handle = parts.files.take(openFd);
  out.hostFd = openFd;
  out.ownsFd = false;
  return ino;
}

/** -EPERM for anything but a regular file, and what keptType says. lisafs-wire section 4.3. */
export function mknod(
  parts: HostParts,
  dir: Ino,
  name: Name,
  request: CreateRequest,
  isScratch: boolean,
): number {
  const { procFd, stat, nodes } = parts;
  const { mode, uid, gid } = request;
  const type = keptType(request, nodes.isUpper, isScratch);
  if (type === 0) return -Errno.EPERM;
  const dirFd = roomIn(parts, dir);
  if (dirFd < 0) return dirFd;
  if (type === S_IFREG) {
    const fd = hostFs.createAt(procFd, dirFd, name, O_RDONLY, mode, uid, gid, stat);
    if (fd >= 0) native.closeFd(stat[StatField.openFd]!);
    return fd < 0 ? fd : nodes.take(fd, stat);
  }
  const fd = hostFs.makeAt(procFd, dirFd, name, type | (mode & ~S_IFMT), uid, gid, stat);
  if (fd < 0) return fd;
  const failed = type === S_IFCHR ? 0 : putNumber(fd, stat, request);
  if (failed >= 0) return nodes.take(fd, stat);
  native.closeFd(fd);
  hostFs.unlinkAt(dirFd, name, false);
  return failed;
}

export function mkdir(parts: HostParts, dir: Ino, name: Name, request: CreateRequest): number {
  const dirFd = roomIn(parts, dir);
  if (dirFd < 0) return dirFd;
  const { uid, gid } = request;
  const mode = S_IFDIR | (request.mode & ~S_IFMT);
  const fd = hostFs.makeAt(parts.procFd, dirFd, name, mode, uid, gid, parts.stat);
  return fd < 0 ? fd : parts.nodes.take(fd, parts.stat);
}

export function symlink(
  parts: HostParts,
  dir: Ino,
  name: Name,
  target: string,
  request: CreateRequest,
): number {
  const dirFd = roomIn(parts, dir);
  if (dirFd < 0) return dirFd;
  const fd = hostFs.symlinkAt(target, dirFd, name, request.uid, request.gid, parts.stat);
  return fd < 0 ? fd : parts.nodes.take(fd, parts.stat);
}

/** -EPERM for a directory, -ENOENT for an inode without a name left. man link(2). */
export function link(parts: HostParts, dir: Ino, name: Name, target: Ino): number {
  const parent = parts.nodes.get(dir);
  const node = parts.nodes.get(target);
  if (parent === undefined || node === undefined) return -Errno.EBADF;
  const failed = hostFs.linkAt(parts.procFd, node.fd, parent.fd, name);
  if (failed < 0) return failed;
  node.references++;
  return node.ino;
}

export function unlink(parts: HostParts, dir: Ino, name: Name, isDirectory: boolean): number {
  const parent = parts.nodes.get(dir);
  return parent === undefined ? -Errno.EBADF : hostFs.unlinkAt(parent.fd, name, isDirectory);
}

/** Nodes stay valid at their new place: they are FDs, not paths. */
export function rename(
  parts: HostParts,
  oldDir: Ino,
  oldName: Name,
  newDir: Ino,
  newName: Name,
  flags: number,
): number {
  const from = parts.nodes.get(oldDir);
  const to = parts.nodes.get(newDir);
  if (from === undefined || to === undefined) return -Errno.EBADF;
  if ((flags & ~RENAME_FLAGS) !== 0) return -Errno.EINVAL;
  return hostFs.renameAt(from.fd, oldName, to.fd, newName, flags);
}

export function whiteout(parts: HostParts, dir: Ino, name: Name): number {
  const parent = parts.nodes.get(dir);
  return parent === undefined ? -Errno.EBADF : hostFs.whiteoutAt(parent.fd, name);
}

export function renameLeavingWhiteout(
  parts: HostParts,
  oldDir: Ino,
  oldName: Name,
  newDir: Ino,
  newName: Name,
): number {
  const from = parts.nodes.get(oldDir);
  const to = parts.nodes.get(newDir);
  if (from === undefined || to === undefined) return -Errno.EBADF;
  return hostFs.renameAt(from.fd, oldName, to.fd, newName, RENAME_WHITEOUT);
}

/** man renameat2(2). */
const RENAME_WHITEOUT = 4;
/** RENAME_NOREPLACE | RENAME_EXCHANGE. */
const RENAME_FLAGS = 3;
const TIMES = SetAttr.atime | SetAttr.mtime;
const OWNER = SetAttr.uid | SetAttr.gid;

/**
 * Mode, size, times, owner: the order of gVisor's gofer (lisafs-wire section 4.3). Each part that fails leaves its
 * bits and its errno in the request; the result is 0 all the same.
 */
export function setattr(
  parts: HostParts,
  ino: Ino,
  handle: number,
  request: SetAttrRequest,
): number {
  const node = parts.nodes.get(ino);
  if (node === undefined) return -Errno.EBADF;
  const mask = request.mask;
  request.failureMask = 0;
  request.failureErrno = 0;
  if ((mask & SetAttr.mode) !== 0) {
    const isLink = node.type === S_IFLNK;
    const chmod = isLink ? -Errno.EOPNOTSUPP : hostFs.chmodFd(parts.procFd, node.fd, request.mode);
    note(request, SetAttr.mode, chmod);
  }
  if ((mask & SetAttr.size) !== 0) {
    note(request, SetAttr.size, truncate(parts, node, handle, request.size));
  }
  if ((mask & TIMES) !== 0) {
    const atimeNs = (mask & SetAttr.atime) !== 0 ? request.atimeNs : UTIME_OMIT;
    const mtimeNs = (mask & SetAttr.mtime) !== 0 ? request.mtimeNs : UTIME_OMIT;
    const { atimeSec, mtimeSec } = request;
    const isKept = parts.nodes.isUpper && (node.type === S_IFCHR || node.type === S_IFBLK);
    const failed = isKept
      ? setTimes(node.fd, parts.stat, request, atimeNs, mtimeNs)
      : hostFs.utimensFd(node.fd, atimeSec, atimeNs, mtimeSec, mtimeNs);
    note(request, mask & TIMES, failed);
  }
  if ((mask & OWNER) !== 0) {
    const uid = (mask & SetAttr.uid) !== 0 ? request.uid : NO_ID;
    const gid = (mask & SetAttr.gid) !== 0 ? request.gid : NO_ID;
    note(request, mask & OWNER, hostFs.chownFd(node.fd, uid, gid));
  }
  return 0;
}

function note(request: SetAttrRequest, bits: number, outcome: number): void {
  if (outcome >= 0) return;
  request.failureMask |= bits;
  request.failureErrno = -outcome;
}

/** By the handle when it can write; else, or without one (-1), by an FD of its own. man truncate(2) names the errnos. */
function truncate(parts: HostParts, node: HostNode, handle: number, size: number): number {
  if (node.type === S_IFDIR) return -Errno.EISDIR;
  if (node.type !== S_IFREG) return -Errno.EINVAL;
  const own = handle < 0 ? -Errno.EBADF : parts.files.get(handle);
  // EINVAL: the handle is O_RDONLY (or the size is one that the second try refuses as well).
  const byHandle = own < 0 ? own : hostFs.truncateFd(own, size);
  if (byHandle !== -Errno.EBADF && byHandle !== -Errno.EINVAL) return byHandle;
  const fd = hostFs.reopenFd(parts.procFd, node.fd, O_WRONLY);
  if (fd < 0) return fd;
  const failed = hostFs.truncateFd(fd, size);
  native.closeFd(fd);
  return failed;
}
