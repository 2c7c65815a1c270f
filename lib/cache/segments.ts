// Segments: what is fetched while many ask at once: all that a snapshot has in a few MiB of a pack by one request, kept for a while for
// the asks that follow. A hundred sandboxes that start one environment read most of it, in small runs side by side, and an origin
// answers few large requests faster than many small ones. Nothing here is verified: who asked does that. Control plane.

import { LRUCache } from "lru-cache";
import { FETCH_TURN_MS } from "../base/limits.ts";
import { LoopShare } from "../store/loop-share.ts";
import type { ByteRange, Sender } from "../store/store.ts";

/** Of a pack. With 4 MiB the import of numpy and pandas by 100 clients took 34 requests for 64.1 MB, with 6 it takes 27 for 68.3. */
export const SEGMENT_BYTES = 6 * 1024 * 1024;
/** All that are kept: with less, the import of numpy and pandas by 100 clients fetched some twice. Those under way come on top. */
const KEPT_BYTES = 128 * 1024 * 1024;
/**
 * When nothing was taken for so long, the crowd is gone, and so are they. Starts that share few CPUs pause for more than 10 s between what
 * they ask for, and what came for them meanwhile was fetched again.
 */
const KEPT_MS = 30_000;
/** Ranges that were fetched apart from any plan and are remembered, each as long as KEPT_MS: more than all starts at once send in that time. */
const APART_MAX = 1_024;

/** Bytes of a range, and who sent them. */
export interface Sent {
  readonly bytes: Buffer;
  readonly sender: Sender;
}

export class Segments {
  readonly #kept: LRUCache<string, Sent>;
  readonly #coming = new Map<string, Promise<Sent>>();
  /** By path: what will be fetched anyway, in the order of offsets. */
  readonly #planned = new Map<string, readonly ByteRange[]>();
  /** What is fetched in no plan, or was a moment ago: those who asked for it keep it, so no plan need have it. */
  readonly #apart: LRUCache<string, { readonly path: string; readonly range: ByteRange }>;

  readonly #copying = new LoopShare(FETCH_TURN_MS);
  readonly #keptMs: number;
  #timer: NodeJS.Timeout | undefined;

  constructor(maxBytes: number = KEPT_BYTES, keptMs: number = KEPT_MS) {
    this.#kept = new LRUCache({ maxSize: maxBytes });
    this.#keptMs = keptMs;
    this.#apart = new LRUCache({ max: APART_MAX, ttl: keptMs });
  }

  /** Bytes that are kept. */
  get bytes(): number {
    return this.#kept.calculatedSize;
  }

