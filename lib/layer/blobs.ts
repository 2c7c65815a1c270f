// Blobs: which content the files of an index under construction have. Rows stay in the tables that they come from until the index is
// written: sorted by digest, each blob but once. Control plane; docs/format/layer-index.md is the format.

import { assert } from "../base/assert.ts";
import { DIGEST_BYTES, digestAt } from "../base/digest.ts";
import { compareNames } from "../base/name.ts";
import { refuse } from "./entry-check.ts";
import { BLOB_BYTES, BLOCK_DIGEST_BYTES, Blob } from "./format.ts";

export const BLOB_WORDS = BLOB_BYTES >> 2;
const BLOCK_WORDS = BLOCK_DIGEST_BYTES >> 2;
const DIGEST_WORDS = DIGEST_BYTES >> 2;
const SIZE = Blob.size >> 2;
const FIRST_BLOCK = Blob.firstBlock >> 2;
const BLOCK_COUNT = Blob.blockCount >> 2;
/** INDEX_INODES_MAX fits, and with it a blob's number. */
const NUMBER_BITS = 24;

/** Tables of blobs and of their blocks, as the format has them. The words are signed: code that V8 hasn't optimized yet allocates for larger ones. */
export interface BlobSource {
  readonly words: Int32Array;
  /** Where the first rows are in `words`. */
  readonly blobs: number;
  readonly blocks: number;
}

/** Blobs in the order of their digests, each but once. */
export interface SortedBlobs {
  /** By the number of a blob that was added: its row. */
  readonly rows: Uint32Array;
  /** By row: the number of the first blob that was added with this digest. */
  readonly firsts: Uint32Array;
  readonly blockCount: number;
}

export class Blobs {
  readonly #sources: readonly BlobSource[];
  /** By number: whose it is, and where its row is in those words. */
  readonly #owners: Uint32Array;
  readonly #places: Uint32Array;
  /** By number two words: a key of 64 bits to sort by. */
  readonly #keys: Int32Array;
  readonly #blockCountMax: number;
  #count = 0;
  #blockCount = 0;

  /** For as many blobs and blocks at most. */
  constructor(sources: readonly BlobSource[], blobs: number, blocks: number) {
    this.#sources = sources;
    this.#owners = new Uint32Array(blobs);
    this.#places = new Uint32Array(blobs);
    this.#keys = new Int32Array(2 * blobs);
    this.#blockCountMax = blocks;
  }

