// Statx (144 bytes) and Inode (152) as they stand on the wire. Order of times: atime, btime, ctime, mtime; not the
// kernel's 256-byte struct. LISAFS: statx.go Statx, message.go Inode; lisafs-wire section 3. Data plane.

import { getI64, getU64, setI64, setU64 } from "../../base/bytes.ts";
import { Errno } from "../../base/errno.ts";
import type { Cursor } from "../cursor.ts";

export const STATX_BYTES = 144;
export const INODE_BYTES = 152;
/** STATX_BASIC_STATS: all but btime, as stock revisions before 2025 send. */
export const STATX_MASK = 0x7ff;
export const STATX_TYPE = 0x1;

/** Attributes as the wire carries them. lib/tree's Attr has this shape. */
export interface StatxFields {
  ino: number;
  devMajor: number;
  devMinor: number;
  mode: number;
  nlink: number;
  uid: number;
  gid: number;
  rdevMajor: number;
  rdevMinor: number;
  size: number;
  blocks: number;
  blockSize: number;
  atimeSec: number;
  atimeNs: number;
  mtimeSec: number;
  mtimeNs: number;
  ctimeSec: number;
  ctimeNs: number;
}

/** Writes a Statx at `at`: 144 bytes that the caller has made sure of. */
export function setStatx(view: DataView, at: number, from: StatxFields): void {
  view.setUint32(at, STATX_MASK, true);
  view.setUint32(at + 4, from.blockSize, true);
  setU64(view, at + 8, 0);
  view.setUint32(at + 16, from.nlink, true);
  view.setUint32(at + 20, from.uid, true);
  view.setUint32(at + 24, from.gid, true);
  view.setUint32(at + 28, from.mode & 0xffff, true);
  setU64(view, at + 32, from.ino);
  setU64(view, at + 40, from.size);
  setU64(view, at + 48, from.blocks);
  setU64(view, at + 56, 0);
  setTime(view, at + 64, from.atimeSec, from.atimeNs);
  setTime(view, at + 80, 0, 0);
  setTime(view, at + 96, from.ctimeSec, from.ctimeNs);
  setTime(view, at + 112, from.mtimeSec, from.mtimeNs);
  view.setUint32(at + 128, from.rdevMajor, true);
  view.setUint32(at + 132, from.rdevMinor, true);
  view.setUint32(at + 136, from.devMajor, true);
  view.setUint32(at + 140, from.devMinor, true);
}

function setTime(view: DataView, at: number, sec: number, nsec: number): void {
  setI64(view, at, sec);
  view.setUint32(at + 8, nsec, true);
  view.setUint32(at + 12, 0, true);
}

/** Appends an Inode: u64 control FDID, Statx. 0, or -ENOBUFS when it does not fit. */
export function putInode(cursor: Cursor, fdid: number, from: StatxFields): number {
  cursor.putU64(fdid);
  return putStatx(cursor, from);
}

/** Appends a Statx. 0, or -ENOBUFS when it does not fit. */
export function putStatx(cursor: Cursor, from: StatxFields): number {
  const at = cursor.offset;
  cursor.skip(STATX_BYTES);
  if (cursor.hasOverrun) return -Errno.ENOBUFS;
  setStatx(cursor.view, at, from);
  return 0;
}

/** Reads a Statx into `out` (the client's end). u64 fields past 2^53-1 become -1. */
export function getStatx(view: DataView, at: number, out: StatxFields): void {
  out.blockSize = view.getUint32(at + 4, true);
  out.nlink = view.getUint32(at + 16, true);
  out.uid = view.getUint32(at + 20, true);
  out.gid = view.getUint32(at + 24, true);
  out.mode = view.getUint16(at + 28, true);
  out.ino = getU64(view, at + 32);
  out.size = getU64(view, at + 40);
  out.blocks = getU64(view, at + 48);
  out.atimeSec = getI64(view, at + 64);
  out.atimeNs = view.getUint32(at + 72, true);
  out.ctimeSec = getI64(view, at + 96);
  out.ctimeNs = view.getUint32(at + 104, true);
  out.mtimeSec = getI64(view, at + 112);
  out.mtimeNs = view.getUint32(at + 120, true);
  out.rdevMajor = view.getUint32(at + 128, true);
  out.rdevMinor = view.getUint32(at + 132, true);
  out.devMajor = view.getUint32(at + 136, true);
  out.devMinor = view.getUint32(at + 140, true);
}
