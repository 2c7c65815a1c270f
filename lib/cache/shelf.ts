// Shelf: where a fetched blob is put: on the cache's disk, or in memory when the disk can't take it. Control plane.

import { LRUCache } from "lru-cache";
import { type Digest, showDigest } from "../base/digest.ts";
import { explain } from "../base/error.ts";
import { digestOf } from "../store/hash.ts";
import type { Log } from "./counters.ts";
import type { CacheDirectory } from "./directory.ts";
import { STALL_MS } from "./disk.ts";
import { DiskHealth } from "./disk-health.ts";
import { Landing } from "./landing.ts";
import { type MemoryFacts, MemoryTier } from "./memory-tier.ts";
import { expectedCost, type Reservation } from "./room.ts";

/** Longer than any ask lives. */
const FRESH_MS = 60_000;
const FRESH_MAX = 16_384;
/** Of memory what may be given out before the disk has it, at most: the rest is for a disk that takes nothing. */
const LANDING_SHARE = 1 / 4;
/** A disk that is quick has the file by then: it costs less than a file of memory, and those behind it come to their names meanwhile. */
const GRACE_MS = 4;

export interface ShelfFacts {
  readonly memory: MemoryFacts;
  /** Given out from memory until the disk has it for sure. */
  readonly landing: { readonly blobs: number; readonly bytes: number };
  /** The disk takes no writes now; how often that came. */
  readonly isDiskDemoted: boolean;
  readonly demotions: number;
}

export interface ShelfBounds {
  /** What may be in memory while the disk can't take it, bytes. */
  readonly memoryBytes?: number;
  /** What may be given out from memory before the disk has it. */
  readonly landingBytes?: number;
}

/** What became of a blob that was to be kept. */
export interface Kept {
  /** Whether it wasn't here. */
  readonly isNews: boolean;
  /** When the disk has it, or what the disk couldn't take is in memory or lost. Never rejects. */
  readonly written: Promise<void>;
}

const WRITTEN = Promise.resolve();

export class Shelf {
  readonly cache: CacheDirectory;
  readonly memory: MemoryTier;
  readonly health: DiskHealth;
  readonly #landing: Landing;
  readonly #log: Log;
  readonly #hasMemory: boolean;
  /** What was kept a moment ago: who looked before that doesn't know. */
  readonly #fresh = new LRUCache<Digest, true>({ max: FRESH_MAX, ttl: FRESH_MS });
  readonly #keeping = new Map<Digest, Promise<void>>();

