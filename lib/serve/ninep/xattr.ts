// Txattrwalk and Txattrcreate: extended attributes, read and written through fids of their own. docs/protocol/9p2000l.md. Data plane.

import { Errno } from "../../base/errno.ts";
import { checkXattrName } from "../../base/name.ts";
import { NOFID } from "../../wire/ninep/type.ts";
import { type Fid, FidKind } from "./fid-table.ts";
import { fileFid, type Handler, refusal, writableTree } from "./handler.ts";

/** Linux's bounds of a value and of a list. man xattr(7), limits.h XATTR_SIZE_MAX. */
const XATTR_MAX_BYTES = 65_536;
const XATTR_CREATE = 1;
const XATTR_REPLACE = 2;

const scratch = Buffer.alloc(XATTR_MAX_BYTES);

/** newfid reads one attribute, or with an empty name the list of names; its bytes are as they were now. */
export const xattrwalk: Handler = (session, request, reply) => {
  const { fids } = session;
  const fid = fileFid(session, request.fid);
  if (fid === undefined) return refusal;
  const number = request.otherFid;
  if (fids.get(number) !== undefined || number === NOFID) return -Errno.EBADF;
  const isList = request.name === "";
  const bad = isList ? 0 : checkXattrName(request.name);
  if (bad < 0) return bad;
  const { tree } = fid.view;
  if (!fids.hasRoom(tree, 0)) return -Errno.EMFILE;
  const { ino } = fid.place;
  const length = isList ? tree.listxattr(ino, scratch) : tree.getxattr(ino, request.name, scratch);
  if (length < 0) return length;
  fid.place.references++;
  const made = fids.insert(number, fid.view, fid.uid, fid.place);
  const refused = fids.giveBytes(made, length);
  if (refused < 0) {
    fids.remove(number);
    return refused;
  }
  made.kind = FidKind.xattr;
  scratch.copy(made.bytes!, 0, 0, length);
  reply.putU64(length);
  return 0;
};

/** The fid takes the value by Twrite, and sets it when it is clunked. */
export const xattrcreate: Handler = (session, request) => {
  const fid = session.fids.get(request.fid);
  if (fid === undefined) return -Errno.EBADF;
  if (fid.kind !== FidKind.walked) return -Errno.EINVAL;
  if (writableTree(fid) === undefined) return refusal;
  const bad = checkXattrName(request.name);
  if (bad < 0) return bad;
  if (request.length < 0 || request.length > XATTR_MAX_BYTES) return -Errno.ENOSPC;
  if ((request.flags & ~(XATTR_CREATE | XATTR_REPLACE)) !== 0) return -Errno.EINVAL;
  const failed = session.fids.giveBytes(fid, request.length);
  if (failed < 0) return failed;
  fid.kind = FidKind.newXattr;
  fid.name = request.name;
  fid.flags = request.flags;
  fid.written = 0;
  return 0;
};

/**
 * Sets what a fid of Txattrcreate was given. No bytes in place of an attribute remove it: there is no other message for that
 * (Linux, fs/9p/xattr.c sends this for removexattr).
 */
export function setAttribute(fid: Fid): number {
  const tree = writableTree(fid);
  if (tree === undefined) return refusal;
  const { ino } = fid.place;
  const bytes = fid.bytes!;
  if (fid.written !== bytes.length) return -Errno.EINVAL;
  return bytes.length === 0 && fid.flags === XATTR_REPLACE
    ? tree.removexattr(ino, fid.name)
    : tree.setxattr(ino, fid.name, bytes, fid.flags);
}
