// LargeBlob: one blob that is cut into blocks, while it is on its way to this node: who waits for which blocks, and in which requests
// they are fetched, demanded, read ahead or streamed behind. What came is PartialBlob's. Control plane.

import type { Digest } from "../base/digest.ts";
import { BLOCK_BYTES, FETCH_RUN_BYTES } from "../base/limits.ts";
import { isAstray } from "../store/store.ts";
import type { CacheDirectory } from "./directory.ts";
import type { FetchContext } from "./fetch-context.ts";
import type { MemoryTier } from "./memory-tier.ts";
import type { Origin } from "./origins.ts";
import { type Delivery, NOBODY, PartialBlob } from "./partial-blob.ts";
import { failuresOf, Pending, type Run } from "./pending.ts";
import { getPieces, type Piece, runLength, type Source } from "./pieces.ts";
import { ReadAhead } from "./read-ahead.ts";

/** Of one blob at once: while the blocks of one are verified the link carries those of the other. */
const BACKGROUND_RUNS = 2;
/** One demand request at most, whatever was asked for. */
const RUN_MAX_BYTES = 4 * 1024 * 1024;
/** Blocks looked at for one run: more than compressed ones fill it at the ratios seen (up to 3.8). */
const RUN_MAX_BLOCKS = 64;

/** Who fetches, from where, how much at a time. Background work holds its turn at the origin already. */
interface Want extends Delivery {
  readonly runBytes: number;
  /** Leaves alone what is on its way already. */
  readonly isPatient?: boolean;
}

export class LargeBlob {
  readonly digest: Digest;
  readonly size: number;
  readonly count: number;
  readonly #context: FetchContext;
  readonly #partial: PartialBlob;
  readonly #pending = new Pending();
  /** Origins that it is streamed from. */
  readonly #streaming = new Set<string>();
  /** Origins that it was brought from as a whole, or was to be. */
  readonly #brought = new Set<string>();
  readonly #ahead: ReadAhead;
  /** Asks that wait for it. */
  #demands = 0;
  /** That came for those. */
  #demandedBytes = 0;

  /** Starts a blob, with a file in partial/ or in `memory`. Who asks for blocks hears why there can be none: BURROW_NO_SPACE, BURROW_IO. */
  constructor(
    cache: CacheDirectory,
    context: FetchContext,
    blob: { readonly digest: Digest; readonly size: number },
    memory?: MemoryTier,
  ) {
    this.#context = context;
    this.#partial = new PartialBlob(cache, context, blob, memory);
    const { digest, size, count } = this.#partial;
    this.digest = digest;
    this.size = size;
    this.count = count;
    this.#ahead = new ReadAhead(count);
  }

  /** Name below partial/, never used again by any daemon. */
  get name(): string {
    return this.#partial.name;
  }

  get isInMemory(): boolean {
    return this.#partial.isInMemory;
  }

  /** An FD for reading a file in memory, the caller's; -1 when it is closed. */
  openForReading(): number {
    return this.#partial.openForReading();
  }

  /** Dropped: its file is gone and it takes no more asks. */
  get isDropped(): boolean {
    return this.#partial.isDropped;
  }

  /** Dropped for what is no fault of its own: who waits for it may have it elsewhere. */
  get isGivenUp(): boolean {
    return this.#partial.isGivenUp;
  }

  get isBusy(): boolean {
    return !this.#pending.isEmpty || this.#streaming.size > 0;
  }

