// Evictor: has files of a cache go, those first that were not used for longest. It never holds a list of all: it goes round the shards,
// each of which is a fair sample, since digests are. Whether a file was used since it came by last, the file's own atime says; whether
// somebody has it open or mapped, the kernel. docs/design/0007-cache-room.md. Control plane.

import fs from "node:fs";
import { type Digest, isDigest } from "../base/digest.ts";
import { Errno } from "../base/errno.ts";
import { BurrowError } from "../base/error.ts";
import { Calls, type Place, type Results } from "../sys/calls.ts";
import { native } from "../sys/native.ts";
import type { CacheDirectory } from "./directory.ts";
import type { Group } from "./room.ts";
import { type Found, groupsOf, lookAt } from "./survey.ts";

/** Files of which the ones to go are chosen, when none of those come by was unused since the last time. */
const SAMPLE_FILES = 1_024;
/** What goes at once beyond what is wanted: this part of the limit. */
const BATCH = 1 / 32;

/** Files that go, or are marked, in one go. */
const BATCH_FILES = 64;
const READ = fs.constants.O_RDONLY | fs.constants.O_NOFOLLOW | fs.constants.O_NONBLOCK;

export interface EvictorCounters {
  /** Files that went, and their bytes with all that they took. */
  evicted: number;
  evictedBytes: number;
  /** Files that stayed since somebody had them open, and those that could not be removed. */
  inUse: number;
  stuck: number;
}

/** Which files stay, whatever happens: of pinned snapshots; and which go only when nothing else can: those just promised to somebody. */
export interface Spared {
  isPinned(digest: Digest): boolean;
  isPromised(digest: Digest): boolean;
}

