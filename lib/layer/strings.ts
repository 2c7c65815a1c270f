// Strings: those of an index under construction, one after the other, each but once. Names are looked up by their bytes, so that a
// merge makes no string of each. Control plane.

import { randomFillSync } from "node:crypto";
import { NAME_MAX_BYTES } from "../base/limits.ts";

/** A row of the strings that are known: in words. */
const ROW_WORDS = 4;
const HASH = 0;
const OFFSET = 1;
const LENGTH = 2;
/** 1 + the next one whose hash begins alike, or 0. */
const NEXT = 3;

/** Two different strings have the same upper bits with a chance of 2^-24, whatever they are: hashOf. */
const HASH_BITS_MAX = 24;

/** Secret, or names could be made to collide. One for each byte of a name, and one for its length. */
const FACTORS = randomFillSync(new Int32Array(NAME_MAX_BYTES + 1));

/** Distinct strings in the order in which they were first added. */
export class Strings {
  /** By the upper bits of a hash: 1 + the row of a string that has them, or 0. */
  #heads: Uint32Array;
  #shift: number;
  #rows: Int32Array;
  #count = 0;
  #bytes: Buffer;
  /** Offsets of those that are longer than a name. */
  readonly #long = new Map<string, number>();
  readonly #name = Buffer.alloc(NAME_MAX_BYTES);
  length = 0;

  /** For about as many strings, and bytes of them all: more are taken. */
  constructor(count: number, bytes: number) {
    const bits = Math.min(HASH_BITS_MAX, Math.max(4, Math.ceil(Math.log2(count + 1))));
    this.#heads = new Uint32Array(1 << bits);
    this.#shift = 32 - bits;
    this.#rows = new Int32Array((count + 1) * ROW_WORDS);
    this.#bytes = Buffer.alloc(bytes);
  }

  /** Adds latin1 text: its offset. */
  addText(text: string): number {
    const { length } = text;
    if (length <= NAME_MAX_BYTES) {
      this.#name.write(text, "latin1");
      return this.add(this.#name, 0, length);
    }
    const known = this.#long.get(text);
    if (known !== undefined) return known;
    const offset = this.#reserve(length);
    this.#bytes.write(text, offset, "latin1");
    this.#long.set(text, offset);
    return offset;
  }

  /** Adds at most NAME_MAX_BYTES of `from`: their offset. */
  add(from: Uint8Array, start: number, length: number): number {
    const hash = hashOf(from, start, length);
    const rows = this.#rows;
    const head = hash >>> this.#shift;
    for (let next = this.#heads[head]!; next !== 0; ) {
      const row = (next - 1) * ROW_WORDS;
      const isSame = rows[row + HASH] === hash && rows[row + LENGTH] === length;
      const offset = rows[row + OFFSET]! >>> 0;
      if (isSame && isSameBytes(this.#bytes, offset, from, start, length)) return offset;
      next = rows[row + NEXT]!;
    }
    const offset = this.#reserve(length);
    for (let i = 0; i < length; i++) this.#bytes[offset + i] = from[start + i]!;
    this.#note(hash, offset, length);
    return offset;
  }

  #note(hash: number, offset: number, length: number): void {
    if ((this.#count + 1) * ROW_WORDS > this.#rows.length) this.#grow();
    const row = this.#count++ * ROW_WORDS;
    const head = hash >>> this.#shift;
    this.#rows[row + HASH] = hash;
    this.#rows[row + OFFSET] = offset;
    this.#rows[row + LENGTH] = length;
    this.#rows[row + NEXT] = this.#heads[head]!;
    this.#heads[head] = this.#count;
  }

  /** Has room for twice as many. */
  #grow(): void {
    const rows = this.#rows;
    const count = this.#count;
    this.#rows = new Int32Array(2 * rows.length);
    this.#shift = Math.max(32 - HASH_BITS_MAX, this.#shift - 1);
    this.#heads = new Uint32Array(2 ** (32 - this.#shift));
    this.#count = 0;
    for (let row = 0; this.#count < count; row += ROW_WORDS) {
      this.#note(rows[row + HASH]!, rows[row + OFFSET]!, rows[row + LENGTH]!);
    }
  }

  /** Room for some more bytes: where they begin. */
  #reserve(length: number): number {
    const offset = this.length;
    this.length += length;
    if (this.length > this.#bytes.length) {
      const larger = Buffer.alloc(2 * this.length);
      larger.set(this.#bytes.subarray(0, offset));
      this.#bytes = larger;
    }
    return offset;
  }

  writeTo(bytes: Buffer, start: number): void {
    bytes.set(this.#bytes.subarray(0, this.length), start);
  }
}

/**
 * The sum of the bytes and of their count, each times a factor. Where two strings differ, one random factor decides by how much their
 * sums do; a difference of bytes may be a multiple of 128, so only the upper 25 bits are as good as random.
 */
function hashOf(bytes: Uint8Array, start: number, length: number): number {
  let hash = Math.imul(FACTORS[NAME_MAX_BYTES]!, length);
  for (let i = 0; i < length; i++) hash = (hash + Math.imul(FACTORS[i]!, bytes[start + i]!)) | 0;
  return hash;
}

function isSameBytes(
  left: Uint8Array,
  offset: number,
  right: Uint8Array,
  start: number,
  length: number,
): boolean {
  for (let i = 0; i < length; i++) if (left[offset + i] !== right[start + i]) return false;
  return true;
}
