// Pieces: the unit that is fetched and verified: a chunk of a pack, or a block of a plain file; and how to get some that lie
// next to each other in one request. Control plane.

import { type Digest, showDigest } from "../base/digest.ts";
import { BurrowError } from "../base/error.ts";
import { BLOCK_BYTES, BLOCK_DIGESTS_OVER_BYTES } from "../base/limits.ts";
import { baseOfChunk, CHUNK_MAX_BYTES, Codec, expandChunk } from "../store/codec.ts";
import { digestOf } from "../store/hash.ts";
import type { FoundChunk, Locator, PinnedFile, RunChunk } from "../store/locator.ts";
import type { ByteRange, ObjectPin, Sender } from "../store/store.ts";
import type { AskFailure } from "./counters.ts";
import type { Origin } from "./origins.ts";
import { SEGMENT_BYTES } from "./segments.ts";

export interface Piece {
  /** Object below the origin. */
  readonly path: string;
  readonly offset: number;
  readonly stored: number;
  readonly length: number;
  readonly codec: number;
  /** Of an object of a bucket: the state of it that is meant. There is no digest to compare it with. */
  readonly pin?: ObjectPin | undefined;
  /** Of a tenant's file: what all of its bytes come to, since its name doesn't say. */
  readonly sum?: Digest | undefined;
  /** Of a delta: where the base is to be found, which its stored bytes name. */
  readonly near?: { readonly locator: Locator; readonly block: number; readonly maxBytes: number };
  /** Of a chunk: who knows what lies around it. */
  readonly home?: { readonly locator: Locator; readonly blob: Digest; readonly block: number };
}

/** A piece as it came; of a delta its base too, where it can be had. */
export interface StoredPiece {
  readonly stored: Uint8Array;
  /** Who sent it, to be told when it is wrong. */
  readonly sender: Sender;
  readonly base?:
    | { readonly piece: Piece; readonly stored: Uint8Array; readonly sender?: Sender }
    | undefined;
}

/** What the fetcher needs of a snapshot's index: the only source of truth about content. */
export interface BlobTable {
  readonly count: number;
  digestAt(row: number): Digest;
  sizeOf(row: number): number;
  /** How many block digests a blob has: 0 for one of at most BLOCK_DIGESTS_OVER_BYTES. */
  blockCount(row: number): number;
  /** Digest of a block of a blob > BLOCK_DIGESTS_OVER_BYTES. Throws when the index has none. */
  blockDigest(row: number, block: number): Digest;
  /** sha256 of all digests of a blob's blocks, one after the other. Throws BURROW_BAD_INDEX where that would be more work than the index is worth. */
  blocksDigest(row: number): Digest;
}

/** A snapshot that blobs are asked of. */
export interface Source {
  readonly snapshot: Digest;
  readonly origin: string;
  readonly table: BlobTable;
  /** Hears of content that was asked for and isn't whole on this node. */
  readonly onMiss?: (bytes: number) => void;
  /** Nobody waits for what is asked of it. */
  readonly isAhead?: boolean;
  /** Hears of a piece that has come and that nobody waited for. */
  readonly onPrefetch?: (blob: Digest, piece: number, bytes: number) => void;
  /** Hears why an ask of it was answered with an errno. */
  readonly onFailure?: (failure: AskFailure) => void;
}

/**
 * What makes a blob that is cut into blocks one with another's: the digest, and all that the index says of its content. Anybody's index
 * may name any digest; a block that was right by one is right for another only if they say the same.
 */
export function keyOfBlocks({ table }: Source, row: number): string {
  return `${table.digestAt(row)} ${table.sizeOf(row)} ${table.blocksDigest(row)}`;
}

export function isLarge(size: number): boolean {
  return size > BLOCK_DIGESTS_OVER_BYTES;
}

export function pieceCount(size: number): number {
  return isLarge(size) ? Math.ceil(size / BLOCK_BYTES) : 1;
}

/** Content bytes of piece k of a blob. */
export function pieceLength(size: number, k: number): number {
  return isLarge(size) ? Math.min(BLOCK_BYTES, size - k * BLOCK_BYTES) : size;
}

export function pieceOfChunk(chunk: FoundChunk): Piece {
  const { path, offset, stored, length, codec } = chunk;
  return { path, offset, stored, length, codec };
}

/** A chunk that was found beside another one. */
export function pieceOfNeighbour(locator: Locator, chunk: RunChunk): Piece {
  const { blob, block } = chunk;
  return { ...pieceOfChunk(chunk), home: { locator, blob, block } };
}

