// What every 9P handler is: a plain synchronous function from a decoded request to a reply's body at the cursor. First all lookups
// and fetches, then all side effects, so that a handler that returns MISS can be run again. Data plane.

import { Errno } from "../../base/errno.ts";
import { Attr, isWritable, OpenResult, type WritableTree } from "../../tree/tree.ts";
import type { Cursor } from "../../wire/cursor.ts";
import type { Request } from "../../wire/ninep/message.ts";
import { type Fid, FidKind } from "./fid-table.ts";
import type { Session } from "./session.ts";

/** 0 when the reply's body stands at the cursor, -errno, or MISS. */
export type Handler = (session: Session, request: Request, reply: Cursor) => number;

/** Scratch of the one data-plane thread: filled and used within one handler. */
export const attr = new Attr();
export const opened = new OpenResult();

/** Why writableTree or walkedFid gave nothing. */
export let refusal = 0;

/** The tree of a fid when it may be changed; else undefined and `refusal`. */
export function writableTree(fid: Fid): WritableTree | undefined {
  const { tree, isReadOnly } = fid.view;
  if (!isReadOnly && isWritable(tree)) return tree;
  refusal = -Errno.EROFS;
  return undefined;
}

/** The fid of a number when it stands for a file, open or not; else undefined and `refusal`. */
export function fileFid(session: Session, number: number): Fid | undefined {
  const fid = session.fids.get(number);
  if (fid !== undefined && fid.kind !== FidKind.xattr && fid.kind !== FidKind.newXattr) return fid;
  refusal = fid === undefined ? -Errno.EBADF : -Errno.EINVAL;
  return undefined;
}
