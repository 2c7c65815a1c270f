// Tables: the rows of an index under construction, kept as the file has them. The writer and the merge go through their trees in
// the file's order, breadth first, and add what they find. Control plane; docs/format/layer-index.md is the format.

import { roundUp, setU64, viewOf } from "../base/bytes.ts";
import { S_IFDIR, S_IFMT, S_IFREG } from "../base/file-types.ts";
import { BLOCK_DIGESTS_OVER_BYTES, INDEX_INODES_MAX, INDEX_MAX_BYTES } from "../base/limits.ts";
import { BLOB_WORDS, type BlobSource, Blobs } from "./blobs.ts";
import { refuse } from "./entry-check.ts";
import {
  BLOB_BYTES,
  BLOCK_DIGEST_BYTES,
  Blob,
  DIRENT_BYTES,
  Dirent,
  direntType,
  HEADER_BYTES,
  Header,
  INODE_BYTES,
  type IndexKind,
  Inode,
  MAGIC_HIGH,
  MAGIC_LOW,
  prefixAt,
  VERSION,
  XATTR_BYTES,
} from "./format.ts";
import { isInOrder, type Layer, NAME_WORDS } from "./stack.ts";
import { Strings } from "./strings.ts";

const TABLE_ALIGN = 8;
const INODE_WORDS = INODE_BYTES >> 2;
const DIRENT_WORDS = DIRENT_BYTES >> 2;
const XATTR_WORDS = XATTR_BYTES >> 2;
const MODE = Inode.mode >> 2;
const NLINK = Inode.nlink >> 2;
const SIZE = Inode.size >> 2;
const A = Inode.a >> 2;
const B = Inode.b >> 2;
const XATTR = Inode.xattr >> 2;
const INO = Dirent.ino >> 2;
const NAME = Dirent.name >> 2;
/** The word that has a name's length, and the type. */
const NAME_BYTES = Dirent.nameBytes >> 2;
const PREFIX = Dirent.prefix >> 2;
const FILE_TYPE = direntType(S_IFREG) << 16;
const BLOB_SIZE = Blob.size >> 2;
const BLOCK_COUNT = Blob.blockCount >> 2;

/** How many rows there will be at most: BURROW_BAD_INDEX past them. How many bytes of strings there may well be. */
export interface Bounds {
  readonly inodes: number;
  readonly dirents: number;
  readonly blobs: number;
  readonly blocks: number;
  readonly strings: number;
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
  readonly #strings: Strings;
  readonly #texts: Texts[] = [];
  readonly #blobs: Blobs;
  #inodeCount = 0;
  #direntCount = 0;

  /** `sources` are the tables of the blobs that will be added: as they are now, until the end. */
  constructor(bounds: Bounds, sources: readonly BlobSource[]) {
    this.#inodes = new Uint32Array(bounds.inodes * INODE_WORDS);
    this.#dirents = new Uint32Array(bounds.dirents * DIRENT_WORDS);
    this.#strings = new Strings(bounds.dirents, bounds.strings);
    this.#blobs = new Blobs(sources, bounds.blobs, bounds.blocks);
  }

