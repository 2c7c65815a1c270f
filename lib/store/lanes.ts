// Digests of many pieces of memory at once, where this machine's CPU is far faster at it than at one after the other (the addon's
// lanes). docs/design/0012-sha256-lanes.md. Control plane.

import { DIGEST_BYTES, type Digest, digestAt } from "../base/digest.ts";
import { native } from "../sys/native.ts";

/** Where a piece lies; its digest, once it is known. */
export interface Piece {
  readonly start: number;
  readonly length: number;
  digest?: Digest;
}

const LANES = 16;
/** A piece alone is hashed by node:crypto at this part of the speed of all lanes together: 390 of 2,100 MB/s. */
const ALONE = 0.19;
/** Fewer pieces than this are hashed as fast one after the other. */
const PIECES_MIN = 4;

/** Whether hashing many pieces at once is worth gathering them. */
export const hasLanes =
  native.hashLanes(Buffer.alloc(0), new Uint32Array(0), Buffer.alloc(0)) === 0;

/**
 * Fills in the digests of pieces of `bytes`. Those whose length would keep one lane busy when all others are done are left out, as
 * are all where there are no lanes: they are best hashed alone.
 */
export function hashPieces(bytes: Uint8Array, pieces: readonly Piece[]): void {
  if (!hasLanes || pieces.length < PIECES_MIN) return;
  const sorted = [...pieces].sort((left, right) => right.length - left.length);
  const together = sorted.slice(loneOnes(sorted));
  if (together.length < PIECES_MIN) return;
  const ranges = new Uint32Array(2 * together.length);
  for (const [i, { start, length }] of together.entries()) {
    ranges[2 * i] = start;
    ranges[2 * i + 1] = length;
  }
  const digests = Buffer.allocUnsafe(DIGEST_BYTES * together.length);
  if (native.hashLanes(bytes, ranges, digests) !== 0) return;
  for (const [i, piece] of together.entries()) piece.digest = digestAt(digests, DIGEST_BYTES * i);
}

/** How many pieces, longest first, take less time alone than they would have lanes wait. */
function loneOnes(sorted: readonly Piece[]): number {
  let rest = sorted.reduce((sum, { length }) => sum + length, 0);
  for (const [i, { length }] of sorted.entries()) {
    rest -= length;
    // In what a lane takes for a byte.
    const without = Math.max(sorted[i + 1]?.length ?? 0, rest / LANES);
    if (length - without <= length / LANES / ALONE) return i;
  }
  return sorted.length;
}
