// Ahead: has what a start is thought to ask for fetched before it does: in few long ranges of packs, in the order of first use, beside
// demand and never in its way. What was learned (profiles.ts) and what is foreseen (foresight.ts) come here. Control plane.

import { setTimeout as sleep } from "node:timers/promises";
import { LRUCache } from "lru-cache";
import { BLOCK_BYTES } from "../base/limits.ts";
import type { CacheDirectory } from "../cache/directory.ts";
import type { Fetcher } from "../cache/fetcher.ts";
import { Gate } from "../cache/gate.ts";
import type { Hold } from "../cache/holds.ts";
import type { Source } from "../cache/pieces.ts";
import type { SnapshotSource } from "../gofer/mount.ts";
import { planOf } from "../preload/plan.ts";
import type { ProfileAsk } from "../preload/profile.ts";
import {
  rangesOf,
  type Segment,
  SegmentRuns,
  segmentKey,
  segmentsOf,
} from "../preload/segment-plan.ts";
import type { Locator } from "../store/locator.ts";
import { inParallel } from "../store/parallel.ts";
import type { ByteRange } from "../store/store.ts";
import { Turnstile } from "../store/turnstile.ts";
import type { Prefetched } from "./prefetched.ts";

/** Of the 8 requests to an origin at once, for all starts together: demand finds a free one. */
const REQUESTS_AT_ONCE = 4;
/** Of those that lie in one range: enough for all threads that write, and few enough that a collection of young objects hasn't thousands to keep. */
const ASKS_AT_ONCE = 64;
/** Of a cache's limit what is fetched ahead of one start, at most: it may be more than comes to be used, and others' files go for it. */
const CACHE_SHARE = 1 / 4;

/**
 * Where packs are cut for asks that come to be known bit by bit. For numpy and pandas 34 MB are wanted: cut at 256 KiB that is 46 MB of 173
 * segments, at 512 KiB 52 MB of 100, at 1 MiB 61 MB of 61.
 */
const SEGMENT_BYTES = 512 * 1024;

/** Starts of which is known what comes for them, and for how long: what is asked for later comes by itself. */
const STARTS_MAX = 256;
const START_MS = 60_000;
/** How often is looked whether nobody demands anything. */
const CALM_LOOK_MS = 100;

export interface AheadFigures {
  /** Starts that were helped, and what was asked for ahead of them; of that what was here already, and what could not be had. */
  starts: number;
  /** Of those the ones for which nothing is left to do. */
  ended: number;
  asks: number;
  hits: number;
  failedAsks: number;
  /** Ranges of packs that were fetched for it, and their bytes. */
  requests: number;
  bytes: number;
}

export function newAheadFigures(): AheadFigures {
  return { starts: 0, ended: 0, asks: 0, hits: 0, failedAsks: 0, requests: 0, bytes: 0 };
}

/** What one start may yet have fetched. */
export interface AheadBudget {
  bytes: number;
}

/** In whose name something is fetched. */
export interface AheadJob {
  /** The view that starts. */
  readonly mountId: string;
  readonly figures: AheadFigures;
  readonly budget: AheadBudget;
  /** Of large blobs that are wanted whole, last, where parts of them are. */
  readonly hold?: Hold | undefined;
  /** Where asks come to be known bit by bit: what is here of packs or on its way, by segment. Without, all are known at once. */
  readonly segments?: SegmentRuns;
  /** Called when something is absent, so that there is work to do. */
  readonly onBegin?: () => void;
  /** Hears of each ask that is for what isn't here, before any is fetched. */
  readonly onAbsent?: (ask: ProfileAsk) => void;
  /** Hears of each ask when it is answered: whether it is here. */
  readonly onAnswer?: (ask: ProfileAsk, isHere: boolean) => void;
}

export interface AheadContext {
  readonly cache: CacheDirectory;
  readonly fetcher: Fetcher;
  readonly open: (of: SnapshotSource) => Promise<Source>;
  readonly prefetched: Prefetched;
}

export class Ahead {
  readonly #context: AheadContext;
  readonly #gates = new Map<string, Gate>();
  readonly #runs = new LRUCache<string, SegmentRuns>({ max: STARTS_MAX, ttl: START_MS });
  readonly #asking = new Turnstile();
  #isEnded = false;

  constructor(context: AheadContext) {
    this.#context = context;
  }

  /** Of at most so many bytes, and no more than its share of the cache. */
  budget(mostBytes: number): AheadBudget {
    // 0: none but the disk's end.
    const { limitBytes } = this.#context.cache.room.facts;
    const share = limitBytes === 0 ? Number.POSITIVE_INFINITY : CACHE_SHARE * limitBytes;
    return { bytes: Math.min(mostBytes, share) };
  }