  /** Adds an inode, so far without name or content: its ino. Mode, owner and time are those of a row in `words`. The first is the root. */
  addInode(words: Uint32Array, from: number): number {
    const inodes = this.#inodes;
    const row = this.#inodeCount * INODE_WORDS;
    if (row === inodes.length) refuse("", "rows are in several places");
    if (++this.#inodeCount > INDEX_INODES_MAX) refuse("", `over ${INDEX_INODES_MAX} inodes`);
    const mode = words[from + MODE]!;
    inodes[row + MODE] = mode;
    if ((mode & S_IFMT) === S_IFDIR) inodes[row + NLINK] = 2;
    inodes[row + (Inode.uid >> 2)] = words[from + (Inode.uid >> 2)]!;
    inodes[row + (Inode.gid >> 2)] = words[from + (Inode.gid >> 2)]!;
    inodes[row + (Inode.mtimeSec >> 2)] = words[from + (Inode.mtimeSec >> 2)]!;
    inodes[row + (Inode.mtimeSec >> 2) + 1] = words[from + (Inode.mtimeSec >> 2) + 1]!;
    inodes[row + (Inode.mtimeNs >> 2)] = words[from + (Inode.mtimeNs >> 2)]!;
    return this.#inodeCount;
  }

  /** Of an inode, once: a symlink's target, and extended attributes. In the order of their numbers. */
  addTexts(ino: number, target: string | undefined, xattrs: XattrPairs): void {
    if (target !== undefined || xattrs.length > 0) this.#texts.push({ ino, target, xattrs });
  }

  /** Adds a blob, a row of a source's table: its number among those added, for setBlob. The first of the same content stands for all. */
  addBlob(source: number, row: number): number {
    return this.#blobs.add(source, row);
  }

  /** Says what is in a file, by the number of its blob, and how much: two words of `words`. */
  setBlob(ino: number, blob: number, words: Uint32Array, sizeAt: number): void {
    const row = (ino - 1) * INODE_WORDS;
    this.#inodes[row + A] = blob;
    this.#inodes[row + SIZE] = words[sizeAt]!;
    this.#inodes[row + SIZE + 1] = words[sizeAt + 1]!;
  }

  /** The names added from now on are those of this directory. */
  beginDirectory(ino: number): void {
    this.#inodes[(ino - 1) * INODE_WORDS + A] = this.#direntCount;
  }

  /**
   * Adds a name of an inode to the directory that was begun: in byte order. It is `length` of the bytes, and begins with a prefix.
   * False, and nothing is added, if it is no valid name.
   */
  addDirent(
    directory: number,
    ino: number,
    bytes: Uint8Array,
    start: number,
    length: number,
    prefix: number,
  ): boolean {
    const name = this.#strings.addName(bytes, start, length);
    if (name < 0) return false;
    const parent = (directory - 1) * INODE_WORDS;
    const child = (ino - 1) * INODE_WORDS;
    const inodes = this.#inodes;
    const mode = inodes[child + MODE]!;
    const isDirectory = (mode & S_IFMT) === S_IFDIR;
    inodes[(isDirectory ? parent : child) + NLINK]!++;
    inodes[parent + B]!++;
    inodes[parent + SIZE]!++;
    const row = this.#direntCount++ * DIRENT_WORDS;
    const dirents = this.#dirents;
    if (row === dirents.length) refuse("", "rows are in several places");
    dirents[row + INO] = ino;
    dirents[row + NAME] = name;
    // Length, type and a zero share a word.
    dirents[row + NAME_BYTES] = length | (direntType(mode) << 16);
    dirents[row + PREFIX] = prefix;
    return true;
  }

  /**
   * Adds names of the directory that was begun, a layer's alone, and the files that they name, as long as these are plain: the dirents
   * before `end`, from `dirent` on, of which the directory's `first` is the first. Returns the first that isn't, and nothing of it
   * is added: whatever may be wrong with it is the caller's to find.
   */
  addFiles(directory: number, layer: Layer, first: number, dirent: number, end: number): number {
    const { content, inodes: rows, dirents: names } = layer;
    const { words } = content;
    const inodes = this.#inodes;
    const dirents = this.#dirents;
    let at = dirent;
    for (; at < end; at++) {
      const from = names + at * DIRENT_WORDS;
      const ino = words[from]!;
      if (ino <= 0 || ino > layer.index.inodeCount) break;
      const row = rows + (ino - 1) * INODE_WORDS;
      const to = this.#inodeCount * INODE_WORDS;
      const isRoom = to < inodes.length && this.#inodeCount < INDEX_INODES_MAX;
      if (!isRoom || !isPlain(words, row) || !isInOrder(layer, first, at)) break;
      const name = this.#nameOf(layer, from);
      if (name < 0) break;
      const blob = this.#blobOf(layer, row);
      if (blob < 0) break;
      // The other fields are zeros.
      for (let i = 0; i < A; i++) inodes[to + i] = words[row + i]!;
      inodes[to + A] = blob;
      const next = this.#direntCount++ * DIRENT_WORDS;
      dirents[next + INO] = ++this.#inodeCount;
      dirents[next + NAME] = name;
      dirents[next + NAME_BYTES] = (words[from + NAME_BYTES]! & 0xffff) | FILE_TYPE;
      dirents[next + PREFIX] = words[from + PREFIX]!;
    }
    const parent = (directory - 1) * INODE_WORDS;
    inodes[parent + B]! += at - dirent;
    inodes[parent + SIZE]! += at - dirent;
    return at;
  }

  /** Where the name of a layer's dirent is in the strings, to which it is added: -1 if it is no valid one, or not what its prefix says. */
  #nameOf(layer: Layer, dirent: number): number {
    const { index, content } = layer;
    const { words } = content;
    const offset = words[dirent + NAME]!;
    const length = words[dirent + NAME_BYTES]! & 0xffff;
    if (length === 0 || offset < 0 || offset + length > layer.stringBytes) return -1;
    const start = layer.strings + offset;
    if ((prefixAt(index.bytes, start, length) | 0) !== words[dirent + PREFIX]) return -1;
    const note = NAME_WORDS * offset;
    const known = layer.names[note]!;
    if (known !== 0 && layer.names[note + 1] === length) return known - 1;
    const name = this.#strings.addName(index.bytes, start, length);
    if (name < 0) return -1;
    layer.names[note] = name + 1;
    layer.names[note + 1] = length;
    return name;
  }

