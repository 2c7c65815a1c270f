// Evictor: has files of a cache go, those first that were not used for longest. It never holds a list of all: it goes round the shards,
// each of which is a fair sample, since digests are. Whether a file was used since it came by last, the file's own atime says; whether
// somebody has it open or mapped, the kernel. docs/design/0007-cache-room.md. Control plane.

import fs from "node:fs";
import { type Digest, isDigest } from "../base/digest.ts";
import { Errno } from "../base/errno.ts";
import { native } from "../sys/native.ts";
import { type CacheDirectory, dropFile } from "./directory.ts";
import { openRegular } from "./regular-file.ts";
import type { Group } from "./room.ts";
import { type Found, groupsOf, lookAt } from "./survey.ts";
import { Turns } from "./turns.ts";

/** Files of which the ones to go are chosen, when none of those come by was unused since the last time. */
const SAMPLE_FILES = 1_024;
/** What goes at once beyond what is wanted: this part of the limit. */
const BATCH = 1 / 32;

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

  /** Evicts at least `bytes` and a little more, if it can: what was freed. Never rejects. */
  async makeRoom(bytes: number): Promise<number> {
    const { room } = this.#cache;
    const before = room.usedBytes;
    const batch = Math.min(bytes + room.limitBytes * BATCH, Math.max(bytes, room.usedBytes));
    let freed = 0;
    let sample: Candidate[] = [];
    const { length } = this.#groups;
    // The second time round all that is left was unused since the first, or is in use.
    for (let steps = 0; steps < 2 * length && freed < bytes && !this.#isStopped; steps++) {
      const group = this.#groups[this.#hand]!;
      this.#hand = (this.#hand + 1) % length;
      const found = await lookAt(this.#cache.root, group, room);
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
      freed += await this.#evict(sample, batch - freed, isEnough || isRound);
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

  /** Has the first of a sorted sample go until `bytes` are free: only unused ones unless `isAny`. What stays is marked. */
  async #evict(sample: readonly Candidate[], bytes: number, isAny: boolean): Promise<number> {
    let freed = 0;
    const turns = new Turns();
    for (const file of sample) {
      if (turns.isOver) await turns.next();
      if (this.#isStopped) break;
      if (freed < bytes && (isAny || isUnused(file))) freed += this.#remove(file);
      else this.#mark(file);
    }
    return freed;
  }

  /** Unlinks a file that nobody has open: what that freed. */
  #remove(file: Candidate): number {
    const path = `${this.#cache.root}/${file.group}/${file.name}`;
    let fd = -1;
    try {
      fd = openRegular(path);
      // Whoever opens it from here on is told to try again, until it has no name.
      if (native.leaseFd(fd) === -Errno.EAGAIN) {
        this.counters.inUse++;
        return 0;
      }
      dropFile(path);
    } catch {
      if (fd < 0 && !fs.existsSync(path)) return 0;
      // One that can't go must not keep the others.
      this.counters.stuck++;
      return 0;
    } finally {
      if (fd >= 0) fs.closeSync(fd);
    }
    this.#cache.room.subtract(file.group, file.costBytes);
    this.counters.evicted++;
    this.counters.evictedBytes += file.costBytes;
    return file.costBytes;
  }

  /** Clears a file's reference: when the hand comes by again, it tells whether the file was read. */
  #mark(file: Candidate): void {
    if (file.readMs === 0) return;
    try {
      const fd = openRegular(`${this.#cache.root}/${file.group}/${file.name}`);
      native.futimens(fd, -1, 0);
      fs.closeSync(fd);
    } catch {
      // Gone, or not to be marked: it is taken for used.
    }
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
