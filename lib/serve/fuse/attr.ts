// GETATTR, SETATTR, STATFS and extended attributes. man fuse(4), xattr(7). Data plane.

import { Errno } from "../../base/errno.ts";
import { UTIME_NOW } from "../../sys/hostfs.ts";
import { SetAttrRequest, StatFs } from "../../tree/tree.ts";
import type { Cursor } from "../../wire/cursor.ts";
import { putAttr, putCount, putSpace } from "../../wire/fuse/reply.ts";
import { type FuseRequest, SetattrBit } from "../../wire/fuse/request.ts";
import { setAttrMask } from "../setattr.ts";
import { attr, EROFS, type Handler, treeHandle, writableTree } from "./handler.ts";
import type { FuseSession } from "./session.ts";

/** Answers with the attributes in `attr`. */
function tell(session: FuseSession, reply: Cursor): number {
  const { nodes, seconds } = session;
  putAttr(reply, nodes.shownIno(attr.ino, attr.devMinor), attr, seconds);
  return 0;
}

export const getattr: Handler = (session, request, reply) => {
  const { tree, nodes, handles } = session;
  const ino = nodes.inoOf(request.node);
  const file = request.handle < 0 ? undefined : handles.get(request.handle);
  const failed =
    file === undefined || file.isDirectory
      ? tree.getattr(ino, attr)
      : tree.fgetattr(ino, file.handle, attr);
  return failed < 0 ? failed : tell(session, reply);
};

const change = new SetAttrRequest();
/** The tree keeps ctime, so that one alone changes nothing. */
export const setattr: Handler = (session, request, reply) => {
  const tree = writableTree(session);
  if (tree === undefined) return EROFS;
  const { mask } = request;
  if ((mask & SetattrBit.size) !== 0 && request.length < 0) return -Errno.EFBIG;
  change.mask = setAttrMask(mask, SetattrBit);
  change.mode = request.mode & 0o7777;
  change.uid = request.newUid;
  change.gid = request.newGid;
  change.size = request.length;
  change.atimeSec = request.atimeSec;
  change.mtimeSec = request.mtimeSec;
  change.atimeNs = (mask & SetattrBit.atimeNow) === 0 ? request.atimeNs : UTIME_NOW;
  change.mtimeNs = (mask & SetattrBit.mtimeNow) === 0 ? request.mtimeNs : UTIME_NOW;
  const ino = session.nodes.inoOf(request.node);
  if (change.mask !== 0) {
    const failed = tree.setattr(ino, treeHandle(session, request.handle), change);
    if (failed < 0) return failed;
    if (change.failureMask !== 0) return -change.failureErrno;
  }
  const failed = tree.getattr(ino, attr);
  return failed < 0 ? failed : tell(session, reply);
};

const space = new StatFs();

export const statfs: Handler = (session, request, reply) => {
  const failed = session.tree.statfs(session.nodes.inoOf(request.node), space);
  if (failed < 0) return failed;
  putSpace(reply, space);
  return 0;
};

/** Linux's bound of a value and of a list. man xattr(7), limits.h XATTR_SIZE_MAX. */
const value = Buffer.alloc(65_536);

/** Answers with the first `length` bytes of `value`, or with how many they are when nobody has room for any. */
function giveValue(length: number, { length: room }: FuseRequest, reply: Cursor): number {
  if (length < 0) return length;
  if (room === 0) putCount(reply, length);
  else if (length > room) return -Errno.ERANGE;
  else reply.putBytes(value.subarray(0, length));
  return 0;
}

export const getxattr: Handler = (session, request, reply) => {
  const ino = session.nodes.inoOf(request.node);
  return giveValue(session.tree.getxattr(ino, request.name, value), request, reply);
};

export const listxattr: Handler = (session, request, reply) => {
  const ino = session.nodes.inoOf(request.node);
  return giveValue(session.tree.listxattr(ino, value), request, reply);
};

export const setxattr: Handler = (session, request) => {
  const tree = writableTree(session);
  if (tree === undefined) return EROFS;
  const ino = session.nodes.inoOf(request.node);
  return tree.setxattr(ino, request.name, session.data(request), request.flags);
};

export const removexattr: Handler = (session, request) => {
  const tree = writableTree(session);
  if (tree === undefined) return EROFS;
  return tree.removexattr(session.nodes.inoOf(request.node), request.name);
};
