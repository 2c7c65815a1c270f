// FetchContext: what small and large fetches share: where pieces lie, counters, log, deadlines. Control plane.

import { type Digest, showDigest } from "../base/digest.ts";
import { BurrowError, explain } from "../base/error.ts";
import { FETCH_TURN_MS } from "../base/limits.ts";
import type { Locator } from "../store/locator.ts";
import { LoopShare } from "../store/loop-share.ts";
import { classOf, isAstray } from "../store/store.ts";
import type { FetchCounters, Log } from "./counters.ts";
import { Deadline, Deadlines, type Patience } from "./deadlines.ts";
import type { CacheDirectory } from "./directory.ts";
import { ObjectPins } from "./object-pins.ts";
import type { Origin, Origins } from "./origins.ts";
import { type Piece, pieceAt, type Source } from "./pieces.ts";

/**
 * Readers that are read ahead of at once, whatever they read: 64 MiB on their way. With as many as there are readers, those of thousands of
 * files would stand in line before what somebody waits for, which then isn't here by its deadline (pitfalls E1).
 */
const READ_AHEADS_MAX = 32;
/** What it takes to hear from all that is under way why it failed. */
const REASON_MS = 250;

export class FetchContext {
  readonly counters: FetchCounters;
  /** Of the loop, for what is done with the bytes of small blobs: hundreds may come at once. */
  readonly share = new LoopShare(FETCH_TURN_MS);
  readonly #origins: Origins;
  readonly #log: Log;
  readonly #patience: Patience;
  readonly #pins: ObjectPins;
  readonly #deadlines = new Deadlines();
  #readAheads = 0;

  constructor(
    cache: CacheDirectory,
    origins: Origins,
    counters: FetchCounters,
    log: Log,
    patience: Patience,
  ) {
    this.#pins = new ObjectPins(cache);
    this.#origins = origins;
    this.counters = counters;
    this.#log = log;
    this.#patience = patience;
  }

  /** Until when an ask of an origin is worth an answer. */
  deadlineOfAsk(origin: string): Deadline {
    return new Deadline(this.#patience, this.#heardOf(origin));
  }

  /** The same of one piece of work for it: over a little sooner, so that the reason is known by then, and when the fetcher stops. */
  deadline({ origin }: Pick<Source, "origin">): Deadline {
    const less = (ms: number) => ms - Math.min(REASON_MS, ms / 10);
    const { silentMs, mostMs } = this.#patience;
    const patience = { silentMs: less(silentMs), mostMs: less(mostMs) };
    return this.#deadlines.begin(patience, this.#heardOf(origin));
  }

  #heardOf(name: string): () => number {
    return () => this.#origins.heardMs(name);
  }

  /** Takes leave to read ahead, to be given back by endReadAhead; false when there is none. */
  startReadAhead(): boolean {
    if (this.#readAheads >= READ_AHEADS_MAX) return false;
    this.#readAheads++;
    return true;
  }

  endReadAhead(): void {
    this.#readAheads--;
  }

  stop(): void {
    this.#deadlines.stop();
  }

  origin(source: Source): Origin {
    return this.#origins.get(source.origin);
  }

  locator(source: Source, signal: AbortSignal): Promise<Locator> {
    return this.#origins.locator(source.origin, source.snapshot, signal);
  }

  /**
   * Where pieces of a blob lie. A locator that contradicts the index is read once more from the origin: packs may have been
   * rewritten since it was kept.
   */
  async locate(
    source: Source,
    digest: Digest,
    size: number,
    pieces: readonly number[],
    signal: AbortSignal,
  ): Promise<{ origin: Origin; pieces: Piece[]; locator: Locator }> {
    const find = async (locator: Locator) => {
      const pinned = await this.#pins.of(source.origin, locator, digest, size);
      const found = pieces.map((k) => pieceAt(locator, digest, size, k, pinned));
      return { origin: this.origin(source), pieces: found, locator };
    };
    const locator = await this.locator(source, signal);
    try {
      return await find(locator);
    } catch (error) {
      const fresh = await this.refresh(source, locator, error, signal);
      if (fresh === undefined) throw error;
      return find(fresh);
    }
  }

  /**
   * Throws BURROW_BAD_INDEX for a large blob without digests of its blocks, unless it is an object of a stage, whose size is vouched for by
   * its name.
   */
  async checkUncut(source: Source, digest: Digest, size: number, signal: AbortSignal) {
    const locator = await this.locator(source, signal);
    const pinned = await this.#pins.of(source.origin, locator, digest, size);
    if (pinned?.pin !== undefined) return;
    throw new BurrowError("BURROW_BAD_INDEX", "the index has too few digests for a blob's size", {
      context: { sizeBytes: size },
    });
  }

  /**
   * The locator as the origin has it now, in the place of one that led to `error`: packs may have been written anew since it was kept,
   * by a collection or a repair. Undefined when the error has another cause, the origin has no other locator, or none can be had.
   */
  async refresh(
    source: Source,
    locator: Locator,
    error: unknown,
    signal: AbortSignal,
  ): Promise<Locator | undefined> {
    // A list of objects is made on this node, and there is no other.
    if (locator.kind === "pinned" || !isAstray(error)) return undefined;
    const stale = { locator, isGone: classOf(error) === "notFound" };
    try {
      const fresh = await this.#origins.locator(source.origin, source.snapshot, signal, stale);
      if (fresh === locator) return undefined;
      this.counters.refreshed++;
      return fresh;
    } catch (cause) {
      // Of a stage there is none but the one that was made on this node.
      if (classOf(cause) !== "notFound") this.logFailure("refresh", undefined, source, cause);
      return undefined;
    }
  }

  noteMismatch(digest: Digest, source: Source, error: unknown): void {
    this.counters.mismatches++;
    this.logFailure("mismatch", digest, source, error);
  }

  /** One log line that names blob, snapshot, origin, cause, and pack where the error knows it. */
  logFailure(event: string, digest: Digest | undefined, source: Source, error: unknown): void {
    const context = error instanceof BurrowError ? error.context : {};
    this.#log(event, {
      ...(digest === undefined ? {} : { blob: showDigest(digest) }),
      snapshot: showDigest(source.snapshot),
      origin: source.origin,
      ...context,
      class: classOf(error),
      error: explain(error),
    });
  }
}
