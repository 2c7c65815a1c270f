// The pack: many chunks in one immutable object, with a table at its end from which locators can be rebuilt.
// docs/format/store.md, "Pack", is the normative text. Little-endian. Control plane.

import { getU64, setU64, viewOf } from "../base/bytes.ts";
import { DIGEST_BYTES, type Digest, digestAt } from "../base/digest.ts";
import { BurrowError } from "../base/error.ts";
import { BLOCK_DIGESTS_OVER_BYTES, PACK_TARGET_BYTES } from "../base/limits.ts";
import type { Packed } from "./codec.ts";
import { digestOf } from "./hash.ts";

/** "BRWPACK1" at the start, "BRWPEND1" at the end. */
const MAGIC = Buffer.from("BRWPACK1", "latin1");
const END_MAGIC = Buffer.from("BRWPEND1", "latin1");
const VERSION = 1;

export const PACK_HEADER_BYTES = 16;
const PACK_ROW_BYTES = 96;
export const PACK_FOOTER_BYTES = 24;

/** What a builder makes room for at first; small layers are many. */
const FIRST_BYTES = 256 * 1024;
/** A pack that is closed in time: its last blob and its table go over the target. */
const USUAL_MAX_BYTES = PACK_TARGET_BYTES + 4 * BLOCK_DIGESTS_OVER_BYTES;
const EMPTY = Buffer.alloc(0);

/** Offsets in a row of the table at the end. */
const Row = {
  chunk: 0,
  blob: 32,
  offset: 64,
  stored: 68,
  length: 72,
  block: 76,
  codec: 80,
  blobSize: 88,
} as const;

/** One chunk in a pack. A whole blob is its own chunk, block 0; else `block` counts BLOCK_BYTES pieces. */
export interface PackRow {
  readonly chunk: Digest;
  readonly blob: Digest;
  readonly blobSize: number;
  readonly block: number;
  readonly offset: number;
  readonly stored: number;
  readonly length: number;
  readonly codec: number;
}

/** A chunk on its way into a pack: what a row says, but for its place. */
export interface NewChunk {
  readonly chunk: Digest;
  readonly block: number;
  readonly length: number;
  readonly packed: Packed;
}

/** Memory of a pack that is stored, for the next: V8 counts what is fresh, and would collect garbage for each pack. */
let spare = EMPTY;

/** Gathers chunks in memory, in the buffer that becomes the pack. Seal once; the builder is of no use after. */
export class PackBuilder {
  readonly #rows: PackRow[] = [];
  readonly #expectedBytes: number;
  #buffer = EMPTY;
  #bytes = PACK_HEADER_BYTES;

  /** `expectedBytes`: about as long as it will be, without its table; 0: unknown. */
  constructor(expectedBytes = 0) {
    this.#expectedBytes = expectedBytes;
  }

  /** Bytes so far, without the table. */
  get bytes(): number {
    return this.#bytes;
  }

  get isEmpty(): boolean {
    return this.#rows.length === 0;
  }