  /** What of packs is here or on its way for a view's start, whoever has it fetched. */
  runsOf(mountId: string): SegmentRuns {
    const known = this.#runs.get(mountId) ?? new SegmentRuns();
    this.#runs.set(mountId, known);
    return known;
  }

  /** Ends: what is under way may come, nothing more is asked for. */
  stop(): void {
    this.#isEnded = true;
  }

  /** Whether anything was absent; resolves when there is nothing left to do. Rejects where the snapshot's index or locator can't be had. */
  async fetch(of: SnapshotSource, asks: readonly ProfileAsk[], job: AheadJob): Promise<boolean> {
    const { open } = this.#context;
    const source = this.#metered(await open(of), job.mountId);
    const absent = await this.#absent(source, asks, job);
    if (absent.length === 0 || this.#isEnded) return false;
    job.onBegin?.();
    const locator = await this.#locator(of);
    if (job.segments !== undefined)
      await this.#bySegment(source, locator, absent, { ...job, segments: job.segments });
    else await this.#planned(source, locator, absent, job);
    return true;
  }

  async #locator({ origin, snapshot }: SnapshotSource): Promise<Locator> {
    const { fetcher } = this.#context;
    using deadline = fetcher.deadlineOf(origin);
    return await fetcher.origins.locator(origin, snapshot, deadline.signal);
  }

