// Writes locators: from the places of blobs, by merging others, or from plain files. The same input in any order
// gives the same bytes. Control plane.

import { setU64, viewOf } from "../base/bytes.ts";
import { DIGEST_BYTES, type Digest } from "../base/digest.ts";
import { BurrowError } from "../base/error.ts";
import { Codec } from "./codec.ts";
import type { ChunkPlace, Locator, PinnedFile } from "./locator.ts";
import {
  BLOB_ROW,
  CHUNK_ROW,
  HEADER,
  LOCATOR_KIND,
  LOCATOR_MAGIC,
  LOCATOR_VERSION,
  TABLE,
} from "./locator-format.ts";

/** Where all of a blob lies: its chunks in the order of its blocks; none for an empty blob. */
export interface BlobPlace {
  readonly digest: Digest;
  readonly size: number;
  readonly chunks: readonly ChunkPlace[];
}

/** A blob that is a plain file below an origin. */
export interface FilePlace {
  readonly digest: Digest;
  readonly size: number;
  /** Relative, UTF-8, "/" between parts. */
  readonly path: string;
}

/** A file of a stage that isn't named by its content; its path is relative, UTF-8, "/" between parts, without NUL. */
export type PinnedPlace = PinnedFile & { readonly digest: Digest; readonly size: number };

/** The place of a row in a locator of kind packs. */
export function placeAt(locator: Locator, row: number): BlobPlace {
  const chunks: ChunkPlace[] = [];
  for (let k = 0; k < locator.chunkCount(row); k++) chunks.push(locator.chunkAt(row, k));
  return { digest: locator.digestAt(row), size: locator.sizeAt(row), chunks };
}

/** A locator of kind packs. Of a blob given twice the first place is kept, but for one of deltas: the base of others must be none. */
export function encodeLocator(places: Iterable<BlobPlace>): Buffer {
  const blobs = sortedByDigest(places, isOfDeltas);
  const packs = [
    ...new Set(blobs.flatMap((blob) => blob.chunks.map((chunk) => chunk.pack))),
  ].sort();
  const packNumbers = new Map(packs.map((digest, number) => [digest, number]));
  const chunkCount = blobs.reduce((count, blob) => count + blob.chunks.length, 0);
  const starts = startsOf(blobs);
  const { bytes, blobsAt, restAt } = allocate(
    LOCATOR_KIND.packs,
    blobs.length,
    chunkCount,
    packs.length,
    starts.size === 0 ? 0 : packs.length * TABLE.startBytes,
  );
  const order: { pack: number; offset: number; chunk: number }[] = [];
  let chunk = 0;
  blobs.forEach((blob, row) => {
    writeBlob(bytes, blobsAt + row * BLOB_ROW.bytes, blob, chunk, blob.chunks.length);
    for (const place of blob.chunks) {
      const pack = packNumbers.get(place.pack)!;
      writeChunk(bytes, restAt + chunk * CHUNK_ROW.bytes, place, pack, row);
      order.push({ pack, offset: place.offset, chunk });
      chunk++;
    }
  });
  order.sort((a, b) => a.pack - b.pack || a.offset - b.offset || a.chunk - b.chunk);
  const orderAt = restAt + chunkCount * CHUNK_ROW.bytes;
  for (const [i, entry] of order.entries()) {
    bytes.writeUInt32LE(entry.chunk, orderAt + i * TABLE.orderBytes);
  }
  const packsAt = orderAt + chunkCount * TABLE.orderBytes;
  for (const [i, digest] of packs.entries()) {
    bytes.write(digest, packsAt + i * DIGEST_BYTES, DIGEST_BYTES, "hex");
  }
  const startsAt = packsAt + packs.length * DIGEST_BYTES;
  for (const [digest, end] of starts)
    bytes.writeUInt32LE(end, startsAt + packNumbers.get(digest)! * TABLE.startBytes);
  return bytes;
}

/** Up to where starts read packs, of those of which that is known. */
function startsOf(blobs: readonly BlobPlace[]): Map<Digest, number> {
  const starts = new Map<Digest, number>();
  for (const { chunks } of blobs)
    for (const { pack, offset, stored, isOfStart } of chunks)
      if (isOfStart === true) starts.set(pack, Math.max(offset + stored, starts.get(pack) ?? 0));
  return starts;
}

/** A locator of kind files. Of equal files the one whose path sorts first is kept. */
export function encodeFileLocator(files: Iterable<FilePlace>): Buffer {
  const byPath = [...files].sort((a, b) => (a.path < b.path ? -1 : a.path > b.path ? 1 : 0));
  return encodeTexts(LOCATOR_KIND.files, sortedByDigest(byPath), ({ path }) => path);
}

