// Index: the reader of a layer or snapshot index over mapped or in-memory bytes. Rows are read at named offsets;
// no object per file. Every offset that is followed is bounded, so a corrupt index is -EIO, never a read outside
// the mapping. Data plane; docs/format/layer-index.md is the format.

import { latin1At, viewOf } from "../base/bytes.ts";
import { type Digest, digestAt } from "../base/digest.ts";
import { Errno } from "../base/errno.ts";
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
  S_IFDIR,
  S_IFLNK,
  S_IFMT,
  TABLE_COUNT,
  Table,
  VERSION,
  XATTR_BYTES,
  Xattr,
} from "./format.ts";

const TWO_32 = 0x1_0000_0000;
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
    if (offset < HEADER_BYTES || offset + count * ROW_BYTES[table]! > bytes.length) {
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
  readonly view: DataView;
  readonly kind: IndexKind;
  readonly inodeCount: number;
  readonly blobCount: number;
  readonly #direntCount: number;
  readonly #blockCount: number;
  readonly #xattrCount: number;
  readonly #stringBytes: number;
  readonly #inodes: number;
  readonly #dirents: number;
  readonly #blobs: number;
  readonly #blocks: number;
  readonly #xattrs: number;
  readonly #strings: number;
  readonly #text: Buffer;

  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
    const view = viewOf(bytes);
    this.view = view;
    const count = (table: number) => view.getUint32(Header.tables + 8 * table, true);
    const offset = (table: number) => view.getUint32(Header.tables + 8 * table + 4, true);
    this.kind = view.getUint32(Header.kind, true) as IndexKind;
    this.inodeCount = count(Table.inodes);
    this.#direntCount = count(Table.dirents);
    this.blobCount = count(Table.blobs);
    this.#blockCount = count(Table.blocks);
    this.#xattrCount = count(Table.xattrs);
    this.#stringBytes = count(Table.strings);
    this.#inodes = offset(Table.inodes);
    this.#dirents = offset(Table.dirents);
    this.#blobs = offset(Table.blobs);
    this.#blocks = offset(Table.blocks);
    this.#xattrs = offset(Table.xattrs);
    this.#strings = offset(Table.strings);
    this.#text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  /** File offset of an inode's row (fields: format.ts Inode), or -EBADF for an ino that is not in the index. */
  row(ino: number): number {
    if (ino < 1 || ino > this.inodeCount) return -Errno.EBADF;
    return this.#inodes + (ino - 1) * INODE_BYTES;
  }

  /** u32 field of a row, by its offset from row(). */
  field(row: number, offset: number): number {
    return this.view.getUint32(row + offset, true);
  }

  /** Size in bytes of the inode at a row. */
  sizeAt(row: number): number {
    return this.field(row, Inode.size) + this.field(row, Inode.size + 4) * TWO_32;
  }

  /** mtime seconds of the inode at a row. */
  mtimeAt(row: number): number {
    return (
      this.field(row, Inode.mtimeSec) + this.view.getInt32(row + Inode.mtimeSec + 4, true) * TWO_32
    );
  }

  /** Row of the first dirent of a directory's row; -ENOTDIR, or -EIO when it lies outside the table. */
  firstDirent(row: number): number {
    if ((this.field(row, Inode.mode) & S_IFMT) !== S_IFDIR) return -Errno.ENOTDIR;
    const first = this.field(row, Inode.a);
    if (first + this.field(row, Inode.b) > this.#direntCount) return -Errno.EIO;
    return first;
  }

  /** ino of a name in the directory at a row, or -ENOENT, -ENOTDIR, -EIO. Binary search over bytes. */
  lookup(row: number, name: string): number {
    const first = this.firstDirent(row);
    if (first < 0) return first;
    let low = first;
    let high = first + this.field(row, Inode.b);
    while (low < high) {
      const middle = (low + high) >>> 1;
      const order = this.#compareName(middle, name);
      if (order === 0) return this.direntIno(middle);
      if (order < 0) low = middle + 1;
      else high = middle;
    }
    return -Errno.ENOENT;
  }

  direntIno(dirent: number): number {
    const ino = this.view.getUint32(this.#dirents + dirent * DIRENT_BYTES + Dirent.ino, true);
    return ino >= 1 && ino <= this.inodeCount ? ino : -Errno.EIO;
  }

  direntType(dirent: number): number {
    return this.view.getUint8(this.#dirents + dirent * DIRENT_BYTES + Dirent.type);
  }

  /** The name of a dirent as latin1; "" (no valid name) when it lies outside the strings. */
  direntName(dirent: number): string {
    const row = this.#dirents + dirent * DIRENT_BYTES;
    return this.#string(
      this.view.getUint32(row + Dirent.name, true),
      this.view.getUint16(row + Dirent.nameBytes, true),
    );
  }

  /** Copies a symlink's target: its bytes, -EINVAL when the row is no symlink, -ERANGE, -EIO. */
  readlink(row: number, out: Uint8Array): number {
    if ((this.field(row, Inode.mode) & S_IFMT) !== S_IFLNK) return -Errno.EINVAL;
    return this.#copyString(this.field(row, Inode.a), this.field(row, Inode.b), out);
  }

  /** File offset of a blob's row (its digest comes first), or -EIO. */
  blobRow(blob: number): number {
    return blob < this.blobCount ? this.#blobs + blob * BLOB_BYTES : -Errno.EIO;
  }

  blobDigest(blob: number): Digest {
    return digestAt(this.bytes, this.#blobs + blob * BLOB_BYTES + Blob.digest);
  }

  blobSize(blob: number): number {
    const row = this.#blobs + blob * BLOB_BYTES;
    return this.field(row, Blob.size) + this.field(row, Blob.size + 4) * TWO_32;
  }

  /** How many block digests a blob carries; 0 for small ones. */
  blockCount(blob: number): number {
    const row = this.#blobs + blob * BLOB_BYTES;
    const count = this.field(row, Blob.blockCount);
    return this.field(row, Blob.firstBlock) + count <= this.#blockCount ? count : 0;
  }

  /** Digest of a blob's block: 0 <= block < blockCount(blob). */
  blockDigest(blob: number, block: number): Digest {
    const first = this.field(this.#blobs + blob * BLOB_BYTES, Blob.firstBlock);
    return digestAt(this.bytes, this.#blocks + (first + block) * BLOCK_DIGEST_BYTES);
  }

  /** Row in the xattr table after `previous` (-1: the first) of the inode at a row, or -1 at the end. */
  nextXattr(row: number, previous: number): number {
    if (previous < 0) {
      const first = this.field(row, Inode.xattr) - 1;
      return first >= 0 && first < this.#xattrCount ? first : -1;
    }
    const isLast = this.field(this.#xattrs + previous * XATTR_BYTES, Xattr.last) !== 0;
    return isLast || previous + 1 >= this.#xattrCount ? -1 : previous + 1;
  }

  xattrName(xattr: number): string {
    const row = this.#xattrs + xattr * XATTR_BYTES;
    return this.#string(this.field(row, Xattr.name), this.field(row, Xattr.nameBytes));
  }

  xattrValue(xattr: number, out: Uint8Array): number {
    const row = this.#xattrs + xattr * XATTR_BYTES;
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

  /** Order of a dirent's name against `name`: negative, 0, positive, as memcmp then length. */
  #compareName(dirent: number, name: string): number {
    const row = this.#dirents + dirent * DIRENT_BYTES;
    const length = this.view.getUint16(row + Dirent.nameBytes, true);
    const offset = this.view.getUint32(row + Dirent.name, true);
    if (offset + length > this.#stringBytes) return -1;
    const start = this.#strings + offset;
    const shared = length < name.length ? length : name.length;
    for (let i = 0; i < shared; i++) {
      const order = this.bytes[start + i]! - name.charCodeAt(i);
      if (order !== 0) return order;
    }
    return length - name.length;
  }
}
