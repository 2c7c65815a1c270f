// Tlopen, Tlcreate, Tread, Twrite, Tfsync, Tclunk, Tremove: open files and the end of fids. docs/protocol/9p2000l.md. Data plane.

import { Errno, MISS } from "../../base/errno.ts";
import { S_IFDIR, S_IFLNK, S_IFMT } from "../../base/file-types.ts";
import { DONATE_MAX_BYTES } from "../../base/limits.ts";
import { checkName, type Name } from "../../base/name.ts";
import { native } from "../../sys/native.ts";
import {
  CreateRequest,
  type Ino,
  isWritable,
  O_ACCMODE,
  O_RDONLY,
  O_TRUNC,
  O_WRONLY,
} from "../../tree/tree.ts";
import { putQid } from "../../wire/ninep/qid.ts";
import { READ_HEADER_BYTES } from "../../wire/ninep/type.ts";
import { Count, counters } from "../counters.ts";
import { type Fid, FidKind } from "./fid-table.ts";
import { attr, type Handler, opened, refusal, writableTree } from "./handler.ts";
import type { Session } from "./session.ts";
import { setAttribute } from "./xattr.ts";

/** Linux's values, as 9P2000.L sends them. include/net/9p/9p.h, p9_open_mode_t P9_DOTL_*. */
const O_EXCL = 0o200;
const O_DIRECTORY = 0o200000;

/** A fid that a name is walked to and nothing is open on; else undefined and its errno in `walkedErrno`. */
let walkedErrno = 0;
function walkedFid(session: Session, number: number): Fid | undefined {
  const fid = session.fids.get(number);
  if (fid?.kind === FidKind.walked) return fid;
  walkedErrno = fid === undefined ? -Errno.EBADF : -Errno.EINVAL;
  return undefined;
}

/** Opens the file at a fid's place: 0 with `attr` filled, MISS, -errno. */
function openAt(session: Session, fid: Fid, ino: Ino, flags: number): number {
  const { tree, isReadOnly } = fid.view;
  const access = flags & O_ACCMODE;
  if (access === O_ACCMODE) return -Errno.EINVAL;
  const wanted = flags & (O_ACCMODE | O_TRUNC);
  if (isReadOnly && wanted !== O_RDONLY) return -Errno.EROFS;
  if (!session.fids.hasHandleRoom(tree)) return -Errno.EMFILE;
  const failed = tree.getattr(ino, attr);
  if (failed < 0) return failed;
  const type = attr.mode & S_IFMT;
  if (type === S_IFLNK) return -Errno.ELOOP;
  if (type !== S_IFDIR && (flags & O_DIRECTORY) !== 0) return -Errno.ENOTDIR;
  if (type === S_IFDIR) {
    if (wanted !== O_RDONLY) return -Errno.EISDIR;
    const handle = tree.opendir(ino);
    if (handle < 0) return handle;
    session.fids.setOpen(fid, FidKind.directory, handle, O_RDONLY);
    return 0;
  }
  const outcome = tree.open(ino, wanted, opened);
  if (outcome < 0) return outcome;
  keepOpened(session, fid, access);
  // Truncated, it has another size and mtime than before.
  return (wanted & O_TRUNC) === 0 ? 0 : tree.getattr(ino, attr);
}

/**
 * The fid is the open file in `opened`, whose attributes are in `attr`. What a view that never changes would donate is kept to be read
 * from, but for large files: their FD may be one whose reads wait for bytes, and nobody waits in here. A writable one's may be the file
 * below, of which there is a copy once somebody writes.
 */
function keepOpened(session: Session, fid: Fid, access: number): void {
  session.fids.setOpen(fid, FidKind.file, opened.handle, access);
  if (opened.hostFd < 0 || !opened.ownsFd) return;
  const isKept = fid.view.isReadOnly && attr.size <= DONATE_MAX_BYTES;
  if (isKept) session.fids.keepHostFd(fid, opened.hostFd);
  else native.closeFd(opened.hostFd);
}

export const lopen: Handler = (session, request, reply) => {
  const fid = walkedFid(session, request.fid);
  if (fid === undefined) return walkedErrno;
  const failed = openAt(session, fid, fid.place.ino, request.flags);
  if (failed < 0) return failed;
  putQid(reply, attr);
  // No unit: a client asks for as much as a message takes.
  reply.putU32(0);
  return 0;
};

const created = new CreateRequest();

export const lcreate: Handler = (session, request, reply) => {
  const fid = walkedFid(session, request.fid);
  if (fid === undefined) return walkedErrno;
  const tree = writableTree(fid);
  if (tree === undefined) return refusal;
  const bad = checkName(request.name);
  if (bad < 0) return bad;
  if (!session.fids.hasPlaces(tree, 1) || !session.fids.hasHandleRoom(tree)) return -Errno.EMFILE;
  const access = request.flags & O_ACCMODE;
  if (access === O_ACCMODE) return -Errno.EINVAL;
  created.mode = request.mode & 0o7777;
  created.uid = fid.uid;
  created.gid = request.gid;
  const name = request.name as Name;
  const directory = fid.place;
  const flags = request.flags & (O_ACCMODE | O_TRUNC);
  let ino = tree.create(directory.ino, name, created, flags, opened);
  let failed: number;
  if (ino === -Errno.EEXIST && (request.flags & O_EXCL) === 0) {
    ino = tree.lookup(directory.ino, name);
    if (ino < 0) return ino;
    failed = openAt(session, fid, ino as Ino, request.flags);
  } else {
    if (ino < 0) return ino;
    failed = tree.getattr(ino as Ino, attr);
    if (failed >= 0) keepOpened(session, fid, access);
    else tree.close(ino as Ino, opened.handle);
  }
  if (failed < 0) {
    tree.release(ino as Ino);
    return failed;
  }
  session.fids.move(fid, session.fids.makePlace(tree, ino as Ino, directory, name));
  putQid(reply, attr);
  reply.putU32(0);
  return 0;
};

