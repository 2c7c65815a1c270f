// Bodies of replies to the kernel's FUSE client for a whole tree, written at a cursor behind the place of a reply's head. Source: Linux,
// include/uapi/linux/fuse.h, the struct named beside each. Pure; data-plane rules.

import type { Attr } from "../../base/attr.ts";
import type { Cursor } from "../cursor.ts";
import { encodeDevice } from "../device.ts";
import { REPLY_HEAD_BYTES, type Unique } from "./message.ts";

/** Bits of `openFlags`: the kernel keeps what it read of the file, or the listing of the directory, beyond this open. */
export const FOPEN_KEEP_CACHE = 1 << 1;
export const FOPEN_CACHE_DIR = 1 << 3;

/** struct fuse_dirent before its name, and struct fuse_entry_out, which stands before it in READDIRPLUS. */
export const DIRENT_BYTES = 24;
export const ENTRY_BYTES = 128;

/** struct fuse_out_header: 0 or -errno, and the bytes of the whole reply. */
export function putHead(out: Cursor, unique: Unique, errno: number, bytes: number): void {
  out.seek(0, REPLY_HEAD_BYTES);
  out.putU32(bytes);
  out.putU32(errno);
  out.putU32(unique[0]);
  out.putU32(unique[1]);
}

/** struct fuse_attr. `ino` is what stat(2) says: unique in the mount, which attr.ino is only together with its device. */
function putFacts(out: Cursor, ino: number, attr: Attr): void {
  out.putU64(ino);
  out.putU64(attr.size);
  out.putU64(attr.blocks);
  out.putI64(attr.atimeSec);
  out.putI64(attr.mtimeSec);
  out.putI64(attr.ctimeSec);
  out.putU32(attr.atimeNs);
  out.putU32(attr.mtimeNs);
  out.putU32(attr.ctimeNs);
  out.putU32(attr.mode);
  out.putU32(attr.nlink);
  out.putU32(attr.uid);
  out.putU32(attr.gid);
  out.putU32(encodeDevice(attr.rdevMajor, attr.rdevMinor));
  out.putU32(attr.blockSize);
  out.putU32(0);
}

/** struct fuse_attr_out: attributes and for how long they hold, s. */
export function putAttr(out: Cursor, ino: number, attr: Attr, seconds: number): void {
  out.putU64(seconds);
  out.putU64(0);
  putFacts(out, ino, attr);
}

/** struct fuse_entry_out: a node, and for how long its name and attributes hold, s. */
export function putEntry(
  out: Cursor,
  node: number,
  ino: number,
  attr: Attr,
  seconds: number,
): void {
  out.putU64(node);
  out.putU64(0);
  out.putU64(seconds);
  out.putU64(seconds);
  out.putU64(0);
  putFacts(out, ino, attr);
}

/** One that says: there is no such name, and there won't be for so long. Without: of "." and ".." in a READDIRPLUS. */
export function putNoEntry(out: Cursor, seconds: number): void {
  const start = out.offset;
  out.skip(ENTRY_BYTES);
  if (out.hasOverrun) return;
  out.buffer.fill(0, start, out.offset);
  out.view.setUint32(start + 16, seconds >>> 0, true);
}

/** struct fuse_open_out. */
export function putOpen(out: Cursor, handle: number, openFlags: number): void {
  out.putU64(handle);
  out.putU32(openFlags);
  out.putU32(0);
}

/** Bytes of a dentry with a name of so many bytes. */
export function direntBytes(nameBytes: number): number {
  return (DIRENT_BYTES + nameBytes + 7) & ~7;
}

/** struct fuse_dirent, padded. `next` is the position behind it. */
export function putDirent(
  out: Cursor,
  ino: number,
  next: number,
  type: number,
  name: string,
): void {
  const end = out.offset + direntBytes(name.length);
  out.putU64(ino);
  out.putU64(next);
  out.putU32(name.length);
  out.putU32(type);
  out.putText(name);
  while (out.offset < end && !out.hasOverrun) out.putU8(0);
}

/** Of statvfs(3), in blocks of blockSize. */
export interface Space {
  readonly blockSize: number;
  readonly blocks: number;
  readonly blocksFree: number;
  readonly blocksAvailable: number;
  readonly files: number;
  readonly filesFree: number;
  readonly nameLength: number;
}

/** struct fuse_kstatfs. */
export function putSpace(out: Cursor, space: Space): void {
  out.putU64(space.blocks);
  out.putU64(space.blocksFree);
  out.putU64(space.blocksAvailable);
  out.putU64(space.files);
  out.putU64(space.filesFree);
  out.putU32(space.blockSize);
  out.putU32(space.nameLength);
  out.putU32(space.blockSize);
  for (let i = 0; i < 7; i++) out.putU32(0);
}

/** struct fuse_write_out and fuse_getxattr_out: one number. */
export function putCount(out: Cursor, count: number): void {
  out.putU32(count);
  out.putU32(0);
}
