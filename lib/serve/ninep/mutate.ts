// Everything that changes names: Tmkdir, Tmknod, Tsymlink, Tlink, Trename, Trenameat, Tunlinkat. docs/protocol/9p2000l.md. Data plane.

import { Errno } from "../../base/errno.ts";
import { S_IFMT, S_IFREG } from "../../base/file-types.ts";
import { SYMLINK_MAX_BYTES } from "../../base/limits.ts";
import { checkName, type Name } from "../../base/name.ts";
import { CreateRequest, type Ino, type WritableTree } from "../../tree/tree.ts";
import type { Cursor } from "../../wire/cursor.ts";
import type { Request } from "../../wire/ninep/message.ts";
import { putQid } from "../../wire/ninep/qid.ts";
import { AT_REMOVEDIR } from "../../wire/ninep/type.ts";
import type { Fid, Place } from "./fid-table.ts";
import { attr, fileFid, type Handler, refusal, writableTree } from "./handler.ts";
import type { Session } from "./session.ts";

const created = new CreateRequest();

/** The directory that a name is changed in, and its tree. */
interface Target {
  fid: Fid;
  tree: WritableTree;
  directory: Ino;
  name: Name;
}

/** What a request changes; else undefined and `denial`. */
let denial = 0;
function targetOf(session: Session, request: Request): Target | undefined {
  const fid = fileFid(session, request.fid);
  const tree = fid === undefined ? undefined : writableTree(fid);
  denial = refusal;
  if (fid === undefined || tree === undefined) return undefined;
  denial = checkName(request.name);
  if (denial < 0) return undefined;
  created.mode = request.mode & 0o7777;
  created.uid = fid.uid;
  created.gid = request.gid;
  return { fid, tree, directory: fid.place.ino, name: request.name as Name };
}

/** Answers with the qid of a new name: `ino` comes with one reference, or is -errno. */
function putCreated(tree: WritableTree, ino: number, reply: Cursor): number {
  if (ino < 0) return ino;
  const failed = tree.getattr(ino as Ino, attr);
  tree.release(ino as Ino);
  if (failed < 0) return failed;
  putQid(reply, attr);
  return 0;
}

export const mkdir: Handler = (session, request, reply) => {
  const target = targetOf(session, request);
  if (target === undefined) return denial;
  const { tree, directory, name } = target;
  return putCreated(tree, tree.mkdir(directory, name, created), reply);
};

/** Regular files only: devices, FIFOs and sockets would be the host's. */
export const mknod: Handler = (session, request, reply) => {
  const target = targetOf(session, request);
  if (target === undefined) return denial;
  const type = request.mode & S_IFMT;
  if (type !== S_IFREG && type !== 0) return -Errno.EPERM;
  created.mode = S_IFREG | (request.mode & 0o7777);
  const { tree, directory, name } = target;
  return putCreated(tree, tree.mknod(directory, name, created), reply);
};

export const symlink: Handler = (session, request, reply) => {
  const target = targetOf(session, request);
  if (target === undefined) return denial;
  const text = request.otherName;
  if (text.length === 0) return -Errno.ENOENT;
  if (text.length > SYMLINK_MAX_BYTES) return -Errno.ENAMETOOLONG;
  if (text.includes("\0")) return -Errno.EINVAL;
  const { tree, directory, name } = target;
  return putCreated(tree, tree.symlink(directory, name, text, created), reply);
};

/** Another fid, of the same view; else undefined and `denial`. */
function otherFid(session: Session, target: Target, number: number): Fid | undefined {
  const fid = fileFid(session, number);
  denial = refusal;
  if (fid === undefined || fid.view === target.fid.view) return fid;
  denial = -Errno.EXDEV;
  return undefined;
}

export const link: Handler = (session, request) => {
  const target = targetOf(session, request);
  const linked = target && otherFid(session, target, request.otherFid);
  if (target === undefined || linked === undefined) return denial;
  const { tree, directory, name } = target;
  const ino = tree.link(directory, name, linked.place.ino);
  if (ino < 0) return ino;
  tree.release(ino as Ino);
  return 0;
};

export const unlinkat: Handler = (session, request) => {
  const target = targetOf(session, request);
  if (target === undefined) return denial;
  if ((request.flags & ~AT_REMOVEDIR) !== 0) return -Errno.EINVAL;
  return target.tree.unlink(target.directory, target.name, request.flags === AT_REMOVEDIR);
};

export const renameat: Handler = (session, request) => {
  const target = targetOf(session, request);
  const to = target && otherFid(session, target, request.otherFid);
  if (target === undefined || to === undefined) return denial;
  const bad = checkName(request.otherName);
  if (bad < 0) return bad;
  const { tree, directory, name } = target;
  return tree.rename(directory, name, to.place.ino, request.otherName as Name, 0);
};

/** By the name that the fid was walked by, when it is still that file's. */
export const rename: Handler = (session, request) => {
  const target = targetOf(session, request);
  const to = target && otherFid(session, target, request.otherFid);
  if (target === undefined || to === undefined) return denial;
  const { fid, tree, name } = target;
  const { parent, name: oldName, ino } = fid.place;
  if (parent === undefined) return -Errno.EBUSY;
  const found = tree.lookup(parent.ino, oldName);
  if (found < 0) return found;
  tree.release(found as Ino);
  if (found !== ino) return -Errno.ENOENT;
  const failed = tree.rename(parent.ino, oldName, to.place.ino, name, 0);
  if (failed < 0) return failed;
  const { place } = fid;
  // Places know of renames by their own fid alone: by what others did, the new parent may seem to lie beneath.
  for (let at: Place | undefined = to.place; at !== undefined; at = at.parent)
    if (at === place) return 0;
  to.place.references++;
  place.parent = to.place;
  place.name = name;
  session.fids.releasePlace(tree, parent);
  return 0;
};
