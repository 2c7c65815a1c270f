// Room: how many bytes a cache takes, and who may take more. Space is reserved before anything is asked of an origin, so writers side
// by side never pass the limit together; what is reserved becomes used when a file stands. Sums are kept per folder, none per
// file. docs/design/0007-cache-room.md. Control plane.

import type { Digest } from "../base/digest.ts";
import { Errno } from "../base/errno.ts";
import { BurrowError } from "../base/error.ts";
import { timeoutError } from "../store/store.ts";
import { type CacheFolder, shardOf } from "./layout.ts";

/** Blocks of stat(2). */
const STAT_BLOCK_BYTES = 512;
/** What a file takes besides its blocks: an inode (256 bytes on ext4) and a name of 64 letters in a folder that is half full. */
export const FILE_COST_BYTES = 512;
/** What a new folder takes, and the unit in which disks give space. */
const DISK_BLOCK_BYTES = 4096;
/** When all files were looked at and too few could go, the next look waits this long, and so many times as long as the last one took. */
const EXHAUSTED_MS = 250;
const EXHAUSTED_FACTOR = 8;

/** A folder of the cache that has a sum of its own: "blobs/ab", "partial". */
export type Group = string;

/** Makes place: frees at least `bytes`, and so many files' inodes, if it can; resolves to the bytes that it freed. */
export type MakeRoom = (bytes: number, files?: number) => Promise<number>;

/** Inodes that are left to what nobody reserves: folders, partial files, asides of the CLI's; or this part of all, if that is less. */
const SPARE_INODES = 64;
const SPARE_SHARE = 1 / 20;

/** What a file of this content may take at most, before it is there. */
export function expectedCost(sizeBytes: number): number {
  const blocks = Math.ceil(sizeBytes / DISK_BLOCK_BYTES);
  // The last summand: blocks of an extent tree, at one of them for 4 MiB in pieces.
  return blocks * DISK_BLOCK_BYTES + FILE_COST_BYTES + Math.floor(blocks / 1024) * DISK_BLOCK_BYTES;
}

/** What blobs of these digests and sizes may take at most, with their folders. */
export function expectedSum(blobs: Iterable<readonly [Digest, number]>): number {
  const shards = new Set<string>();
  let bytes = 0;
  for (const [digest, size] of blobs) {
    shards.add(shardOf(digest));
    bytes += expectedCost(size);
  }
  return bytes + shards.size * DISK_BLOCK_BYTES;
}

/** What a file takes by what the disk says of it. */
export function costOf(stat: { readonly blocks: number }): number {
  return stat.blocks * STAT_BLOCK_BYTES + FILE_COST_BYTES;
}

export function groupOf(folder: CacheFolder, digest: Digest): Group {
  return `${folder}/${shardOf(digest)}`;
}

/** Space that was promised. Whoever has it gives back what is left of it. */
export interface Reservation {
  /** `bytes` of it (or more) stand in a file of this group now. */
  keep(group: Group, bytes: number): void;
  /** Gives back the rest; further calls do nothing. */
  release(): void;
}

/** Of a file that is about to go: until then nobody knows whether a look at its folder still found it. */
export interface Removal {
  /** Whether it went; once. */
  end(isGone: boolean): void;
}

export interface RoomFacts {
  /** 0: none. */
  readonly limitBytes: number;
  readonly usedBytes: number;
  readonly reservedBytes: number;
  /** Of files that were removed while a sandbox had them open. */
  readonly lingeringBytes: number;
  /** Inodes that the disk has, and those that are free, when they were last counted; 0 of each where it needs none. */
  readonly inodes: number;
  readonly freeInodes: number;
  /** False while the first look at what there is goes on: usedBytes is too low then. */
  readonly isSurveyed: boolean;
}

export class Room {
  limitBytes = 0;
  /** Whether who finds no space waits for what others may give back, and looks again for each file that comes; else it fails at once. */
  isPatient = true;
  makeRoom: MakeRoom = () => Promise.resolve(0);
  readonly #groups = new Map<Group, number>();
  /** Groups that are looked at now, and what came into them meanwhile. */
  readonly #looks = new Map<Group, number>();
  /** Files that are being removed, with what they take. */
  readonly #removals = new Map<Group, Set<{ readonly bytes: number; isAdded: boolean }>>();
  readonly #waiters = new Set<() => void>();
  #usedBytes = 0;
  #reservedBytes = 0;
  #lingeringBytes = 0;
  /** Until all was looked at: what may surely be added. */
  #creditBytes = 0;
  #inodes = 0;
  #freeInodes = 0;
  #reservedFiles = 0;
  #isSurveyed = true;
  #making: Promise<void> | undefined;
  #exhaustedUntilMs = 0;

