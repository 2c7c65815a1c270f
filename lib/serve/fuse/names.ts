// LOOKUP, FORGET, READLINK and everything that changes names. Names come from the kernel's path walk, but are checked all the same.
// man fuse(4), path_resolution(7). Data plane.

import { Errno } from "../../base/errno.ts";
import { S_IFMT, S_IFREG } from "../../base/file-types.ts";
import { SYMLINK_MAX_BYTES } from "../../base/limits.ts";
import { checkName, type Name } from "../../base/name.ts";
import type { Ino } from "../../tree/tree.ts";
import { putNoEntry } from "../../wire/fuse/reply.ts";
import type { FuseRequest } from "../../wire/fuse/request.ts";
import {
  created,
  EROFS,
  fillCreated,
  fillDirectory,
  type Handler,
  NO_REPLY,
  tellEntry,
  writableTree,
} from "./handler.ts";
import type { FuseSession } from "./session.ts";

export const lookup: Handler = (session, request, reply) => {
  const bad = checkName(request.name);
  if (bad < 0) return bad;
  const dir = session.nodes.inoOf(request.node);
  const ino = session.tree.lookup(dir, request.name as Name);
  if (ino !== -Errno.ENOENT || !session.isImmutable) return tellEntry(session, ino, reply);
  // No node: the kernel keeps that there is none.
  putNoEntry(reply, session.seconds);
  return 0;
};

export const forget: Handler = (session, request) => {
  session.nodes.forget(request.node, request.length);
  return NO_REPLY;
};

const target = new Uint8Array(SYMLINK_MAX_BYTES);

export const readlink: Handler = (session, request, reply) => {
  const length = session.tree.readlink(session.nodes.inoOf(request.node), target);
  if (length < 0) return length;
  reply.putBytes(target.subarray(0, length));
  return 0;
};

/** What can be told of a new name before it is made: 0 with `created` filled, or -errno. */
function check(
  session: FuseSession,
  request: FuseRequest,
  fill: typeof fillCreated = fillCreated,
): number {
  const bad = checkName(request.name);
  return bad < 0 ? bad : fill(session, session.nodes.inoOf(request.node), request);
}

export const mkdir: Handler = (session, request, reply) => {
  const tree = writableTree(session);
  if (tree === undefined) return EROFS;
  const bad = check(session, request, fillDirectory);
  if (bad < 0) return bad;
  const dir = session.nodes.inoOf(request.node);
  return tellEntry(session, tree.mkdir(dir, request.name as Name, created), reply);
};

/** Regular files only: devices, FIFOs and sockets would be the host's. */
export const mknod: Handler = (session, request, reply) => {
  const tree = writableTree(session);
  if (tree === undefined) return EROFS;
  const type = request.mode & S_IFMT;
  if (type !== S_IFREG && type !== 0) return -Errno.EPERM;
  const bad = check(session, request);
  if (bad < 0) return bad;
  created.mode |= S_IFREG;
  const dir = session.nodes.inoOf(request.node);
  return tellEntry(session, tree.mknod(dir, request.name as Name, created), reply);
};

export const symlink: Handler = (session, request, reply) => {
  const tree = writableTree(session);
  if (tree === undefined) return EROFS;
  const text = request.otherName;
  if (text.length > SYMLINK_MAX_BYTES) return -Errno.ENAMETOOLONG;
  request.mode = 0o777;
  const bad = check(session, request);
  if (bad < 0) return bad;
  const dir = session.nodes.inoOf(request.node);
  return tellEntry(session, tree.symlink(dir, request.name as Name, text, created), reply);
};

export const link: Handler = (session, request, reply) => {
  const tree = writableTree(session);
  if (tree === undefined) return EROFS;
  const bad = checkName(request.name);
  if (bad < 0) return bad;
  const { nodes } = session;
  const ino = tree.link(
    nodes.inoOf(request.node),
    request.name as Name,
    nodes.inoOf(request.other),
  );
  return tellEntry(session, ino, reply);
};

function remove(session: FuseSession, request: FuseRequest, isDirectory: boolean): number {
  const tree = writableTree(session);
  if (tree === undefined) return EROFS;
  const bad = checkName(request.name);
  if (bad < 0) return bad;
  return tree.unlink(session.nodes.inoOf(request.node), request.name as Name, isDirectory);
}

export const unlink: Handler = (session, request) => remove(session, request, false);
export const rmdir: Handler = (session, request) => remove(session, request, true);

export const rename: Handler = (session, request) => {
  const tree = writableTree(session);
  if (tree === undefined) return EROFS;
  const bad = checkName(request.name) || checkName(request.otherName);
  if (bad < 0) return bad;
  const { nodes } = session;
  const [from, to]: [Ino, Ino] = [nodes.inoOf(request.node), nodes.inoOf(request.other)];
  return tree.rename(from, request.name as Name, to, request.otherName as Name, request.flags);
};