export class Evictor {
  readonly counters: EvictorCounters = { evicted: 0, evictedBytes: 0, inUse: 0, stuck: 0 };
  readonly #cache: CacheDirectory;
  readonly #spared: Spared;
  /** Blobs of an earlier boot may be wrong: they go before their shard's others. */
  readonly #groups: readonly Group[] = groupsOf("blobs").flatMap((group) => [
    group.replace("blobs", "suspect"),
    group,
  ]);
  readonly #hasReferences: boolean;
  #hand = 0;
  #isStopped = false;

  constructor(cache: CacheDirectory, spared: Spared) {
    this.#cache = cache;
    this.#spared = spared;
    this.#hasReferences = marksReads(`${cache.root}/tmp`);
    ignoreLeaseSignals();
  }

  /** Whether the file system marks reads; else files go in the order in which they came. */
  get hasReferences(): boolean {
    return this.#hasReferences;
  }

  /** Evicts at least `bytes` and so many files, and a little more, if it can: the bytes that were freed. Never rejects. */
  async makeRoom(bytes: number, files = 0): Promise<number> {
    const { room } = this.#cache;
    const before = room.usedBytes;
    const batch = Math.min(bytes + room.limitBytes * BATCH, Math.max(bytes, room.usedBytes));
    let freed = 0;
    const lastEvicted = this.counters.evicted + files;
    const isDone = () => freed >= bytes && this.counters.evicted >= lastEvicted;
    let sample: Candidate[] = [];
    const { length } = this.#groups;
    // The second time round all that is left was unused since the first, or is in use.
    for (let steps = 0; steps < 2 * length && !isDone() && !this.#isStopped; steps++) {
      const group = this.#groups[this.#hand]!;
      this.#hand = (this.#hand + 1) % length;
      const isEmpty = room.limitBytes > 0 && room.isSurveyed && room.bytesOf(group) === 0;
      const found = isEmpty ? [] : await lookAt(this.#cache, group);
      if (found === undefined) continue;
      const isSecond = steps >= length;
      for (const file of found) {
        if (!isDigest(file.name) || this.#stays(file.name, isSecond)) continue;
        sample.push({ ...file, group, readMs: this.#hasReferences ? file.readMs : 0 });
      }
      const isEnough = sample.length >= SAMPLE_FILES;
      const isRound = steps % length === length - 1;
      const isClear = this.#hasReferences && sample.some(isUnused);
      if (!isEnough && !isRound && !isClear) continue;
      sample.sort(byUse);
      // A little ahead of need, as with bytes: of some files that are about to be nobody knows whether the disk counts them yet.
      const ahead = files > 0 ? BATCH_FILES : 0;
      const more = { bytes: batch - freed, files: lastEvicted + ahead - this.counters.evicted };
      freed += await this.#evict(sample, more, isEnough || isRound);
      sample = [];
    }
    // Others may have removed files: to know of it is as good.
    return Math.max(freed, before - room.usedBytes);
  }

  /** Nothing goes from now on: the cache may have another daemon. */
  stop(): void {
    this.#isStopped = true;
  }

  #stays(digest: Digest, isSecondRound: boolean): boolean {
    if (this.#spared.isPinned(digest)) return true;
    return !isSecondRound && this.#spared.isPromised(digest);
  }

  /** Has the first of a sorted sample go until enough is free: only unused ones unless `isAny`. What stays is marked. */
  async #evict(
    sample: readonly Candidate[],
    { bytes, files }: { readonly bytes: number; readonly files: number },
    isAny: boolean,
  ): Promise<number> {
    const lastEvicted = this.counters.evicted + files;
    const isDone = () => freed >= bytes && this.counters.evicted >= lastEvicted;
    let freed = 0;
    let at = 0;
    try {
      while (at < sample.length && !this.#isStopped && !isDone()) {
        // No more than are wanted: what stays is made up for by those behind it.
        const batch: Candidate[] = [];
        const missing = lastEvicted - this.counters.evicted;
        const isShort = (sum: number) => sum < bytes || batch.length < missing;
        for (let sum = freed; isShort(sum) && batch.length < BATCH_FILES; at++) {
          const file = sample[at];
          if (file === undefined || !(isAny || isUnused(file))) break;
          batch.push(file);
          sum += file.costBytes;
        }
        if (batch.length === 0) break;
        freed += await this.#remove(batch);
      }
      for (; at < sample.length && !this.#isStopped; at += BATCH_FILES)
        await this.#mark(sample.slice(at, at + BATCH_FILES));
    } catch (error) {
      // The disk hangs: nothing goes now.
      if (!(error instanceof BurrowError)) throw error;
    }
    return freed;
  }

  /** Unlinks those of some files that nobody has open: what that freed. */
  async #remove(files: readonly Candidate[]): Promise<number> {
    const calls = new Calls();
    const places = files.map((file) => {
      const path = this.#pathOf(file);
      const one = { opened: 0 as Place, leased: 0 as Place, unlinked: 0 as Place };
      calls.optional(() => {
        one.opened = calls.open(path, READ);
      });
      calls.needing(one.opened, () => {
        // Whoever opens it from here on is told to try again, until it has no name.
        one.leased = calls.lease({ at: one.opened });
        calls.needing(one.leased, () => {
          one.unlinked = calls.unlink(path);
        });
        calls.close({ at: one.opened });
      });
      return one;
    });
    let freed = 0;
    const { room, disk } = this.#cache;
    const removals = files.map(({ group, costBytes }) => room.beginRemoval(group, costBytes));
    const endAll = () => {
      for (const removal of removals) removal.end(false);
    };
    const count = (results: Results) => {
      for (const [i, { opened, leased, unlinked }] of places.entries()) {
        if (results[unlinked] === 0) {
          removals[i]!.end(true);
          freed += this.#gone(files[i]!);
        } else if (results[opened] === -Errno.ENOENT) continue;
        else if (results[leased] === -Errno.EAGAIN) this.counters.inUse++;
        // One that can't go must not keep the others.
        else if (results[unlinked] !== -Errno.ENOENT) this.counters.stuck++;
      }
    };
    let isBegun = false;
    // However late that is.
    const work = () => {
      isBegun = true;
      return calls.run().then(count).finally(endAll);
    };
    await disk.run("write", work).finally(() => {
      if (!isBegun) endAll();
    });
    return freed;
  }

  #gone(file: Candidate): number {
    this.counters.evicted++;
    this.counters.evictedBytes += file.costBytes;
    return file.costBytes;
  }

  /** Clears references of files: when the hand comes by again, they tell whether the files were read. */
  async #mark(files: readonly Candidate[]): Promise<void> {
    const calls = new Calls();
    for (const file of files) {
      if (file.readMs === 0) continue;
      // Gone, or not to be marked: it is taken for used.
      calls.optional(() => {
        const at = calls.open(this.#pathOf(file), READ);
        calls.needing(at, () => {
          calls.futimens({ at }, -1, 0);
          calls.close({ at });
        });
      });
    }
    if (calls.length > 0) await this.#cache.disk.run("write", () => calls.run());
  }

  #pathOf({ group, name }: Candidate): string {
    return `${this.#cache.root}/${group}/${name}`;
  }
}

interface Candidate extends Found {
  readonly group: Group;
}

function isUnused(file: Candidate): boolean {
  return file.readMs === 0;
}

/** Unused ones first, of them those longest that were marked longest ago; then by their last known use. */
function byUse(a: Candidate, b: Candidate): number {
  if (isUnused(a) !== isUnused(b)) return isUnused(a) ? -1 : 1;
  return isUnused(a) ? a.changedMs - b.changedMs : a.readMs - b.readMs;
}

/** Whether reading a file with an atime of 0 sets it: with relatime it does, with noatime it doesn't. mount(8). */
function marksReads(folder: string): boolean {
  const path = `${folder}/probe.${process.pid}`;
  try {
    fs.writeFileSync(path, "x");
    const fd = fs.openSync(path, "r");
    native.futimens(fd, -1, 0);
    fs.readSync(fd, Buffer.alloc(1));
    const { atimeMs } = fs.fstatSync(fd);
    fs.closeSync(fd);
    return atimeMs !== 0;
  } catch {
    return false;
  } finally {
    fs.rmSync(path, { force: true });
  }
}

let isIgnoring = false;

/** An opener that meets a lease has the kernel send SIGIO, whose default is to end the process. fcntl(2). */
function ignoreLeaseSignals(): void {
  if (!isIgnoring) process.on("SIGIO", () => undefined);
  isIgnoring = true;
}
