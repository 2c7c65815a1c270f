// Cutting content into BLOCK_BYTES pieces. Control plane.

import { roundUp } from "../base/bytes.ts";
import type { Digest } from "../base/digest.ts";
import { BLOCK_BYTES, BLOCK_DIGESTS_OVER_BYTES } from "../base/limits.ts";
import { digestOf } from "./hash.ts";
import { hashPieces, type Piece } from "./lanes.ts";

/** Blocks of a stream that are taken together: as many as are hashed at once. */
const GROUP_BYTES = 16 * BLOCK_BYTES;

/** How much of a stream is taken together, by its size as announced: blocks, and more than a blob without blocks can have. */
export function groupBytes(sizeHint: number): number {
  const bytes = roundUp(Math.max(sizeHint, BLOCK_DIGESTS_OVER_BYTES + 1), BLOCK_BYTES);
  return Math.min(GROUP_BYTES, bytes);
}

/** The digests of the blocks of content in memory. */
export function blockDigests(bytes: Uint8Array): Digest[] {
  const pieces: Piece[] = [];
  for (let start = 0; start < bytes.length; start += BLOCK_BYTES)
    pieces.push({ start, length: Math.min(BLOCK_BYTES, bytes.length - start) });
  hashPieces(bytes, pieces);
  return pieces.map(
    ({ start, length, digest }) => digest ?? digestOf(bytes.subarray(start, start + length)),
  );
}

/** The blocks of content in memory, as views of it. */
export function* blocksOf(bytes: Uint8Array): Iterable<Uint8Array> {
  for (let offset = 0; offset < bytes.length; offset += BLOCK_BYTES) {
    yield bytes.subarray(offset, offset + BLOCK_BYTES);
  }
}

/** The same bytes in pieces of exactly `pieceBytes`, the last one shorter. Each is good until the next is asked for. */
export async function* regroup(
  chunks: AsyncIterable<Uint8Array>,
  pieceBytes: number,
): AsyncIterable<Uint8Array> {
  let piece: Uint8Array | undefined;
  let filled = 0;
  for await (const chunk of chunks) {
    let taken = 0;
    while (taken < chunk.length) {
      const count = Math.min(pieceBytes - filled, chunk.length - taken);
      const part = chunk.subarray(taken, taken + count);
      taken += count;
      if (count === pieceBytes) {
        yield part;
        continue;
      }
      piece ??= Buffer.allocUnsafeSlow(pieceBytes);
      piece.set(part, filled);
      filled += count;
      if (filled < pieceBytes) continue;
      filled = 0;
      yield piece;
    }
  }
  if (piece !== undefined && filled > 0) yield piece.subarray(0, filled);
}
