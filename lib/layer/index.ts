// Index: the reader of a layer or snapshot index over mapped or in-memory bytes. Rows are read at named offsets;
// no object per file. Every offset that is followed is bounded, so a corrupt index is -EIO, never a read outside
// the mapping. Data plane; docs/format/layer-index.md is the format.

import { latin1At, viewOf } from "../base/bytes.ts";
import { type Digest, digestAt } from "../base/digest.ts";
import { Errno } from "../base/errno.ts";
import { S_IFDIR, S_IFLNK, S_IFMT } from "../base/file-types.ts";
import { compareNames } from "../base/name.ts";
import {
  BLOB_BYTES,
  BLOCK_DIGEST_BYTES,
  Blob,
  DIRENT_BYTES,
  Dirent,
  HEADER_BYTES,
  Header,
  INODE_BYTES,
  type IndexKind,
  Inode,
  MAGIC_HIGH,
  MAGIC_LOW,
  namePrefix,
  TABLE_COUNT,
  Table,
  VERSION,
  XATTR_BYTES,
  Xattr,
} from "./format.ts";

const TWO_32 = 0x1_0000_0000;
const INODE_WORDS = INODE_BYTES >> 2;
const DIRENT_WORDS = DIRENT_BYTES >> 2;
const DIRENT_NAME_BYTES = Dirent.nameBytes >> 2;
const DIRENT_PREFIX = Dirent.prefix >> 2;
const ROW_BYTES = [INODE_BYTES, DIRENT_BYTES, BLOB_BYTES, BLOCK_DIGEST_BYTES, XATTR_BYTES, 1];

/** Why bytes are no index that this reader takes; undefined when they are one. */
export function faultOf(bytes: Uint8Array): string | undefined {
  if (bytes.length < HEADER_BYTES) return `${bytes.length} bytes are too few for an index`;
  const view = viewOf(bytes);
  if (
    view.getUint32(Header.magicLow, true) !== MAGIC_LOW ||
    view.getUint32(Header.magicHigh, true) !== MAGIC_HIGH
  ) {
    return "no index magic";
  }
  const version = view.getUint32(Header.version, true);
  if (version !== VERSION) return `index version ${version}; this program reads ${VERSION}`;
  const kind = view.getUint32(Header.kind, true);
  if (kind !== 1 && kind !== 2) return `unknown index kind ${kind}`;
  const fileBytes =
    view.getUint32(Header.fileBytes, true) + view.getUint32(Header.fileBytes + 4, true) * TWO_32;
  if (fileBytes !== bytes.length) return `${bytes.length} bytes, the header says ${fileBytes}`;
  for (let table = 0; table < TABLE_COUNT; table++) {
    const count = view.getUint32(Header.tables + 8 * table, true);
    const offset = view.getUint32(Header.tables + 8 * table + 4, true);
    if (
      offset % 8 !== 0 ||
      offset < HEADER_BYTES ||
      offset + count * ROW_BYTES[table]! > bytes.length
    ) {
      return `table ${table} lies outside the file`;
    }
  }
  if (view.getUint32(Header.tables + 8 * Table.inodes, true) === 0) return "no root inode";
  const root = view.getUint32(Header.tables + 8 * Table.inodes + 4, true);
  const mode = view.getUint32(root + Inode.mode, true);
  return (mode & S_IFMT) === S_IFDIR ? undefined : "the root is no directory";
}

/** Reads one index. Construct only over bytes that faultOf accepts. */
export class Index {
  readonly bytes: Uint8Array;
  /** The same bytes as u32: every field but a dirent's is one, and a typed array is read faster than a DataView. */
  readonly words: Uint32Array;
  readonly kind: IndexKind;
  readonly inodeCount: number;
  readonly direntCount: number;
  readonly blobCount: number;
  readonly #blockCount: number;
  readonly #xattrCount: number;
  readonly #stringBytes: number;
  /** Positions of the tables in `words`; of the strings in `bytes`. */
  readonly #inodes: number;
  readonly #dirents: number;
  readonly #blobs: number;
  readonly #blocks: number;
  readonly #xattrs: number;
  readonly #strings: number;
  readonly #text: Buffer;

