// Shelf: where a fetched blob is put: on the cache's disk, or in memory when the disk can't take it. Control plane.

import { LRUCache } from "lru-cache";
import type { Digest } from "../base/digest.ts";
import { digestOf } from "../store/hash.ts";
import type { Log } from "./counters.ts";
import type { CacheDirectory } from "./directory.ts";
import { STALL_MS } from "./disk.ts";
import { DiskHealth } from "./disk-health.ts";
import { type MemoryFacts, MemoryTier } from "./memory-tier.ts";
import { expectedCost, type Reservation } from "./room.ts";

/** Longer than any ask lives. */
const FRESH_MS = 60_000;
const FRESH_MAX = 16_384;

export interface ShelfFacts {
  readonly memory: MemoryFacts;
  /** The disk takes no writes now; how often that came. */
  readonly isDiskDemoted: boolean;
  readonly demotions: number;
}

export class Shelf {
  readonly cache: CacheDirectory;
  readonly memory: MemoryTier;
  readonly health: DiskHealth;
  readonly #hasMemory: boolean;
  /** What was kept a moment ago: who looked before that doesn't know. */
  readonly #fresh = new LRUCache<Digest, true>({ max: FRESH_MAX, ttl: FRESH_MS });
  readonly #keeping = new Map<Digest, Promise<void>>();

  /** memoryBytes 0: what the disk can't take fails. */
  constructor(cache: CacheDirectory, memoryBytes: number, log: Log) {
    this.cache = cache;
    this.memory = new MemoryTier(memoryBytes);
    this.#hasMemory = memoryBytes > 0;
    cache.room.isPatient = !this.#hasMemory;
    if (this.#hasMemory) cache.disk.stallMs = STALL_MS;
    this.health = new DiskHealth(cache.disk, `${cache.root}/tmp`, log);
    cache.disk.onHang = (error) => void this.health.blame(error);
  }

  get facts(): ShelfFacts {
    const { isDemoted, demotions } = this.health;
    return { memory: this.memory.facts, isDiskDemoted: isDemoted, demotions };
  }

  /** Whether memory should be tried after this error. */
  fallsBack(error: unknown): boolean {
    return this.health.blame(error) && this.#hasMemory;
  }

  get isInMemoryOnly(): boolean {
    return this.health.isDemoted && this.#hasMemory;
  }

  get hasMemory(): boolean {
    return this.#hasMemory;
  }

  /** Space on disk; undefined: none, what is kept goes to memory. Throws as Room.reserve where there is no memory to go to. */
  async reserve(bytes: number, signal: AbortSignal): Promise<Reservation | undefined> {
    if (this.isInMemoryOnly) return undefined;
    try {
      return await this.cache.room.reserve(bytes, signal);
    } catch (error) {
      if (this.fallsBack(error)) return undefined;
      throw error;
    }
  }

  /** Whether a blob was kept so short a time ago that an earlier look at the disk may have missed it. */
  isFresh(digest: Digest): boolean {
    return this.#fresh.has(digest);
  }

  /**
   * Keeps a verified blob, which comes to `sum`, on disk when there is space for it; once, of several that bring it at a time: whether it
   * wasn't here. Of what `isAhead` nobody waits for it (Disk.hurry). BURROW_NO_SPACE, BURROW_IO.
   */
  async keep(
    digest: Digest,
    content: Uint8Array,
    space: Reservation | undefined,
    sum: Digest = digest,
    isAhead = () => false,
  ): Promise<boolean> {
    for (let other = this.#keeping.get(digest); other; other = this.#keeping.get(digest)) {
      if (!isAhead()) this.cache.disk.hurry(digest);
      await other.catch(() => undefined);
    }
    let isNews = false;
    const work = async () => {
      // Whoever has it fetched has looked for it before.
      const isPerhaps = this.isFresh(digest);
      const isHere =
        isPerhaps && (await this.cache.look("blobs", digest, content.length)) === "sealed";
      if (isHere || this.memory.has(digest)) return;
      await this.#put(digest, content, space, sum, isAhead);
      this.#fresh.set(digest, true);
      isNews = true;
    };
    const kept = work().finally(() => this.#keeping.delete(digest));
    this.#keeping.set(digest, kept);
    await kept;
    return isNews;
  }

  async #put(
    digest: Digest,
    content: Uint8Array,
    space: Reservation | undefined,
    sum: Digest,
    isBehind: () => boolean,
  ): Promise<void> {
    if (space !== undefined && !this.isInMemoryOnly) {
      try {
        await this.cache.writeSealed("blobs", digest, content, space, sum, isBehind);
        return;
      } catch (error) {
        if (!this.fallsBack(error)) throw error;
      }
    }
    await this.memory.put(digest, content);
  }

  /** Brings a blob from memory to a disk that takes it again: whether it is there. */
  async settle(digest: Digest, sizeBytes: number, signal: AbortSignal): Promise<boolean> {
    const space = await this.reserve(expectedCost(sizeBytes), signal);
    if (space === undefined) return false;
    try {
      const content = this.memory.read(digest);
      if (content === undefined) return false;
      await this.cache.writeSealed("blobs", digest, content, space, digestOf(content));
      this.memory.drop(digest);
      return true;
    } catch (error) {
      if (this.fallsBack(error)) return false;
      throw error;
    } finally {
      space.release();
    }
  }

  /** Called about once a second. */
  async tick(): Promise<void> {
    this.memory.lingering.look();
    await this.health.probe();
  }
}
