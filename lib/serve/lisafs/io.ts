// OpenAt, OpenCreateAt, PRead, PWrite, FSync, FAllocate, Flush, Close: open files. lisafs-wire sections 4.3 and 6. Data plane.

import { Errno } from "../../base/errno.ts";
import { S_IFDIR, S_IFLNK, S_IFMT } from "../../base/file-types.ts";
import { checkName, type Name } from "../../base/name.ts";
import { native } from "../../sys/native.ts";
import type { Communicator } from "../../transport/communicator.ts";
import {
  attrOfFound,
  CreateRequest,
  type Ino,
  isWritable,
  O_ACCMODE,
  O_RDONLY,
  O_TRUNC,
  O_WRONLY,
  type WritableTree,
} from "../../tree/tree.ts";
import { putInode } from "../../wire/lisafs/statx.ts";
import { Count, counters } from "../counters.ts";
import type { Connection } from "./connection.ts";
import { type Fd, FdKind } from "./fd-table.ts";
import { attr, type Handler, opened, preparedMode } from "./handler.ts";
import { Replay } from "./journal.ts";

/** PRead's reply before the bytes: u64 count. */
const PREAD_HEADER_BYTES = 8;

export const openAt: Handler = (connection, request, reply, from) => {
  const { tree, fds } = connection;
  const ino = fds.control(request.fd);
  if (ino < 0) return ino;
  const flags = request.flags & (O_ACCMODE | O_TRUNC);
  const access = flags & O_ACCMODE;
  if (access === O_ACCMODE) return -Errno.EINVAL;
  if (connection.isReadOnly && flags !== O_RDONLY) return -Errno.EROFS;
  const failed = tree.getattr(ino as Ino, attr);
  if (failed < 0) return failed;
  const type = attr.mode & S_IFMT;
  if (type === S_IFLNK) return -Errno.EINVAL;
  const kind = type === S_IFDIR ? FdKind.directory : FdKind.file;
  const room = fds.roomFor(kind);
  if (room < 0) return room;
  if (kind === FdKind.directory) {
    if (flags !== O_RDONLY) return -Errno.EISDIR;
    const handle = tree.opendir(ino as Ino);
    if (handle < 0) return handle;
    reply.putU64(fds.mintOpen(kind, ino as Ino, handle, access));
    // A client with the root itself lists it by itself, and asks for no other directory.
    const isRoot = connection.directFd >= 0 && ino === tree.rootIno;
    return isRoot ? from.donate(connection.directFd, false) : 0;
  }
  const result = tree.open(ino as Ino, flags, opened);
  if (result < 0) return result;
  reply.putU64(fds.mintOpen(kind, ino as Ino, opened.handle, access));
  donateOpened(from);
  return 0;
};

/** Donates what the tree offers for the file just opened. Best effort: without it the client reads by PRead. */
function donateOpened(to: Communicator): void {
  if (opened.hostFd < 0) return;
  if (to.donate(opened.hostFd, opened.ownsFd) === 0) counters[Count.donated]!++;
}

const created = new CreateRequest();

/** Opens what a predecessor created for the same request: as tree.create. */
function openCreated(tree: WritableTree, directory: Ino, name: Name, flags: number): number {
  const ino = tree.lookup(directory, name);
  const failed = ino < 0 ? ino : tree.open(ino as Ino, flags, opened);
  if (failed < 0 && ino > 0) tree.release(ino as Ino);
  return failed < 0 ? failed : ino;
}

export const openCreateAt: Handler = (connection, request, reply, from) => {
  const { tree, fds } = connection;
  if (connection.isReadOnly || !isWritable(tree)) return -Errno.EROFS;
  const directory = fds.control(request.fd);
  if (directory < 0) return directory;
  const bad = checkName(request.name);
  if (bad < 0) return bad;
  // A refused request leaves no file.
  const room = fds.roomForControl() || fds.roomFor(FdKind.file);
  if (room < 0) return room;
  const access = request.flags & O_ACCMODE;
  if (access === O_ACCMODE) return -Errno.EINVAL;
  const mode = preparedMode(tree, directory as Ino, request.mode & 0o7777);
  if (mode < 0) return mode;
  created.mode = mode;
  created.uid = request.uid;
  created.gid = request.gid;
  const flags = request.flags & (O_ACCMODE | O_TRUNC);
  const replay = connection.begin(from);
  const made =
    replay === Replay.done
      ? openCreated(tree, directory as Ino, request.name as Name, flags)
      : tree.create(directory as Ino, request.name as Name, created, flags, opened);
  const ino = connection.finish(replay, made, Errno.EEXIST);
  if (ino < 0) return ino;
  const openFdid = fds.mintOpen(FdKind.file, ino as Ino, opened.handle, access);
  // A predecessor's file may have been written since it was looked up.
  const failed =
    replay === Replay.done ? tree.getattr(ino as Ino, attr) : attrOfFound(tree, ino as Ino, attr);
  if (failed < 0) tree.release(ino as Ino);
  const fdid = failed < 0 ? failed : fds.mintControl(ino as Ino);
  if (fdid < 0) {
    fds.close(openFdid);
    if (opened.hostFd >= 0 && opened.ownsFd) native.closeFd(opened.hostFd);
    return fdid;
  }
  putInode(reply, fdid, attr);
  reply.putU64(openFdid);
  donateOpened(from);
  return 0;
};

