// Larges: the large blobs that are on their way to this node, by what their indexes say of them: begun on disk, or in memory where that
// can't take them, streamed behind demand, and given up where others want the space. Control plane.

import { setTimeout as sleep } from "node:timers/promises";
import type { Digest } from "../base/digest.ts";
import { FORESEEN_LIBRARY_MAX_BYTES } from "../base/limits.ts";
import { STALL_MS } from "./disk.ts";
import type { FetchContext } from "./fetch-context.ts";
import { Holds } from "./holds.ts";
import { LargeBlob } from "./large.ts";
import type { MemoryTier } from "./memory-tier.ts";
import type { Source } from "./pieces.ts";
import type { Shelf } from "./shelf.ts";

/** Partial files kept open with nobody at work on them. */
const IDLE_PARTIALS_MAX = 256;

/** What is asked for, as the index of who asks has it. */
export interface BlobAsk {
  readonly source: Source;
  readonly row: number;
  readonly digest: Digest;
  readonly size: number;
  /** keyOfBlocks; "" of one that isn't cut. */
  readonly key: string;
  /** Blocks; count 0: all of it. */
  readonly first: number;
  readonly count: number;
}

export class Larges {
  /** Of starts that complete such blobs themselves. */
  readonly holds = new Holds();
  readonly #shelf: Shelf;
  readonly #context: FetchContext;
  readonly #hasBackground: boolean;
  /** By keyOfBlocks. */
  readonly #byKey = new Map<string, LargeBlob>();
  #isClosed = false;

  /** hasBackground: what was asked for is completed behind that. */
  constructor(shelf: Shelf, context: FetchContext, hasBackground: boolean) {
    this.#shelf = shelf;
    this.#context = context;
    this.#hasBackground = hasBackground;
  }

  get size(): number {
    return this.#byKey.size;
  }

  /** Whether any is being worked on, or will be. */
  get isBusy(): boolean {
    if (this.holds.areDue) return true;
    for (const large of this.#byKey.values()) if (large.isBusy) return true;
    return false;
  }

  get(key: string): LargeBlob | undefined {
    return this.#byKey.get(key);
  }

  /** Has blocks of one, or all of it, on this node: the blob that has them, undefined when it is whole by now. */
  async have(wanted: BlobAsk): Promise<LargeBlob | undefined> {
    const { source, row, digest, size } = wanted;
    using deadline = this.#context.deadline(source);
    const { signal } = deadline;
    if (source.table.blockCount(row) === 0)
      await this.#context.checkUncut(source, digest, size, signal);
    const large = this.#begin(wanted, false);
    try {
      return await this.#ask(large, wanted, signal);
    } catch (error) {
      // The background stream may have completed it meanwhile.
      if ((await this.#shelf.cache.look("blobs", digest, size)) === "sealed") return undefined;
      // Another ask that found no space may have given it up.
      const isElsewhere = large.isGivenUp && this.#shelf.hasMemory && !this.#isClosed;
      if (large.isInMemory || !(isElsewhere || this.#shelf.fallsBack(error))) throw error;
      return await this.#ask(this.#begin(wanted, true), wanted, signal);
    } finally {
      this.#sweep();
    }
  }

  async #ask(
    large: LargeBlob,
    { source, row, first, count }: BlobAsk,
    signal: AbortSignal,
  ): Promise<LargeBlob | undefined> {
    // Memory is for what is asked for.
    const isToBeWhole = this.#hasBackground && !large.isInMemory && count > 0;
    const isHeld = isToBeWhole && this.holds.note(source, row);
    // As what is foreseen: who opens such a library reads its head, its end and what lies between.
    const isBrought = isHeld && large.size <= FORESEEN_LIBRARY_MAX_BYTES && source.isAhead !== true;
    if (count === 0) {
      await large.complete(source, row, signal);
      return undefined;
    }
    if (isBrought) void large.bring(source, row).finally(() => this.#sweep());
    if (await large.ensure(source, row, first, count, signal, isHeld)) return undefined;
    if (isToBeWhole && !isHeld) void large.stream(source, row).finally(() => this.#sweep());
    return large;
  }

  /** The blob on its way; on disk, or in memory where that can't take it or `inMemory` says so. */
  #begin({ key, digest, size }: BlobAsk, inMemory: boolean): LargeBlob {
    const { cache, memory, isInMemoryOnly } = this.#shelf;
    const known = this.#byKey.get(key);
    if (known !== undefined && !known.isDropped) {
      const isToBe = inMemory || cache.disk.isHung;
      if (!isToBe || known.isInMemory) return known;
      void known.drop();
    }
    const create = (tier?: MemoryTier) =>
      new LargeBlob(cache, this.#context, { digest, size }, tier);
    const large = create(inMemory || isInMemoryOnly ? memory : undefined);
    this.#byKey.set(key, large);
    return large;
  }

  /**
   * Gives up partial files that nobody waits for or has open, first those that nobody works on, then those that only stream behind demand:
   * the bytes that are free by that.
   */
  async dropIdle(bytes: number): Promise<number> {
    let freed = 0;
    const dropped: Promise<void>[] = [];
    const byWork = [...this.#byKey].sort(([, a], [, b]) => Number(a.isBusy) - Number(b.isBusy));
    for (const [key, large] of byWork) {
      if (freed >= bytes) break;
      if (large.isDropped || large.isWanted || large.isInMemory || large.isInUse) continue;
      freed += large.costBytes;
      dropped.push(large.drop());
      this.#byKey.delete(key);
    }
    // A disk that hangs is waited for by nobody.
    const hung = sleep(STALL_MS, undefined, { ref: false });
    if (dropped.length > 0) await Promise.race([Promise.all(dropped), hung]);
    return freed;
  }

  /** Forgets blobs that are whole or dropped, and the oldest partial files that nobody is at work on. */
  #sweep(): void {
    let idle = 0;
    for (const [key, large] of [...this.#byKey].reverse()) {
      if (large.isDropped) this.#byKey.delete(key);
      else if (!large.isBusy && !large.isWanted && ++idle > IDLE_PARTIALS_MAX) {
        void large.drop();
        this.#byKey.delete(key);
      }
    }
  }

  /** Gives all up. */
  close(): void {
    this.#isClosed = true;
    for (const large of this.#byKey.values()) void large.drop();
    this.#byKey.clear();
  }
}
