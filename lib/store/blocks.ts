// Cutting content into BLOCK_BYTES pieces. Control plane.

import { BLOCK_BYTES } from "../base/limits.ts";

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
