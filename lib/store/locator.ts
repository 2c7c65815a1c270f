// The locator: where the blobs of one index lie, as tables that are searched without a parse. An untrusted hint:
// every offset is bounded here, and every byte it leads to is verified by whoever asked. docs/format/store.md,
// "Locator", is the normative text. Little-endian. Control plane.

import { getU64, viewOf } from "../base/bytes.ts";
import { DIGEST_BYTES, type Digest, digestAt, isDigest } from "../base/digest.ts";
import { BurrowError } from "../base/error.ts";
import { Codec } from "./codec.ts";
import { objectPath } from "./layout.ts";
import {
  BLOB_ROW,
  CHUNK_ROW,
  HEADER,
  LOCATOR_KIND,
  LOCATOR_MAGIC,
  LOCATOR_VERSION,
  TABLE,
} from "./locator-format.ts";
import type { ByteRange, ObjectPin } from "./store.ts";

/** Chunks of one run: each may become a file of the cache. 512 KiB of a pack of Python's files hold some 300. */
const RUN_CHUNKS_MAX = 1024;

/** A chunk's place in a pack. */
export interface ChunkPlace {
  readonly pack: Digest;
  readonly offset: number;
  /** Bytes in the pack. */
  readonly stored: number;
  /** Bytes of content. */
  readonly length: number;
  readonly codec: number;
  /** Whether starts are thought to read it, and so all that lies before it. */
  readonly isOfStart?: boolean;
}

/** A chunk as a locator gives it. */
export interface FoundChunk extends ChunkPlace {
  /** Of the pack, below the origin. */
  readonly path: string;
}

/** A chunk as found through its neighbours: what it is part of, too. */
export interface RunChunk extends FoundChunk {
  readonly blob: Digest;
  readonly blobSize: number;
  readonly block: number;
  /** Whether it is all of its blob. */
  readonly isWhole: boolean;
}

/** A file of a stage: below the origin, and either what pins it or what its bytes come to. */
export type PinnedFile =
  | { readonly path: string; readonly pin: ObjectPin; readonly sum?: undefined }
  | { readonly path: string; readonly sum: Digest; readonly pin?: undefined };

/** Reads one locator. Throws BURROW_CORRUPT for bytes that are none. */
export class Locator {
  readonly bytes: Buffer;
  readonly kind: "packs" | "files" | "pinned";
  readonly blobCount: number;
  readonly #chunkCount: number;
  readonly #packCount: number;
  readonly #stringBytes: number;
  readonly #blobs: number;
  readonly #chunks: number;
  readonly #order: number;
  readonly #packs: number;
  readonly #strings: number;
  readonly #view: DataView;
  /** Rows that were found: a large blob is asked for block by block. A text's bytes take longer to compare than to look up. */
  readonly #found = new Map<Digest, number>();
  /** Packs that were named: many chunks lie in each. */
  readonly #named: { readonly pack: Digest; readonly path: string }[] = [];

  constructor(bytes: Uint8Array) {
    this.bytes = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const view = viewOf(bytes);
    this.#view = view;
    if (bytes.length < HEADER.bytes || this.bytes.toString("latin1", 0, 8) !== LOCATOR_MAGIC) {
      throw corrupt("no locator");
    }
    if (view.getUint32(HEADER.version, true) !== LOCATOR_VERSION) throw corrupt("unknown version");
    const kind = view.getUint32(HEADER.kind, true);
    this.kind = kindOf(kind);
    this.blobCount = view.getUint32(HEADER.blobCount, true);
    this.#chunkCount = view.getUint32(HEADER.chunkCount, true);
    this.#packCount = view.getUint32(HEADER.packCount, true);
    this.#stringBytes = view.getUint32(HEADER.stringBytes, true);
    this.#blobs = HEADER.bytes;
    this.#chunks = this.#blobs + this.blobCount * BLOB_ROW.bytes;
    this.#order = this.#chunks + this.#chunkCount * CHUNK_ROW.bytes;
    this.#packs = this.#order + this.#chunkCount * TABLE.orderBytes;
    this.#strings = this.#packs + this.#packCount * DIGEST_BYTES;
    const end = this.#strings + this.#stringBytes;
    if (end !== bytes.length || getU64(view, HEADER.fileBytes) !== bytes.length) {
      throw corrupt("the tables do not fit the file");
    }
  }

  /** Row of a blob, or -1. */
  find(digest: Digest): number {
    const known = this.#found.get(digest);
    if (known !== undefined) return known;
    const row = this.#search(digest);
    if (row >= 0) this.#found.set(digest, row);
    return row;
  }

