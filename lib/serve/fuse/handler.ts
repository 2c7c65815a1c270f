// What every FUSE handler is: a plain synchronous function from a decoded request to a reply's body at the cursor. First all lookups
// and fetches, then all side effects, so that a handler that returns MISS can be run again. Data plane.

import { Errno } from "../../base/errno.ts";
import { S_ISGID } from "../../base/file-types.ts";
import {
  Attr,
  CreateRequest,
  type Ino,
  isWritable,
  OpenResult,
  type WritableTree,
} from "../../tree/tree.ts";
import type { Cursor } from "../../wire/cursor.ts";
import { putEntry } from "../../wire/fuse/reply.ts";
import type { FuseRequest } from "../../wire/fuse/request.ts";
import type { FuseSession } from "./session.ts";

/** 0 when the reply's body stands at the cursor, -errno, MISS, or NO_REPLY. */
export type Handler = (session: FuseSession, request: FuseRequest, reply: Cursor) => number;

/** Nobody waits for an answer. Outside errno's range, and not MISS. */
export const NO_REPLY = -4097;

/** Scratch of the one data-plane thread: filled and used within one handler. */
export const attr = new Attr();
export const opened = new OpenResult();
export const created = new CreateRequest();

/** The tree when it may be changed; else undefined, which is EROFS. */
export function writableTree({ tree, isReadOnly }: FuseSession): WritableTree | undefined {
  return !isReadOnly && isWritable(tree) ? tree : undefined;
}

/**
 * Whose a new file is: its creator's, and its directory's group where that has the set-group-ID bit, which a directory inherits. man
 * inode(7). 0 or -errno.
 */
export function fillCreated(session: FuseSession, dir: Ino, request: FuseRequest): number {
  const failed = session.tree.getattr(dir, attr);
  if (failed < 0) return failed;
  const isGroups = (attr.mode & S_ISGID) !== 0;
  created.mode = request.mode & 0o7777;
  created.uid = request.uid;
  created.gid = isGroups ? attr.gid : request.gid;
  return 0;
}

/** The same of a new directory. */
export function fillDirectory(session: FuseSession, dir: Ino, request: FuseRequest): number {
  const failed = fillCreated(session, dir, request);
  if (failed >= 0) created.mode |= attr.mode & S_ISGID;
  return failed;
}

/** Answers with the entry of an inode that comes with one reference, which the kernel has then; or with -errno. */
export function tellEntry(session: FuseSession, ino: number, reply: Cursor): number {
  if (ino < 0) return ino;
  const { tree, nodes, seconds } = session;
  const failed = tree.getattr(ino as Ino, attr);
  if (failed < 0) {
    tree.release(ino as Ino);
    return failed;
  }
  const shown = nodes.shownIno(attr.ino, attr.devMinor);
  putEntry(reply, nodes.tell(ino as Ino), shown, attr, seconds);
  return 0;
}

/** The tree's handle of a request that may have one: -1 for none. */
export function treeHandle(session: FuseSession, number: number): number {
  return number < 0 ? -1 : (session.handles.get(number)?.handle ?? -1);
}

export const EROFS = -Errno.EROFS;
