// Mount, Channel, Walk, WalkStat, Getdents64, ReadLinkAt: finding things. lisafs-wire section 4.3. Data plane.

import { Errno } from "../../base/errno.ts";
import { S_IFDIR, S_IFLNK, S_IFMT } from "../../base/file-types.ts";
import { LISAFS_MESSAGE_MAX_BYTES, SYMLINK_MAX_BYTES } from "../../base/limits.ts";
import { checkName, type Name } from "../../base/name.ts";
import { attrOfFound, type Ino } from "../../tree/tree.ts";
import type { Cursor } from "../../wire/cursor.ts";
import { Mid } from "../../wire/lisafs/mid.ts";
import { putInode, putStatx } from "../../wire/lisafs/statx.ts";
import type { Connection } from "./connection.ts";
import { FdKind } from "./fd-table.ts";
import { attr, type Handler } from "./handler.ts";

/** Walk's status. LISAFS: message.go WalkStatus. */
const WalkStatus = { success: 0, missing: 1, symlink: 2 } as const;

/**
 * What we answer, minus Flush: unlisted, the client takes it as done without an RPC (as with the stock gofer), and
 * ConnectWithCreds: unlisted, it falls back to Connect. lisafs-wire section 4.1.
 */
const SUPPORTED: readonly number[] = Object.values(Mid).filter(
  (mid) => mid !== Mid.Error && mid !== Mid.Flush && mid !== Mid.ConnectWithCreds,
);

export const mount: Handler = (connection, _request, reply, from) => {
  const { tree, fds } = connection;
  const root = tree.rootIno;
  const failed = tree.getattr(root, attr);
  if (failed < 0) return failed;
  const acquired = tree.acquire(root);
  if (acquired < 0) return acquired;
  const fdid = fds.mintControl(root);
  if (fdid < 0) return fdid;
  putInode(reply, fdid, attr);
  reply.putU32(LISAFS_MESSAGE_MAX_BYTES);
  reply.putU16(SUPPORTED.length);
  for (const mid of SUPPORTED) reply.putU16(mid);
  return connection.directFd < 0 ? 0 : from.donate(connection.directFd, false);
};

export const channel: Handler = (connection, _request, reply, from) => {
  const offset = connection.openChannel(from);
  if (offset < 0) return offset;
  reply.putU64(offset);
  reply.putU64(connection.channels.at(-1)!.bytes.length);
  return 0;
};

/** Refuses the first bad component before anything is looked up. LISAFS: handlers.go checkSafeName. */
function checkNames(names: readonly string[], from: number, count: number): number {
  for (let i = from; i < count; i++) {
    const bad = checkName(names[i]!);
    if (bad < 0) return bad;
  }
  return 0;
}

export const walk: Handler = (connection, request, reply) => {
  const { tree, fds } = connection;
  let directory = fds.control(request.fd);
  if (directory < 0) return directory;
  const bad = checkNames(request.names, 0, request.nameCount);
  if (bad < 0) return bad;
  if (request.nameCount === 0) {
    // Any lookup says -ENOTDIR itself.
    const failed = tree.getattr(directory as Ino, attr);
    if (failed < 0) return failed;
    if ((attr.mode & S_IFMT) !== S_IFDIR) return -Errno.ENOTDIR;
  }
  const start = reply.offset;
  reply.skip(3);
  let status: number = WalkStatus.success;
  let count = 0;
  for (let i = 0; i < request.nameCount; i++) {
    const ino = tree.lookup(directory as Ino, request.names[i] as Name);
    if (ino === -Errno.ENOENT) {
      status = WalkStatus.missing;
      break;
    }
    const outcome = ino < 0 ? ino : putWalked(connection, ino as Ino, reply);
    if (outcome < 0) return undoWalk(connection, count, outcome);
    minted[count++] = mintedFdid;
    if ((attr.mode & S_IFMT) === S_IFLNK && i + 1 < request.nameCount) {
      status = WalkStatus.symlink;
      break;
    }
    directory = ino;
  }
  const view = reply.view;
  view.setUint8(start, status);
  view.setUint16(start + 1, count, true);
  return 0;
};

/** Control FDIDs of the walk under way, and the last of them. */
const minted: number[] = [];
let mintedFdid = 0;

/** Appends the Inode of a walked-to ino with a control FDID of its own, `mintedFdid`; fills `attr`. */
function putWalked(connection: Connection, ino: Ino, reply: Cursor): number {
  const failed = attrOfFound(connection.tree, ino, attr);
  if (failed < 0) {
    connection.tree.release(ino);
    return failed;
  }
  const fdid = connection.fds.mintControl(ino);
  if (fdid < 0) return fdid;
  mintedFdid = fdid;
  if (putInode(reply, fdid, attr) === 0) return 0;
  connection.fds.close(fdid);
  return -Errno.EIO;
}

