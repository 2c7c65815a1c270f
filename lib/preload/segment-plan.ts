// Segment plan: from asks that come to be known bit by bit to few ranges of packs, none over another. A pack is cut at the same places for
// all asks, so that what comes later lies in what is here or on its way, or in a range of its own. Control plane.

import { BurrowError } from "../base/error.ts";
import { BLOCK_BYTES, BLOCK_DIGESTS_OVER_BYTES } from "../base/limits.ts";
import { Codec } from "../store/codec.ts";
import type { Locator } from "../store/locator.ts";
import type { ByteRange } from "../store/store.ts";
import { type PlannedTable, STRETCH_BYTES } from "./plan.ts";
import type { ProfileAsk } from "./profile.ts";

/** A part of a pack that is fetched whole. */
export interface Segment extends ByteRange {
  readonly path: string;
}

/** Some that touch, as one range. */
export interface SegmentRange extends Segment {
  readonly segments: readonly Segment[];
}

/** What tells a segment from others. */
export function segmentKey({ path, offset }: Segment): string {
  return `${offset} ${path}`;
}

/** The segments that an ask's bytes lie in; none where it can't be said, and it is asked for by itself. */
export function segmentsOf(
  ask: ProfileAsk,
  table: PlannedTable,
  locator: Locator,
  segmentBytes: number,
): Segment[] {
  try {
    return segmentsIn(ask, table, locator, segmentBytes);
  } catch (error) {
    // A locator is a hint: one that lies is asked as if there were none.
    if (error instanceof BurrowError && error.code === "BURROW_CORRUPT") return [];
    throw error;
  }
}

function segmentsIn(
  { row, first, count }: ProfileAsk,
  table: PlannedTable,
  locator: Locator,
  segmentBytes: number,
): Segment[] {
  if (locator.kind !== "packs" || row >= table.count) return [];
  const at = locator.find(table.digestAt(row));
  const chunks = at < 0 ? 0 : locator.chunkCount(at);
  const size = table.sizeOf(row);
  const wanted = size > BLOCK_DIGESTS_OVER_BYTES ? Math.ceil(size / BLOCK_BYTES) : 1;
  if (chunks === 0 || chunks !== wanted) return [];
  const end = count === 0 ? chunks : Math.min(chunks, first + count);
  const found = new Map<string, Segment>();
  for (let chunk = first; chunk < end; chunk++) {
    const { path, codec } = locator.chunkAt(at, chunk);
    // Of a delta the base is wanted, too: that is another place.
    if (codec === Codec.delta) return [];
    const range = locator.segmentAround(at, chunk, segmentBytes);
    if (range.length > 2 * segmentBytes + BLOCK_BYTES) return [];
    const segment = { path, ...range };
    found.set(segmentKey(segment), segment);
  }
  return [...found.values()];
}

/** Segments as ranges in the order in which they were wanted first, those that touch joined up to STRETCH_BYTES. */
export function rangesOf(segments: readonly Segment[]): SegmentRange[] {
  const order = new Map(segments.map((each, i) => [each, i]));
  const sorted = [...segments].sort((a, b) => {
    if (a.path !== b.path) return a.path < b.path ? -1 : 1;
    return a.offset - b.offset;
  });
  const ranges: { path: string; offset: number; length: number; segments: Segment[] }[] = [];
  for (const segment of sorted) {
    const last = ranges.at(-1);
    const touches = last?.path === segment.path && last.offset + last.length === segment.offset;
    if (touches && last.length + segment.length <= STRETCH_BYTES) {
      last.length += segment.length;
      last.segments.push(segment);
    } else ranges.push({ ...segment, segments: [segment] });
  }
  const first = ({ segments: some }: SegmentRange) => Math.min(...some.map((s) => order.get(s)!));
  return ranges.sort((a, b) => first(a) - first(b));
}
