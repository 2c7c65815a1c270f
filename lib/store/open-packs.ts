// OpenPacks: what of a layer isn't stored yet, held until it is known in which order it is best read: two packs at most, of small blobs
// and of those that are cut into blocks. What is more is packed as it comes. Control plane.

import { LRUCache } from "lru-cache";
import type { BlobRef } from "../base/blob.ts";
import type { Digest } from "../base/digest.ts";
import { BLOCK_BYTES, BLOCK_DIGESTS_OVER_BYTES } from "../base/limits.ts";
import { Codec, expandChunk } from "./codec.ts";
import type { ChunkPlace } from "./locator.ts";
import { type NewChunk, PackBuilder, type PackRow } from "./pack.ts";

/** Of chunks that are looked at, as content. */
const EXPANDED_BYTES = 16 * 1024 * 1024;

/** A blob of an open pack, or some of its blocks. */
interface OpenBlob {
  readonly ref: BlobRef;
  readonly rows: readonly PackRow[];
  readonly isOfStart: boolean;
}

/** Content as it is best laid: what starts read, in their order, then the rest. */
export interface LayOrder {
  readonly starts: readonly WantedContent[];
  readonly rest: readonly Digest[];
}

/** A blob, or of a large one the blocks that are wanted. */
export interface WantedContent {
  readonly digest: Digest;
  readonly blocks?: ReadonlySet<number> | undefined;
}

/** Where blocks of a blob lie; of a small one there is one. */
export interface SealedPlace {
  readonly ref: BlobRef;
  readonly blocks: readonly { readonly block: number; readonly chunk: ChunkPlace }[];
}

export const NO_ORDER: LayOrder = { starts: [], rest: [] };

/** A pack under way and the rows that get its name when it is sealed. */
export class OpenPack {
  readonly #builder: PackBuilder;
  readonly blobs: OpenBlob[] = [];

  /** `bytes`: that it will have, where that is known. */
  constructor(bytes = 0) {
    this.#builder = new PackBuilder(bytes);
  }

  get bytes(): number {
    return this.#builder.bytes;
  }

  get isEmpty(): boolean {
    return this.#builder.isEmpty;
  }

  add(ref: BlobRef, chunks: readonly NewChunk[], isOfStart = false): void {
    const rows = this.#builder.append(ref.digest, ref.size, chunks);
    this.blobs.push({ ref, rows, isOfStart });
  }

  /** A chunk as it is packed; good until release(). */
  packed(row: PackRow): Uint8Array {
    return this.#builder.packed(row);
  }

  /** See PackBuilder. */
  release(): void {
    this.#builder.release();
  }

  seal(): { digest: Digest; bytes: Buffer; places: SealedPlace[] } {
    const { digest, bytes } = this.#builder.seal();
    const places = this.blobs.map(({ ref, rows, isOfStart }) => ({
      ref,
      blocks: rows.map(({ block, offset, stored, length, codec }) => {
        return { block, chunk: { pack: digest, offset, stored, length, codec, isOfStart } };
      }),
    }));
    return { digest, bytes, places };
  }
}

interface Held {
  readonly from: OpenPack;
  readonly blob: OpenBlob;
}

/** By digest, as they came. */
function heldIn(packs: readonly OpenPack[]): Map<Digest, Held> {
  return new Map(
    packs.flatMap((from) => from.blobs.map((blob) => [blob.ref.digest, { from, blob }])),
  );
}

export class OpenPacks {
  readonly #packBytes: number;
  /** Large blobs have one of their own: they would soon fill that of the small ones, which are to lie together. */
  #small = new OpenPack();
  #large = new OpenPack();

  constructor(packBytes: number) {
    this.#packBytes = packBytes;
  }

  /** Bytes that are held. */
  get bytes(): number {
    return this.#small.bytes + this.#large.bytes;
  }