/** Where piece k of a blob lies. Throws BURROW_CORRUPT when the locator contradicts the index. */
export function pieceAt(
  locator: Locator,
  digest: Digest,
  size: number,
  k: number,
  pinned?: PinnedFile,
): Piece {
  const row = locator.find(digest);
  if (row < 0) throw contradiction("does not name the blob", digest);
  const length = pieceLength(size, k);
  if (pinned !== undefined) {
    return { ...pinned, offset: k * BLOCK_BYTES, stored: length, length, codec: Codec.raw };
  }
  if (locator.kind === "files") {
    const path = locator.fileAt(row);
    return { path, offset: k * BLOCK_BYTES, stored: length, length, codec: Codec.raw };
  }
  if (locator.chunkCount(row) !== pieceCount(size))
    throw contradiction("cuts it otherwise", digest);
  const { path, offset, stored, length: actual, codec } = locator.chunkAt(row, k);
  // A chunk that does not shrink is stored raw, so none is longer in the pack than its content.
  if (actual !== length || stored > length) {
    throw contradiction("gives a piece another length", digest);
  }
  const home = { locator, blob: digest, block: k };
  // In one go: a copy of an object with a field more takes longer than the search.
  const piece: Piece = { path, offset, stored, length, codec, home };
  if (codec !== Codec.delta) return piece;
  // A run of blocks may have as many bases: they are no larger than blocks.
  const maxBytes = isLarge(size) ? BLOCK_BYTES : CHUNK_MAX_BYTES;
  return { ...piece, near: { locator, block: k, maxBytes } };
}

/** How many of `pieces`, from the first, one request can get: neighbours without gaps, up to maxBytes. */
export function runLength(pieces: readonly Piece[], maxBytes: number): number {
  let count = 1;
  let bytes = pieces[0]!.stored;
  for (; count < pieces.length; count++) {
    const last = pieces[count - 1]!;
    const next = pieces[count]!;
    const touches = next.path === last.path && next.offset === last.offset + last.stored;
    if (!touches || bytes + next.stored > maxBytes) break;
    bytes += next.stored;
  }
  return count;
}

/**
 * Pieces that lie next to each other, by one range request, and the bases of those that are deltas by a few more. Places to `avoid` are
 * asked last, and nothing of what was kept is taken then.
 */
export async function getPieces(
  origin: Origin,
  pieces: readonly Piece[],
  isDemand: boolean,
  signal: AbortSignal,
  avoid?: ReadonlySet<string>,
): Promise<StoredPiece[]> {
  const got: StoredPiece[] = await getStored(origin, pieces, isDemand, signal, avoid);
  const wanted = pieces.map((piece, i) => basePieceOf(piece, got[i]!.stored));
  for (let at = 0; at < pieces.length; ) {
    if (wanted[at] === undefined) {
      at++;
      continue;
    }
    let end = at + 1;
    while (wanted[end] !== undefined) end++;
    const some = wanted.slice(at, end) as Piece[];
    const run = some.slice(0, runLength(some, BASE_RUN_BYTES));
    const bases = await getStored(origin, run, isDemand, signal, avoid);
    for (const [i, piece] of run.entries())
      got[at + i] = { ...got[at + i]!, base: { piece, ...bases[i]! } };
    at += run.length;
  }
  return got;
}

/** What a demand brings of a pack that a start reads, where no plan has what it is for. */
const START_SEGMENT_BYTES = 1024 * 1024;
/** Bases are asked for together up to this many stored bytes. */
const BASE_RUN_BYTES = 4 * 1024 * 1024;

/** Where the base of a delta lies: a chunk that is whole itself. Undefined where the locator has no such. */
function basePieceOf({ codec, near }: Piece, stored: Uint8Array): Piece | undefined {
  const blob = baseOfChunk(codec, stored);
  if (blob === undefined || near === undefined) return undefined;
  const row = near.locator.find(blob);
  if (row < 0 || near.block >= near.locator.chunkCount(row)) return undefined;
  const piece = pieceOfChunk(near.locator.chunkAt(row, near.block));
  const isWhole = piece.codec !== Codec.delta;
  return isWhole && piece.stored <= piece.length && piece.length <= near.maxBytes
    ? piece
    : undefined;
}