  /** The number of a layer's file's blob, which is added unless it is there: -1 if it is cut into blocks, or not what the file says. */
  #blobOf({ number, content, blobNumbers }: Layer, inode: number): number {
    const { words } = content;
    const row = words[inode + A]!;
    if (row < 0 || row >= blobNumbers.length) return -1;
    const blob = content.blobs + row * BLOB_WORDS;
    const size = words[blob + BLOB_SIZE]!;
    if (size !== words[inode + SIZE] || words[blob + BLOB_SIZE + 1] !== 0) return -1;
    if (size < 0 || size > BLOCK_DIGESTS_OVER_BYTES || words[inode + SIZE + 1] !== 0) return -1;
    const known = blobNumbers[row]!;
    if (known !== 0) return known - 1;
    if (words[blob + BLOCK_COUNT] !== 0) return -1;
    const added = this.#blobs.add(number, row);
    blobNumbers[row] = added + 1;
    return added;
  }

  /** The bytes of the index. Call it once. Throws BURROW_BAD_INDEX for one digest of two sizes, and past the limits. */
  finish(kind: IndexKind): Uint8Array {
    const xattrs = this.#placeTexts();
    const blobs = this.#blobs.sort();
    const inodes = this.#inodes.subarray(0, this.#inodeCount * INODE_WORDS);
    for (let row = 0; row < inodes.length; row += INODE_WORDS) setBlobRow(inodes, row, blobs.rows);
    const dirents = this.#dirents.subarray(0, this.#direntCount * DIRENT_WORDS);
    const counts = [
      this.#inodeCount,
      this.#direntCount,
      blobs.firsts.length,
      blobs.blockCount,
      xattrs.length / XATTR_WORDS,
      this.#strings.length,
    ];
    const offsets: number[] = [];
    let end = HEADER_BYTES;
    for (const [table, count] of counts.entries()) {
      offsets.push(end);
      end = roundUp(end + count * ROW_BYTES[table]!, TABLE_ALIGN);
    }
    if (end > INDEX_MAX_BYTES) refuse("", `an index of ${end} bytes`);
    const bytes = Buffer.from(new ArrayBuffer(end));
    const view = viewOf(bytes);
    view.setUint32(Header.magicLow, MAGIC_LOW, true);
    view.setUint32(Header.magicHigh, MAGIC_HIGH, true);
    view.setUint32(Header.version, VERSION, true);
    view.setUint32(Header.kind, kind, true);
    setU64(view, Header.fileBytes, end);
    for (const [table, offset] of offsets.entries()) {
      view.setUint32(Header.tables + 8 * table, counts[table]!, true);
      view.setUint32(Header.tables + 8 * table + 4, offset, true);
    }
    const { buffer } = bytes;
    const [inodesAt, direntsAt, blobsAt, blocksAt, xattrsAt, stringsAt] = offsets;
    new Uint32Array(buffer, inodesAt).set(inodes);
    new Uint32Array(buffer, direntsAt).set(dirents);
    this.#blobs.write(blobs, new Int32Array(buffer, blobsAt), new Int32Array(buffer, blocksAt));
    new Uint32Array(buffer, xattrsAt).set(xattrs);
    this.#strings.writeTo(bytes, stringsAt!);
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
        this.#inodes[row + SIZE] = target.length;
        this.#inodes[row + A] = this.#strings.addText(target);
        this.#inodes[row + B] = target.length;
      }
      if (xattrs.length > 0) this.#inodes[row + XATTR] = at / XATTR_WORDS + 1;
      for (const [k, [name, value]] of xattrs.entries()) {
        // In the order of Xattr's fields.
        const [nameAt, valueAt] = [this.#strings.addText(name), this.#strings.addText(value)];
        const isLast = k === xattrs.length - 1 ? 1 : 0;
        rows.set([nameAt, name.length, valueAt, value.length, isLast], at);
        at += XATTR_WORDS;
      }
    }
    return rows;
  }
}

const ROW_BYTES = [INODE_BYTES, DIRENT_BYTES, BLOB_BYTES, BLOCK_DIGEST_BYTES, XATTR_BYTES, 1];

/** A step of a long loop: the number of a file's blob becomes its row. */
function setBlobRow(inodes: Uint32Array, row: number, rows: Uint32Array): void {
  if ((inodes[row + MODE]! & S_IFMT) === S_IFREG) inodes[row + A] = rows[inodes[row + A]!]!;
}

/** Whether the inode at a row is a file of one name, without attributes, of which all but the content is sound for sure. */
function isPlain(words: Int32Array, row: number): boolean {
  const mode = words[row + MODE]!;
  const mtimeNs = words[row + (Inode.mtimeNs >> 2)]!;
  return (
    mode >>> 12 === S_IFREG >>> 12 &&
    words[row + NLINK] === 1 &&
    words[row + XATTR] === 0 &&
    words[row + (Inode.mtimeSec >> 2) + 1] === 0 &&
    mtimeNs >= 0 &&
    mtimeNs < 1e9
  );
}
