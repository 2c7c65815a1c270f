// Tables: the rows of an index under construction, kept as the file has them. The writer and the merge go through their trees in
// the file's order, breadth first, and add what they find. Control plane; docs/format/layer-index.md is the format.

import { assert } from "../base/assert.ts";
import { getU64, roundUp, setU64, viewOf } from "../base/bytes.ts";
import { DIGEST_BYTES, digestAt } from "../base/digest.ts";
import { INDEX_INODES_MAX, INDEX_MAX_BYTES } from "../base/limits.ts";
import { refuse } from "./entry-check.ts";
import {
  BLOB_BYTES,
  BLOCK_DIGEST_BYTES,
  Blob,
  DIRENT_BYTES,
  direntType,
  HEADER_BYTES,
  Header,
  INODE_BYTES,
  type IndexKind,
  Inode,
  MAGIC_HIGH,
  MAGIC_LOW,
  namePrefix,
  S_IFDIR,
  S_IFMT,
  S_IFREG,
  Table,
  VERSION,
  XATTR_BYTES,
} from "./format.ts";

const TABLE_ALIGN = 8;
const INODE_WORDS = INODE_BYTES >> 2;
const DIRENT_WORDS = DIRENT_BYTES >> 2;
const XATTR_WORDS = XATTR_BYTES >> 2;
/** Words of a row that say neither what names there are nor where content is; the mode comes first. */
const INODE_FACTS = [0, 2, 3, 6, 7, 8];
/** INDEX_INODES_MAX fits, and with it a blob's number. */
const NUMBER_BITS = 24;

/** Rows of a layer lie apart, so a merge has no more of them than all layers together. */
const MORE = "rows are in several places";

/** How many rows there will be at most: BURROW_BAD_INDEX past them. */
export interface Bounds {
  readonly inodes: number;
  readonly dirents: number;
  readonly blobs: number;
  readonly blocks: number;
}

/** Extended attributes as the index has them: sorted by name. */
export type XattrPairs = readonly (readonly [string, string])[];

/** Texts of an inode, which lie behind all names: a symlink's target, then attributes. */
interface Texts {
  readonly ino: number;
  readonly target: string | undefined;
  readonly xattrs: XattrPairs;
}

export class Tables {
  readonly #inodes: Uint32Array;
  readonly #dirents: Uint32Array;
  readonly #strings = new Strings();
  readonly #texts: Texts[] = [];
  readonly #blobs: Blobs;
  #inodeCount = 0;
  #direntCount = 0;

  constructor(bounds: Bounds) {
    this.#inodes = new Uint32Array(bounds.inodes * INODE_WORDS);
    this.#dirents = new Uint32Array(bounds.dirents * DIRENT_WORDS);
    this.#blobs = new Blobs(bounds.blobs, bounds.blocks);
  }