/** Pieces next to each other, by one request; or by one for each segment of the pack that they lie in, where those are fetched whole. */
async function getStored(
  origin: Origin,
  pieces: readonly Piece[],
  isDemand: boolean,
  signal: AbortSignal,
  avoid: ReadonlySet<string> | undefined,
): Promise<StoredBytes[]> {
  const parts = avoid === undefined ? bySegment(origin, pieces) : [{ pieces, segment: undefined }];
  const got = parts.map(async ({ pieces: some, segment }) => {
    const { path, offset, pin } = some[0]!;
    const last = some.at(-1)!;
    const range = { offset, length: last.offset + last.stored - offset };
    const more = { segment, pin, avoid };
    const { bytes, sender } = await origin.range(path, range, isDemand, signal, more);
    return some.map((piece) => {
      const start = piece.offset - offset;
      return { stored: bytes.subarray(start, start + piece.stored), sender };
    });
  });
  // None may fail unheard while others are waited for.
  return (await Promise.all(got)).flat();
}

interface StoredBytes {
  readonly stored: Uint8Array;
  readonly sender: Sender;
}

interface Part {
  readonly pieces: readonly Piece[];
  readonly segment: ByteRange | undefined;
}

function bySegment(origin: Origin, pieces: readonly Piece[]): Part[] {
  const parts: { pieces: Piece[]; segment: ByteRange | undefined }[] = [];
  for (const piece of pieces) {
    const last = parts.at(-1);
    if (last?.segment !== undefined && isWithin(spanOf(piece), last.segment))
      last.pieces.push(piece);
    else {
      const segment =
        origin.planned(piece.path, spanOf(piece)) ??
        (origin.isCrowded ? claimAround(origin, piece, SEGMENT_BYTES) : undefined);
      if (last !== undefined && last.segment === undefined && segment === undefined) {
        last.pieces.push(piece);
      } else parts.push({ pieces: [piece], segment });
    }
  }
  return parts;
}

/** The planned range that a small blob lies in; of a pack that a start reads it is made here: what follows is taken from there. */
export function plannedAround(origin: Origin, piece: Piece): ByteRange | undefined {
  const planned = origin.planned(piece.path, spanOf(piece));
  if (planned !== undefined || !origin.isStarted(piece.path)) return planned;
  return claimAround(origin, piece, START_SEGMENT_BYTES);
}

/** What is fetched with a piece: of its segment what nobody else fetches. */
function claimAround(origin: Origin, piece: Piece, segmentBytes: number): ByteRange | undefined {
  const segment = segmentOf(piece, segmentBytes);
  return segment === undefined ? undefined : origin.claim(piece.path, segment, spanOf(piece));
}

/** The segment of a piece; undefined where that can't be known, or a locator lies. */
function segmentOf(piece: Piece, segmentBytes: number): ByteRange | undefined {
  if (piece.home === undefined) return undefined;
  const { locator, blob, block } = piece.home;
  const row = locator.find(blob);
  if (row < 0 || block >= locator.chunkCount(row)) return undefined;
  const segment = locator.segmentAround(row, block, segmentBytes);
  if (segment === undefined || segment.length > 2 * segmentBytes) return undefined;
  return isWithin(spanOf(piece), segment) ? segment : undefined;
}

/** Whether all of a range lies in another one. */
export function isWithin({ offset, length }: ByteRange, outer: ByteRange): boolean {
  return offset >= outer.offset && offset + length <= outer.offset + outer.length;
}

/** What a piece takes of its object. */
export function spanOf({ offset, stored }: Pick<Piece, "offset" | "stored">): ByteRange {
  return { offset, length: stored };
}

/** The content of a piece, verified; of a pinned object's as it came. Throws BURROW_DIGEST_MISMATCH for anything else. */
export function openPiece(piece: Piece, got: StoredPiece, digest: Digest): Uint8Array {
  if (piece.pin !== undefined) return got.stored;
  let content: Uint8Array;
  try {
    // Of a base nothing is verified: what is made of it is.
    const base =
      got.base && expandChunk(got.base.piece.codec, got.base.stored, got.base.piece.length);
    content = expandChunk(piece.codec, got.stored, piece.length, base);
  } catch (cause) {
    throw mismatch(piece, got.sender, digest, cause);
  }
  if (digestOf(content) !== digest) throw mismatch(piece, got.sender, digest);
  return content;
}

/** Says who sent it: whether they are to blame this piece alone doesn't tell (doubts.ts). */
function mismatch(piece: Piece, sender: Sender, digest: Digest, cause?: unknown): BurrowError {
  const message = "an origin sent content with another digest";
  const content = showDigest(digest);
  return new BurrowError("BURROW_DIGEST_MISMATCH", message, {
    class: "transient",
    cause,
    context: { content, path: piece.path, offset: piece.offset, place: sender.name },
  });
}

function contradiction(what: string, digest: Digest): BurrowError {
  return new BurrowError("BURROW_CORRUPT", `the locator ${what}`, {
    context: { blob: showDigest(digest) },
  });
}