  /** All that is known of a start, planned as a whole. */
  async #planned(
    source: Source,
    locator: Locator,
    absent: readonly ProfileAsk[],
    job: AheadJob,
  ): Promise<void> {
    const last = [...(job.hold?.rows(source) ?? [])].map(wholeOf);
    const { stretches, loose } = await planOf(absent, source.table, locator, last);
    this.#plan(source, stretches);
    const ask = (each: ProfileAsk) => this.#ask(source, each, job);
    await inParallel(stretches, REQUESTS_AT_ONCE, async (stretch) => {
      const isHere = await this.#bring(source, stretch, job);
      if (isHere) await inParallel(stretch.asks, ASKS_AT_ONCE, ask);
      // Who needs it asks for it.
      else for (const each of stretch.asks) job.onAnswer?.(each, false);
    });
    await inParallel(loose, REQUESTS_AT_ONCE, ask);
  }

  /** What a start over these snapshots asks for in part, to be had whole by complete(). */
  hold(snapshots: readonly SnapshotSource[]): Hold {
    return this.#context.fetcher.holds.begin(snapshots);
  }

  /** Has large blobs whole of which a start wanted parts, when nobody waits for anything. */
  async complete(snapshots: readonly SnapshotSource[], job: AheadJob): Promise<void> {
    const { hold } = job;
    if (hold?.due() !== true) return;
    await this.#untilCalm(snapshots);
    // Who asks for a part of another from now on would wait in vain for its turn.
    hold.close();
    for (const each of snapshots) await this.#completeOf(each, { ...job, hold });
  }

  async #completeOf(of: SnapshotSource, job: AheadJob & { readonly hold: Hold }): Promise<void> {
    const rows = job.hold.rows(of);
    if (rows.size === 0 || this.#isEnded) return;
    const source = this.#metered(await this.#context.open(of), job.mountId);
    const absent = await this.#absent(source, [...rows].map(wholeOf), job);
    const left = absent.map(({ row }) => row);
    job.hold.keep(of, left);
    if (absent.length === 0) return;
    const locator = await this.#locator(of);
    const { fetcher } = this.#context;
    // Ranges of what is here already would end where that is, and be cut where no more than that is.
    const last = left.flatMap((row) => fetcher.absentRuns(source, row));
    const { rest } = await planOf([], source.table, locator, last);
    this.#plan(source, rest);
    await inParallel(absent, REQUESTS_AT_ONCE, (each) => this.#ask(source, each, job));
  }

  /** When nobody has demanded anything of their origins for a while; in a minute at the latest. */
  async #untilCalm(snapshots: readonly SnapshotSource[]): Promise<void> {
    const { origins } = this.#context.fetcher;
    const names = new Set(snapshots.map(({ origin }) => origin));
    const all = [...names].map((name) => origins.get(name));
    const untilMs = performance.now() + START_MS;
    const isCalm = () => all.every((origin) => origin.isCalm);
    while (!this.#isEnded && !isCalm() && performance.now() < untilMs)
      await sleep(CALM_LOOK_MS, undefined, { ref: false });
  }

  /** Some of what a start wants: each is asked for when the segments that it lies in are here. */
  async #bySegment(
    source: Source,
    locator: Locator,
    absent: readonly ProfileAsk[],
    job: AheadJob & { readonly segments: SegmentRuns },
  ): Promise<void> {
    const { segments } = job;
    const news = new Map<string, Segment>();
    const wanted = absent.map((ask) => {
      const found = segmentsOf(ask, source.table, locator, SEGMENT_BYTES);
      const keys = found.map(segmentKey);
      for (const [i, key] of keys.entries())
        if (segments.get(key) === undefined && !news.has(key)) news.set(key, found[i]!);
      return { ask, keys };
    });
    for (const wished of rangesOf([...news.values()]))
      for (let range = segments.readOn(wished); range; range = segments.readOn(wished)) {
        this.#plan(source, [range]);
        segments.add(range, this.#bring(source, range, job));
      }
    const done = wanted.map(async ({ ask, keys }) => {
      const areHere = await Promise.all(keys.map((key) => segments.get(key)!));
      if (areHere.every((isHere) => isHere)) await this.#ask(source, ask, job);
      else job.onAnswer?.(ask, false);
    });
    await Promise.all(done);
  }

  /** What a demand meanwhile needs of these ranges it takes from there. */
  #plan(source: Source, ranges: readonly (ByteRange & { readonly path: string })[]): void {
    const origin = this.#context.fetcher.origins.get(source.origin);
    const byPath = new Map<string, ByteRange[]>();
    for (const each of ranges) {
      const some = byPath.get(each.path);
      if (some === undefined) byPath.set(each.path, [each]);
      else some.push(each);
    }
    for (const [path, some] of byPath) origin.plan(path, some);
  }

  /** Of asks those for what isn't here whole, as much as the start may have; the others are answered. */
  async #absent(source: Source, asks: readonly ProfileAsk[], job: AheadJob): Promise<ProfileAsk[]> {
    const { figures, budget, onAnswer, onAbsent } = job;
    const known = asks.filter(({ row }) => row < source.table.count);
    const looked = known.map(({ row }) => {
      return {
        folder: "blobs" as const,
        digest: source.table.digestAt(row),
        size: source.table.sizeOf(row),
      };
    });
    const states = await this.#context.cache.lookAll(looked);
    return known.filter((ask, i) => {
      const isHere = states[i] === "sealed";
      if (isHere) figures.hits++;
      else onAbsent?.(ask);
      const { size } = looked[i]!;
      const bytes = ask.count === 0 ? size : Math.min(size, ask.count * BLOCK_BYTES);
      const isTaken = !isHere && budget.bytes >= bytes;
      if (isTaken) budget.bytes -= bytes;
      else onAnswer?.(ask, isHere);
      return isTaken;
    });
  }

  /** Whatever comes for a source was brought ahead of a view. */
  #metered(source: Source, mountId: string): Source {
    const { prefetched } = this.#context;
    return {
      ...source,
      isAhead: true,
      onPrefetch: (blob, piece, bytes) => prefetched.brought(mountId, blob, piece, bytes),
    };
  }

  /** Has a range in reach: whether it is. Never rejects. */
  async #bring(
    source: Source,
    range: ByteRange & { readonly path: string },
    { figures }: AheadJob,
  ): Promise<boolean> {
    if (this.#isEnded) return false;
    const { fetcher } = this.#context;
    // It may stand in line for long where the origin sends all the while.
    using deadline = fetcher.deadlineOf(source.origin);
    const { signal } = deadline;
    try {
      const origin = fetcher.origins.get(source.origin);
      const bring = () => origin.bring(range.path, range, signal);
      const brought = await this.#gateOf(source.origin).run(true, signal, bring);
      figures.requests += brought.length;
      for (const { length } of brought) figures.bytes += length;
      return true;
    } catch {
      return false;
    }
  }

  /** Whether nothing more would be sent to an origin just now. */
  isBusy({ origin }: SnapshotSource): boolean {
    return this.#gateOf(origin).figures.demand >= REQUESTS_AT_ONCE;
  }

  #gateOf(origin: string): Gate {
    const gate = this.#gates.get(origin) ?? new Gate(REQUESTS_AT_ONCE);
    this.#gates.set(origin, gate);
    return gate;
  }

  async #ask(
    source: Source,
    { row, first, count }: ProfileAsk,
    { figures, onAnswer }: AheadJob,
  ): Promise<void> {
    let isHere = false;
    // Hundreds may lie in one range, and all of them are here with its last byte.
    await this.#asking.pass();
    if (!this.#isEnded) {
      figures.asks++;
      isHere = await this.#context.fetcher.prefetch(source, row, first, count);
      if (!isHere) figures.failedAsks++;
    }
    onAnswer?.({ row, first, count }, isHere);
  }
}

function wholeOf(row: number): ProfileAsk {
  return { row, first: 0, count: 0 };
}