  /**
   * Resolves when the blocks are present and verified; true when the blob is whole by then. While it is streamed, whoever reads on
   * doesn't wait for the whole's digest: its blocks are right, and the stream ends with that. Of one that is held for later (holds.ts) more
   * comes with a block the more was waited for: who jumps about in it will go on, and all of it is to come.
   */
  async ensure(
    source: Source,
    row: number,
    first: number,
    count: number,
    signal: AbortSignal,
    isHeld = false,
  ): Promise<boolean> {
    const grown = isHeld ? this.#demandedBytes / 2 : 0;
    const wanted = Math.max(FETCH_RUN_BYTES, count * BLOCK_BYTES, grown);
    const runBytes = Math.min(RUN_MAX_BYTES, wanted);
    const end = first + count;
    const want = { source, row, signal, runBytes, isDemand: true, asked: { first, end } };
    const asked = this.#demand(want, first, end);
    // Who fetches ahead has said all that is wanted. Who fails to get these asks for them itself.
    if (source.isAhead !== true) this.#readAhead(want, first, end).catch(() => undefined);
    await asked;
    if (!this.#partial.isComplete || this.#streaming.size > 0) return false;
    await this.#partial.finish();
    return true;
  }

  async #readAhead(want: Want, first: number, end: number): Promise<void> {
    const ahead = this.#ahead.next(first, end);
    if (ahead === undefined) return;
    const { from, to } = ahead;
    const runBytes = Math.min(RUN_MAX_BYTES, (to - from) * BLOCK_BYTES);
    if (this.#partial.hasAll(from, to) || !this.#context.startReadAhead()) return;
    using deadline = this.#context.deadline(want.source);
    const { signal } = deadline;
    try {
      await this.#demand({ ...want, signal, runBytes, asked: NOBODY }, from, to);
    } finally {
      this.#context.endReadAhead();
    }
  }

  /** Fetches all of it at once, as demand. */
  async complete(source: Source, row: number, signal: AbortSignal): Promise<void> {
    const asked = { first: 0, end: this.count };
    const want = { source, row, signal, runBytes: RUN_MAX_BYTES, isDemand: true, asked };
    await this.#demand(want, 0, this.count);
    await this.#partial.finish();
  }

  /**
   * The same behind an ask for blocks of it, which waits for those alone: that others are wrong, or don't come, is nothing to it. Once for
   * each origin; an error is forgotten.
   */
  async bring(source: Source, row: number): Promise<void> {
    if (this.#brought.has(source.origin)) return;
    this.#brought.add(source.origin);
    using deadline = this.#context.deadline(source);
    try {
      await this.complete(source, row, deadline.signal);
    } catch (error) {
      this.#context.logFailure("background", this.digest, source, error);
    }
  }

  async #demand(want: Want, from: number, to: number): Promise<void> {
    this.#demands++;
    try {
      await this.#partial.opened;
      await this.#fetch(want, from, to);
    } finally {
      this.#demands--;
    }
  }

  /** Streams what is missing behind demand, until the blob is whole; once for each origin, since one may hang. An error ends it and is forgotten. */
  async stream(source: Source, row: number): Promise<void> {
    const { origin } = source;
    if (this.#streaming.has(origin) || this.#partial.isDropped) return;
    this.#streaming.add(origin);
    try {
      await this.#partial.opened;
      await this.#streamRest(source, row);
    } catch (error) {
      this.#context.logFailure("background", this.digest, source, error);
    } finally {
      this.#streaming.delete(origin);
    }
  }

  /** Its blocks that aren't here, as runs. */
  absentRuns(): { first: number; count: number }[] {
    const runs: { first: number; count: number }[] = [];
    for (let block = 0; block < this.count; block++) {
      if (this.#partial.isPresent(block)) continue;
      const last = runs.at(-1);
      if (last !== undefined && last.first + last.count === block) last.count++;
      else runs.push({ first: block, count: 1 });
    }
    return runs;
  }

  /** Whether somebody waits for it, or it is about to be whole; what only streams behind demand may be given up for demand. */
  get isWanted(): boolean {
    return this.#demands > 0 || this.#partial.isFinishing;
  }

  /** Whether a gofer has the partial file open: then its end would free nothing. */
  get isInUse(): boolean {
    return this.#partial.isInUse;
  }

  get costBytes(): number {
    return this.#partial.costBytes;
  }

  /**
   * Unlinks the partial file and closes it: resolves when its space is free, or sure to be. Gofers that have it open keep what they know
   * to be present.
   */
  drop(): Promise<void> {
    return this.#partial.drop();
  }

  async #streamRest(source: Source, row: number): Promise<void> {
    const origin = this.#context.origin(source);
    // What comes from elsewhere is waited for, by fetching the rest first.
    let failure: unknown;
    for (const isPatient of [true, false]) {
      const runs = Array.from({ length: BACKGROUND_RUNS }, () =>
        this.#streamFrom(origin, source, row, isPatient),
      );
      const reasons = await failuresOf(runs);
      failure ??= reasons[0];
      // What one failed to get the other may: who asks meanwhile starts no stream beside it.
      if (reasons.length === runs.length) throw failure;
    }
    if (this.#partial.isComplete) await this.#partial.finish();
    else if (failure !== undefined) throw failure;
  }

  async #streamFrom(
    origin: Origin,
    source: Source,
    row: number,
    isPatient: boolean,
  ): Promise<void> {
    for (let at = this.#nextAbsent(0, isPatient); at >= 0; at = this.#nextAbsent(at, isPatient)) {
      using deadline = this.#context.deadline(source);
      const { signal } = deadline;
      // Its turn comes first, then the choice of blocks: demand never waits for a request that only stands in line.
      await origin.inBackground(signal, async () => {
        const next = this.#nextAbsent(at, isPatient);
        const runBytes = origin.backgroundBytes;
        const want = { source, row, signal, runBytes, isDemand: false, isPatient };
        if (next >= 0) await this.#fetch(want, next, next + 1);
      });
    }
  }

  /** The next block that isn't here, and for who is patient not on its way either; -1: none. */
  #nextAbsent(from: number, isPatient: boolean): number {
    for (let at = from; at < this.count && !this.#partial.isDropped; at++) {
      if (!this.#partial.isPresent(at) && !(isPatient && this.#pending.has(at))) return at;
    }
    return -1;
  }

  /** Has the missing blocks of [from, to) fetched, in runs that may reach past `to`. Wary: it waits for runs of its own snapshot only. */
  async #fetch(
    want: Want,
    from: number,
    to: number,
    isAgain = false,
    isWary = false,
  ): Promise<void> {
    const { source, signal } = want;
    // Who fetches ahead has said all that is wanted.
    const isExact = source.isAhead === true && want.isDemand;
    const reach = Math.min(this.count, isExact ? to : Math.max(to, from + RUN_MAX_BLOCKS));
    const blocks = Array.from({ length: reach - from }, (_, i) => from + i);
    const found = await this.#context.locate(source, this.digest, this.size, blocks, signal);
    const own = new Set<Run>();
    const others = new Set<Run>();
    for (let block = from; block < to; block++) {
      if (this.#partial.isPresent(block)) continue;
      const pending = this.#pending.get(source.origin, block);
      if (want.isPatient === true && this.#pending.has(block)) continue;
      if (pending !== undefined && !(isWary && pending.snapshot !== source.snapshot)) {
        if (!own.has(pending)) others.add(pending);
        continue;
      }
      const end = this.#absentEnd(want, block, Math.min(reach, block + RUN_MAX_BLOCKS));
      const pieces = found.pieces.slice(block - from, end - from);
      const asked = pieces.slice(0, runLength(pieces, want.runBytes));
      const work = this.#run(want, found.origin, block, asked);
      own.add(this.#pending.add(source, block, asked.length, work));
    }
    const ends = (runs: ReadonlySet<Run>) => [...runs].map(({ done }) => done);
    const failures = await failuresOf(ends(own));
    const shared = await failuresOf(ends(others));
    if (this.#partial.hasAll(from, to)) return;
    if (failures.length > 0) {
      const reason = failures.find(isAstray) ?? failures[0];
      const refresh = () => this.#context.refresh(source, found.locator, reason, signal);
      if (isAgain || (await refresh()) === undefined) throw reason;
      return await this.#fetch(want, from, to, true);
    }
    // What another ask or the background stream failed to get is tried in our own name.
    if (shared.length > 0) await this.#fetch(want, from, to, isAgain, true);
  }

  /** The first block behind `block` that is here or on its way, or `limit`. */
  #absentEnd({ source, isDemand }: Want, block: number, limit: number): number {
    const isComing = (at: number) =>
      this.#pending.get(source.origin, at) !== undefined ||
      (!isDemand && this.#pending.isElsewhere(source.origin, at));
    let end = block + 1;
    while (end < limit && !this.#partial.isPresent(end) && !isComing(end)) end++;
    return end;
  }

  /** Fetches neighbouring blocks by one request. A bad one fails the run, after the others were kept. */
  async #run(want: Want, origin: Origin, first: number, pieces: readonly Piece[]): Promise<void> {
    const bytes = pieces.reduce((sum, { stored }) => sum + stored, 0);
    if (want.isDemand && want.source.isAhead !== true) this.#demandedBytes += bytes;
    const giveBack = want.isDemand ? await origin.takeIn(bytes, want.signal) : () => undefined;
    try {
      // It may have been given up meanwhile: then nothing is asked for.
      this.#partial.checkNotDropped();
      await this.#runReserved(want, origin, first, pieces);
    } finally {
      giveBack();
    }
  }

  async #runReserved(
    want: Want,
    origin: Origin,
    first: number,
    pieces: readonly Piece[],
  ): Promise<void> {
    const space = await this.#partial.reserve(pieces, want.signal);
    try {
      const stored = await getPieces(origin, pieces, want.isDemand, want.signal);
      await this.#partial.keep(want, first, pieces, stored, space);
    } finally {
      this.#partial.release(space);
    }
  }
}