  /** Adds an inode, so far without name or content: its ino. Mode, owner and time are those of a row in `words`. The first is the root. */
  addInode(words: Uint32Array, from: number): number {
    const inodes = this.#inodes;
    const row = this.#inodeCount * INODE_WORDS;
    if (row === inodes.length) refuse("", MORE);
    if (++this.#inodeCount > INDEX_INODES_MAX) refuse("", `over ${INDEX_INODES_MAX} inodes`);
    for (const field of INODE_FACTS) inodes[row + field] = words[from + field]!;
    if ((inodes[row]! & S_IFMT) === S_IFDIR) inodes[row + (Inode.nlink >> 2)] = 2;
    return this.#inodeCount;
  }

  /** Of an inode, once: a symlink's target, and extended attributes. In the order of their numbers. */
  addTexts(ino: number, target: string | undefined, xattrs: XattrPairs): void {
    if (target !== undefined || xattrs.length > 0) this.#texts.push({ ino, target, xattrs });
  }

  /**
   * Adds a blob: its number among those added, for setBlob. It is a row at a place in `words`, and the digests of its blocks lie
   * where its owner says. The same content may be added many times: the first stands for all.
   */
  addBlob(words: Uint32Array, from: number, blockWords: Uint32Array, block: number): number {
    return this.#blobs.add(words, from, blockWords, block);
  }

  /** Says what is in a file, by the number of its blob. */
  setBlob(ino: number, blob: number): void {
    const row = (ino - 1) * INODE_WORDS;
    this.#blobs.copySize(blob, this.#inodes, row + (Inode.size >> 2));
    this.#inodes[row + (Inode.a >> 2)] = blob;
  }

  /** The names added from now on are those of this directory. */
  beginDirectory(ino: number): void {
    this.#inodes[(ino - 1) * INODE_WORDS + (Inode.a >> 2)] = this.#direntCount;
  }

  /** Adds a name of an inode to the directory that was begun: in byte order, and valid. */
  addDirent(directory: number, ino: number, name: string): void {
    const parent = (directory - 1) * INODE_WORDS;
    const child = (ino - 1) * INODE_WORDS;
    const inodes = this.#inodes;
    const mode = inodes[child + (Inode.mode >> 2)]!;
    const isDirectory = (mode & S_IFMT) === S_IFDIR;
    inodes[(isDirectory ? parent : child) + (Inode.nlink >> 2)]!++;
    inodes[parent + (Inode.b >> 2)]!++;
    inodes[parent + (Inode.size >> 2)]!++;
    const row = this.#direntCount++ * DIRENT_WORDS;
    if (row === this.#dirents.length) refuse("", MORE);
    this.#dirents[row] = ino;
    this.#dirents[row + 1] = this.#strings.add(name);
    // Length, type and a zero share a word: Dirent.nameBytes.
    this.#dirents[row + 2] = name.length | (direntType(mode) << 16);
    this.#dirents[row + 3] = namePrefix(name);
  }

  /** The bytes of the index. Call it once. Throws BURROW_BAD_INDEX for one digest of two sizes, and past the limits. */
  finish(kind: IndexKind): Uint8Array {
    const xattrs = this.#placeTexts();
    const blobs = this.#blobs.sort();
    const inodes = this.#inodes.subarray(0, this.#inodeCount * INODE_WORDS);
    for (let row = 0; row < inodes.length; row += INODE_WORDS) {
      if ((inodes[row]! & S_IFMT) !== S_IFREG) continue;
      const a = row + (Inode.a >> 2);
      inodes[a] = blobs.rows[inodes[a]!]!;
    }
    const dirents = this.#dirents.subarray(0, this.#direntCount * DIRENT_WORDS);
    const tables = [inodes, dirents, blobs.table, blobs.blocks, xattrs];
    const widths = [INODE_BYTES, DIRENT_BYTES, BLOB_BYTES, BLOCK_DIGEST_BYTES, XATTR_BYTES];
    const sizes = [...tables.map(({ byteLength }) => byteLength), this.#strings.length];
    const offsets: number[] = [];
    let end = HEADER_BYTES;
    for (const size of sizes) {
      offsets.push(end);
      end = roundUp(end + size, TABLE_ALIGN);
    }
    if (end > INDEX_MAX_BYTES) refuse("", `an index of ${end} bytes`);
    const bytes = Buffer.alloc(end);
    const view = viewOf(bytes);
    view.setUint32(Header.magicLow, MAGIC_LOW, true);
    view.setUint32(Header.magicHigh, MAGIC_HIGH, true);
    view.setUint32(Header.version, VERSION, true);
    view.setUint32(Header.kind, kind, true);
    setU64(view, Header.fileBytes, end);
    for (const [table, offset] of offsets.entries()) {
      view.setUint32(Header.tables + 8 * table, sizes[table]! / (widths[table] ?? 1), true);
      view.setUint32(Header.tables + 8 * table + 4, offset, true);
    }
    for (const [table, rows] of tables.entries()) {
      bytes.set(new Uint8Array(rows.buffer, rows.byteOffset, rows.byteLength), offsets[table]!);
    }
    this.#strings.writeTo(bytes, offsets[Table.strings]!);
    return bytes;
  }

  /** Adds the texts to the strings and says where they are: the table of extended attributes. */
  #placeTexts(): Uint32Array {
    const count = this.#texts.reduce((sum, { xattrs }) => sum + xattrs.length, 0);
    const rows = new Uint32Array(count * XATTR_WORDS);
    let at = 0;
    for (const { ino, target, xattrs } of this.#texts) {
      const row = (ino - 1) * INODE_WORDS;
      if (target !== undefined) {
        this.#inodes[row + (Inode.size >> 2)] = target.length;
        this.#inodes[row + (Inode.a >> 2)] = this.#strings.add(target);
        this.#inodes[row + (Inode.b >> 2)] = target.length;
      }
      if (xattrs.length > 0) this.#inodes[row + (Inode.xattr >> 2)] = at / XATTR_WORDS + 1;
      for (const [k, [name, value]] of xattrs.entries()) {
        // In the order of Xattr's fields.
        const [nameAt, valueAt] = [this.#strings.add(name), this.#strings.add(value)];
        const isLast = k === xattrs.length - 1 ? 1 : 0;
        rows.set([nameAt, name.length, valueAt, value.length, isLast], at);
        at += XATTR_WORDS;
      }
    }
    return rows;
  }
}

/** Distinct strings one after the other, in the order in which they were first added. */
class Strings {
  readonly #offsets = new Map<string, number>();
  length = 0;

  add(text: string): number {
    const known = this.#offsets.get(text);
    if (known !== undefined) return known;
    const offset = this.length;
    this.#offsets.set(text, offset);
    this.length += text.length;
    return offset;
  }

  /** Writes them into the index. One by one: together they may be longer than a JavaScript string. */
  writeTo(bytes: Buffer, start: number): void {
    for (const [text, offset] of this.#offsets) bytes.write(text, start + offset, "latin1");
  }
}

const BLOB_WORDS = BLOB_BYTES >> 2;
const BLOCK_WORDS = BLOCK_DIGEST_BYTES >> 2;

/** Blobs as they come; sorted, and each but once, at the end. */
class Blobs {
  readonly #rows: Uint32Array;
  readonly #bytes: Buffer;
  readonly #blocks: Uint32Array;
  #count = 0;
  #blockCount = 0;

  constructor(blobs: number, blocks: number) {
    this.#rows = new Uint32Array(blobs * BLOB_WORDS);
    this.#bytes = Buffer.from(this.#rows.buffer);
    this.#blocks = new Uint32Array(blocks * BLOCK_WORDS);
  }

  add(words: Uint32Array, from: number, blockWords: Uint32Array, block: number): number {
    const row = this.#count * BLOB_WORDS;
    if (row === this.#rows.length) refuse("", MORE);
    copyRow(words, from, this.#rows, row, BLOB_WORDS);
    const blocks = words[from + (Blob.blockCount >> 2)]!;
    if (blocks > 0) {
      const start = this.#blockCount * BLOCK_WORDS;
      this.#rows[row + (Blob.firstBlock >> 2)] = this.#blockCount;
      this.#blockCount += blocks;
      if (this.#blockCount * BLOCK_WORDS > this.#blocks.length) refuse("", MORE);
      this.#blocks.set(blockWords.subarray(block, block + blocks * BLOCK_WORDS), start);
    }
    return this.#count++;
  }

  /** Copies the two halves of a blob's size to a place. */
  copySize(blob: number, words: Uint32Array, to: number): void {
    const from = blob * BLOB_WORDS + (Blob.size >> 2);
    words[to] = this.#rows[from]!;
    words[to + 1] = this.#rows[from + 1]!;
  }

  /** The tables of distinct blobs and of their blocks, by digest; and the row in them of each that was added. */
  sort(): { table: Uint32Array; blocks: Uint32Array; rows: Uint32Array } {
    const order = this.#order();
    const rows = new Uint32Array(this.#count);
    const table = new Uint32Array(this.#count * BLOB_WORDS);
    const blocks = new Uint32Array(this.#blockCount * BLOCK_WORDS);
    let count = 0;
    let blockCount = 0;
    for (let i = 0; i < order.length; i++) {
      const number = order[i]!;
      if (i > 0 && isSameDigest(this.#rows, number, table, count - 1)) {
        this.#checkSize(order[i - 1]!, number);
      } else {
        blockCount += this.#copy(number, table, count++, blocks, blockCount);
      }
      rows[number] = count - 1;
    }
    return {
      table: table.subarray(0, count * BLOB_WORDS),
      blocks: blocks.subarray(0, blockCount * BLOCK_WORDS),
      rows,
    };
  }

  /** Copies a blob to a row of another table, its blocks behind those that there are: how many they are. */
  #copy(
    number: number,
    table: Uint32Array,
    row: number,
    blocks: Uint32Array,
    blockCount: number,
  ): number {
    copyRow(this.#rows, number * BLOB_WORDS, table, row * BLOB_WORDS, BLOB_WORDS);
    const count = table[row * BLOB_WORDS + (Blob.blockCount >> 2)]!;
    const first = table[row * BLOB_WORDS + (Blob.firstBlock >> 2)]! * BLOCK_WORDS;
    table[row * BLOB_WORDS + (Blob.firstBlock >> 2)] = blockCount;
    if (count > 0) {
      const given = this.#blocks.subarray(first, first + count * BLOCK_WORDS);
      blocks.set(given, blockCount * BLOCK_WORDS);
    }
    return count;
  }

  /**
   * Numbers of the blobs in the order of their digests, then of their numbers. The first 40 bits of a digest and the number make
   * a key of 64 bits; what is equal in these bits is looked at again.
   */
  #order(): Uint32Array {
    assert(this.#count <= 1 << NUMBER_BITS, "a number fits its bits");
    const keys = new Uint32Array(2 * this.#count);
    for (let i = 0; i < this.#count; i++) setKey(keys, i, this.#rows);
    new BigUint64Array(keys.buffer).sort();
    const order = new Uint32Array(this.#count);
    for (let start = 0, end = 0; start < order.length; start = end) {
      do order[end] = keys[2 * end++]! & ((1 << NUMBER_BITS) - 1);
      while (end < order.length && isSameKey(keys, start, end));
      if (end - start === 1) continue;
      const same = order.subarray(start, end);
      same.sort((left, right) => this.#compare(left, right) || left - right);
    }
    return order;
  }

  #compare(left: number, right: number): number {
    const [a, b] = [left * BLOB_BYTES, right * BLOB_BYTES];
    return this.#bytes.compare(this.#bytes, b, b + DIGEST_BYTES, a, a + DIGEST_BYTES);
  }

  #checkSize(first: number, other: number): void {
    const sizeOf = (blob: number) => getU64(viewOf(this.#bytes), blob * BLOB_BYTES + Blob.size);
    if (sizeOf(first) === sizeOf(other)) return;
    const digest = digestAt(this.#bytes, first * BLOB_BYTES);
    refuse(digest, `one digest for ${sizeOf(first)} and ${sizeOf(other)} bytes`);
  }
}

// Steps of long loops that run once: V8 optimizes a function that is called often sooner than a loop that has begun.

function copyRow(
  from: Uint32Array,
  first: number,
  to: Uint32Array,
  at: number,
  count: number,
): void {
  for (let i = 0; i < count; i++) to[at + i] = from[first + i]!;
}

/** The key of blob i: its digest's first four bytes, which are a number in big-endian order, the next one, and i. */
function setKey(keys: Uint32Array, i: number, rows: Uint32Array): void {
  const first = rows[i * BLOB_WORDS]!;
  const middle = ((first & 0xff00) << 8) | ((first >>> 8) & 0xff00);
  keys[2 * i + 1] = (first << 24) | middle | (first >>> 24);
  keys[2 * i] = (rows[i * BLOB_WORDS + 1]! << NUMBER_BITS) | i;
}

function isSameKey(keys: Uint32Array, left: number, right: number): boolean {
  if (keys[2 * left + 1] !== keys[2 * right + 1]) return false;
  return keys[2 * left]! >>> NUMBER_BITS === keys[2 * right]! >>> NUMBER_BITS;
}

function isSameDigest(left: Uint32Array, row: number, right: Uint32Array, other: number): boolean {
  const [a, b] = [row * BLOB_WORDS, other * BLOB_WORDS];
  for (let i = 0; i < DIGEST_BYTES >> 2; i++) if (left[a + i] !== right[b + i]) return false;
  return true;
}
