// Fetcher: answers "have this blob, or these blocks of it, on this node" for the daemon. One flight per blob and origin, which lives on
// when whoever asked is gone; demand before background; every ask ends by its deadline. Who asks may lie about a blob, and their origin
// may do anything: none of it reaches others. Control plane.

import fs from "node:fs";
import { LRUCache } from "lru-cache";
import type { Digest } from "../base/digest.ts";
import { Errno, isShortage } from "../base/errno.ts";
import { BurrowError } from "../base/error.ts";
import { ASK_MAX_MS, BLOCK_BYTES } from "../base/limits.ts";
import { errnoOf } from "../store/node-error.ts";
import { pause } from "../store/pause.ts";
import { classOf } from "../store/store.ts";
import {
  type AskFailure,
  type FetchCounters,
  failureOf,
  type Log,
  newFetchCounters,
} from "./counters.ts";
import { type Deadline, inTime } from "./deadlines.ts";
import type { CacheDirectory } from "./directory.ts";
import { FetchContext } from "./fetch-context.ts";
import { Flights } from "./flights.ts";
import type { Holds } from "./holds.ts";
import { type BlobAsk, Larges } from "./larges.ts";
import { readRange } from "./look.ts";
import { type AnswerFields, AnswerState, bringsFile } from "./mailbox-wire.ts";
import { Origins, type OriginsOptions } from "./origins.ts";
import { type BlobTable, isLarge, keyOfBlocks, pieceCount, type Source } from "./pieces.ts";
import { Shelf } from "./shelf.ts";
import { fetchSmall, type Neighbour } from "./small.ts";

export interface FetcherOptions extends OriginsOptions {
  /** An ask is given up when its origin has sent nothing for so long; below the gofer's MISS_DEADLINE_MS. */
  readonly deadlineMs?: number;
  /** An ask is given up after so long whatever comes; ASK_MAX_MS. */
  readonly askMaxMs?: number;
  /** Whether large blobs that were asked for are completed in the background. */
  readonly background?: boolean;
  /** What may be kept in memory when the disk can't take it; 0: nothing. */
  readonly memoryBytes?: number;
  readonly log?: Log;
}

/** An answer, and with some states the file that goes with it: an FD, whoever gets the answer owns it. */
export interface FetchAnswer extends AnswerFields {
  readonly hostFd: number;
}

const DEADLINE_MS = 25_000;
/** A gofer that was told "whole" opens the file within this time, or asks again. */
const PROMISE_MS = 2_000;
const PROMISES_MAX = 8_192;
/** Tries to answer before what is in memory is evicted for others. */
const ANSWER_TRIES = 3;

/** Between tries of what there was no FD or memory for: at first, and at most. */
const SHORTAGE_MS = 50;
const SHORTAGE_MAX_MS = 2_000;

/** Blobs whose true size is remembered since an index had it wrong: those who say so again cost no look at the file. */
const SIZES_MAX = 8_192;

interface Wanted extends BlobAsk {
  /** Of the ask. */
  readonly deadline: Deadline;
  /** Brings no others along. */
  readonly isAlone?: boolean;
}

export class Fetcher {
  readonly counters: FetchCounters = newFetchCounters();
  readonly origins: Origins;
  /** When and why the last ask failed that was answered with an errno. */
  lastFailure: AskFailure | undefined;
  readonly shelf: Shelf;
  readonly #cache: CacheDirectory;
  readonly #context: FetchContext;
  readonly #flights = new Flights();
  readonly #larges: Larges;
  readonly #settling = new Map<Digest, Promise<number>>();
  readonly #sizes = new LRUCache<Digest, number>({ max: SIZES_MAX });
  readonly #trailing = new Set<Promise<void>>();
  readonly #promised = new LRUCache<Digest, true>({ max: PROMISES_MAX, ttl: PROMISE_MS });

  constructor(cache: CacheDirectory, options: FetcherOptions = {}) {
    this.#cache = cache;
    const { deadlineMs: silentMs = DEADLINE_MS, askMaxMs: mostMs = ASK_MAX_MS } = options;
    this.origins = new Origins(cache, { ...options, tryingMs: silentMs });
    const log = options.log ?? (() => undefined);
    this.shelf = new Shelf(cache, options.memoryBytes ?? 0, log);
    const patience = { silentMs, mostMs };
    this.#context = new FetchContext(cache, this.origins, this.counters, log, patience);
    this.#larges = new Larges(this.shelf, this.#context, options.background ?? true);
  }

  /** Of starts that complete large blobs themselves. */
  get holds(): Holds {
    return this.#larges.holds;
  }

