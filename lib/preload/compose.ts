// Compose: profiles by package. What starts over one snapshot read is told apart by the layers that it was merged of, and put together
// again for another snapshot that has some of them: by content, so it holds whatever the environment's prefix and its other packages are.
// What a merge made (text under another prefix) has no layer, and is left out. Pure. Control plane.

import type { Digest } from "../base/digest.ts";
import type { PackageAsks, ProfileAsk } from "./profile.ts";

/** What is needed of an index. */
export interface BlobRows {
  readonly blobCount: number;
  blobDigest(row: number): Digest;
}

/** Of asks over a snapshot those for what a layer has, in its rows and in their order. */
export function asksOfLayer(
  asks: readonly ProfileAsk[],
  snapshot: BlobRows,
  layer: BlobRows,
): ProfileAsk[] {
  return moved(asks, snapshot, layer);
}

/** What is known of a layer, in its rows. */
export interface LayerAsks {
  readonly layer: Digest;
  readonly index: BlobRows;
  readonly asks: readonly ProfileAsk[];
}

/** What is known of layers, as asks over a snapshot that has them. */
export function composed(snapshot: BlobRows, layers: readonly LayerAsks[]): PackageAsks[] {
  const rows = rowsOf(snapshot);
  return layers
    .map(({ layer, index, asks }) => ({ layer, asks: moved(asks, index, snapshot, rows) }))
    .filter(({ asks }) => asks.length > 0);
}

function moved(
  asks: readonly ProfileAsk[],
  from: BlobRows,
  to: BlobRows,
  rows = rowsOf(to),
): ProfileAsk[] {
  return asks.flatMap(({ row, first, count }) => {
    const there = row < from.blobCount ? rows.get(from.blobDigest(row)) : undefined;
    return there === undefined ? [] : [{ row: there, first, count }];
  });
}

function rowsOf(index: BlobRows): Map<Digest, number> {
  const rows = new Map<Digest, number>();
  for (let row = 0; row < index.blobCount; row++) rows.set(index.blobDigest(row), row);
  return rows;
}
