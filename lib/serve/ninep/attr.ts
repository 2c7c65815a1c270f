// Tgetattr, Tsetattr, Tstatfs, Tlock, Tgetlock. docs/protocol/9p2000l.md. Data plane.

import { Errno } from "../../base/errno.ts";
import { UTIME_NOW } from "../../sys/hostfs.ts";
import { SetAttrRequest, StatFs } from "../../tree/tree.ts";
import type { Request } from "../../wire/ninep/message.ts";
import { putAttr } from "../../wire/ninep/qid.ts";
import {
  LockStatus,
  LockType,
  SETATTR_ALL,
  SetattrBit,
  V9FS_MAGIC,
} from "../../wire/ninep/type.ts";
import { setAttrMask } from "../setattr.ts";
import { type Fid, FidKind } from "./fid-table.ts";
import { attr, fileFid, type Handler, refusal, writableTree } from "./handler.ts";
import type { Range } from "./lock-table.ts";
import type { Session } from "./session.ts";

export const getattr: Handler = (session, request, reply) => {
  const fid = fileFid(session, request.fid);
  if (fid === undefined) return refusal;
  const { tree } = fid.view;
  const { ino } = fid.place;
  const isOpen = fid.kind === FidKind.file;
  const failed = isOpen ? tree.fgetattr(ino, fid.handle, attr) : tree.getattr(ino, attr);
  if (failed < 0) return failed;
  putAttr(reply, attr);
  return 0;
};

const change = new SetAttrRequest();

export const setattr: Handler = (session, request) => {
  const fid = fileFid(session, request.fid);
  if (fid === undefined) return refusal;
  const tree = writableTree(fid);
  if (tree === undefined) return refusal;
  const { mask } = request;
  if ((mask & ~SETATTR_ALL) !== 0) return -Errno.EINVAL;
  if ((mask & SetattrBit.size) !== 0 && request.length < 0) return -Errno.EINVAL;
  change.mask = setAttrMask(mask, SetattrBit);
  change.mode = request.mode & 0o7777;
  change.uid = request.uid;
  change.gid = request.gid;
  change.size = request.length;
  change.atimeSec = request.atimeSec;
  change.mtimeSec = request.mtimeSec;
  change.atimeNs = (mask & SetattrBit.atimeSet) === 0 ? UTIME_NOW : request.atimeNs;
  change.mtimeNs = (mask & SetattrBit.mtimeSet) === 0 ? UTIME_NOW : request.mtimeNs;
  if (!isTime(change.atimeNs) || !isTime(change.mtimeNs)) return -Errno.EINVAL;
  if (change.mask === 0) return 0;
  const handle = fid.kind === FidKind.file ? fid.handle : -1;
  const failed = tree.setattr(fid.place.ino, handle, change);
  if (failed < 0) return failed;
  return change.failureMask === 0 ? 0 : -change.failureErrno;
};

function isTime(ns: number): boolean {
  return ns === UTIME_NOW || (ns >= 0 && ns < 1_000_000_000);
}

const space = new StatFs();

export const statfs: Handler = (session, request, reply) => {
  const fid = fileFid(session, request.fid);
  if (fid === undefined) return refusal;
  const failed = fid.view.tree.statfs(fid.place.ino, space);
  if (failed < 0) return failed;
  reply.putU32(V9FS_MAGIC);
  reply.putU32(space.blockSize);
  reply.putU64(space.blocks);
  reply.putU64(space.blocksFree);
  reply.putU64(space.blocksAvailable);
  reply.putU64(space.files);
  reply.putU64(space.filesFree);
  reply.putU64(0);
  reply.putU32(space.nameLength);
  return 0;
};

/** What a client may call itself. */
const CLIENT_MAX_BYTES = 256;

/** The range that a request is about; undefined: it has none that can be. */
function rangeOf(session: Session, fid: Fid, request: Request): Range | undefined {
  const { offset, length, name } = request;
  if (offset < 0 || length < 0 || name.length > CLIENT_MAX_BYTES) return undefined;
  return {
    session,
    client: name,
    process: request.process,
    fid,
    isWrite: request.lockType === LockType.write,
    start: offset,
    end: length === 0 ? Number.POSITIVE_INFINITY : offset + length,
  };
}

/** Nobody waits in here: a client that would asks again, as Linux's does. */
export const lock: Handler = (session, request, reply) => {
  const fid = session.fids.get(request.fid);
  if (fid?.kind !== FidKind.file) return -Errno.EBADF;
  const range = rangeOf(session, fid, request);
  if (range === undefined || request.lockType > LockType.unlock) return -Errno.EINVAL;
  const { locks } = fid.view;
  const { ino } = fid.place;
  let status: number = LockStatus.success;
  if (request.lockType === LockType.unlock) {
    if (!locks.remove(ino, range, range.start, range.end)) status = LockStatus.error;
  } else if (locks.conflict(ino, range) !== undefined) status = LockStatus.blocked;
  else if (!locks.add(ino, range)) status = LockStatus.error;
  reply.putU8(status);
  return 0;
};

export const getlock: Handler = (session, request, reply) => {
  const fid = session.fids.get(request.fid);
  if (fid?.kind !== FidKind.file) return -Errno.EBADF;
  const range = rangeOf(session, fid, request);
  if (range === undefined || request.lockType > LockType.write) return -Errno.EINVAL;
  const other = fid.view.locks.conflict(fid.place.ino, range);
  const shown = other ?? range;
  const type = other === undefined ? LockType.unlock : Number(other.isWrite);
  reply.putU8(type);
  reply.putU64(shown.start);
  reply.putU64(shown.end === Number.POSITIVE_INFINITY ? 0 : shown.end - shown.start);
  reply.putU32(shown.process);
  reply.putSizedText(shown.client);
  return 0;
};
