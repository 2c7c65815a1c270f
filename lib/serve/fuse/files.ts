// OPEN, CREATE, READ, WRITE and what else is done to open files; OPENDIR and listings. man fuse(4). Data plane.

import { Errno } from "../../base/errno.ts";
import { DT_DIR } from "../../base/file-types.ts";
import { DONATE_MAX_BYTES } from "../../base/limits.ts";
import { checkName, type Name } from "../../base/name.ts";
import { native } from "../../sys/native.ts";
import { type Ino, O_ACCMODE, O_RDONLY, O_TRUNC } from "../../tree/tree.ts";
import type { Cursor } from "../../wire/cursor.ts";
import {
  direntBytes,
  ENTRY_BYTES,
  FOPEN_CACHE_DIR,
  FOPEN_KEEP_CACHE,
  putCount,
  putDirent,
  putEntry,
  putNoEntry,
  putOpen,
} from "../../wire/fuse/reply.ts";
import type { FuseRequest } from "../../wire/fuse/request.ts";
import { Count, counters } from "../counters.ts";
import {
  attr,
  created,
  EROFS,
  fillCreated,
  type Handler,
  opened,
  tellEntry,
  writableTree,
} from "./handler.ts";
import type { OpenFile } from "./handles.ts";
import type { FuseSession } from "./session.ts";
import type { Opening } from "./unopened.ts";

/**
 * Keeps what the tree has just opened: its number. What a view that never changes would donate is kept to be read from, but for large
 * files: their FD may be one whose reads wait for bytes, and nobody waits in here. A writable one's may be the file below, of which there
 * is a copy once somebody writes.
 */
function keep(session: FuseSession, ino: Ino, sizeBytes: number): number {
  let hostFd = opened.ownsFd ? opened.hostFd : -1;
  if (hostFd >= 0 && (!session.isReadOnly || sizeBytes > DONATE_MAX_BYTES)) {
    native.closeFd(hostFd);
    hostFd = -1;
  }
  return session.handles.add(ino, false, opened.handle, hostFd);
}

/** Opens a file to be read: its number, MISS or -errno. Its size is in `attr`. */
function openToRead(session: FuseSession, ino: Ino): number {
  const { tree, handles } = session;
  if (!handles.hasRoom) return -Errno.ENFILE;
  const failed = tree.getattr(ino, attr);
  if (failed < 0) return failed;
  const outcome = tree.open(ino, O_RDONLY, opened);
  return outcome < 0 ? outcome : keep(session, ino, attr.size);
}

function openDirectory(session: FuseSession, ino: Ino): number {
  const { tree, handles } = session;
  if (!handles.hasRoom) return -Errno.ENFILE;
  const handle = tree.opendir(ino);
  return handle < 0 ? handle : handles.add(ino, true, handle, -1);
}

/** What a request reads from: what was opened, or, where nothing is, what its node is. MISS or -errno. */
function openedOf(session: FuseSession, request: FuseRequest, open: Opening): OpenFile | number {
  const { handles, unopened, nodes } = session;
  if (unopened === undefined) return handles.get(request.handle) ?? -Errno.EBADF;
  return unopened.use(session, nodes.inoOf(request.node), open);
}

export const open: Handler = (session, request, reply) => {
  const { tree, nodes, handles } = session;
  if (session.unopened !== undefined) return -Errno.ENOSYS;
  const flags = request.flags & (O_ACCMODE | O_TRUNC);
  if ((flags & O_ACCMODE) === O_ACCMODE) return -Errno.EINVAL;
  if (session.isReadOnly && flags !== O_RDONLY) return EROFS;
  if (!handles.hasRoom) return -Errno.ENFILE;
  const ino = nodes.inoOf(request.node);
  const failed = tree.getattr(ino, attr);
  if (failed < 0) return failed;
  const outcome = tree.open(ino, flags, opened);
  if (outcome < 0) return outcome;
  // Nobody changes a file behind the kernel's back, so what it read stays true.
  putOpen(reply, keep(session, ino, attr.size), FOPEN_KEEP_CACHE);
  return 0;
};

export const create: Handler = (session, request, reply) => {
  const tree = writableTree(session);
  if (tree === undefined) return EROFS;
  const bad = checkName(request.name);
  if (bad < 0) return bad;
  const { nodes, handles } = session;
  if (!handles.hasRoom) return -Errno.ENFILE;
  const dir = nodes.inoOf(request.node);
  const failed = fillCreated(session, dir, request);
  if (failed < 0) return failed;
  const flags = request.flags & (O_ACCMODE | O_TRUNC);
  const ino = tree.create(dir, request.name as Name, created, flags, opened);
  if (ino < 0) return ino;
  const number = keep(session, ino as Ino, 0);
  const told = tellEntry(session, ino, reply);
  if (told < 0) handles.remove(number);
  else putOpen(reply, number, FOPEN_KEEP_CACHE);
  return told;
};

export const read: Handler = (session, request, reply) => {
  const file = openedOf(session, request, openToRead);
  if (typeof file === "number") return file;
  if (file.isDirectory) return -Errno.EBADF;
  const { offset, length } = request;
  if (offset < 0) return -Errno.EINVAL;
  const start = reply.offset;
  const out = reply.buffer.subarray(start, Math.min(start + length, reply.end));
  const count =
    file.hostFd >= 0
      ? native.preadFd(file.hostFd, out, offset)
      : session.tree.read(file.ino, file.handle, offset, out);
  if (count < 0) return count;
  counters[Count.readBytes]! += count;
  reply.skip(count);
  return 0;
};

