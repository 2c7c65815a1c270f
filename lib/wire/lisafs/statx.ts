// Statx (144 bytes) and Inode (152) as they stand on the wire. Order of times: atime, btime, ctime, mtime; not the
// kernel's 256-byte struct. LISAFS: statx.go Statx, message.go Inode; lisafs-wire section 3. Data plane.

import { type Attr, STATX_BYTES } from "../../base/attr.ts";
import { Errno } from "../../base/errno.ts";
import type { Cursor } from "../cursor.ts";

export const INODE_BYTES = 8 + STATX_BYTES;

/** Appends an Inode: u64 control FDID, Statx. 0, or -ENOBUFS when it does not fit. */
export function putInode(cursor: Cursor, fdid: number, from: Attr): number {
  cursor.putU64(fdid);
  return putStatx(cursor, from);
}

/** Appends a Statx. 0, or -ENOBUFS when it does not fit. */
export function putStatx(cursor: Cursor, from: Attr): number {
  cursor.putBytes(from.bytes);
  return cursor.hasOverrun ? -Errno.ENOBUFS : 0;
}