/** The open file of an FDID, or its errno in `fileErrno`. */
let fileErrno = 0;
function openFile(connection: Connection, fdid: number): Fd | undefined {
  const fd = connection.fds.open(fdid);
  if (fd === undefined) fileErrno = connection.fds.errnoOfOpen(fdid);
  else if (fd.kind === FdKind.directory) fileErrno = -Errno.EISDIR;
  else return fd;
  return undefined;
}

export const pRead: Handler = (connection, request, reply, from) => {
  const fd = openFile(connection, request.fd);
  if (fd === undefined) return fileErrno;
  if (fd.access === O_WRONLY) return -Errno.EBADF;
  if (request.offset < 0) return -Errno.EINVAL;
  if (PREAD_HEADER_BYTES + request.count > from.payloadCapacity) return -Errno.ENOBUFS;
  const start = reply.offset + PREAD_HEADER_BYTES;
  const out = reply.buffer.subarray(start, start + request.count);
  const count = connection.tree.read(fd.ino, fd.handle, request.offset, out);
  if (count < 0) return count;
  counters[Count.readBytes]! += count;
  reply.putU64(count);
  reply.skip(count);
  return 0;
};

export const pWrite: Handler = (connection, request, reply) => {
  const { tree } = connection;
  if (connection.isReadOnly || !isWritable(tree)) return -Errno.EROFS;
  const fd = openFile(connection, request.fd);
  if (fd === undefined) return fileErrno;
  if (fd.access === O_RDONLY) return -Errno.EBADF;
  if (request.offset < 0) return -Errno.EINVAL;
  const bytes = reply.buffer.subarray(request.dataStart, request.dataStart + request.dataLength);
  const count = tree.write(fd.ino, fd.handle, request.offset, bytes);
  if (count < 0) return count;
  counters[Count.writtenBytes]! += count;
  reply.putU64(count);
  return 0;
};

/**
 * Syncs all of them, whatever comes of one, and answers with the first error. Of what can't be written nothing has to reach a disk.
 * One that is named again has nothing new to sync: 65,535 names of one file, which a message has room for, are one fsync of it.
 */
export const fSync: Handler = (connection, request) => {
  if (request.fdCount === 1) return syncFd(connection, request.fds[0]!);
  let first = 0;
  for (const fdid of new Set(request.fds.slice(0, request.fdCount))) {
    const failed = syncFd(connection, fdid);
    if (first === 0) first = failed;
  }
  return first;
};

function syncFd({ tree, fds }: Connection, fdid: number): number {
  const fd = fds.open(fdid);
  if (fd === undefined) return fds.errnoOfOpen(fdid);
  if (!isWritable(tree)) return 0;
  return fd.kind === FdKind.directory
    ? tree.fsyncdir(fd.ino, fd.handle)
    : tree.fsync(fd.ino, fd.handle);
}

export const fAllocate: Handler = (connection, request) => {
  const { tree } = connection;
  if (connection.isReadOnly || !isWritable(tree)) return -Errno.EROFS;
  const fd = openFile(connection, request.fd);
  if (fd === undefined) return fileErrno;
  if (fd.access === O_RDONLY) return -Errno.EBADF;
  if (request.offset < 0 || request.length <= 0 || request.mode < 0) return -Errno.EINVAL;
  return tree.allocate(fd.ino, fd.handle, request.mode, request.offset, request.length);
};

/** Nothing is buffered here, so there is nothing to flush; the FD must still be one. */
export const flush: Handler = (connection, request) =>
  connection.fds.open(request.fd) === undefined ? connection.fds.errnoOfOpen(request.fd) : 0;

export const close: Handler = (connection, request) => {
  for (let i = 0; i < request.fdCount; i++) connection.fds.close(request.fds[i]!);
  return 0;
};