  /** memoryBytes 0: what the disk can't take fails. */
  constructor(cache: CacheDirectory, { memoryBytes = 0, landingBytes = 0 }: ShelfBounds, log: Log) {
    this.cache = cache;
    this.memory = new MemoryTier(memoryBytes);
    this.#landing = new Landing(Math.min(landingBytes, LANDING_SHARE * memoryBytes));
    this.#log = log;
    this.#hasMemory = memoryBytes > 0;
    cache.room.isPatient = !this.#hasMemory;
    if (this.#hasMemory) cache.disk.stallMs = STALL_MS;
    this.health = new DiskHealth(cache.disk, `${cache.root}/tmp`, log);
    cache.disk.onHang = (error) => void this.health.blame(error);
  }

  get facts(): ShelfFacts {
    const { isDemoted, demotions } = this.health;
    const { blobs, bytes } = this.#landing;
    const landing = { blobs, bytes };
    return { memory: this.memory.facts, landing, isDiskDemoted: isDemoted, demotions };
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

  /** Whether a blob is in memory, for good or until the disk has it. */
  holds(digest: Digest): boolean {
    return this.memory.has(digest) || this.#landing.has(digest);
  }

  /** The size of a blob that is on its way to the disk; -1: it isn't. */
  landingSize(digest: Digest): number {
    return this.#landing.get(digest)?.length ?? -1;
  }

  /** The bytes of a blob that is in memory; undefined when it isn't. Nobody changes them. */
  read(digest: Digest): Uint8Array | undefined {
    return this.#landing.get(digest) ?? this.memory.read(digest);
  }

  /** An FD for reading a blob that is in memory, the caller's own; -1 when it isn't, by now: then it may be on disk. */
  async open(digest: Digest): Promise<number> {
    if (this.#landing.has(digest) && !this.memory.has(digest)) {
      this.cache.disk.hurry(digest);
      await this.#landing.endedWithin(digest, GRACE_MS);
    }
    const content = this.#landing.get(digest);
    if (content !== undefined && !this.memory.has(digest)) {
      const isLent = this.memory.isAmple(content.length) && (await this.#lend(digest, content));
      if (!isLent) await this.#landing.ended(digest);
    }
    const fd = this.memory.open(digest);
    // It may have got there while its file was made.
    if (content !== undefined && !this.#landing.has(digest) && !this.isInMemoryOnly)
      this.memory.drop(digest);
    return fd;
  }

  /** Whether memory took it. */
  #lend(digest: Digest, content: Uint8Array): Promise<boolean> {
    return this.memory.put(digest, content).then(
      () => true,
      () => false,
    );
  }

  /** Resolves when the disk has a blob that came, or all of them, as far as it takes them. */
  async landed(digest?: Digest): Promise<void> {
    await this.#landing.ended(digest);
  }

  /**
   * Keeps a verified blob, which comes to `sum`, on disk when there is space for it; once, of several that bring it at a time. It may be
   * given out when this resolves: from memory, until the disk has it. Of what `isAhead` nobody waits for it (Disk.hurry). BURROW_NO_SPACE,
   * BURROW_IO.
   */
  async keep(
    digest: Digest,
    content: Uint8Array,
    space: Reservation | undefined,
    sum: Digest = digest,
    isAhead = () => false,
  ): Promise<Kept> {
    for (let other = this.#keeping.get(digest); other; other = this.#keeping.get(digest)) {
      if (!isAhead()) this.cache.disk.hurry(digest);
      await other.catch(() => undefined);
    }
    let kept: Kept = { isNews: false, written: WRITTEN };
    const work = async () => {
      // Whoever has it fetched has looked for it before.
      const isPerhaps = this.isFresh(digest) && !this.#landing.has(digest);
      const isHere =
        isPerhaps && (await this.cache.look("blobs", digest, content.length)) === "sealed";
      if (isHere || this.holds(digest)) return;
      const isLanding =
        space !== undefined && !this.isInMemoryOnly && this.#landing.takes(content.length);
      if (isLanding) kept = { isNews: true, ...this.#land(digest, content, space, sum) };
      else {
        await this.#put(digest, content, space, sum, isAhead);
        kept = { isNews: true, written: WRITTEN };
      }
      this.#fresh.set(digest, true);
    };
    const keeping = work().finally(() => this.#keeping.delete(digest));
    this.#keeping.set(digest, keeping);
    await keeping;
    return kept;
  }

  /** Has it written while it is given out from memory. */
  #land(
    digest: Digest,
    content: Uint8Array,
    space: Reservation,
    sum: Digest,
  ): { readonly written: Promise<void> } {
    const written = this.#put(digest, content, space, sum, () => true).then(
      (isOnDisk) => {
        if (isOnDisk) this.memory.drop(digest);
      },
      // Who has it from memory keeps it, and who needs it later asks for it again.
      (error: unknown) =>
        this.#log("not kept", { blob: showDigest(digest), error: explain(error) }),
    );
    this.#landing.add(digest, content, written);
    return { written };
  }

  /** On disk, or in memory: whether on disk. */
  async #put(
    digest: Digest,
    content: Uint8Array,
    space: Reservation | undefined,
    sum: Digest,
    isBehind: () => boolean,
  ): Promise<boolean> {
    if (space !== undefined && !this.isInMemoryOnly) {
      try {
        await this.cache.writeSealed("blobs", digest, content, space, sum, isBehind);
        return true;
      } catch (error) {
        if (!this.fallsBack(error)) throw error;
      }
    }
    await this.memory.put(digest, content);
    return false;
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