/** Closes the first `count` control FDs of a walk that fails half-way. Not read back from the reply: the client may rewrite that. */
function undoWalk(connection: Connection, count: number, errno: number): number {
  for (let i = 0; i < count; i++) connection.fds.close(minted[i]!);
  return errno;
}

export const walkStat: Handler = (connection, request, reply) => {
  const { tree, fds } = connection;
  const first = fds.control(request.fd);
  if (first < 0) return first;
  const hasSelf = request.nameCount > 0 && request.names[0] === "";
  const bad = checkNames(request.names, hasSelf ? 1 : 0, request.nameCount);
  if (bad < 0) return bad;
  const failed = tree.getattr(first as Ino, attr);
  if (failed < 0) return failed;
  const start = reply.offset;
  reply.skip(2);
  let count = 0;
  if (hasSelf) {
    putStatx(reply, attr);
    count++;
  }
  const type = attr.mode & S_IFMT;
  const isPlain = request.nameCount <= (hasSelf ? 1 : 0);
  if (type !== S_IFDIR && type !== S_IFLNK && !isPlain) return -Errno.ENOTDIR;
  let directory = first;
  for (let i = hasSelf ? 1 : 0; i < request.nameCount && type === S_IFDIR; i++) {
    const ino = tree.lookup(directory as Ino, request.names[i] as Name);
    if (ino === -Errno.ENOENT) break;
    const outcome = ino < 0 ? ino : attrOfFound(tree, ino as Ino, attr);
    if (directory !== first) tree.release(directory as Ino);
    directory = ino < 0 ? first : ino;
    if (outcome < 0 || putStatx(reply, attr) < 0) {
      if (directory !== first) tree.release(directory as Ino);
      return outcome < 0 ? outcome : -Errno.EIO;
    }
    count++;
    if ((attr.mode & S_IFMT) === S_IFLNK) break;
  }
  if (directory !== first) tree.release(directory as Ino);
  reply.view.setUint16(start, count, true);
  return 0;
};

/** linux_dirent64 before its name: the client's budget is measured in its records. man getdents64(2). */
const DIRENT64_HEADER_BYTES = 19;
/** LISAFS Dirent before its name: u64 ino, u32 minor, u32 major, u64 off, u8 type, u16 length. */
const DIRENT_BYTES = 27;

/** The reply under way, for the one sink below. */
const listing = { cursor: undefined as Cursor | undefined, budget: 0, count: 0, offset: 0 };

function putDirent(ino: number, devMinor: number, type: number, name: string): boolean {
  const cursor = listing.cursor!;
  const recordBytes = (DIRENT64_HEADER_BYTES + name.length + 1 + 7) & ~7;
  const isOver = listing.count > 0 && recordBytes > listing.budget;
  if (isOver || listing.count === 0xffff) return false;
  if (cursor.offset + DIRENT_BYTES + name.length > cursor.end) return false;
  cursor.putU64(ino);
  cursor.putU32(devMinor);
  cursor.putU32(0);
  cursor.putU64(++listing.offset);
  cursor.putU8(type);
  cursor.putSizedText(name);
  listing.budget -= recordBytes;
  listing.count++;
  return true;
}

export const getdents64: Handler = (connection, request, reply, from) => {
  const fd = connection.fds.open(request.fd);
  if (fd === undefined) return connection.fds.errnoOfOpen(request.fd);
  if (fd.kind !== FdKind.directory) return -Errno.ENOTDIR;
  const position = request.count < 0 ? 0 : connection.fds.startOf(fd, from.requestTag);
  const start = reply.offset;
  reply.skip(2);
  listing.cursor = reply;
  listing.budget = Math.abs(request.count);
  listing.count = 0;
  listing.offset = position;
  const cookie = connection.tree.readdir(fd.ino, fd.handle, position, putDirent);
  listing.cursor = undefined;
  if (cookie < 0) return cookie;
  connection.fds.setCookie(fd, cookie);
  reply.view.setUint16(start, listing.count, true);
  return 0;
};

const target = new Uint8Array(SYMLINK_MAX_BYTES);

export const readLinkAt: Handler = (connection, request, reply) => {
  const ino = connection.fds.control(request.fd);
  if (ino < 0) return ino;
  const length = connection.tree.readlink(ino as Ino, target);
  if (length < 0) return length;
  reply.putU16(length);
  reply.putBytes(target.subarray(0, length));
  return 0;
};