export const write: Handler = (session, request, reply) => {
  const tree = writableTree(session);
  if (tree === undefined) return EROFS;
  const file = session.handles.get(request.handle);
  if (file === undefined || file.isDirectory) return -Errno.EBADF;
  if (request.offset < 0) return -Errno.EINVAL;
  const bytes = session.data(request);
  const count = tree.write(file.ino, file.handle, request.offset, bytes);
  if (count < 0) return count;
  counters[Count.writtenBytes]! += count;
  putCount(reply, count);
  return 0;
};

export const fallocate: Handler = (session, request) => {
  const tree = writableTree(session);
  if (tree === undefined) return EROFS;
  const file = session.handles.get(request.handle);
  if (file === undefined || file.isDirectory) return -Errno.EBADF;
  const { mode, offset, length } = request;
  if (offset < 0 || length < 0) return -Errno.EFBIG;
  return tree.allocate(file.ino, file.handle, mode, offset, length);
};

/** FSYNC and FSYNCDIR. Of what can't be written nothing has to reach a disk: after ENOSYS the kernel says that itself, and asks no more. */
export const fsync: Handler = (session, request) => {
  const tree = writableTree(session);
  if (tree === undefined) return -Errno.ENOSYS;
  const file = session.handles.get(request.handle);
  if (file === undefined) return -Errno.EBADF;
  return file.isDirectory
    ? tree.fsyncdir(file.ino, file.handle)
    : tree.fsync(file.ino, file.handle);
};

export const release: Handler = (session, request) => {
  session.handles.remove(request.handle);
  return 0;
};

export const opendir: Handler = (session, request, reply) => {
  if (session.unopened !== undefined) return -Errno.ENOSYS;
  const number = openDirectory(session, session.nodes.inoOf(request.node));
  if (number < 0) return number;
  const flags = session.isImmutable ? FOPEN_KEEP_CACHE | FOPEN_CACHE_DIR : 0;
  putOpen(reply, number, flags);
  return 0;
};

/** libfuse, fuse.c FUSE_UNKNOWN_INO: what a server says of a parent that it wasn't asked for. The kernel knows it. */
const UNKNOWN_INO = 0xffff_ffff;

/** The listing under way, for the one sink below. */
const listing = {
  session: undefined as FuseSession | undefined,
  cursor: undefined as Cursor | undefined,
  hasAttributes: false,
  offset: 0,
  toSkip: 0,
};

/** Puts a dentry, with its attributes when they are wanted and it is no dot: false when there is no room. */
function put(
  ino: number,
  devMinor: number,
  type: number,
  name: string,
  isDot: boolean = false,
): boolean {
  if (listing.toSkip > 0) {
    listing.toSkip--;
    listing.offset++;
    return true;
  }
  const { session, cursor } = listing;
  const bytes = direntBytes(name.length) + (listing.hasAttributes ? ENTRY_BYTES : 0);
  if (cursor!.offset + bytes > cursor!.end) return false;
  const shown = session!.nodes.shownIno(ino, devMinor);
  if (listing.hasAttributes) putAttributes(session!, cursor!, ino as Ino, isDot);
  putDirent(cursor!, shown, ++listing.offset, type, name);
  return true;
}

/** Only a stateless tree is listed with attributes: its numbers are its inodes, and being told of one costs it nothing. */
function putAttributes(session: FuseSession, cursor: Cursor, ino: Ino, isDot: boolean): void {
  const { nodes, tree, seconds } = session;
  if (isDot || tree.getattr(ino, attr) < 0) putNoEntry(cursor, 0);
  else putEntry(cursor, nodes.tell(ino), attr.ino, attr, seconds);
}

function putDots(session: FuseSession, ino: Ino): boolean {
  if (listing.offset === 0) {
    // The inode is held, so this fails for a tree that is broken only: then it has no number.
    const isKnown = session.tree.getattr(ino, attr) >= 0;
    if (!put(isKnown ? attr.ino : 0, attr.devMinor, DT_DIR, ".", true)) return false;
  }
  return listing.offset !== 1 || put(UNKNOWN_INO, 0, DT_DIR, "..", true);
}

/**
 * An offset is the number of dentries before it, "." and ".." among them. Going on from the last that was given costs nothing; any
 * other has the directory read from its start.
 */
function list(session: FuseSession, file: OpenFile, request: FuseRequest, reply: Cursor): number {
  const isNext = request.offset === file.offset;
  listing.session = session;
  listing.cursor = reply;
  listing.offset = isNext ? file.offset : 0;
  listing.toSkip = isNext ? 0 : request.offset;
  reply.end = Math.min(reply.end, reply.offset + request.length);
  const start = isNext ? file.cookie : 0;
  const given = putDots(session, file.ino)
    ? session.tree.readdir(file.ino, file.handle, start, put)
    : start;
  if (given < 0) return given;
  file.cookie = given;
  file.offset = listing.offset;
  return 0;
}

function readdirAs(hasAttributes: boolean): Handler {
  return (session, request, reply) => {
    const file = openedOf(session, request, openDirectory);
    if (typeof file === "number") return file;
    if (!file.isDirectory) return -Errno.ENOTDIR;
    if (request.offset < 0) return -Errno.EINVAL;
    // The kernel doesn't ask for them where INIT didn't offer them.
    if (hasAttributes && !session.tree.isStateless) return -Errno.ENOSYS;
    listing.hasAttributes = hasAttributes;
    return list(session, file, request, reply);
  };
}

export const readdir = readdirAs(false);
export const readdirplus = readdirAs(true);
