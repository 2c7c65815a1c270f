// Segment plan: from asks that come to be known bit by bit to few ranges of packs, none over another. A pack is cut at the same places for
// all asks, so that what comes later lies in what is here or on its way, or in a range of its own. Control plane.

import { BLOCK_BYTES, BLOCK_DIGESTS_OVER_BYTES } from "../base/limits.ts";
import { Codec } from "../store/codec.ts";
import { hinted, type Locator } from "../store/locator.ts";
import { PACK_HEADER_BYTES } from "../store/pack.ts";
import type { ByteRange } from "../store/store.ts";
import { type PlannedTable, STRETCH_BYTES } from "./plan.ts";
import type { ProfileAsk } from "./profile.ts";

/** With the first segment of a pack comes so much more: what starts read lies there. */
const FIRST_BYTES = 1024 * 1024;

/** Of a part of what starts read of a pack, with the segments at its ends. */
const PART_MAX_BYTES = 2 * STRETCH_BYTES;

/** A part of a pack that is fetched whole. */
export interface Segment extends ByteRange {
  readonly path: string;
  /** The n-th behind it, where there is one. */
  readonly after?: (n: number) => Segment | undefined;
  /** Up to where starts are thought to read its pack; 0 or undefined where that isn't known. */
  readonly startEnd?: number;
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
  return hinted(() => segmentsIn(ask, table, locator, segmentBytes)) ?? [];
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
    if (range === undefined || range.length > 2 * segmentBytes + BLOCK_BYTES) return [];
    const after = (n: number): Segment | undefined => {
      const next = hinted(() => locator.segmentAfter(at, chunk, segmentBytes, n));
      return next && { path, ...next, startEnd: locator.startAround(at, chunk) };
    };
    const segment = { path, ...range, after, startEnd: locator.startAround(at, chunk) };
    found.set(segmentKey(segment), segment);
  }
  return [...found.values()];
}

function isOfStart({ offset, startEnd = 0 }: Segment): boolean {
  return offset < startEnd;
}

/** Which range of its pack's start a segment is in; -1: none. Each has 2 to 6 MiB, or all of a shorter start. */
function partOf(segment: Segment): number {
  if (!isOfStart(segment)) return -1;
  const parts = Math.max(1, Math.round(segment.startEnd! / STRETCH_BYTES));
  return Math.min(parts - 1, Math.floor(segment.offset / STRETCH_BYTES));
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
    const isOne = touches && partOf(last.segments[0]!) === partOf(segment);
    if (isOne && (isOfStart(segment) || last.length + segment.length <= STRETCH_BYTES)) {
      last.length += segment.length;
      last.segments.push(segment);
    } else ranges.push({ ...segment, segments: [segment] });
  }
  const first = ({ segments: some }: SegmentRange) => Math.min(...some.map((s) => order.get(s)!));
  return ranges.sort((a, b) => first(a) - first(b));
}

/** What of packs is here or on its way for a start, by segment, and what else is to come with it. */
export class SegmentRuns {
  readonly #segments = new Map<string, Promise<boolean>>();
  /** Of segments one behind the other: how long they are together, by where the next one would begin. */
  readonly #lengths = new Map<string, number>();

  /** Whether a segment is here, when it is known; undefined of one that nobody has asked for. */
  get(key: string): Promise<boolean> | undefined {
    return this.#segments.get(key);
  }

  /** Notes that a range is being fetched. */
  add(range: SegmentRange, isHere: Promise<boolean>): void {
    for (const segment of range.segments) this.#segments.set(segmentKey(segment), isHere);
    if (isOfStart(range.segments[0]!)) return;
    const length = this.#lengths.get(segmentKey(range)) ?? 0;
    this.#lengths.delete(segmentKey(range));
    this.#lengths.set(keyBehind(range), length + range.length);
  }

  /**
   * What of a range nobody has asked for, and what else is to come with it: as much behind it as was read before it, one segment after the
   * other, since packs are laid in the order in which starts read them (start-order.ts) and who has read on will go on; and a single
   * segment between two that are wanted, which would be a request of its own soon. At most STRETCH_BYTES in all.
   */
  readOn(range: SegmentRange): SegmentRange | undefined {
    const segments = range.segments.filter((each) => this.#isNew(each));
    const wanted = segments[0];
    if (wanted === undefined) return undefined;
    if (isOfStart(wanted)) return this.#startPart(wanted);
    const before = wanted.after?.(-1);
    const isHole = this.#isNew(before) && before !== undefined && !this.#isNew(wanted.after?.(-2));
    if (isHole && touch(before, wanted) && before.length <= FIRST_BYTES) segments.unshift(before);
    const first = segments[0]!;
    let length = segments.reduce((sum, each) => sum + each.length, 0);
    const known = this.#lengths.get(segmentKey(first)) ?? 0;
    const most = length + (first.offset === PACK_HEADER_BYTES ? FIRST_BYTES : known);
    const { after } = segments.at(-1)!;
    for (let n = 1; after !== undefined; n++) {
      const next = after(n);
      const isFree = next !== undefined && this.#isNew(next) && touch(segments.at(-1)!, next);
      if (!isFree || length + next.length > STRETCH_BYTES) break;
      if (length + next.length > most && this.#isNew(after(n + 1))) break;
      segments.push(next);
      length += next.length;
    }
    return { path: first.path, offset: first.offset, length, segments };
  }

  /** What nobody has asked for of the part of its pack's start that a segment is in. */
  #startPart(wanted: Segment): SegmentRange {
    const part = partOf(wanted);
    const segments = [wanted];
    let { length } = wanted;
    const isTaken = (next: Segment | undefined): next is Segment => {
      if (next === undefined || !this.#isNew(next) || partOf(next) !== part) return false;
      // A locator may say what it likes.
      if (length + next.length > PART_MAX_BYTES) return false;
      length += next.length;
      return true;
    };
    for (let n = 1; ; n++) {
      const next = wanted.after?.(n);
      if (!isTaken(next) || !touch(segments.at(-1)!, next)) break;
      segments.push(next);
    }
    for (let n = -1; ; n--) {
      const before = wanted.after?.(n);
      if (!isTaken(before) || !touch(before, segments[0]!)) break;
      segments.unshift(before);
    }
    const { path, offset } = segments[0]!;
    length = segments.reduce((sum, each) => sum + each.length, 0);
    return { path, offset, length, segments };
  }

  /** Whether nobody has asked for a segment; so of none. */
  #isNew(segment: Segment | undefined): boolean {
    return segment === undefined || !this.#segments.has(segmentKey(segment));
  }
}

function touch(one: Segment, next: Segment): boolean {
  return one.offset + one.length === next.offset;
}

/** The key of a segment that begins where another ends. */
function keyBehind({ path, offset, length }: Segment): string {
  return segmentKey({ path, offset: offset + length, length: 0 });
}