/** An attribute's bytes from `offset`, as many as are asked for and there. */
function readBytes(bytes: Buffer, offset: number, out: Uint8Array): number {
  const part = bytes.subarray(offset, offset + out.length);
  out.set(part);
  return part.length;
}

export const read: Handler = (session, request, reply) => {
  const fid = session.fids.get(request.fid);
  if (fid === undefined) return -Errno.EBADF;
  if (request.offset < 0) return -Errno.EINVAL;
  const start = reply.offset;
  const first = start + READ_HEADER_BYTES - 7;
  const out = reply.buffer.subarray(first, Math.min(first + request.count, reply.end));
  let count: number;
  if (fid.kind === FidKind.xattr) count = readBytes(fid.bytes!, request.offset, out);
  else if (fid.kind === FidKind.directory) return -Errno.EISDIR;
  else if (fid.kind !== FidKind.file || fid.access === O_WRONLY) return -Errno.EBADF;
  else if (fid.hostFd >= 0) count = native.preadFd(fid.hostFd, out, request.offset);
  else count = fid.view.tree.read(fid.place.ino, fid.handle, request.offset, out);
  if (count < 0) return count;
  counters[Count.readBytes]! += count;
  reply.putU32(count);
  reply.skip(count);
  return 0;
};

export const write: Handler = (session, request, reply) => {
  const fid = session.fids.get(request.fid);
  if (fid === undefined) return -Errno.EBADF;
  if (request.offset < 0) return -Errno.EINVAL;
  const { buffer } = session.requests;
  const bytes = buffer.subarray(request.dataStart, request.dataStart + request.dataLength);
  if (fid.kind === FidKind.newXattr) {
    if (request.offset !== fid.written || fid.written + bytes.length > fid.bytes!.length)
      return -Errno.EINVAL;
    fid.bytes!.set(bytes, fid.written);
    fid.written += bytes.length;
    reply.putU32(bytes.length);
    return 0;
  }
  if (fid.kind === FidKind.directory) return -Errno.EISDIR;
  if (fid.kind !== FidKind.file || fid.access === O_RDONLY) return -Errno.EBADF;
  const tree = writableTree(fid);
  if (tree === undefined) return refusal;
  if (bytes.length === 0) {
    reply.putU32(0);
    return 0;
  }
  const count = tree.write(fid.place.ino, fid.handle, request.offset, bytes);
  if (count < 0) return count;
  counters[Count.writtenBytes]! += count;
  reply.putU32(count);
  return 0;
};

/** Of what can't be written nothing has to reach a disk. */
export const fsync: Handler = (session, request) => {
  const fid = session.fids.get(request.fid);
  if (fid === undefined) return -Errno.EBADF;
  const isDirectory = fid.kind === FidKind.directory;
  if (!isDirectory && fid.kind !== FidKind.file) return -Errno.EBADF;
  const { tree } = fid.view;
  if (!isWritable(tree)) return 0;
  const { ino } = fid.place;
  return isDirectory ? tree.fsyncdir(ino, fid.handle) : tree.fsync(ino, fid.handle);
};

/** The fid is gone whatever comes of it. A new attribute is set now. */
export const clunk: Handler = (session, request) => {
  const fid = session.fids.get(request.fid);
  if (fid === undefined) return -Errno.EBADF;
  const outcome = fid.kind === FidKind.newXattr ? setAttribute(fid) : 0;
  session.fids.remove(request.fid);
  return outcome === MISS ? -Errno.EIO : outcome;
};

/** Removes the file and clunks its fid, whatever comes of it. 9P2000 remove(5). */
export const remove: Handler = (session, request) => {
  const fid = session.fids.get(request.fid);
  if (fid === undefined) return -Errno.EBADF;
  const outcome = unlinkPlace(fid);
  session.fids.remove(request.fid);
  return outcome;
};

/** Unlinks the name that a fid was walked by, when it is still that file's. */
function unlinkPlace(fid: Fid): number {
  const tree = writableTree(fid);
  if (tree === undefined) return refusal;
  const { parent, name, ino } = fid.place;
  if (parent === undefined) return -Errno.EBUSY;
  const found = tree.lookup(parent.ino, name);
  if (found < 0) return found;
  tree.release(found as Ino);
  if (found !== ino) return -Errno.ENOENT;
  const failed = tree.getattr(ino, attr);
  if (failed < 0) return failed;
  return tree.unlink(parent.ino, name, (attr.mode & S_IFMT) === S_IFDIR);
}