  /** Adds a row of a source: the blob's number. The same content may be added many times: the first stands for all. */
  add(owner: number, row: number): number {
    const { words, blobs } = this.#sources[owner]!;
    const place = blobs + row * BLOB_WORDS;
    this.#blockCount += words[place + BLOCK_COUNT]!;
    // Rows of a layer lie apart, so a merge has no more of them than all layers together.
    const isRoom = this.#count < this.#places.length && this.#blockCount <= this.#blockCountMax;
    if (!isRoom) refuse("", "rows are in several places");
    this.#owners[this.#count] = owner;
    this.#places[this.#count] = place;
    setKey(this.#keys, this.#count, words, place);
    return this.#count++;
  }

  /**
   * Sorts them by their digests, then by their numbers; once. The first 40 bits of a digest and the number make a key of 64 bits; what is
   * equal in these bits is looked at again. Throws BURROW_BAD_INDEX for one digest of two sizes.
   */
  sort(): SortedBlobs {
    const count = this.#count;
    assert(count <= 1 << NUMBER_BITS, "a number fits its bits");
    const keys = this.#keys;
    new BigUint64Array(keys.buffer, 0, count).sort();
    const rows = new Uint32Array(count);
    const firsts = new Uint32Array(count);
    let row = -1;
    for (let start = 0, end = 1; start < count; start = end++) {
      while (end < count && isSameKey(keys, start, end)) end++;
      if (end === start + 1) {
        rows[noteFirst(firsts, ++row, keys, start)] = row;
      } else {
        row = this.#sortSame(keys.subarray(2 * start, 2 * end), rows, firsts, row);
      }
    }
    return { rows, firsts: firsts.subarray(0, row + 1), blockCount: this.#blockCount };
  }

  /** Sorts blobs of one key, mostly since they are the same, into rows behind `row`: the last one. */
  #sortSame(keys: Int32Array, rows: Uint32Array, firsts: Uint32Array, row: number): number {
    const numbers = Array.from({ length: keys.length >> 1 }, (_, i) => numberAt(keys, i));
    const first = numbers[0]!;
    if (!numbers.every((number) => this.#isSame(first, number))) {
      numbers.sort((left, right) => this.#compare(left, right) || left - right);
    }
    let last = row;
    for (const [i, number] of numbers.entries()) {
      if (i === 0 || !this.#isSame(numbers[i - 1]!, number)) firsts[++last] = number;
      else this.#drop(number, numbers[i - 1]!);
      rows[number] = last;
    }
    return last;
  }

  /** Writes the table of blobs and that of their blocks. */
  write({ firsts }: SortedBlobs, table: Int32Array, blocks: Int32Array): void {
    let block = 0;
    for (let row = 0; row < firsts.length; row++) {
      block += this.#copy(firsts[row]!, table, row * BLOB_WORDS, blocks, block);
    }
  }

  /** Copies a blob to a place in the table, its blocks behind those that there are: how many they are. */
  #copy(number: number, table: Int32Array, to: number, blocks: Int32Array, block: number): number {
    const source = this.#sources[this.#owners[number]!]!;
    const { words } = source;
    const from = this.#places[number]!;
    for (let i = 0; i < BLOB_WORDS; i++) table[to + i] = words[from + i]!;
    table[to + FIRST_BLOCK] = block;
    const count = words[from + BLOCK_COUNT]!;
    if (count > 0) {
      const first = source.blocks + words[from + FIRST_BLOCK]! * BLOCK_WORDS;
      blocks.set(words.subarray(first, first + count * BLOCK_WORDS), block * BLOCK_WORDS);
    }
    return count;
  }

  #wordsOf(number: number): Int32Array {
    return this.#sources[this.#owners[number]!]!.words;
  }

  #isSame(left: number, right: number): boolean {
    const words = this.#wordsOf(left);
    const others = this.#wordsOf(right);
    const from = this.#places[left]!;
    const other = this.#places[right]!;
    for (let i = 0; i < DIGEST_WORDS; i++) if (words[from + i] !== others[other + i]) return false;
    return true;
  }

  #digestOf(number: number): string {
    const { buffer, byteOffset } = this.#wordsOf(number);
    return digestAt(new Uint8Array(buffer), byteOffset + 4 * this.#places[number]!);
  }

  #compare(left: number, right: number): number {
    return compareNames(this.#digestOf(left), this.#digestOf(right));
  }

  #sizeOf(number: number): number {
    const words = this.#wordsOf(number);
    const at = this.#places[number]! + SIZE;
    return (words[at]! >>> 0) + (words[at + 1]! >>> 0) * 2 ** 32;
  }

  /** Of a blob that another stands for. */
  #drop(number: number, first: number): void {
    const size = this.#sizeOf(first);
    const another = this.#sizeOf(number);
    if (size !== another) {
      refuse(this.#digestOf(first), `one digest for ${size} and ${another} bytes`);
    }
    this.#blockCount -= this.#wordsOf(number)[this.#places[number]! + BLOCK_COUNT]!;
  }
}

// Steps of long loops that run once: V8 optimizes a function that is called often sooner than a loop that has begun.

/** The key of blob i: its digest's first four bytes, which are a number in big-endian order, the next one, and i. */
function setKey(keys: Int32Array, i: number, words: Int32Array, at: number): void {
  const first = words[at]!;
  const middle = ((first & 0xff00) << 8) | ((first >>> 8) & 0xff00);
  keys[2 * i + 1] = (first << 24) | middle | (first >>> 24);
  keys[2 * i] = (words[at + 1]! << NUMBER_BITS) | i;
}

function numberAt(keys: Int32Array, i: number): number {
  return keys[2 * i]! & ((1 << NUMBER_BITS) - 1);
}

function noteFirst(firsts: Uint32Array, row: number, keys: Int32Array, i: number): number {
  const number = numberAt(keys, i);
  firsts[row] = number;
  return number;
}

function isSameKey(keys: Int32Array, left: number, right: number): boolean {
  if (keys[2 * left + 1] !== keys[2 * right + 1]) return false;
  return keys[2 * left]! >>> NUMBER_BITS === keys[2 * right]! >>> NUMBER_BITS;
}
