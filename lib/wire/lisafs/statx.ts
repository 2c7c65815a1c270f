// Statx (144 bytes) and Inode (152) as they stand on the wire. Order of times: atime, btime, ctime, mtime; not the
// kernel's 256-byte struct. LISAFS: statx.go Statx, message.go Inode; lisafs-wire section 3. Data plane.

import { getI64, getU64 } from "../../base/bytes.ts";
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

const TWO_32 = 0x1_0000_0000;

/**
 * A Statx being made, on the one data-plane thread. Filled as words and copied in one go: on the wire it may start at any
 * byte, and stores to a typed array cost a fraction of DataView's while the code is not optimized yet, as in most of a start.
 */
const words = new Uint32Array(STATX_BYTES / 4);
const wordBytes = new Uint8Array(words.buffer);
words[0] = STATX_MASK;

/** Writes a Statx at `at` of a buffer: 144 bytes that the caller has made sure of. Little-endian hosts only. */
export function setStatx(out: Uint8Array, at: number, from: StatxFields): void {
  words[1] = from.blockSize;
  words[4] = from.nlink;
  words[5] = from.uid;
  words[6] = from.gid;
  words[7] = from.mode & 0xffff;
  setWords(8, from.ino);
  setWords(10, from.size);
  setWords(12, from.blocks);
  setWords(16, from.atimeSec);
  words[18] = from.atimeNs;
  setWords(24, from.ctimeSec);
  words[26] = from.ctimeNs;
  setWords(28, from.mtimeSec);
  words[30] = from.mtimeNs;
  words[32] = from.rdevMajor;
  words[33] = from.rdevMinor;
  words[34] = from.devMajor;
  words[35] = from.devMinor;
  out.set(wordBytes, at);
}

/** A safe integer of either sign as two words. */
function setWords(at: number, value: number): void {
  words[at] = value >>> 0;
  words[at + 1] = value >= 0 && value < TWO_32 ? 0 : Math.floor(value / TWO_32);
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
  setStatx(cursor.buffer, at, from);
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
