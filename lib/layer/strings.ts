// Strings: those of an index under construction, one after the other, each but once. Names are looked up by their bytes, so that a
// merge makes no string of each. Control plane.

import { randomFillSync } from "node:crypto";
import { Errno } from "../base/errno.ts";
import { NAME_MAX_BYTES } from "../base/limits.ts";

/** A row of the strings that are known: in words. */
const ROW_WORDS = 4;
const HASH = 0;
const OFFSET = 1;
const LENGTH = 2;
/** 1 + the next one whose hash begins alike, or 0. */
const NEXT = 3;

const SLASH = 0x2f;
const DOT = 0x2e;

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
      const hash = hashOf(this.#name, 0, length);
      const known = this.#find(hash, this.#name, 0, length);
      return known >= 0 ? known : this.#append(hash, this.#name, 0, length);
    }
    const known = this.#long.get(text);
    if (known !== undefined) return known;
    const offset = this.#reserve(length);
    this.#bytes.write(text, offset, "latin1");
    this.#long.set(text, offset);
    return offset;
  }

  /** Adds a name, part of `from`: its offset, or -EINVAL for what is none. Names come before all other strings. */
  addName(from: Uint8Array, start: number, length: number): number {
    if (length === 0 || length > NAME_MAX_BYTES) return -Errno.EINVAL;
    const hash = hashOf(from, start, length);
    const known = this.#find(hash, from, start, length);
    if (known >= 0) return known;
    return isName(from, start, length) ? this.#append(hash, from, start, length) : -Errno.EINVAL;
  }

  /** The offset of a string that is known, or -1. */
  #find(hash: number, from: Uint8Array, start: number, length: number): number {
    const rows = this.#rows;
    for (let next = this.#heads[hash >>> this.#shift]!; next !== 0; ) {
      const row = (next - 1) * ROW_WORDS;
      if (rows[row + HASH] === hash && rows[row + LENGTH] === length) {
        const offset = rows[row + OFFSET]! >>> 0;
        if (isSameBytes(this.#bytes, offset, from, start, length)) return offset;
      }
      next = rows[row + NEXT]!;
    }
    return -1;
  }

  #append(hash: number, from: Uint8Array, start: number, length: number): number {
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

/** checkName, of bytes that are neither too few nor too many. */
function isName(bytes: Uint8Array, start: number, length: number): boolean {
  for (let i = 0; i < length; i++) {
    const byte = bytes[start + i]!;
    if (byte === SLASH || byte === 0) return false;
  }
  if (length > 2 || bytes[start] !== DOT) return true;
  return length === 2 && bytes[start + 1] !== DOT;
}