  /** Takes a blob; a pack that is full by it is the caller's to seal. */
  add(ref: BlobRef, chunks: readonly NewChunk[]): OpenPack | undefined {
    const isLarge = ref.size > BLOCK_DIGESTS_OVER_BYTES;
    const pack = isLarge ? this.#large : this.#small;
    pack.add(ref, chunks);
    if (pack.bytes < this.#packBytes) return undefined;
    if (isLarge) this.#large = new OpenPack();
    else this.#small = new OpenPack();
    return pack;
  }

  /** A look at the content of what is held now. */
  contents(): HeldContents {
    return new HeldContents([this.#small, this.#large]);
  }

  /** All that is held as packs, in the order that is given; what that doesn't name comes last, as it came. Of no use after. */
  *laidOut({ starts, rest }: LayOrder): Iterable<OpenPack> {
    const packs = [this.#small, this.#large].filter(({ isEmpty }) => !isEmpty);
    if (packs.length === 1 && starts.length + rest.length === 0) return yield packs[0]!;
    const left = heldIn(packs);
    const laid = new Set<PackRow>();
    let bytes = this.bytes;
    let pack = new OpenPack(Math.min(bytes, this.#packBytes));
    const all = [...starts, ...[...rest, ...left.keys()].map((digest) => ({ digest }))];
    for (const [i, { digest, blocks }] of (all as readonly WantedContent[]).entries()) {
      const found = left.get(digest);
      if (found === undefined) continue;
      const { ref, rows } = found.blob;
      const isWanted = (row: PackRow) => !laid.has(row) && blocks?.has(row.block) !== false;
      const wanted = rows.filter(isWanted);
      if (wanted.length === 0) continue;
      for (const row of wanted) laid.add(row);
      pack.add(
        ref,
        wanted.map((row) => chunkOf(found.from, row)),
        i < starts.length,
      );
      if (pack.bytes < this.#packBytes) continue;
      yield pack;
      bytes -= pack.bytes;
      pack = new OpenPack(Math.min(bytes, this.#packBytes));
    }
    for (const each of packs) each.release();
    if (!pack.isEmpty) yield pack;
  }
}

/** A chunk as it lies in an open pack, for another. */
function chunkOf(from: OpenPack, row: PackRow): NewChunk {
  const { chunk, block, length, codec } = row;
  return { chunk, block, length, packed: { codec: codec as Codec, bytes: from.packed(row) } };
}

/** The content of blobs that are held. */
export class HeldContents {
  readonly #held: ReadonlyMap<Digest, Held>;
  readonly #kept = new LRUCache<PackRow, Uint8Array>({ maxSize: EXPANDED_BYTES });

  constructor(packs: readonly OpenPack[]) {
    this.#held = heldIn(packs);
  }

  has(digest: Digest): boolean {
    return this.#held.has(digest);
  }

  /** Bytes [offset, end) of a blob, as far as it goes; undefined of one that isn't held, or as a delta of another alone. */
  read(digest: Digest, offset: number, end: number): Buffer | undefined {
    const held = this.#held.get(digest);
    if (held === undefined) return undefined;
    const { from, blob } = held;
    const isLarge = blob.rows.length > 1;
    const first = isLarge ? Math.floor(offset / BLOCK_BYTES) : 0;
    const rows = isLarge ? blob.rows.slice(first, Math.ceil(end / BLOCK_BYTES)) : blob.rows;
    if (rows.some(({ codec }) => codec === Codec.delta)) return undefined;
    const parts = rows.map((row) => this.#expanded(from, row));
    const start = first * BLOCK_BYTES;
    const all = parts.length === 1 ? parts[0]! : Buffer.concat(parts);
    return Buffer.from(all.buffer, all.byteOffset, all.length).subarray(
      offset - start,
      end - start,
    );
  }

  /** A file's head, tables and names are looked at one after the other, and other files' between them. */
  #expanded(from: OpenPack, row: PackRow): Uint8Array {
    const known = this.#kept.get(row);
    if (known !== undefined) return known;
    const bytes = expandChunk(row.codec, from.packed(row), row.length);
    this.#kept.set(row, bytes, { size: bytes.length + 1 });
    return bytes;
  }
}