  #search(digest: Digest): number {
    // By the first four bytes, which tell nearly all apart, as numbers; by the digest where they are equal: they may all be, in one that lies.
    const prefix = Number.parseInt(digest.slice(0, 8), 16);
    let low = 0;
    let high = this.blobCount;
    while (low < high) {
      const middle = (low + high) >>> 1;
      const other = this.#prefixAt(middle);
      const isBefore = other < prefix || (other === prefix && this.digestAt(middle) < digest);
      if (isBefore) low = middle + 1;
      else high = middle;
    }
    return low < this.blobCount && this.digestAt(low) === digest ? low : -1;
  }

  #prefixAt(row: number): number {
    return this.#view.getUint32(this.#blobs + row * BLOB_ROW.bytes, false);
  }

  digestAt(row: number): Digest {
    return digestAt(this.bytes, this.#blobs + row * BLOB_ROW.bytes);
  }

  sizeAt(row: number): number {
    return getU64(this.#view, this.#blobs + row * BLOB_ROW.bytes + BLOB_ROW.size);
  }

  /** Chunks of a blob: 0 for an empty one. */
  chunkCount(row: number): number {
    return this.#blobField(row, BLOB_ROW.count);
  }

  /** A chunk of a blob, 0 <= k < chunkCount(row). Kind "packs" only. */
  chunkAt(row: number, k: number): FoundChunk {
    return this.#place(this.#chunkNumber(row, k));
  }

  get packCount(): number {
    return this.#packCount;
  }

  /** Digest of a pack, by its number: 0 <= number < packCount. */
  packAt(number: number): Digest {
    return digestAt(this.bytes, this.#packs + number * DIGEST_BYTES);
  }

  /** Up to where starts are thought to read a pack, from its first byte on; 0 where that isn't known. Kind "packs" only. */
  startOf(number: number): number {
    const isKnown = this.#stringBytes === this.#packCount * TABLE.startBytes;
    if (!isKnown || number >= this.#packCount) return 0;
    return this.#view.getUint32(this.#strings + number * TABLE.startBytes, true);
  }

  /**
   * For who looks at every blob: throws BURROW_CORRUPT where chunks or packs lie outside their tables, or blobs have more chunks than there are:
   * what a walk takes would grow with the square of the file then.
   */
  check(): void {
    let count = 0;
    for (let row = 0; row < this.blobCount; row++) {
      const chunks = this.chunkCount(row);
      if (chunks > 0) this.#chunkNumber(row, chunks - 1);
      count += chunks;
      if (count > this.#chunkCount) throw corrupt("blobs share chunks");
    }
    this.eachChunk(() => undefined);
  }

  /** Calls back with each chunk: number of its pack, offset there, bytes there. Throws BURROW_CORRUPT for one of no pack. */
  eachChunk(visit: (pack: number, offset: number, stored: number) => void): void {
    for (let chunk = 0; chunk < this.#chunkCount; chunk++) {
      const pack = this.#chunkField(chunk, CHUNK_ROW.pack);
      if (pack >= this.#packCount) throw corrupt("a pack lies outside the table");
      const offset = this.#chunkField(chunk, CHUNK_ROW.offset);
      visit(pack, offset, this.#chunkField(chunk, CHUNK_ROW.stored));
    }
  }

  /** Whether any chunk of a blob is a delta. Kind "packs" only. */
  hasDelta(row: number): boolean {
    for (let k = 0; k < this.chunkCount(row); k++) {
      if (this.#chunkField(this.#chunkNumber(row, k), CHUNK_ROW.codec) === Codec.delta) return true;
    }
    return false;
  }

  /** Path of a blob's file below the origin, UTF-8. Kind "files" only. */
  fileAt(row: number): string {
    if (this.kind !== "files") throw corrupt("no path in a table of another kind");
    return this.#textAt(row);
  }

  /** Where a file of a stage lies below the origin, and the state of it, or the content, that is meant. Kind "pinned" only. */
  pinnedAt(row: number): PinnedFile {
    if (this.kind !== "pinned") throw corrupt("no pin in a table of another kind");
    const [path = "", first = "", etag, more] = this.#textAt(row).split("\0");
    if (more !== undefined) throw corrupt("a pin has too many parts");
    if (etag === undefined) {
      if (!isDigest(first)) throw corrupt("a pin lacks its parts");
      return { path, sum: first };
    }
    const versionId = first === "" ? undefined : first;
    return { path, pin: { versionId, etag, size: this.sizeAt(row) } };
  }

  /** Whose the objects of kind "pinned" are. */
  get tenant(): string {
    const length = this.#view.getUint32(HEADER.tenantBytes, true);
    if (this.kind !== "pinned" || length > this.#stringBytes) throw corrupt("no tenant");
    return this.bytes.toString("utf8", this.#strings, this.#strings + length);
  }

  #textAt(row: number): string {
    const offset = this.#blobField(row, BLOB_ROW.first);
    const length = this.#blobField(row, BLOB_ROW.count);
    if (offset + length > this.#stringBytes) throw corrupt("a path lies outside the file");
    return this.bytes.toString("utf8", this.#strings + offset, this.#strings + offset + length);
  }

  /**
   * The only chunk of a small blob and those of small blobs that follow it in its pack without a gap, then those
   * before it, while all together are no more than RUN_CHUNKS_MAX, and maxBytes as stored; in order of their offsets.
   */
  runAround(row: number, maxBytes: number): RunChunk[] {
    const at = this.#orderOf(this.#chunkNumber(row, 0));
    const first = this.#runChunk(at);
    let bytes = first.stored;
    let count = 1;
    const extend = (from: number, step: 1 | -1): RunChunk[] => {
      const run: RunChunk[] = [];
      let edge = first;
      for (let i = from; i >= 0 && i < this.#chunkCount && count < RUN_CHUNKS_MAX; i += step) {
        const next = this.#runChunk(i);
        const touches =
          step === 1
            ? edge.offset + edge.stored === next.offset
            : next.offset + next.stored === edge.offset;
        // Empty blobs have no chunk, so one without bytes is a lie, and any number of them would touch.
        if (next.pack !== first.pack || !touches || !next.isWhole || next.stored === 0) break;
        if (bytes + next.stored > maxBytes) break;
        bytes += next.stored;
        count++;
        run.push(next);
        edge = next;
      }
      return run;
    };
    const after = extend(at + 1, 1);
    return [...extend(at - 1, -1).reverse(), first, ...after];
  }

  /**
   * The part of a pack that a chunk lies in when packs are cut after the first chunk past each multiple of segmentBytes: from the first
   * of this locator's chunks in it to the end of the last. All of them lie in one part each. A hint, as all that is here; undefined where the
   * order table has no order there.
   */
  segmentAround(row: number, k: number, segmentBytes: number): ByteRange | undefined {
    return this.segmentAfter(row, k, segmentBytes, 0);
  }

  /** The n-th such part behind the one that a chunk lies in, or before it where n < 0; undefined past the pack's ends, too. */
  segmentAfter(row: number, k: number, segmentBytes: number, n: number): ByteRange | undefined {
    let chunk = this.#chunkNumber(row, k);
    const pack = this.#chunkField(chunk, CHUNK_ROW.pack);
    for (let left = n; ; left -= Math.sign(n)) {
      const offset = this.#chunkField(chunk, CHUNK_ROW.offset);
      const from = offset - (offset % segmentBytes);
      const first = this.#firstFrom(pack, from);
      const end = this.#firstFrom(pack, from + segmentBytes);
      if (left === 0) return this.#spanOf(chunk, first, end, from);
      const next = n > 0 ? end : first - 1;
      if (next < 0 || next >= this.#chunkCount) return undefined;
      chunk = this.#chunkInOrder(next);
      if (this.#chunkField(chunk, CHUNK_ROW.pack) !== pack) return undefined;
    }
  }

  /** Up to where starts are thought to read the pack that a chunk lies in; 0 where that isn't known. */
  startAround(row: number, k: number): number {
    return this.startOf(this.#chunkField(this.#chunkNumber(row, k), CHUNK_ROW.pack));
  }

  /**
   * Around a chunk, from the one at one place of the order table to that before another; undefined where the table lies. Whoever goes on
   * part by part comes to an end by its checks.
   */
  #spanOf(
    chunk: number,
    firstPlace: number,
    endPlace: number,
    from: number,
  ): ByteRange | undefined {
    if (endPlace <= firstPlace) return undefined;
    const ends = [this.#chunkInOrder(firstPlace), this.#chunkInOrder(endPlace - 1)] as const;
    const packOf = (each: number) => this.#chunkField(each, CHUNK_ROW.pack);
    const offset = this.#offsetOf(ends[0]);
    const end = this.#endOf(ends[1]);
    const isOrdered =
      ends.every((each) => packOf(each) === packOf(chunk)) &&
      from <= offset &&
      offset <= this.#offsetOf(chunk) &&
      this.#endOf(chunk) <= end &&
      offset < end;
    return isOrdered ? { offset, length: end - offset } : undefined;
  }

  #offsetOf(chunk: number): number {
    return this.#chunkField(chunk, CHUNK_ROW.offset);
  }

  #endOf(chunk: number): number {
    return this.#offsetOf(chunk) + this.#chunkField(chunk, CHUNK_ROW.stored);
  }

  #blobField(row: number, field: number): number {
    return this.#view.getUint32(this.#blobs + row * BLOB_ROW.bytes + field, true);
  }

  #chunkNumber(row: number, k: number): number {
    const number = this.#blobField(row, BLOB_ROW.first) + k;
    if (this.kind !== "packs" || k >= this.chunkCount(row) || number >= this.#chunkCount) {
      throw corrupt("a chunk lies outside the table");
    }
    return number;
  }

  #chunkField(chunk: number, field: number): number {
    return this.#view.getUint32(this.#chunks + chunk * CHUNK_ROW.bytes + field, true);
  }

  #place(chunk: number): FoundChunk {
    const pack = this.#chunkField(chunk, CHUNK_ROW.pack);
    if (pack >= this.#packCount) throw corrupt("a pack lies outside the table");
    this.#named[pack] ??= this.#nameOf(pack);
    const { pack: digest, path } = this.#named[pack];
    const offset = this.#chunkField(chunk, CHUNK_ROW.offset);
    return {
      pack: digest,
      path,
      offset,
      isOfStart: offset < this.startOf(pack),
      stored: this.#chunkField(chunk, CHUNK_ROW.stored),
      length: this.#chunkField(chunk, CHUNK_ROW.length),
      codec: this.#chunkField(chunk, CHUNK_ROW.codec),
    };
  }

  #nameOf(number: number): { pack: Digest; path: string } {
    const pack = this.packAt(number);
    return { pack, path: objectPath("packs", pack) };
  }

  /** The i-th chunk in the order of packs and offsets. */
  #runChunk(i: number): RunChunk {
    const chunk = this.#chunkInOrder(i);
    const blob = this.#chunkField(chunk, CHUNK_ROW.blob);
    if (blob >= this.blobCount) throw corrupt("a chunk belongs to no blob");
    return {
      ...this.#place(chunk),
      blob: this.digestAt(blob),
      blobSize: this.sizeAt(blob),
      block: chunk - this.#blobField(blob, BLOB_ROW.first),
      isWhole: this.chunkCount(blob) === 1,
    };
  }

  /** Where a chunk stands in the order table. */
  #orderOf(chunk: number): number {
    const pack = this.#chunkField(chunk, CHUNK_ROW.pack);
    const offset = this.#chunkField(chunk, CHUNK_ROW.offset);
    // Blobs that share a chunk have a row for it each.
    const first = this.#firstFrom(pack, offset);
    const end = Math.min(this.#chunkCount, first + RUN_CHUNKS_MAX);
    for (let i = first; i < end; i++) if (this.#chunkInOrder(i) === chunk) return i;
    throw corrupt("a chunk is missing in the order table");
  }

  /** The first place in the order table at or past an offset of a pack: binary search. */
  #firstFrom(pack: number, offset: number): number {
    let low = 0;
    let high = this.#chunkCount;
    while (low < high) {
      const middle = (low + high) >>> 1;
      const other = this.#chunkInOrder(middle);
      const otherPack = this.#chunkField(other, CHUNK_ROW.pack);
      const isBefore =
        otherPack < pack ||
        (otherPack === pack && this.#chunkField(other, CHUNK_ROW.offset) < offset);
      if (isBefore) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  #chunkInOrder(i: number): number {
    const chunk = this.#view.getUint32(this.#order + i * TABLE.orderBytes, true);
    if (chunk >= this.#chunkCount) throw corrupt("the order table leads outside");
    return chunk;
  }
}

/** What a look at a locator finds; undefined where that lies: it is a hint, and what it is asked for can be had as if there were none. */
export function hinted<T>(look: () => T): T | undefined {
  try {
    return look();
  } catch (error) {
    if (error instanceof BurrowError && error.code === "BURROW_CORRUPT") return undefined;
    throw error;
  }
}

function kindOf(kind: number): Locator["kind"] {
  for (const [name, number] of Object.entries(LOCATOR_KIND))
    if (number === kind) return name as Locator["kind"];
  throw corrupt("unknown kind");
}

function corrupt(message: string): BurrowError {
  return new BurrowError("BURROW_CORRUPT", `bad locator: ${message}`);
}