/** A locator of kind pinned. */
export function encodePinnedLocator(tenant: string, objects: Iterable<PinnedPlace>): Buffer {
  const blobs = [...objects].map(({ digest, size, path, pin, sum }) => {
    const parts = pin === undefined ? [sum] : [pin.versionId ?? "", pin.etag];
    return { digest, size, text: [path, ...parts].join("\0") };
  });
  return encodeTexts(LOCATOR_KIND.pinned, sortedByDigest(blobs), ({ text }) => text, tenant);
}

/** Blobs in their order, each with a text; `first` stands before all of them. */
function encodeTexts<T extends { readonly digest: Digest; readonly size: number }>(
  kind: number,
  blobs: readonly T[],
  textOf: (blob: T) => string,
  first = "",
): Buffer {
  const firstBytes = Buffer.byteLength(first);
  const lengths = Uint32Array.from(blobs, (blob) => Buffer.byteLength(textOf(blob)));
  const stringBytes = lengths.reduce((sum, length) => sum + length, firstBytes);
  const { bytes, blobsAt, restAt } = allocate(kind, blobs.length, 0, 0, stringBytes);
  if (firstBytes > 0) bytes.writeUInt32LE(firstBytes, HEADER.tenantBytes);
  bytes.write(first, restAt);
  let offset = firstBytes;
  blobs.forEach((blob, row) => {
    writeBlob(bytes, blobsAt + row * BLOB_ROW.bytes, blob, offset, lengths[row]!);
    bytes.write(textOf(blob), restAt + offset);
    offset += lengths[row]!;
  });
  return bytes;
}

function isOfDeltas({ chunks }: BlobPlace): boolean {
  return chunks.some(({ codec }) => codec === Codec.delta);
}

/** One item for each digest: the first that is not worse. */
function sortedByDigest<T extends { readonly digest: Digest }>(
  items: Iterable<T>,
  isWorse: (item: T) => boolean = () => false,
): T[] {
  const byDigest = new Map<Digest, T>();
  for (const item of items) {
    const known = byDigest.get(item.digest);
    if (known === undefined || (isWorse(known) && !isWorse(item))) byDigest.set(item.digest, item);
  }
  return [...byDigest.values()].sort((a, b) => (a.digest < b.digest ? -1 : 1));
}

function allocate(
  kind: number,
  blobCount: number,
  chunkCount: number,
  packCount: number,
  stringBytes: number,
): { bytes: Buffer; blobsAt: number; restAt: number } {
  const restAt = HEADER.bytes + blobCount * BLOB_ROW.bytes;
  const size =
    restAt +
    chunkCount * (CHUNK_ROW.bytes + TABLE.orderBytes) +
    packCount * DIGEST_BYTES +
    stringBytes;
  if (size > 0xffff_ffff) {
    throw new BurrowError("BURROW_UNSUPPORTED", "a locator past 4 GiB", { context: { blobCount } });
  }
  const bytes = Buffer.alloc(size);
  bytes.write(LOCATOR_MAGIC, 0, "latin1");
  bytes.writeUInt32LE(LOCATOR_VERSION, HEADER.version);
  bytes.writeUInt32LE(kind, HEADER.kind);
  setU64(viewOf(bytes), HEADER.fileBytes, size);
  bytes.writeUInt32LE(blobCount, HEADER.blobCount);
  bytes.writeUInt32LE(chunkCount, HEADER.chunkCount);
  bytes.writeUInt32LE(packCount, HEADER.packCount);
  bytes.writeUInt32LE(stringBytes, HEADER.stringBytes);
  return { bytes, blobsAt: HEADER.bytes, restAt };
}

function writeBlob(
  bytes: Buffer,
  at: number,
  blob: { readonly digest: Digest; readonly size: number },
  first: number,
  count: number,
): void {
  bytes.write(blob.digest, at + BLOB_ROW.digest, DIGEST_BYTES, "hex");
  setU64(viewOf(bytes), at + BLOB_ROW.size, blob.size);
  bytes.writeUInt32LE(first, at + BLOB_ROW.first);
  bytes.writeUInt32LE(count, at + BLOB_ROW.count);
}

function writeChunk(bytes: Buffer, at: number, place: ChunkPlace, pack: number, row: number): void {
  bytes.writeUInt32LE(pack, at + CHUNK_ROW.pack);
  bytes.writeUInt32LE(place.offset, at + CHUNK_ROW.offset);
  bytes.writeUInt32LE(place.stored, at + CHUNK_ROW.stored);
  bytes.writeUInt32LE(place.length, at + CHUNK_ROW.length);
  bytes.writeUInt32LE(place.codec, at + CHUNK_ROW.codec);
  bytes.writeUInt32LE(row, at + CHUNK_ROW.blob);
}
