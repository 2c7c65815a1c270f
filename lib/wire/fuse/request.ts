// Requests of the kernel's FUSE client for a whole tree, decoded into one record that is used again and again. Source: Linux,
// include/uapi/linux/fuse.h, the struct named beside each; protocol 7.31 and later. Names are latin1. Pure; data-plane rules.

import type { Cursor } from "../cursor.ts";
import { Opcode, READ_MAX_BYTES, REQUEST_HEAD_BYTES, type Unique } from "./message.ts";

/** Bits of `mask` of a SETATTR: FATTR_*. */
export const SetattrBit = {
  mode: 1 << 0,
  uid: 1 << 1,
  gid: 1 << 2,
  size: 1 << 3,
  atime: 1 << 4,
  mtime: 1 << 5,
  handle: 1 << 6,
  atimeNow: 1 << 7,
  mtimeNow: 1 << 8,
} as const;

const GETATTR_FH = 1;

/** What a request says; fields that its kind doesn't have are what an earlier one left. */
export class FuseRequest {
  opcode = 0;
  unique: Unique = [0, 0];
  /** -1 for a number past 2^53. */
  node = 0;
  uid = 0;
  gid = 0;
  name = "";
  otherName = "";
  /** Node of a RENAME's new directory or a LINK's file; unique of what an INTERRUPT is about: its low half. */
  other = 0;
  /** Number of an open file or directory; -1 for none. */
  handle = -1;
  flags = 0;
  mode = 0;
  offset = 0;
  /** Bytes wanted; of a FORGET, lookups. */
  length = 0;
  mask = 0;
  newUid = 0;
  newGid = 0;
  atimeSec = 0;
  atimeNs = 0;
  mtimeSec = 0;
  mtimeNs = 0;
  /** Where the bytes of a WRITE or a SETXATTR stand in the cursor's buffer, and how many. */
  dataStart = 0;
  dataLength = 0;
}

/** Reads a request of `length` bytes at the buffer's start: false when it isn't whole. The cursor stands behind its head then. */
export function decodeHead(cursor: Cursor, length: number, out: FuseRequest): boolean {
  cursor.seek(0, length);
  const said = cursor.u32();
  out.opcode = cursor.u32();
  out.unique = [cursor.u32(), cursor.u32()];
  out.node = cursor.u64();
  out.uid = cursor.u32();
  out.gid = cursor.u32();
  cursor.skip(REQUEST_HEAD_BYTES - 32);
  return !cursor.hasOverrun && said === length;
}

/** Reads what follows the head: false when it is malformed. A kind without a decoder is left alone. */
export function decodeBody(cursor: Cursor, out: FuseRequest): boolean {
  DECODERS.get(out.opcode)?.(cursor, out);
  return !cursor.hasOverrun;
}

/** A name up to its NUL. */
function text(cursor: Cursor): string {
  const end = cursor.buffer.indexOf(0, cursor.offset);
  if (end < 0 || end >= cursor.end) {
    cursor.hasOverrun = true;
    return "";
  }
  const found = cursor.text(end - cursor.offset);
  cursor.skip(1);
  return found;
}

type Decoder = (cursor: Cursor, out: FuseRequest) => void;

const named: Decoder = (cursor, out) => {
  out.name = text(cursor);
};

/** struct fuse_release_in, fuse_fsync_in, fuse_flush_in: what is used of them. */
const handled: Decoder = (cursor, out) => {
  out.handle = cursor.u64();
};

/** struct fuse_read_in. */
const reading: Decoder = (cursor, out) => {
  out.handle = cursor.u64();
  out.offset = cursor.u64();
  out.length = cursor.u32();
  if (out.length > READ_MAX_BYTES) cursor.hasOverrun = true;
};

/** struct fuse_open_in. */
const opening: Decoder = (cursor, out) => {
  out.flags = cursor.u32();
};

/** struct fuse_setattr_in. */
function setattr(cursor: Cursor, out: FuseRequest): void {
  out.mask = cursor.u32();
  cursor.skip(4);
  out.handle = cursor.u64();
  if ((out.mask & SetattrBit.handle) === 0) out.handle = -1;
  out.length = cursor.u64();
  cursor.skip(8);
  out.atimeSec = cursor.i64();
  out.mtimeSec = cursor.i64();
  cursor.skip(8);
  out.atimeNs = cursor.u32();
  out.mtimeNs = cursor.u32();
  cursor.skip(4);
  out.mode = cursor.u32();
  cursor.skip(4);
  out.newUid = cursor.u32();
  out.newGid = cursor.u32();
}