  /**
   * Ranges of a pack that will be fetched, none over another: who needs a part of one meanwhile takes it from there. What of them is
   * planned already is left to that plan, and what is fetched apart to who does, so that nothing is fetched twice.
   */
  plan(path: string, ranges: readonly ByteRange[]): void {
    const taken = this.#takenOf(path);
    const known = this.#planned.get(path) ?? [];
    const all = [...known, ...ranges.flatMap((range) => gapsIn(taken, range))];
    this.#planned.set(
      path,
      all.sort((a, b) => a.offset - b.offset),
    );
    this.#keepFor();
  }

  /** A range that no plan has, by `fetch`: what is planned meanwhile, and for a while after it, goes around it. */
  async apart(
    path: string,
    range: ByteRange,
    fetch: (range: ByteRange) => Promise<Sent>,
  ): Promise<Sent> {
    const key = keyOf(path, range);
    this.#apart.set(key, { path, range });
    try {
      return await fetch(range);
    } catch (error) {
      this.#apart.delete(key);
      throw error;
    }
  }

  /** The planned ranges that have a part of this one. */
  covering(path: string, range: ByteRange): readonly ByteRange[] {
    return overlapping(this.#planned.get(path) ?? [], range);
  }

  /** Whether a planned range is here or on its way. */
  has(path: string, range: ByteRange): boolean {
    const key = keyOf(path, range);
    return this.#kept.has(key) || this.#coming.has(key);
  }

  /** Whether anything of a path is planned. */
  hasPlan(path: string): boolean {
    return this.#planned.has(path);
  }

  /** The planned range that this one lies in. */
  planned(path: string, range: ByteRange): ByteRange | undefined {
    const known = this.#planned.get(path) ?? [];
    const last = known[countFrom(known, range.offset) - 1];
    const isIn = last && range.offset + range.length <= last.offset + last.length;
    return isIn ? last : undefined;
  }

  /**
   * What of a segment around a range nobody has planned or fetches apart, which is planned from now on: who asks for a part of it later,
   * crowd or not, takes it from there. Undefined where that is so of a part of the range itself.
   */
  claim(path: string, segment: ByteRange, range: ByteRange): ByteRange | undefined {
    const known = this.#takenOf(path);
    const after = countFrom(known, range.offset + range.length - 1);
    const last = known[after - 1];
    const isFrom = last === undefined ? 0 : last.offset + last.length;
    if (isFrom > range.offset) return undefined;
    const offset = Math.max(segment.offset, isFrom);
    const end = Math.min(segment.offset + segment.length, known[after]?.offset ?? Infinity);
    const claimed = { offset, length: end - offset };
    this.plan(path, [claimed]);
    return claimed;
  }

  /** A range of a segment, by `fetch` of the whole where it isn't here or on its way. What another fetched and failed is fetched again. */
  async take(
    path: string,
    segment: ByteRange,
    range: ByteRange,
    fetch: (range: ByteRange) => Promise<Sent>,
  ): Promise<Sent> {
    this.#keepFor();
    const key = keyOf(path, segment);
    const { bytes, sender } =
      this.#kept.get(key) ?? (await this.#comingOr(key, () => this.#fetch(key, segment, fetch)));
    const start = range.offset - segment.offset;
    const part = bytes.subarray(start, start + range.length);
    if (part.length === bytes.length) return { bytes: part, sender };
    // A copy: what waits for the disk has the size of what was asked for, whatever became of its segment.
    return { bytes: await this.#copying.run(() => Buffer.from(part)), sender };
  }

  /** What of a pack is planned or fetched apart, in the order of offsets, none over another. */
  #takenOf(path: string): readonly ByteRange[] {
    const ranges = [...(this.#planned.get(path) ?? [])];
    for (const apart of this.#apart.values()) if (apart.path === path) ranges.push(apart.range);
    return joined(ranges);
  }

  #keepFor(): void {
    this.#timer ??= setTimeout(() => {
      this.#kept.clear();
      this.#planned.clear();
    }, this.#keptMs).unref();
    this.#timer.refresh();
  }

  /** What is on its way, and `fetch` where nothing is or it failed: not a tick may pass between the look and the call. */
  async #comingOr(key: string, fetch: () => Promise<Sent>): Promise<Sent> {
    const coming = this.#coming.get(key);
    if (coming === undefined) return await fetch();
    try {
      return await coming;
    } catch {
      return await (this.#coming.get(key) ?? fetch());
    }
  }

  /** Made here, where the bytes aren't in reach: who waits for the disk has it all the time, and with it whatever it can reach. */
  #senderOf(key: string, sender: Sender): Sender {
    return {
      name: sender.name,
      blame: (why) => {
        // What is wrong isn't given out again.
        this.#kept.delete(key);
        sender.blame(why);
      },
    };
  }

  #fetch(key: string, segment: ByteRange, fetch: (range: ByteRange) => Promise<Sent>) {
    const coming = fetch(segment)
      .then(({ bytes, sender }) => {
        const sent = { bytes, sender: this.#senderOf(key, sender) };
        this.#kept.set(key, sent, { size: bytes.length });
        return sent;
      })
      .finally(() => {
        if (this.#coming.get(key) === coming) this.#coming.delete(key);
      });
    this.#coming.set(key, coming);
    return coming;
  }
}

function keyOf(path: string, { offset, length }: ByteRange): string {
  return `${offset} ${length} ${path}`;
}

/** Ranges in any order as those that have the same bytes, in the order of offsets and none over another. */
function joined(ranges: ByteRange[]): ByteRange[] {
  const all: { offset: number; length: number }[] = [];
  for (const { offset, length } of ranges.sort((a, b) => a.offset - b.offset)) {
    const last = all.at(-1);
    const end = last === undefined ? -1 : last.offset + last.length;
    if (last !== undefined && offset <= end)
      last.length = Math.max(end, offset + length) - last.offset;
    else all.push({ offset, length });
  }
  return all;
}

/** Of ranges, which are in the order of their offsets and none over another, those that have a part of this one. */
function overlapping(ranges: readonly ByteRange[], { offset, length }: ByteRange): ByteRange[] {
  const last = countFrom(ranges, offset + length - 1);
  let first = Math.max(0, countFrom(ranges, offset) - 1);
  if (first < last && ranges[first]!.offset + ranges[first]!.length <= offset) first++;
  return ranges.slice(first, last);
}

/** What of a range none of these has. */
function gapsIn(ranges: readonly ByteRange[], range: ByteRange): ByteRange[] {
  const gaps: ByteRange[] = [];
  let from = range.offset;
  const note = (to: number) => {
    if (to > from) gaps.push({ offset: from, length: to - from });
  };
  for (const { offset, length } of overlapping(ranges, range)) {
    note(offset);
    from = Math.max(from, offset + length);
  }
  note(range.offset + range.length);
  return gaps;
}

/** How many of ranges, which are in the order of their offsets, begin at or before an offset. */
function countFrom(ranges: readonly ByteRange[], offset: number): number {
  let low = 0;
  let high = ranges.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (ranges[middle]!.offset <= offset) low = middle + 1;
    else high = middle;
  }
  return low;
}
