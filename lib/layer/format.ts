// Every offset and size of an index file, version 1; docs/format/layer-index.md is its normative text
// and changes in the same commit. All integers are little-endian. Any plane.

import { S_IFMT } from "../base/file-types.ts";

/** "BRWINDEX" as two u32: the first eight bytes of a layer or snapshot index. */
export const MAGIC_LOW = 0x49575242;
export const MAGIC_HIGH = 0x5845444e;
export const VERSION = 1;

/** What an index is. A snapshot holds no whiteouts and no opaque directories. */
export const IndexKind = { layer: 1, snapshot: 2 } as const;
export type IndexKind = (typeof IndexKind)[keyof typeof IndexKind];

export const HEADER_BYTES = 128;
/** Offsets in the header. Each table has an u32 row count and a u32 file offset (8-byte aligned). */
export const Header = {
  magicLow: 0,
  magicHigh: 4,
  version: 8,
  kind: 12,
  fileBytes: 16,
  tables: 24,
} as const;

/** Position of a table's {count, offset} pair in the header: Header.tables + 8 * Table. */
export const Table = {
  inodes: 0,
  dirents: 1,
  blobs: 2,
  blocks: 3,
  xattrs: 4,
  strings: 5,
} as const;
export const TABLE_COUNT = 6;

export const INODE_BYTES = 48;
/** A row of the inode table. ino = row number + 1; the root is row 0. */
export const Inode = {
  /** u32: S_IFMT and permission bits. A whiteout is S_IFCHR with a = b = 0: overlayfs.rst, "whiteouts and opaque directories". */
  mode: 0,
  /** u32: names of a file that share this row; for a directory 2 + its subdirectories. */
  nlink: 4,
  uid: 8,
  gid: 12,
  /** u64: bytes of a file or symlink target; for a directory its dirent count. */
  size: 16,
  /** i64 seconds and u32 nanoseconds of mtime (ctime and atime are the same). */
  mtimeSec: 24,
  mtimeNs: 32,
  /** u32: REG row of blobs | DIR first dirent | LNK string offset | CHR major. */
  a: 36,
  /** u32: REG 0 | DIR dirent count | LNK string length | CHR minor. */
  b: 40,
  /** u32: 1 + first row of xattrs, or 0; the rows of one inode end with a row whose `last` is 1. */
  xattr: 44,
} as const;

export const DIRENT_BYTES = 16;
/** A row of the dirent table: those of one directory are contiguous and sorted by name bytes. */
export const Dirent = {
  /** u32: row of the inode table + 1. */
  ino: 0,
  /** u32: offset of the name in strings. */
  name: 4,
  /** u16: bytes of the name; u8: DT_* type; u8: zero. */
  nameBytes: 8,
  type: 10,
  /** u32: namePrefix of the name: decides most steps of a search by one comparison. */
  prefix: 12,
} as const;

/** The first four bytes of a name as a big-endian u32, zeros behind a shorter one: ordered as the names are. */
export function namePrefix(name: string): number {
  const { length } = name;
  let prefix = length > 0 ? name.charCodeAt(0) * 0x1000000 : 0;
  if (length > 1) prefix += name.charCodeAt(1) << 16;
  if (length > 2) prefix += name.charCodeAt(2) << 8;
  return length > 3 ? prefix + name.charCodeAt(3) : prefix;
}

/** The same of a name that is bytes. */
export function prefixAt(bytes: Uint8Array, start: number, length: number): number {
  let prefix = length > 0 ? bytes[start]! * 0x1000000 : 0;
  if (length > 1) prefix += bytes[start + 1]! << 16;
  if (length > 2) prefix += bytes[start + 2]! << 8;
  return length > 3 ? prefix + bytes[start + 3]! : prefix;
}

export const BLOB_BYTES = 48;
/** A row of the blob table, sorted by digest, no duplicates. */
export const Blob = {
  digest: 0,
  size: 32,
  /** u32 first row of blocks, u32 count: ceil(size / BLOCK_BYTES) when size > BLOCK_DIGESTS_OVER_BYTES, else 0. */
  firstBlock: 40,
  blockCount: 44,
} as const;

/** A row of the blocks table: the sha256 of one BLOCK_BYTES piece of a blob (the last may be shorter). */
export const BLOCK_DIGEST_BYTES = 32;

export const XATTR_BYTES = 20;
/** A row of the xattr table. */
export const Xattr = { name: 0, nameBytes: 4, value: 8, valueBytes: 12, last: 16 } as const;

/** Name of the xattr that marks an opaque directory in a layer; never in a snapshot. overlayfs.rst. */
export const OPAQUE_XATTR = "trusted.overlay.opaque";
/** Name of the xattr that marks a directory without an entry of its own in a layer; never in a snapshot. */
export const IMPLIED_XATTR = "trusted.burrow.implied";
/** What both marks say. */
export const MARK_VALUE = "y";

/** DT_* of a mode: the same number shifted. man readdir(3). */
export function direntType(mode: number): number {
  return (mode & S_IFMT) >> 12;
}