/** The bytes of a WRITE or SETXATTR, which say how many they are. */
function data(cursor: Cursor, out: FuseRequest): void {
  out.dataStart = cursor.offset;
  out.dataLength = out.length;
  cursor.skip(out.length);
}

/** struct fuse_rename_in, and fuse_rename2_in with its flags. */
function rename(cursor: Cursor, out: FuseRequest, hasFlags: boolean): void {
  out.other = cursor.u64();
  out.flags = hasFlags ? cursor.u32() : 0;
  if (hasFlags) cursor.skip(4);
  out.name = text(cursor);
  out.otherName = text(cursor);
}

const DECODERS = new Map<number, Decoder>([
  [Opcode.lookup, named],
  [Opcode.unlink, named],
  [Opcode.rmdir, named],
  [Opcode.removexattr, named],
  [Opcode.open, opening],
  [Opcode.opendir, opening],
  [Opcode.read, reading],
  [Opcode.readdir, reading],
  [Opcode.readdirplus, reading],
  [Opcode.release, handled],
  [Opcode.releasedir, handled],
  [Opcode.fsync, handled],
  [Opcode.fsyncdir, handled],
  [Opcode.setattr, setattr],
  [Opcode.rename, (cursor, out) => rename(cursor, out, false)],
  [Opcode.rename2, (cursor, out) => rename(cursor, out, true)],
  [
    Opcode.forget,
    (cursor, out) => {
      out.length = cursor.u64();
    },
  ],
  [
    Opcode.interrupt,
    (cursor, out) => {
      out.other = cursor.u32();
    },
  ],
  [
    Opcode.getattr, // struct fuse_getattr_in
    (cursor, out) => {
      const flags = cursor.u32();
      cursor.skip(4);
      out.handle = (flags & GETATTR_FH) === 0 ? -1 : cursor.u64();
    },
  ],
  [
    Opcode.symlink,
    (cursor, out) => {
      out.name = text(cursor);
      out.otherName = text(cursor);
    },
  ],
  [
    Opcode.mknod, // struct fuse_mknod_in
    (cursor, out) => {
      out.mode = cursor.u32();
      cursor.skip(12);
      out.name = text(cursor);
    },
  ],
  [
    Opcode.mkdir, // struct fuse_mkdir_in
    (cursor, out) => {
      out.mode = cursor.u32();
      cursor.skip(4);
      out.name = text(cursor);
    },
  ],
  [
    Opcode.link, // struct fuse_link_in
    (cursor, out) => {
      out.other = cursor.u64();
      out.name = text(cursor);
    },
  ],
  [
    Opcode.create, // struct fuse_create_in
    (cursor, out) => {
      out.flags = cursor.u32();
      out.mode = cursor.u32();
      cursor.skip(8);
      out.name = text(cursor);
    },
  ],
  [
    Opcode.write, // struct fuse_write_in
    (cursor, out) => {
      out.handle = cursor.u64();
      out.offset = cursor.u64();
      out.length = cursor.u32();
      cursor.skip(20);
      data(cursor, out);
    },
  ],
  [
    Opcode.fallocate, // struct fuse_fallocate_in
    (cursor, out) => {
      out.handle = cursor.u64();
      out.offset = cursor.u64();
      out.length = cursor.u64();
      out.mode = cursor.u32();
    },
  ],
  [
    Opcode.setxattr, // struct fuse_setxattr_in, without FUSE_SETXATTR_EXT
    (cursor, out) => {
      out.length = cursor.u32();
      out.flags = cursor.u32();
      out.name = text(cursor);
      data(cursor, out);
    },
  ],
  [
    Opcode.getxattr, // struct fuse_getxattr_in
    (cursor, out) => {
      out.length = cursor.u32();
      cursor.skip(4);
      out.name = text(cursor);
    },
  ],
  [
    Opcode.listxattr,
    (cursor, out) => {
      out.length = cursor.u32();
    },
  ],
]);