  constructor(given: Uint8Array) {
    // Mapped files are aligned; a slice of somebody's buffer may not be.
    const bytes = given.byteOffset % 4 === 0 ? given : Uint8Array.from(given);
    this.bytes = bytes;
    this.words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength >>> 2);
    const count = (table: number) => this.words[(Header.tables >> 2) + 2 * table]!;
    const offset = (table: number) => this.words[(Header.tables >> 2) + 2 * table + 1]!;
    this.kind = this.words[Header.kind >> 2] as IndexKind;
    this.inodeCount = count(Table.inodes);
    this.direntCount = count(Table.dirents);
    this.blobCount = count(Table.blobs);
    this.#blockCount = count(Table.blocks);
    this.#xattrCount = count(Table.xattrs);
    this.#stringBytes = count(Table.strings);
    this.#inodes = offset(Table.inodes) >>> 2;
    this.#dirents = offset(Table.dirents) >>> 2;
    this.#blobs = offset(Table.blobs) >>> 2;
    this.#blocks = offset(Table.blocks);
    this.#xattrs = offset(Table.xattrs) >>> 2;
    this.#strings = offset(Table.strings);
    this.#text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  /** Position in `words` of an inode's row (fields: format.ts Inode), or -EBADF for an ino that is not in the index. */
  row(ino: number): number {
    if (!(ino >= 1 && ino <= this.inodeCount)) return -Errno.EBADF;
    // A small integer again, whatever the caller's arithmetic made of it.
    return this.#inodes + ((ino - 1) | 0) * INODE_WORDS;
  }

  /** u32 field of a row, by its byte offset in the row. */
  field(row: number, offset: number): number {
    return this.words[row + (offset >> 2)]!;
  }

  /** Size in bytes of the inode at a row. */
  sizeAt(row: number): number {
    const low = this.words[row + (Inode.size >> 2)]!;
    const high = this.words[row + (Inode.size >> 2) + 1]!;
    return high === 0 ? low : low + high * TWO_32;
  }

  /** mtime seconds of the inode at a row. */
  mtimeAt(row: number): number {
    const high = this.field(row, Inode.mtimeSec + 4) | 0;
    return this.field(row, Inode.mtimeSec) + high * TWO_32;
  }

  /** Row of the first dirent of a directory's row; -ENOTDIR, or -EIO when it lies outside the table. */
  firstDirent(row: number): number {
    const { words } = this;
    if ((words[row + (Inode.mode >> 2)]! & S_IFMT) !== S_IFDIR) return -Errno.ENOTDIR;
    const first = words[row + (Inode.a >> 2)]!;
    if (first + words[row + (Inode.b >> 2)]! > this.direntCount) return -Errno.EIO;
    return first;
  }

  /** ino of a name in the directory at a row, or -ENOENT, -ENOTDIR, -EIO. Binary search, by prefix first. */
  lookup(row: number, name: string): number {
    const first = this.firstDirent(row);
    if (first < 0) return first;
    const { words } = this;
    const prefix = namePrefix(name);
    const prefixes = this.#dirents + DIRENT_PREFIX;
    let low = first;
    let high = first + words[row + (Inode.b >> 2)]!;
    while (low < high) {
      const middle = (low + high) >>> 1;
      const found = words[prefixes + middle * DIRENT_WORDS]!;
      if (found < prefix) {
        low = middle + 1;
      } else if (found > prefix) {
        high = middle;
      } else {
        const order = this.#compareName(middle, name);
        if (order === 0) return this.direntIno(middle);
        if (order < 0) low = middle + 1;
        else high = middle;
      }
    }
    return -Errno.ENOENT;
  }

  /**
   * Order of a dirent's name and one of the same prefix: negative, 0 or positive. Byte by byte it is decided early when they
   * differ; names of one length are mostly equal, and a string is made and compared faster than as many bytes.
   */
  #compareName(dirent: number, name: string): number {
    const row = this.#dirents + dirent * DIRENT_WORDS;
    const offset = this.words[row + 1]!;
    const length = this.words[row + DIRENT_NAME_BYTES]! & 0xffff;
    if (length === name.length || offset + length > this.#stringBytes) {
      return compareNames(this.#string(offset, length), name);
    }
    const { bytes } = this;
    const start = this.#strings + offset;
    const shorter = length < name.length ? length : name.length;
    for (let i = 4; i < shorter; i++) {
      const difference = bytes[start + i]! - name.charCodeAt(i);
      if (difference !== 0) return difference;
    }
    return length - name.length;
  }

