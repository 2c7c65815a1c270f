// Content: what the blobs of an index take, by chunk: as content, and as stored. For commands that count. Control plane.

import type { Digest } from "../base/digest.ts";
import { BurrowError } from "../base/error.ts";
import { BLOCK_BYTES } from "../base/limits.ts";
import type { Index } from "../layer/index.ts";
import { Codec } from "../store/codec.ts";
import type { Locator } from "../store/locator.ts";

/** Bytes as content and as stored. */
export interface Bytes {
  readonly rawBytes: number;
  readonly storedBytes: number;
}

export interface StoredChunk extends Bytes {
  /** Of its content. */
  readonly digest: Digest;
  /** Where it lies: equal content may lie elsewhere, too. */
  readonly pack: Digest;
  readonly offset: number;
  /** Stored as what differs from a chunk of another blob. */
  readonly isDelta: boolean;
}

/** A blob of an index, and its chunks: none for an empty one. */
export interface StoredBlob extends Bytes {
  readonly digest: Digest;
  readonly chunks: readonly StoredChunk[];
}

/** The blobs of an index, each once. BURROW_CORRUPT when the locator is of another index. */
export function* blobsOf(index: Index, locator: Locator): Iterable<StoredBlob> {
  for (let row = 0; row < index.blobCount; row++) yield storedBlob(index, row, locator);
}

/** One of them, by its row. */
export function storedBlob(index: Index, row: number, locator: Locator): StoredBlob {
  const digest = index.blobDigest(row);
  const place = locator.find(digest);
  if (place < 0 || locator.sizeAt(place) !== index.blobSize(row)) throw disagreement(digest);
  const rawBytes = index.blobSize(row);
  const chunks = locator.kind === "packs" ? chunksOf(index, row, locator, place) : [];
  // A plain file, of a stage, is stored as it is.
  const storedBytes = locator.kind === "packs" ? totalOf(chunks).storedBytes : rawBytes;
  return { digest, rawBytes, storedBytes, chunks };
}

function chunksOf(index: Index, row: number, locator: Locator, place: number): StoredChunk[] {
  const size = index.blobSize(row);
  const blocks = index.blockCount(row);
  const count = size === 0 ? 0 : Math.max(1, blocks);
  if (locator.chunkCount(place) !== count) throw disagreement(index.blobDigest(row));
  return Array.from({ length: count }, (_, k) => {
    const { pack, offset, stored, codec } = locator.chunkAt(place, k);
    return {
      digest: blocks === 0 ? index.blobDigest(row) : index.blockDigest(row, k),
      pack,
      offset,
      isDelta: codec === Codec.delta,
      rawBytes: blocks === 0 ? size : Math.min(BLOCK_BYTES, size - k * BLOCK_BYTES),
      storedBytes: stored,
    };
  });
}

export function totalOf(items: Iterable<Bytes>): Bytes {
  let rawBytes = 0;
  let storedBytes = 0;
  for (const item of items) {
    rawBytes += item.rawBytes;
    storedBytes += item.storedBytes;
  }
  return { rawBytes, storedBytes };
}

function disagreement(digest: Digest): BurrowError {
  const context = { blob: `sha256:${digest}` };
  return new BurrowError("BURROW_CORRUPT", "a locator does not fit its index", { context });
}