  /** Bytes that may be reserved now. */
  get freeBytes(): number {
    if (this.limitBytes === 0) return Number.POSITIVE_INFINITY;
    const left = this.limitBytes - this.#usedBytes - this.#lingeringBytes;
    return (this.#isSurveyed ? left : this.#creditBytes) - this.#reservedBytes;
  }

  /** Files that may be made now. */
  get freeFiles(): number {
    if (this.#inodes === 0) return Number.POSITIVE_INFINITY;
    const spare = Math.min(SPARE_INODES, this.#inodes * SPARE_SHARE);
    return Math.floor(this.#freeInodes - spare) - this.#reservedFiles;
  }

  /** What the disk says of its inodes now: all (0: it makes them as it needs them), and those that are free. */
  countInodes(all: number, free: number): void {
    const isMore = free > this.#freeInodes;
    this.#inodes = all;
    this.#freeInodes = free;
    if (isMore) this.#wake();
  }

  get usedBytes(): number {
    return this.#usedBytes;
  }

  get isSurveyed(): boolean {
    return this.#isSurveyed;
  }

  get facts(): RoomFacts {
    return {
      limitBytes: this.limitBytes,
      usedBytes: this.#usedBytes,
      reservedBytes: this.#reservedBytes,
      lingeringBytes: this.#lingeringBytes,
      inodes: this.#inodes,
      freeInodes: this.#freeInodes,
      isSurveyed: this.#isSurveyed,
    };
  }

  /** What a group takes, as far as it is known; -1: it isn't. */
  bytesOf(group: Group): number {
    return this.#isSurveyed ? (this.#groups.get(group) ?? 0) : (this.#groups.get(group) ?? -1);
  }

  /** Bytes by folder: "blobs" with all its shards. */
  byFolder(): Record<string, number> {
    const sums: Record<string, number> = {};
    for (const [group, bytes] of this.#groups) {
      const folder = group.split("/")[0]!;
      sums[folder] = (sums[folder] ?? 0) + bytes;
    }
    return sums;
  }

  /**
   * What is there is not known yet. Until surveyed() what comes in must be paid for by what goes, but for `creditBytes` that are free
   * whatever is there.
   */
  unknown(creditBytes: number): void {
    this.#isSurveyed = false;
    this.#creditBytes = creditBytes;
  }

  surveyed(): void {
    this.#isSurveyed = true;
    this.#wake();
  }

  add(group: Group, bytes: number): void {
    const isNew = group.includes("/") && !this.#groups.has(group);
    const cost = bytes + (isNew ? DISK_BLOCK_BYTES : 0);
    this.#set(group, (this.#groups.get(group) ?? 0) + cost);
    this.#creditBytes -= cost;
    const during = this.#looks.get(group);
    if (during !== undefined) this.#looks.set(group, during + cost);
    if (this.isPatient) this.#exhaustedUntilMs = 0;
  }

  subtract(group: Group, bytes: number): void {
    this.#creditBytes += bytes;
    // While the folder is looked at nobody knows whether this file was seen: the sum stays on the safe side until the next look.
    if (!this.#looks.has(group)) {
      this.#set(group, Math.max(0, (this.#groups.get(group) ?? 0) - bytes));
    }
    this.#wake();
  }

  /**
   * A file of the survey's groups, of so many bytes, is about to be removed. A look that ends before that is known has its bytes added,
   * whether it found the file or not: so the sum is on the safe side, and never without it twice.
   */
  beginRemoval(group: Group, bytes: number): Removal {
    const removal = { bytes, isAdded: false };
    const removals = this.#removals.get(group) ?? new Set();
    this.#removals.set(group, removals.add(removal));
    return {
      end: (isGone) => {
        if (!removals.delete(removal)) return;
        if (removals.size === 0) this.#removals.delete(group);
        if (isGone || removal.isAdded) this.subtract(group, bytes);
      },
    };
  }

  /** A file that was removed while somebody has it open takes space until it is closed; negative: it was. */
  linger(bytes: number): void {
    this.#lingeringBytes += bytes;
    if (bytes < 0) this.#wake();
  }

  /** A look at a group begins; only one at a time: false when one is under way. */
  beginLook(group: Group): boolean {
    if (this.#looks.has(group)) return false;
    this.#looks.set(group, 0);
    return true;
  }

  /** It found so many bytes, or -1: it failed and nothing is learnt. */
  endLook(group: Group, foundBytes: number): void {
    const during = this.#looks.get(group) ?? 0;
    this.#looks.delete(group);
    if (foundBytes < 0) return;
    let going = 0;
    for (const removal of this.#removals.get(group) ?? []) {
      removal.isAdded = true;
      going += removal.bytes;
    }
    this.#set(group, foundBytes + during + going);
    this.#wake();
  }

  /**
   * Reserves space for so many files, for which others may be evicted. Throws BURROW_NO_SPACE (ENOSPC) when nothing can go,
   * BURROW_TIMEOUT when the signal fires before.
   */
  async reserve(bytes: number, signal?: AbortSignal, files = 1): Promise<Reservation> {
    while (this.freeBytes < bytes || this.freeFiles < files) {
      if (signal?.aborted) throw timeoutError("gave up waiting for space in the cache", {});
      if (this.freeBytes < bytes && bytes > this.limitBytes) throw this.#full(bytes);
      const restMs = this.#exhaustedUntilMs - performance.now();
      if (restMs <= 0) {
        await this.#make(Math.max(0, bytes - this.freeBytes), files);
        continue;
      }
      // What others have reserved becomes files, which can go, or is given back.
      const isInVain = !this.isPatient || (this.#isSurveyed && this.#reservedBytes === 0);
      if (isInVain) throw this.#full(bytes);
      await this.#change(restMs, signal);
    }
    return this.#reserveNow(bytes, files);
  }

  /** What there is for one file now and nobody must go for; undefined when that isn't enough. */
  tryReserve(bytes: number): Reservation | undefined {
    return this.freeBytes < bytes || this.freeFiles < 1 ? undefined : this.#reserveNow(bytes, 1);
  }

  #reserveNow(bytes: number, files: number): Reservation {
    let left = bytes;
    let filesLeft = files;
    this.#reservedFiles += files;
    this.#reservedBytes += bytes;
    const give = (part: number) => {
      left -= part;
      this.#reservedBytes -= part;
      if (part > 0) this.#wake();
    };
    return {
      keep: (group, kept) => {
        this.add(group, kept);
        give(Math.min(left, kept));
        if (filesLeft === 0) return;
        // It is taken, until the disk's are counted again.
        filesLeft--;
        this.#reservedFiles--;
        this.#freeInodes--;
      },
      release: () => {
        this.#reservedFiles -= filesLeft;
        filesLeft = 0;
        give(left);
      },
    };
  }

  #set(group: Group, bytes: number): void {
    this.#usedBytes += bytes - (this.#groups.get(group) ?? 0);
    // A folder that isn't there: the first file will cost it, too.
    if (bytes === 0) this.#groups.delete(group);
    else this.#groups.set(group, bytes);
  }

  /** One at a time makes place for all that wait. */
  #make(bytes: number, files: number): Promise<void> {
    const startedMs = performance.now();
    this.#making ??= this.makeRoom(bytes, Math.max(0, files - this.freeFiles))
      .then((freed) => {
        const isEnough = freed >= bytes && this.freeFiles >= files;
        if (isEnough || (freed > 0 && this.isPatient)) return;
        const nowMs = performance.now();
        const restMs = Math.max(EXHAUSTED_MS, EXHAUSTED_FACTOR * (nowMs - startedMs));
        this.#exhaustedUntilMs = nowMs + restMs;
      })
      .finally(() => {
        this.#making = undefined;
      });
    return this.#making;
  }

  #full(bytes: number): BurrowError {
    const { limitBytes, usedBytes, reservedBytes, freeInodes } = this.facts;
    const isOfBytes = this.freeBytes < bytes;
    const why = isOfBytes ? "the cache's limit is reached" : "the cache's disk has no inodes left";
    return new BurrowError("BURROW_NO_SPACE", `${why} and nothing can go`, {
      errno: Errno.ENOSPC,
      context: isOfBytes
        ? { wantedBytes: bytes, limitBytes, usedBytes, reservedBytes }
        : { freeInodes },
    });
  }

  /** Resolves when something came or went, after `maxMs`, or when the signal fires. */
  #change(maxMs: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const done = () => {
        clearTimeout(timer);
        this.#waiters.delete(done);
        signal?.removeEventListener("abort", done);
        resolve();
      };
      const timer = setTimeout(done, maxMs);
      this.#waiters.add(done);
      signal?.addEventListener("abort", done);
      if (signal?.aborted) done();
    });
  }

  #wake(): void {
    for (const done of [...this.#waiters]) done();
  }
}