  direntIno(dirent: number): number {
    const ino = this.words[this.#dirents + dirent * DIRENT_WORDS]!;
    return ino >= 1 && ino <= this.inodeCount ? ino : -Errno.EIO;
  }

  direntType(dirent: number): number {
    return (this.words[this.#dirents + dirent * DIRENT_WORDS + DIRENT_NAME_BYTES]! >>> 16) & 0xff;
  }

  /** The name of a dirent as latin1; "" (no valid name) when it lies outside the strings. */
  direntName(dirent: number): string {
    const row = this.#dirents + dirent * DIRENT_WORDS;
    return this.#string(this.words[row + 1]!, this.words[row + DIRENT_NAME_BYTES]! & 0xffff);
  }

  /** Copies a symlink's target: its bytes, -EINVAL when the row is no symlink, -ERANGE, -EIO. */
  readlink(row: number, out: Uint8Array): number {
    if ((this.field(row, Inode.mode) & S_IFMT) !== S_IFLNK) return -Errno.EINVAL;
    return this.#copyString(this.field(row, Inode.a), this.field(row, Inode.b), out);
  }

  #blob(blob: number): number {
    return this.#blobs + blob * (BLOB_BYTES >> 2);
  }

  /** Offset in `bytes` of a blob's row (its digest comes first), or -EIO. */
  blobRow(blob: number): number {
    return blob < this.blobCount ? this.#blob(blob) * 4 : -Errno.EIO;
  }

  blobDigest(blob: number): Digest {
    return digestAt(this.bytes, this.#blob(blob) * 4 + Blob.digest);
  }

  blobSize(blob: number): number {
    const row = this.#blob(blob);
    const low = this.words[row + (Blob.size >> 2)]!;
    const high = this.words[row + (Blob.size >> 2) + 1]!;
    return high === 0 ? low : low + high * TWO_32;
  }

  /** How many block digests a blob carries; 0 for small ones. */
  blockCount(blob: number): number {
    const row = this.#blob(blob);
    const count = this.field(row, Blob.blockCount);
    return this.field(row, Blob.firstBlock) + count <= this.#blockCount ? count : 0;
  }

  /** How many block digests there are; the blobs of an index that was written by the rules have as many in all. */
  get blockTotal(): number {
    return this.#blockCount;
  }

  /** The digests of a blob's blocks, 32 bytes each, one after the other: a view. */
  blockDigests(blob: number): Uint8Array {
    const start = this.#blocks + this.field(this.#blob(blob), Blob.firstBlock) * BLOCK_DIGEST_BYTES;
    return this.bytes.subarray(start, start + this.blockCount(blob) * BLOCK_DIGEST_BYTES);
  }

  /** Digest of a blob's block: 0 <= block < blockCount(blob). */
  blockDigest(blob: number, block: number): Digest {
    const first = this.field(this.#blob(blob), Blob.firstBlock);
    return digestAt(this.bytes, this.#blocks + (first + block) * BLOCK_DIGEST_BYTES);
  }

  /** Row in the xattr table after `previous` (-1: the first) of the inode at a row, or -1 at the end. */
  nextXattr(row: number, previous: number): number {
    if (previous < 0) {
      const first = this.field(row, Inode.xattr) - 1;
      return first >= 0 && first < this.#xattrCount ? first : -1;
    }
    const isLast = this.field(this.#xattr(previous), Xattr.last) !== 0;
    return isLast || previous + 1 >= this.#xattrCount ? -1 : previous + 1;
  }

  #xattr(xattr: number): number {
    return this.#xattrs + xattr * (XATTR_BYTES >> 2);
  }

  xattrName(xattr: number): string {
    const row = this.#xattr(xattr);
    return this.#string(this.field(row, Xattr.name), this.field(row, Xattr.nameBytes));
  }

  xattrValue(xattr: number, out: Uint8Array): number {
    const row = this.#xattr(xattr);
    return this.#copyString(this.field(row, Xattr.value), this.field(row, Xattr.valueBytes), out);
  }

  #string(offset: number, length: number): string {
    if (offset + length > this.#stringBytes) return "";
    return latin1At(this.#text, this.#strings + offset, this.#strings + offset + length);
  }

  #copyString(offset: number, length: number, out: Uint8Array): number {
    if (offset + length > this.#stringBytes) return -Errno.EIO;
    if (length > out.length) return -Errno.ERANGE;
    const start = this.#strings + offset;
    for (let i = 0; i < length; i++) out[i] = this.bytes[start + i]!;
    return length;
  }
}