  /** Appends the chunks of one blob, next to each other. Equal calls in equal order make equal packs. The bytes are copied. */
  append(blob: Digest, blobSize: number, chunks: readonly NewChunk[]): readonly PackRow[] {
    const rows = chunks.map((chunk) => this.#appendOne(blob, blobSize, chunk));
    for (const row of rows) this.#rows.push(row);
    return rows;
  }

  /** A chunk as it was appended: a view, good until the pack is sealed and released. */
  packed({ offset, stored }: PackRow): Buffer {
    return this.#buffer.subarray(offset, offset + stored);
  }

  /** The whole pack and its name. */
  seal(): { digest: Digest; bytes: Buffer } {
    const table = this.#bytes;
    const footer = table + this.#rows.length * PACK_ROW_BYTES;
    const length = footer + PACK_FOOTER_BYTES;
    this.#reserve(length);
    const bytes = this.#buffer.subarray(0, length);
    MAGIC.copy(bytes, 0);
    bytes.writeUInt32LE(VERSION, MAGIC.length);
    bytes.fill(0, MAGIC.length + 4, PACK_HEADER_BYTES);
    bytes.fill(0, table, footer);
    for (const [i, row] of this.#rows.entries()) writeRow(bytes, table + i * PACK_ROW_BYTES, row);
    bytes.writeUInt32LE(this.#rows.length, footer);
    bytes.writeUInt32LE(table, footer + 4);
    setU64(viewOf(bytes), footer + 8, length);
    END_MAGIC.copy(bytes, footer + 16);
    return { digest: digestOf(bytes), bytes };
  }

  /** Gives its memory to another pack: nobody reads what seal() gave any more. */
  release(): void {
    if (this.#buffer.length > spare.length && this.#buffer.length <= USUAL_MAX_BYTES)
      spare = this.#buffer;
    this.#buffer = EMPTY;
  }

  #appendOne(blob: Digest, blobSize: number, chunk: NewChunk): PackRow {
    const { bytes, codec } = chunk.packed;
    const offset = this.#bytes;
    this.#reserve(offset + bytes.length);
    this.#buffer.set(bytes, offset);
    this.#bytes += bytes.length;
    return {
      chunk: chunk.chunk,
      blob,
      blobSize,
      block: chunk.block,
      offset,
      stored: bytes.length,
      length: chunk.length,
      codec,
    };
  }

  /** Makes room for so many bytes in all. */
  #reserve(length: number): void {
    if (length <= this.#buffer.length) return;
    if (this.#buffer.length === 0 && length <= spare.length) {
      this.#buffer = spare;
      spare = EMPTY;
      return;
    }
    // Pages that nothing was written to cost nothing, and copies are few.
    const usual = Math.min(4 * this.#buffer.length, USUAL_MAX_BYTES);
    const expected = this.#expectedBytes + this.#expectedBytes / 16;
    const larger = Buffer.allocUnsafeSlow(Math.max(FIRST_BYTES, usual, expected, length));
    this.#buffer.copy(larger, 0, 0, this.#bytes);
    this.#buffer = larger;
  }
}

/** Where the table of a pack begins, by the last PACK_FOOTER_BYTES of it. Throws BURROW_CORRUPT. */
export function tableOffsetOf(footer: Buffer): number {
  if (footer.length !== PACK_FOOTER_BYTES || footer.compare(END_MAGIC, 0, 8, 16) !== 0)
    throw corrupt("the pack has no footer");
  return footer.readUInt32LE(4);
}

/** The blobs that the rows of a pack's table name, and the codecs of their chunks. */
export function* blobsIn(table: Buffer): Iterable<Pick<PackRow, "blob" | "codec">> {
  for (let at = 0; at + PACK_ROW_BYTES <= table.length; at += PACK_ROW_BYTES)
    yield { blob: digestAt(table, at + Row.blob), codec: table.readUInt32LE(at + Row.codec) };
}

/** Bytes of chunks in a pack, of the last PACK_FOOTER_BYTES of it. Throws BURROW_CORRUPT. */
export function chunkBytesOf(footer: Buffer): number {
  return Math.max(0, tableOffsetOf(footer) - PACK_HEADER_BYTES);
}

/** The table of a whole pack. Its bytes were verified against its name. Throws BURROW_CORRUPT. */
export function readPackRows(bytes: Uint8Array): PackRow[] {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const footer = buffer.length - PACK_FOOTER_BYTES;
  if (footer < PACK_HEADER_BYTES || buffer.compare(MAGIC, 0, 8, 0, 8) !== 0)
    throw corrupt("no pack");
  if (buffer.readUInt32LE(8) !== VERSION) throw corrupt(`pack version ${buffer.readUInt32LE(8)}`);
  const count = buffer.readUInt32LE(footer);
  const table = buffer.readUInt32LE(footer + 4);
  const isWhole =
    buffer.compare(END_MAGIC, 0, 8, footer + 16) === 0 &&
    getU64(viewOf(buffer), footer + 8) === buffer.length &&
    table + count * PACK_ROW_BYTES === footer;
  if (!isWhole) throw corrupt("the pack's footer does not fit it");
  const rows: PackRow[] = [];
  for (let i = 0; i < count; i++) {
    const row = readRow(buffer, table + i * PACK_ROW_BYTES);
    if (row.offset + row.stored > table) throw corrupt("a chunk lies outside the pack");
    rows.push(row);
  }
  return rows;
}

function writeRow(table: Buffer, at: number, row: PackRow): void {
  table.write(row.chunk, at + Row.chunk, DIGEST_BYTES, "hex");
  table.write(row.blob, at + Row.blob, DIGEST_BYTES, "hex");
  table.writeUInt32LE(row.offset, at + Row.offset);
  table.writeUInt32LE(row.stored, at + Row.stored);
  table.writeUInt32LE(row.length, at + Row.length);
  table.writeUInt32LE(row.block, at + Row.block);
  table.writeUInt32LE(row.codec, at + Row.codec);
  setU64(viewOf(table), at + Row.blobSize, row.blobSize);
}

function readRow(buffer: Buffer, at: number): PackRow {
  return {
    chunk: digestAt(buffer, at + Row.chunk),
    blob: digestAt(buffer, at + Row.blob),
    offset: buffer.readUInt32LE(at + Row.offset),
    stored: buffer.readUInt32LE(at + Row.stored),
    length: buffer.readUInt32LE(at + Row.length),
    block: buffer.readUInt32LE(at + Row.block),
    codec: buffer.readUInt32LE(at + Row.codec),
    blobSize: getU64(viewOf(buffer), at + Row.blobSize),
  };
}

function corrupt(message: string): BurrowError {
  return new BurrowError("BURROW_CORRUPT", message);
}