  /** Whether nothing is under way. */
  get isIdle(): boolean {
    return this.#flights.isEmpty && this.#trailing.size === 0 && !this.#larges.isBusy;
  }

  get partials(): number {
    return this.#larges.size;
  }

  /** Answers an ask: the whole blob when count is 0, else `count` blocks from `first`. Never rejects. */
  async ask(source: Source, row: number, first: number, count: number): Promise<FetchAnswer> {
    this.counters.asks++;
    this.origins.enter();
    try {
      using deadline = this.deadlineOf(source.origin);
      const wanted = { ...askOf(source, row, first, count), deadline };
      return await whenAffordable(deadline, () => this.#answered(wanted));
    } catch (error) {
      const errno = answerErrno(error);
      this.counters.failedAsks++;
      if (errno === Errno.ETIMEDOUT) this.counters.timeouts++;
      if (errno === Errno.ENOSPC) this.counters.noSpace++;
      if (errno === Errno.ESTALE) this.counters.stale++;
      this.lastFailure = failureOf(error);
      source.onFailure?.(this.lastFailure);
      const { table } = source;
      if (row < table.count)
        this.#context.logFailure("ask failed", table.digestAt(row), source, error);
      return { errno, state: 0, name: "", hostFd: -1 };
    } finally {
      this.origins.leave();
    }
  }

  /**
   * As ask, for nobody who waits: whether it is here now. What fails leaves no mark: who needs it asks for it, as if nothing had been
   * (pitfalls D7). A small blob brings no others along: who
   * fetches ahead names all that is wanted. Never rejects.
   */
  async prefetch(source: Source, row: number, first: number, count: number): Promise<boolean> {
    try {
      using deadline = this.deadlineOf(source.origin);
      const wanted = { ...askOf(source, row, first, count), deadline, isAlone: true };
      return (await inTime(this.#have(wanted), deadline)).errno === 0;
    } catch {
      return false;
    }
  }

  /** Of a large blob what isn't on this node, as runs of its blocks; all of it where nobody has asked for any. */
  absentRuns(source: Source, row: number): { row: number; first: number; count: number }[] {
    const large = this.#larges.get(keyOfBlocks(source, row));
    const isBegun = large !== undefined && !large.isDropped;
    const runs = isBegun ? large.absentRuns() : [{ first: 0, count: 0 }];
    return runs.map((run) => ({ row, ...run }));
  }

  /** Until when what is asked of an origin is worth an answer: the caller's. */
  deadlineOf(origin: string): Deadline {
    return this.#context.deadlineOfAsk(origin);
  }

  /** Bytes [offset, end) of what prefetch said is here; undefined where they aren't. Never rejects. */
  async read(
    source: Source,
    row: number,
    offset: number,
    end: number,
  ): Promise<Buffer | undefined> {
    const digest = source.table.digestAt(row);
    const isPart = isLarge(source.table.sizeOf(row));
    const large = isPart ? this.#larges.get(keyOfBlocks(source, row)) : undefined;
    const { disk, root } = this.#cache;
    const whole = this.#cache.path("blobs", digest);
    try {
      const inMemory = this.shelf.memory.read(digest);
      if (inMemory !== undefined) return Buffer.from(inMemory.subarray(offset, end));
      if (large === undefined || large.isDropped)
        return await readRange(disk, whole, offset, end - offset);
      if (large.isInMemory) return undefined; // parts of a large one are read by those alone who have its FD
      const partial = `${root}/partial/${large.name}`;
      // It may have become whole meanwhile.
      return await readRange(disk, partial, offset, end - offset).catch(() =>
        readRange(disk, whole, offset, end - offset),
      );
    } catch {
      return undefined;
    }
  }

  /** What the work says, and the file that goes with it; again when that was evicted in between. */
  async #answered(wanted: Wanted): Promise<FetchAnswer> {
    const { digest, key, deadline } = wanted;
    for (let tries = 1; ; tries++) {
      const answer = await inTime(this.#have(wanted), deadline);
      if (answer.state === AnswerState.complete) this.#promised.set(digest, true);
      if (!bringsFile(answer)) return { ...answer, hostFd: -1 };
      const isWhole = answer.state === AnswerState.completeHere;
      const large = this.#larges.get(key);
      const hostFd = isWhole ? this.shelf.memory.open(digest) : (large?.openForReading() ?? -1);
      const isSame = isWhole || large?.name === answer.name;
      if (hostFd >= 0 && isSame) return { ...answer, hostFd };
      if (hostFd >= 0) fs.closeSync(hostFd);
      if (tries >= ANSWER_TRIES) throw new BurrowError("BURROW_NO_SPACE", "memory is too short");
    }
  }

  /** Whether a gofer is about to open a blob, or it is being worked on: evicting it would have it fetched again. */
  isPromised(digest: Digest): boolean {
    return this.#promised.has(digest) || this.#flights.has(digest) || this.#settling.has(digest);
  }

  /** Gives up partial files that nobody waits for or has open: the bytes that are free by that. */
  dropIdle(bytes: number): Promise<number> {
    return this.#larges.dropIdle(bytes);
  }

  /** Called about once a second. Never rejects. */
  tick(): Promise<void> {
    return this.shelf.tick();
  }

  /** Ends all work; partial files are removed. Asks under way are answered with errors. */
  close(): void {
    this.#context.stop();
    this.#larges.close();
    this.shelf.memory.close();
    this.origins.close();
  }

  async #have(wanted: Wanted): Promise<AnswerFields> {
    const { source, digest, size, key, first, count } = wanted;
    const isFlying = this.#flights.get(source.origin, digest) !== undefined;
    const isUnderWay = isFlying || this.#larges.get(key)?.isDropped === false;
    if (!isUnderWay && (await this.#settle(digest, size))) {
      this.counters.hits++;
      return this.#complete(digest);
    }
    const sizeInMemory = this.shelf.memory.sizeOf(digest);
    if (sizeInMemory >= 0) {
      checkSize(size, sizeInMemory);
      this.counters.hits++;
      // A disk that takes writes again gets what is small.
      if (!isLarge(size)) {
        using deadline = this.#context.deadline(source);
        await this.shelf.settle(digest, size, deadline.signal);
      }
      return this.#complete(digest);
    }
    source.onMiss?.(count > 0 ? Math.min(size, count * BLOCK_BYTES) : size);
    if (!isLarge(size)) {
      await this.#haveSmall(wanted);
      return this.#complete(digest);
    }
    if (count > 0 && first + count > pieceCount(size)) {
      throw new BurrowError("BURROW_USAGE", "blocks past the end of the blob", {
        errno: Errno.EINVAL,
      });
    }
    const large = await this.#larges.have(wanted);
    if (large === undefined) return this.#complete(digest);
    const state = large.isInMemory ? AnswerState.partialHere : AnswerState.partial;
    return { errno: 0, state, name: large.name };
  }

  /**
   * Whether a blob is whole here: sealed, or, when its seal is broken or it is suspect, right by its digest. Wrong files are
   * dropped and counted. BURROW_BAD_INDEX when it is right, and of another size: an index that lies costs nobody a file.
   */
  async #settle(digest: Digest, size: number): Promise<boolean> {
    const known = this.#sizes.get(digest);
    if (known !== undefined) checkSize(size, known);
    const looked = [{ folder: "blobs" as const, digest, size }];
    const suspects = [{ folder: "suspect" as const, digest, size }];
    const { hasSuspects } = this.#cache;
    const states = await this.#cache.lookAll(hasSuspects ? [...looked, ...suspects] : looked);
    const [state, suspect = "missing"] = states;
    if (state === "sealed") return true;
    const isSuspect = state === "missing" && suspect !== "missing";
    if (state === "missing" && !isSuspect) return false;
    const found = await (this.#settling.get(digest) ?? this.#revive(digest, isSuspect));
    if (found >= 0) checkSize(size, found);
    return found >= 0;
  }

  /** The size of a file that is right; -1 of one that was not. */
  #revive(digest: Digest, isSuspect: boolean): Promise<number> {
    const looking = isSuspect ? undefined : this.#cache.look("blobs", digest, -1);
    const settling = Promise.resolve(looking)
      .then(async (state) => {
        const isIntact = state === "sealed";
        const size = await this.#cache.revive(isSuspect ? "suspect" : "blobs", digest);
        if (size < 0) this.counters.dropped++;
        else this.#sizes.set(digest, size);
        if (size >= 0 && !isIntact) this.counters.resealed++;
        return size;
      })
      .finally(() => this.#settling.delete(digest));
    this.#settling.set(digest, settling);
    return settling;
  }

  async #haveSmall(wanted: Wanted): Promise<void> {
    const { source, digest, size, deadline, isAlone = false } = wanted;
    for (let isWary = false; ; ) {
      const there = this.#flights.get(source.origin, digest);
      const isOthers = there?.snapshot !== source.snapshot;
      const joined = isWary && isOthers ? undefined : there;
      const flight =
        joined ??
        this.#flights.lead(source, digest, this.#fetchSmall(source, digest, size, isAlone));
      if (source.isAhead !== true && flight.want()) this.#cache.disk.hurry(digest);
      try {
        if (await flight.done) return;
        // It came along with another blob and did not make it: now it is asked for.
      } catch (error) {
        // What ended by the deadline of an earlier ask, or for a reason of another snapshot's, is tried in the name of this one.
        const isFinal = !isOthers && classOf(error) !== "transient";
        if (joined === undefined || isFinal || deadline.isOver) throw error;
        isWary ||= isOthers;
      }
    }
  }

  async #fetchSmall(source: Source, digest: Digest, size: number, isAlone: boolean): Promise<void> {
    // A flight may have ended between the look at the disk and this one.
    if (this.shelf.isFresh(digest) && (await this.#settle(digest, size))) return;
    const { claim, end } = this.#flights.start(source, digest);
    const enlist = isAlone ? undefined : (blob: Digest) => this.#enlist(source.origin, blob);
    try {
      const { finished } = await fetchSmall(this.shelf, this.#context, {
        source,
        digest,
        size,
        enlist,
        claim,
        isAhead: (blob) => this.#flights.get(source.origin, blob)?.isAhead === true,
      });
      this.#trailing.add(finished);
      void finished.finally(() => this.#trailing.delete(finished));
    } finally {
      end();
    }
  }

  /** A place in a run for a blob, unless its own request is under way or it is on this node. */
  #enlist(origin: string, digest: Digest): Neighbour | undefined {
    const adopted = this.#flights.adopt(origin, digest);
    if (adopted !== undefined) return adopted;
    const isFlying = this.#flights.get(origin, digest) !== undefined;
    if (isFlying || this.shelf.memory.has(digest) || this.shelf.isFresh(digest)) return undefined;
    return this.#flights.bring(origin, digest);
  }

  /** Of a blob that is whole: where. */
  #complete(digest: Digest): AnswerFields {
    const isInMemory = this.shelf.memory.has(digest);
    const state = isInMemory ? AnswerState.completeHere : AnswerState.complete;
    return { errno: 0, state, name: "" };
  }
}

/**
 * Does work, and again as long as there is no FD or memory for it: others give theirs back. Each try may be a request to the origin, so they
 * become rare.
 */
async function whenAffordable<T>(deadline: Deadline, work: () => Promise<T>): Promise<T> {
  for (let restMs = SHORTAGE_MS; ; restMs = Math.min(2 * restMs, SHORTAGE_MAX_MS)) {
    try {
      return await work();
    } catch (error) {
      if (!isShortage(errnoOf(error).errno)) throw error;
      if (!(await pause(restMs, deadline.signal))) throw error;
    }
  }
}

/** What is asked for, as the index has it. BURROW_USAGE, BURROW_BAD_INDEX. */
function askOf(source: Source, row: number, first: number, count: number): BlobAsk {
  const { table } = source;
  if (row >= table.count)
    throw new BurrowError("BURROW_USAGE", "no such blob", { errno: Errno.EINVAL });
  const [digest, size] = [table.digestAt(row), table.sizeOf(row)];
  checkBlocks(table, row, size);
  const key = isLarge(size) ? keyOfBlocks(source, row) : "";
  return { source, row, digest, size, key, first, count };
}

/** A large blob costs a file and a table of its size: it is believed only as far as the index has digests for it. */
function checkBlocks(table: BlobTable, row: number, size: number): void {
  if (!isLarge(size) || table.blockCount(row) === pieceCount(size)) return;
  if (table.blockCount(row) === 0) return; // a pinned object's, perhaps: that is looked at where one is begun
  throw new BurrowError("BURROW_BAD_INDEX", "the index has too few digests for a blob's size", {
    context: { sizeBytes: size },
  });
}

/** An index may give a blob that is here any size: the error is of who brought it. */
function checkSize(size: number, trueSize: number): void {
  if (size === trueSize) return;
  throw new BurrowError("BURROW_BAD_INDEX", "the index gives a blob another size than it has", {
    context: { sizeBytes: size, trueBytes: trueSize },
  });
}

function answerErrno(error: unknown): number {
  if (!(error instanceof BurrowError)) return Errno.EIO;
  if (error.code === "BURROW_TIMEOUT") return Errno.ETIMEDOUT;
  if (error.code === "BURROW_NO_SPACE") return Errno.ENOSPC;
  if (error.code === "BURROW_STALE") return Errno.ESTALE;
  return error.code === "BURROW_USAGE" ? Errno.EINVAL : Errno.EIO;
}
