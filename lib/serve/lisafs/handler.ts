// What every handler is: a plain synchronous function from a decoded request to a reply written at the cursor. First all
// lookups and fetches, then all side effects, so that a handler that returns MISS can be run again. Data plane.

import { S_ISGID } from "../../base/file-types.ts";
import type { Communicator } from "../../transport/communicator.ts";
import { Attr, type Ino, OpenResult, type Tree } from "../../tree/tree.ts";
import type { Cursor } from "../../wire/cursor.ts";
import type { Request } from "../../wire/lisafs/message.ts";
import type { Connection } from "./connection.ts";

/** 0 when the reply stands at the cursor, -errno, or MISS. */
export type Handler = (
  connection: Connection,
  request: Request,
  reply: Cursor,
  from: Communicator,
) => number;

/** Scratch of the one data-plane thread: filled and used within one handler. */
export const attr = new Attr();
export const opened = new OpenResult();

const S_IXGRP = 0o010;

/**
 * The mode of a file that is made in this directory, as Linux's vfs_prepare_mode has it: in a set-group-id directory no program gets that
 * bit, unless its maker is of the group or has CAP_FSETID. Clients of the other doors are kernels that have seen to it; a sentry passes on
 * what it was asked for and doesn't say who is of the group, so nobody is. -errno.
 */
export function preparedMode(tree: Tree, directory: Ino, mode: number): number {
  if ((mode & S_ISGID) === 0 || (mode & S_IXGRP) === 0) return mode;
  const failed = tree.getattr(directory, attr);
  if (failed < 0) return failed;
  return (attr.mode & S_ISGID) === 0 ? mode : mode & ~S_ISGID;
}
