// PackWriter: the BlobSink that puts the blobs of one layer into packs, and publishes an index. Order of writing:
// packs, index, locator; a reader believes in an index only through its locator, so nothing half-written is ever
// used. Memory: two open packs, and of each stream under way all that it comes to, packed: a pack names its blobs, and
// this one's name is known at its end. Control plane.

import { createHash } from "node:crypto";
import type { BlobRef } from "../base/blob.ts";
import type { Digest } from "../base/digest.ts";
import { BurrowError } from "../base/error.ts";
import { BLOCK_DIGESTS_OVER_BYTES, PACK_TARGET_BYTES } from "../base/limits.ts";
import { optimizeLate } from "../sys/tiering.ts";
import type { BlobSink } from "./blob-sink.ts";
import { blockDigests, blocksOf, groupBytes, regroup } from "./blocks.ts";
import { Codec, compressChunk, deltaChunk, expandChunk, keptOf, type Packed } from "./codec.ts";
import { isDeltaStore, locatorsByBase, putNear, replaceLocator } from "./deltas.ts";
import { digestOf } from "./hash.ts";
import { KnownBlobs, readLocator } from "./known.ts";
import { objectPath } from "./layout.ts";
import { type ChunkPlace, Locator } from "./locator.ts";
import { type BlobPlace, encodeLocator, placeAt } from "./locator-writer.ts";
import {
  type HeldContents,
  type LayOrder,
  NO_ORDER,
  OpenPack,
  OpenPacks,
  type SealedPlace,
} from "./open-packs.ts";
import type { NewChunk } from "./pack.ts";
import { isDamage, type WritableBackend } from "./store.ts";

export interface WriterOptions {
  /** Bytes at which a pack is closed; PACK_TARGET_BYTES when missing. */
  readonly packBytes?: number;
  /** Shared by the writers of one store; read from the store when missing. */
  readonly known?: KnownBlobs;
  /** Index, locator and content are kept as deltas of this one's, where that saves much. */
  readonly near?: NearIndex | undefined;
}

/** A layer or snapshot of the store that is likely to be nearly the same as the one that is being made. */
export interface NearIndex {
  /** Of the index; it is there whole. */
  readonly digest: Digest;
  /** The index itself, when it was read. */
  readonly bytes?: Uint8Array;
  /** The content that it has at a path, in latin1. */
  blobAt(path: string): BlobRef | undefined;
}

/** A blob of the near index, and where it lies. */
interface NearBlob {
  readonly ref: BlobRef;
  readonly place: BlobPlace;
}

/** Of all small blobs, and of empty ones all: an archive may have a million. */
const NO_BLOCKS: readonly Digest[] = [];
const EMPTY_BLOB: BlobRef = { digest: digestOf(Buffer.alloc(0)), size: 0, blocks: NO_BLOCKS };

/** What a writer did, for progress and reports. */
export interface WriterCounts {
  blobs: number;
  /** Blobs that the store had already. */
  deduped: number;
  contentBytes: number;
  /** Packs that the store did not have, and their bytes. */
  storedBytes: number;
  packs: number;
}

/** Opens a writer: one per layer or snapshot. Has this process optimize code late from now on, as suits an ingest. Reads the store's locators unless `known` is given. */
export async function openPackWriter(
  store: WritableBackend,
  options: WriterOptions = {},
): Promise<PackWriter> {
  optimizeLate();
  const known = options.known ?? (await KnownBlobs.load(store));
  return new PackWriter(store, known, options.packBytes ?? PACK_TARGET_BYTES, options.near);
}

export class PackWriter implements BlobSink {
  readonly counts: WriterCounts = {
    blobs: 0,
    deduped: 0,
    contentBytes: 0,
    storedBytes: 0,
    packs: 0,
  };
  readonly #store: WritableBackend;
  readonly #known: KnownBlobs;
  readonly #packBytes: number;
  readonly #near: NearIndex | undefined;
  readonly #places = new Map<Digest, BlobPlace>();
  readonly #uploads = new Set<Promise<void>>();
  readonly #open: OpenPacks;
  #failure: unknown;

  constructor(store: WritableBackend, known: KnownBlobs, packBytes: number, near?: NearIndex) {
    this.#near = near;
    this.#store = store;
    this.#known = known;
    this.#packBytes = packBytes;
    this.#open = new OpenPacks(packBytes);
  }

