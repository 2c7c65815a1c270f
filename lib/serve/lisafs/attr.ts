// FStat, SetStat, FStatFS and extended attributes. lisafs-wire section 4.3. Data plane.

import { Errno } from "../../base/errno.ts";
import { checkXattrName } from "../../base/name.ts";
import { type Ino, isWritable, SetAttr, SetAttrRequest, StatFs } from "../../tree/tree.ts";
import { putStatx } from "../../wire/lisafs/statx.ts";
import type { Connection } from "./connection.ts";
import { attr, type Handler } from "./handler.ts";
import { Replay } from "./journal.ts";

/** Largest xattr value or name list on the wire (u16 lengths). */
const XATTR_MAX_BYTES = 65_535;
const SETTABLE =
  SetAttr.mode | SetAttr.uid | SetAttr.gid | SetAttr.atime | SetAttr.mtime | SetAttr.size;

const xattrBytes = new Uint8Array(XATTR_MAX_BYTES);
const xattrText = Buffer.from(xattrBytes.buffer);

/** Ino of a control or open FDID; -EBADF. */
function inoOf(connection: Connection, fdid: number): number {
  return connection.fds.open(fdid)?.ino ?? connection.fds.liveControl(fdid);
}

export const fStat: Handler = (connection, request, reply) => {
  const fd = connection.fds.open(request.fd);
  const ino = fd === undefined ? connection.fds.control(request.fd) : fd.ino;
  if (ino < 0) return ino;
  const failed =
    fd === undefined
      ? connection.tree.getattr(ino as Ino, attr)
      : connection.tree.fgetattr(fd.ino, fd.handle, attr);
  return failed < 0 ? failed : putStatx(reply, attr);
};

const change = new SetAttrRequest();

export const setStat: Handler = (connection, request, reply) => {
  const { tree } = connection;
  if (connection.isReadOnly || !isWritable(tree)) return -Errno.EROFS;
  const fd = connection.fds.open(request.fd);
  const ino = fd === undefined ? connection.fds.control(request.fd) : fd.ino;
  if (ino < 0) return ino;
  if ((request.mask & ~SETTABLE) !== 0) return -Errno.EPERM;
  if ((request.mask & SetAttr.size) !== 0 && request.length < 0) return -Errno.EINVAL;
  change.mask = request.mask;
  change.mode = request.mode & 0o7777;
  change.uid = request.uid;
  change.gid = request.gid;
  change.size = request.length;
  change.atimeSec = request.atimeSec;
  change.atimeNs = request.atimeNs;
  change.mtimeSec = request.mtimeSec;
  change.mtimeNs = request.mtimeNs;
  const failed = tree.setattr(ino as Ino, fd === undefined ? -1 : fd.handle, change);
  if (failed < 0) return failed;
  reply.putU32(change.failureMask);
  reply.putU32(change.failureMask === 0 ? 0 : change.failureErrno);
  return 0;
};

/** The sentry ignores the type and reports V9FS_MAGIC itself; stock sends the host's. */
const V9FS_MAGIC = 0x01021997;
const space = new StatFs();

export const fStatFs: Handler = (connection, request, reply) => {
  const ino = inoOf(connection, request.fd);
  if (ino < 0) return ino;
  const failed = connection.tree.statfs(ino as Ino, space);
  if (failed < 0) return failed;
  reply.putU64(V9FS_MAGIC);
  reply.putI64(space.blockSize);
  reply.putU64(space.blocks);
  reply.putU64(space.blocksFree);
  reply.putU64(space.blocksAvailable);
  reply.putU64(space.files);
  reply.putU64(space.filesFree);
  reply.putU64(space.nameLength);
  return 0;
};

export const fGetXattr: Handler = (connection, request, reply) => {
  const ino = connection.fds.control(request.fd);
  if (ino < 0) return ino;
  const bad = checkXattrName(request.name);
  if (bad < 0) return bad;
  const length = connection.tree.getxattr(ino as Ino, request.name, xattrBytes);
  if (length < 0) return length;
  if (request.count !== 0 && length > request.count) return -Errno.ERANGE;
  reply.putU16(length);
  reply.putBytes(xattrBytes.subarray(0, length));
  return 0;
};

export const fListXattr: Handler = (connection, request, reply) => {
  const ino = connection.fds.control(request.fd);
  if (ino < 0) return ino;
  const length = connection.tree.listxattr(ino as Ino, xattrBytes);
  if (length < 0) return length;
  if (request.count > 0 && length > request.count) return -Errno.ERANGE;
  const at = reply.offset;
  reply.skip(2);
  let count = 0;
  let start = 0;
  for (let i = 0; i < length; i++) {
    if (xattrBytes[i] !== 0) continue;
    reply.putSizedText(xattrText.toString("latin1", start, i));
    start = i + 1;
    count++;
  }
  reply.view.setUint16(at, count, true);
  return 0;
};

export const fSetXattr: Handler = (connection, request, _reply, from) => {
  const { tree } = connection;
  if (connection.isReadOnly || !isWritable(tree)) return -Errno.EROFS;
  const ino = connection.fds.control(request.fd);
  if (ino < 0) return ino;
  const bad = checkXattrName(request.name);
  if (bad < 0) return bad;
  const length = request.otherName.length;
  xattrText.write(request.otherName, 0, "latin1");
  const replay = connection.begin(from);
  if (replay === Replay.done) return 0;
  const value = xattrBytes.subarray(0, length);
  const outcome = tree.setxattr(ino as Ino, request.name, value, request.flags);
  return connection.finish(replay, outcome, Errno.EEXIST);
};

export const fRemoveXattr: Handler = (connection, request, _reply, from) => {
  const { tree } = connection;
  if (connection.isReadOnly || !isWritable(tree)) return -Errno.EROFS;
  const ino = connection.fds.control(request.fd);
  if (ino < 0) return ino;
  const bad = checkXattrName(request.name);
  if (bad < 0) return bad;
  const replay = connection.begin(from);
  if (replay === Replay.done) return 0;
  const outcome = tree.removexattr(ino as Ino, request.name);
  return connection.finish(replay, outcome, Errno.ENODATA);
};