  /** The content that was added and isn't stored yet, for who decides in which order it is to be. */
  held(): HeldContents {
    return this.#open.contents();
  }

  /** Bytes of packs that are held. */
  get heldBytes(): number {
    return this.#open.bytes;
  }

  /**
   * Adds content that is in memory. The bytes are not kept past the call's end. What the near index has at `path` is looked at:
   * chunks that are nearly the same are stored as deltas of its own.
   */
  async addBytes(bytes: Uint8Array, path?: string, known?: Digest): Promise<BlobRef> {
    if (bytes.length === 0) return this.#note(EMPTY_BLOB);
    const digest = known ?? digestOf(bytes);
    const isLarge = bytes.length > BLOCK_DIGESTS_OVER_BYTES;
    const pieces = isLarge ? [...blocksOf(bytes)] : [bytes];
    const blocks = isLarge ? blockDigests(bytes) : NO_BLOCKS;
    const ref = { digest, size: bytes.length, blocks };
    if (this.#isHere(ref)) return this.#note(ref);
    const chunks: NewChunk[] = [];
    const near = this.#nearBlob(path, isLarge);
    for (const [block, piece] of pieces.entries()) {
      const chunk = isLarge ? blocks[block]! : digest;
      const delta = near && (await this.#deltaOf(near, block, piece));
      if (near && delta) this.#places.set(near.place.digest, near.place);
      const packed = delta ?? compressChunk(piece);
      chunks.push({
        chunk,
        block,
        length: piece.length,
        packed: isLarge ? keptOf(packed) : packed,
      });
    }
    // Another call may have added it while this one looked for its delta.
    if (!this.#isHere(ref)) {
      const waiting = this.#append(ref, chunks);
      if (waiting !== undefined) await waiting;
    }
    return this.#note(ref);
  }

  /**
   * Adds content as it comes; sizeHint decides nothing but how much of it is taken together. A blob that outgrows a pack gets packs
   * of its own, whose names depend on its bytes alone: found to be known at the end, it has written nothing new.
   */
  async addStream(chunks: AsyncIterable<Uint8Array>, sizeHint: number): Promise<BlobRef> {
    const whole = createHash("sha256");
    const blocks: Digest[] = [];
    const parts: NewChunk[][] = [];
    let part: NewChunk[] = [];
    let partBytes = 0;
    let size = 0;
    const take = (piece: Uint8Array, chunk: Digest) => {
      const block = blocks.length;
      blocks.push(chunk);
      const packed = keptOf(compressChunk(piece));
      partBytes += packed.bytes.length;
      part.push({ chunk, block, length: piece.length, packed });
      if (partBytes < this.#packBytes) return;
      parts.push(part);
      part = [];
      partBytes = 0;
    };
    for await (const group of regroup(chunks, groupBytes(sizeHint))) {
      size += group.length;
      // It is all there is: a blob of so little is one chunk.
      if (size <= BLOCK_DIGESTS_OVER_BYTES) return await this.addBytes(group);
      whole.update(group);
      const digests = blockDigests(group);
      let block = 0;
      for (const piece of blocksOf(group)) take(piece, digests[block++]!);
    }
    if (size === 0) return this.#note(EMPTY_BLOB);
    const ref = { digest: whole.digest("hex") as Digest, size, blocks };
    if (this.#isHere(ref)) return this.#note(ref);
    if (parts.length === 0) {
      await this.#append(ref, part);
    } else {
      if (part.length > 0) parts.push(part);
      await this.#appendOwnPacks(ref, parts);
    }
    return this.#note(ref);
  }

  /** Has the locator name content that the store holds already: whether it does, as far as is known (store/known.ts). */
  reuse(ref: BlobRef): boolean {
    if (!this.#isHere(ref)) return false;
    this.#note(ref);
    return true;
  }

  /**
   * Publishes a layer: what is packed, then the index, then the locator of all blobs added to this writer. What is held is laid in `order`;
   * the rest of it follows.
   */
  async finish(indexBytes: Uint8Array, order: LayOrder = NO_ORDER): Promise<{ digest: Digest }> {
    return await this.#publish(indexBytes, [], order);
  }

  /**
   * Publishes a snapshot: its locator names the blobs of its layers, which are in the store already, and those
   * added to this writer (files made for a prefix). Small blobs of `together` that lie in several packs are stored once more, side by side,
   * and it names them there.
   */
  async writeSnapshot(
    indexBytes: Uint8Array,
    layerDigests: readonly Digest[],
    together: readonly Digest[] = [],
  ): Promise<{ digest: Digest }> {
    const layers = await Promise.all(layerDigests.map((layer) => readLocator(this.#store, layer)));
    for (const [i, locator] of layers.entries()) {
      if (locator.kind === "packs") continue;
      throw new BurrowError(
        "BURROW_UNSUPPORTED",
        "a layer of plain files can't be in a snapshot of packs",
        {
          context: { layer: `sha256:${layerDigests[i]}` },
        },
      );
    }
    await this.#bringTogether(together, layers);
    return await this.#publish(indexBytes, layers);
  }

  async #bringTogether(blobs: readonly Digest[], layers: readonly Locator[]): Promise<void> {
    const found = blobs.flatMap((digest) => {
      const locator = layers.find((each) => each.find(digest) >= 0);
      const place = locator && placeAt(locator, locator.find(digest));
      const [chunk, ...more] = place?.chunks ?? [];
      const isWhole = chunk !== undefined && more.length === 0 && chunk.codec !== Codec.delta;
      return isWhole && !this.#places.has(digest) ? [{ digest, chunk }] : [];
    });
    if (new Set(found.map(({ chunk }) => chunk.pack)).size < 2) return;
    for (const { digest, chunk } of found) {
      const content = await this.#contentAt(chunk, digest);
      if (content === undefined) continue;
      const { length } = content;
      const packed = compressChunk(content);
      await this.#append({ digest, size: length, blocks: NO_BLOCKS }, [
        { chunk: digest, block: 0, length, packed },
      ]);
    }
  }

  /** A blob's only chunk, expanded; undefined of what can't be read or is wrong: who needs it hears of that, and it is repaired there. */
  async #contentAt({ pack, ...at }: ChunkPlace, digest: Digest): Promise<Uint8Array | undefined> {
    const range = { offset: at.offset, length: at.stored };
    try {
      const bytes = await this.#store.get(objectPath("packs", pack), { range });
      const content = expandChunk(at.codec, bytes, at.length);
      return digestOf(content) === digest ? content : undefined;
    } catch {
      return undefined;
    }
  }

  async #publish(
    indexBytes: Uint8Array,
    layers: readonly Locator[],
    order: LayOrder = NO_ORDER,
  ): Promise<{ digest: Digest }> {
    for (const pack of this.#open.laidOut(order)) {
      this.#close(pack);
      await this.#wait();
    }
    await Promise.allSettled([...this.#uploads]);
    if (this.#failure !== undefined) throw this.#failure;
    const digest = digestOf(indexBytes);
    const locatorBytes = encodeLocator(placesOf(this.#places.values(), layers));
    const indexPath = objectPath("indexes", digest);
    if (!(await this.#store.has(indexPath))) await this.#put(indexPath, indexBytes);
    await this.#putLocator(digest, locatorBytes);
    this.#known.add(new Locator(locatorBytes));
    return { digest };
  }

  /** Whether the blob needs no packing; copies its place from the store's locators when it is known there. */
  #isHere(ref: BlobRef): boolean {
    if (this.#places.has(ref.digest)) return true;
    const place = this.#known.place(ref.digest);
    if (place === undefined || place.size !== ref.size) return false;
    this.#places.set(ref.digest, place);
    this.counts.deduped++;
    return true;
  }

  #note(ref: BlobRef): BlobRef {
    if (ref.size === 0) this.#places.set(ref.digest, { digest: ref.digest, size: 0, chunks: [] });
    this.counts.blobs++;
    this.counts.contentBytes += ref.size;
    return ref;
  }

  /** Puts a blob into the open pack. When there is a promise, it is to be waited for before the next. */
  #append(ref: BlobRef, chunks: readonly NewChunk[]): Promise<void> | undefined {
    this.#places.set(ref.digest, { digest: ref.digest, size: ref.size, chunks: [] });
    const full = this.#open.add(ref, chunks);
    if (full !== undefined) this.#close(full);
    if (this.#failure !== undefined) throw this.#failure;
    return this.#uploads.size > 1 ? this.#wait() : undefined;
  }

  /** Backpressure: an ingest faster than the store waits here instead of filling memory. */
  async #wait(): Promise<void> {
    while (this.#uploads.size > 1) await Promise.race(this.#uploads);
    if (this.#failure !== undefined) throw this.#failure;
  }

  async #appendOwnPacks(ref: BlobRef, parts: readonly NewChunk[][]): Promise<void> {
    const places: BlobPlace["chunks"][number][] = [];
    for (const part of parts) {
      const pack = new OpenPack();
      pack.add(ref, part);
      const sealed = pack.seal();
      await this.#upload(sealed.digest, sealed.bytes);
      pack.release();
      for (const { blocks } of sealed.places) places.push(...blocks.map(({ chunk }) => chunk));
    }
    this.#places.set(ref.digest, { digest: ref.digest, size: ref.size, chunks: places });
  }

  /** Names a pack and starts its upload. */
  #close(pack: OpenPack): void {
    const sealed = pack.seal();
    for (const place of sealed.places) this.#placed(place);
    const upload = this.#upload(sealed.digest, sealed.bytes).then(
      () => pack.release(),
      (error: unknown) => {
        this.#failure ??= error;
      },
    );
    this.#uploads.add(upload);
    void upload.finally(() => this.#uploads.delete(upload));
  }

  /** Notes where blocks of a blob lie: of some the others may lie in another pack. */
  #placed({ ref: { digest, size }, blocks }: SealedPlace): void {
    const chunks = [...(this.#places.get(digest)?.chunks ?? [])];
    for (const { block, chunk } of blocks) chunks[block] = chunk;
    this.#places.set(digest, { digest, size, chunks });
  }

  async #upload(digest: Digest, bytes: Uint8Array): Promise<void> {
    if (!(await this.#putOnce(objectPath("packs", digest), bytes))) return;
    this.counts.packs++;
    this.counts.storedBytes += bytes.length;
  }

  async #put(path: string, bytes: Uint8Array): Promise<void> {
    const store = this.#store;
    if (this.#near === undefined || !isDeltaStore(store)) await store.put(path, bytes);
    else await putNear(store, path, bytes, this.#near.digest, this.#near.bytes);
  }

  /** One that is there and says otherwise, as after another machine's import of the same, may be what others are deltas of. */
  async #putLocator(digest: Digest, bytes: Uint8Array): Promise<void> {
    const store = this.#store;
    const path = objectPath("locators", digest);
    if (!isDeltaStore(store) || !(await store.whole.has(path))) return await this.#put(path, bytes);
    try {
      if ((await store.whole.get(path)).equals(bytes)) return;
      const byBase = await locatorsByBase(store, () => undefined);
      await replaceLocator(store, digest, bytes, byBase.get(digest) ?? []);
    } catch (error) {
      if (!isDamage(error)) throw error;
      // It was of no use to anybody, and may be what it was by this.
      await store.whole.put(path, bytes);
    }
  }

  /** Where the content lies that the near index has at a path, if it is cut as what is to be added. */
  #nearBlob(path: string | undefined, isLarge: boolean): NearBlob | undefined {
    const ref = path === undefined ? undefined : this.#near?.blobAt(path);
    const place = ref === undefined ? undefined : this.#known.place(ref.digest);
    if (ref === undefined || place === undefined) return undefined;
    return place.size > BLOCK_DIGESTS_OVER_BYTES === isLarge ? { ref, place } : undefined;
  }

  /**
   * A chunk as a delta of the same one of a near blob. A base that can't be read, or is damaged, saves nothing, no more: what is made of a
   * wrong one would be wrong by every other copy.
   */
  async #deltaOf(near: NearBlob, block: number, piece: Uint8Array): Promise<Packed | undefined> {
    const { digest, blocks } = near.ref;
    const place = near.place.chunks[block];
    if (place === undefined) return undefined;
    const { pack, offset, stored, length, codec } = place;
    try {
      const range = { offset, length: stored };
      const bytes = await this.#store.get(objectPath("packs", pack), { range });
      const base = expandChunk(codec, bytes, length);
      return digestOf(base) === (blocks[block] ?? digest)
        ? deltaChunk(piece, digest, base)
        : undefined;
    } catch {
      return undefined;
    }
  }

  /** Whether the object was missing. */
  async #putOnce(path: string, bytes: Uint8Array): Promise<boolean> {
    if (await this.#store.has(path)) return false;
    await this.#store.put(path, bytes);
    return true;
  }
}

function* placesOf(own: Iterable<BlobPlace>, layers: readonly Locator[]): Iterable<BlobPlace> {
  yield* own;
  for (const layer of layers) {
    for (let row = 0; row < layer.blobCount; row++) yield placeAt(layer, row);
  }
}
