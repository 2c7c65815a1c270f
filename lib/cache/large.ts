// LargeBlob: one blob that is cut into blocks, while it is on its way to this node: its partial file, which blocks are in it,
// and which are being fetched. A block counts as present only after its digest was right and it was written; the whole
// becomes a file of blobs/ only after its own digest was right. Control plane.

import { type Digest, showDigest } from "../base/digest.ts";
import { BurrowError } from "../base/error.ts";
import { BLOCK_BYTES, FETCH_RUN_BYTES } from "../base/limits.ts";
import { digestOf } from "../store/hash.ts";
import { ioError } from "../store/node-error.ts";
import { classOf, isAstray } from "../store/store.ts";
import type { CacheDirectory } from "./directory.ts";
import { Doubts } from "./doubts.ts";
import type { FetchContext } from "./fetch-context.ts";
import { isInUse, type Lingering } from "./lingering.ts";
import type { MemoryTier } from "./memory-tier.ts";
import type { Origin } from "./origins.ts";
import { PartialFile } from "./partial-file.ts";
import { failuresOf, Pending, type Run } from "./pending.ts";
import {
  getPieces,
  type Piece,
  pieceCount,
  runLength,
  type Source,
  type StoredPiece,
} from "./pieces.ts";
import type { StoredBlock } from "./pool.ts";
import { ReadAhead } from "./read-ahead.ts";
import { expectedCost, FILE_COST_BYTES, groupOf, type Reservation, type Room } from "./room.ts";

/** Of one blob at once: while the blocks of one are verified the link carries those of the other. */
const BACKGROUND_RUNS = 2;
/** One demand request at most, whatever was asked for. */
const RUN_MAX_BYTES = 4 * 1024 * 1024;
/** Blocks looked at for one run: more than compressed ones fill it at the ratios seen (up to 3.8). */
const RUN_MAX_BLOCKS = 64;
/** Tries for a block whose content is wrong. */
const TRIES = 3;

/** Where the partial file is: in partial/, or in memory. */
interface Medium {
  readonly room: Room;
  readonly lingering: Lingering;
  readonly group: string;
}

/** Who fetches, from where, how much at a time. Background work holds its turn at the origin already. */
interface Want {
  readonly source: Source;
  readonly row: number;
  readonly signal: AbortSignal;
  readonly runBytes: number;
  readonly isDemand: boolean;
  /** The blocks that somebody waits for: [first, end); what else comes was brought ahead. */
  readonly asked?: { readonly first: number; readonly end: number };
  /** Leaves alone what is on its way already. */
  readonly isPatient?: boolean;
}

/** What nobody waits for. */
const NOBODY = { first: 0, end: 0 };

export class LargeBlob {
  readonly digest: Digest;
  readonly size: number;
  readonly count: number;
  readonly #cache: CacheDirectory;
  readonly #context: FetchContext;
  /** In whose memory the file is; undefined: on disk. */
  readonly #memory: MemoryTier | undefined;
  readonly #medium: Medium;
  readonly #present: Uint8Array;
  /** Of a pinned object: what its blocks came to when they were fetched. */
  readonly #sums: Digest[] = [];
  /** What all of it comes to: its name, but for a tenant's file. */
  #sum: Digest;
  readonly #pending = new Pending();
  #presentCount = 0;
  /** Writes under way off the loop. */
  readonly #writing = new Set<Promise<unknown>>();
  /** What the partial file takes. */
  #costBytes = 0;
  readonly #file: PartialFile;
  /** When it has its file. */
  readonly #opened: Promise<void>;
  #finished: Promise<void> | undefined;
  /** When the file is gone, of a dropped one. */
  #ended: Promise<void> | undefined;
  /** Origins that it is streamed from. */
  readonly #streaming = new Set<string>();
  readonly #ahead: ReadAhead;
  /** Asks that wait for it. */
  #demands = 0;
  #isDropped = false;
  /** The write that it was dropped for; told to who joined it, too, so that they turn to memory. */
  #failure: BurrowError | undefined;

  private constructor(
    cache: CacheDirectory,
    context: FetchContext,
    blob: { readonly digest: Digest; readonly size: number },
    memory: MemoryTier | undefined,
  ) {
    this.#cache = cache;
    this.#context = context;
    this.digest = blob.digest;
    this.#sum = blob.digest;
    this.size = blob.size;
    this.count = pieceCount(blob.size);
    this.#ahead = new ReadAhead(this.count);
    this.#memory = memory;
    const { room, lingering } = memory ?? cache;
    this.#medium = { room, lingering, group: memory === undefined ? "partial" : "memory" };
    this.#present = new Uint8Array(this.count);
    this.#file = new PartialFile(cache, memory, blob);
    this.#opened = memory === undefined ? this.#open() : Promise.resolve();
    // Who asks for blocks of it hears why it can't be.
    this.#opened.catch(() => undefined);
  }

  /** Starts a blob, with a file in partial/ or in `memory`. BURROW_NO_SPACE, BURROW_IO. */
  static create(
    cache: CacheDirectory,
    context: FetchContext,
    wanted: { readonly digest: Digest; readonly size: number },
    memory?: MemoryTier,
  ): LargeBlob {
    const blob = new LargeBlob(cache, context, wanted, memory);
    blob.#count(FILE_COST_BYTES);
    return blob;
  }

  /** Throws BURROW_NO_SPACE or BURROW_IO, and nothing is left. */
  async #open(): Promise<void> {
    try {
      await this.#file.make(() => !this.#isDropped);
    } catch (error) {
      void this.drop();
      throw error;
    }
  }

  /** Name below partial/, never used again by any daemon. */
  get name(): string {
    return this.#file.name;
  }

  get isInMemory(): boolean {
    return this.#memory !== undefined;
  }

  /** An FD for reading a file in memory, the caller's; -1 when it is closed. */
  openForReading(): number {
    return this.#file.openForReading();
  }

  /** Dropped: its file is gone and it takes no more asks. */
  get isDropped(): boolean {
    return this.#isDropped;
  }

  get isBusy(): boolean {
    return !this.#pending.isEmpty || this.#streaming.size > 0;
  }

  /**
   * Resolves when the blocks are present and verified; true when the blob is whole by then. While it is streamed, whoever reads on
   * doesn't wait for the whole's digest: its blocks are right, and the stream ends with that.
   */
  async ensure(
    source: Source,
    row: number,
    first: number,
    count: number,
    signal: AbortSignal,
  ): Promise<boolean> {
    const runBytes = Math.min(RUN_MAX_BYTES, Math.max(FETCH_RUN_BYTES, count * BLOCK_BYTES));
    const end = first + count;
    const want = { source, row, signal, runBytes, isDemand: true, asked: { first, end } };
    const asked = this.#demand(want, first, end);
    // Who fails to get these asks for them itself.
    this.#readAhead(want, first, end).catch(() => undefined);
    await asked;
    if (this.#presentCount < this.count || this.#streaming.size > 0) return false;
    await this.#finish();
    return true;
  }

  async #readAhead(want: Want, first: number, end: number): Promise<void> {
    const ahead = this.#ahead.next(first, end);
    if (ahead === undefined) return;
    const { from, to } = ahead;
    const runBytes = Math.min(RUN_MAX_BYTES, (to - from) * BLOCK_BYTES);
    if (this.#hasAll(from, to) || !this.#context.startReadAhead()) return;
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
    await this.#finish();
  }

  async #demand(want: Want, from: number, to: number): Promise<void> {
    this.#demands++;
    try {
      await this.#opened;
      await this.#fetch(want, from, to);
    } finally {
      this.#demands--;
    }
  }

  /** Streams what is missing behind demand, until the blob is whole; once for each origin, since one may hang. An error ends it and is forgotten. */
  async stream(source: Source, row: number): Promise<void> {
    const { origin } = source;
    if (this.#streaming.has(origin) || this.#isDropped) return;
    this.#streaming.add(origin);
    try {
      await this.#opened;
      await this.#streamRest(source, row);
    } catch (error) {
      this.#context.logFailure("background", this.digest, source, error);
    } finally {
      this.#streaming.delete(origin);
    }
  }

  /** Whether somebody waits for it, or it is about to be whole; what only streams behind demand may be given up for demand. */
  get isWanted(): boolean {
    return this.#demands > 0 || this.#finished !== undefined;
  }

  /** Whether a gofer has the partial file open: then its end would free nothing. */
  get isInUse(): boolean {
    return this.#file.isInUse;
  }

  get costBytes(): number {
    return this.#costBytes;
  }

  /**
   * Unlinks the partial file and closes it: resolves when its space is free, or sure to be. Gofers that have it open keep what they know
   * to be present.
   */
  drop(): Promise<void> {
    if (this.#isDropped) return Promise.resolve();
    this.#isDropped = true;
    if (this.#finished !== undefined) return Promise.resolve();
    this.#ended = this.#end();
    return this.#ended;
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
    if (this.#presentCount === this.count) await this.#finish();
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
    for (let at = from; at < this.count && !this.#isDropped; at++) {
      if (this.#present[at] === 0 && !(isPatient && this.#pending.has(at))) return at;
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
    const reach = Math.min(this.count, Math.max(to, from + RUN_MAX_BLOCKS));
    const blocks = Array.from({ length: reach - from }, (_, i) => from + i);
    const { source, signal } = want;
    const found = await this.#context.locate(source, this.digest, this.size, blocks, signal);
    const own = new Set<Run>();
    const others = new Set<Run>();
    for (let block = from; block < to; block++) {
      if (this.#present[block] === 1) continue;
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
    if (this.#hasAll(from, to)) return;
    if (failures.length > 0) {
      const reason = failures.find(isAstray) ?? failures[0];
      const refresh = () => this.#context.refresh(source, found.locator, reason, signal);
      if (isAgain || (await refresh()) === undefined) throw reason;
      return await this.#fetch(want, from, to, true);
    }
    // What another ask or the background stream failed to get is tried in our own name.
    if (shared.length > 0) await this.#fetch(want, from, to, isAgain, true);
  }

  #hasAll(from: number, to: number): boolean {
    for (let block = from; block < to; block++) if (this.#present[block] === 0) return false;
    return true;
  }

  /** The first block behind `block` that is here or on its way, or `limit`. */
  #absentEnd({ source, isDemand }: Want, block: number, limit: number): number {
    const isComing = (at: number) =>
      this.#pending.get(source.origin, at) !== undefined ||
      (!isDemand && this.#pending.isElsewhere(source.origin, at));
    let end = block + 1;
    while (end < limit && this.#present[end] === 0 && !isComing(end)) end++;
    return end;
  }

  /** Fetches neighbouring blocks by one request. A bad one fails the run, after the others were kept. */
  async #run(want: Want, origin: Origin, first: number, pieces: readonly Piece[]): Promise<void> {
    const bytes = pieces.reduce((sum, { stored }) => sum + stored, 0);
    const giveBack = want.isDemand ? await origin.takeIn(bytes, want.signal) : () => undefined;
    try {
      // It may have been given up meanwhile: then nothing is asked for.
      this.#checkNotDropped();
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
    const cost = pieces.reduce((sum, { length }) => sum + expectedCost(length), 0);
    const space = await this.#medium.room.reserve(cost, want.signal);
    try {
      const stored = await getPieces(origin, pieces, want.isDemand, want.signal);
      await this.#keep(want, first, pieces, stored, space);
    } finally {
      // What was written to a file that is dropped takes its space until that is gone.
      if (this.#ended === undefined) space.release();
      else void this.#ended.then(() => space.release());
    }
  }

  async #keep(
    want: Want,
    first: number,
    pieces: readonly Piece[],
    stored: readonly StoredPiece[],
    space: Reservation,
  ): Promise<void> {
    const written = await this.#keepRight(want, first, pieces, stored);
    let failure: unknown;
    for (const [i, piece] of pieces.entries()) {
      try {
        if (piece.pin !== undefined) {
          await this.#keepPinned(want, first + i, stored[i]!.stored, space);
          continue;
        }
        this.#sum = piece.sum ?? this.#sum;
        if (written.has(first + i)) {
          this.#note(want, first + i, piece.length, space);
          continue;
        }
        const digest = want.source.table.blockDigest(want.row, first + i);
        const content = await this.#verified(want, piece, stored[i]!, digest);
        await this.#write(want, first + i, content, space);
      } catch (error) {
        if (this.#isDropped) throw error;
        failure ??= error;
      }
    }
    if (failure !== undefined) throw failure;
  }

  /** Writes blocks whose content is right, off the loop: which ones. None is present by that yet. */
  async #keepRight(
    { source, row }: Want,
    first: number,
    pieces: readonly Piece[],
    stored: readonly StoredPiece[],
  ): Promise<ReadonlySet<number>> {
    const blocks: StoredBlock[] = [];
    for (const [i, { codec, length, pin }] of pieces.entries()) {
      const block = first + i;
      if (pin !== undefined || this.#present[block] === 1) continue;
      const digest = source.table.blockDigest(row, block);
      blocks.push({ stored: stored[i]!.stored, codec, length, block, digest });
    }
    if (blocks.length === 0 || !this.#file.isOpen) return new Set();
    const work = this.#file.keep(blocks);
    this.#writing.add(work);
    try {
      return await work;
    } catch (error) {
      throw this.#failed(error);
    } finally {
      this.#writing.delete(work);
    }
  }

  /** Keeps a block of a pinned object, and what it comes to: whatever is read of it later is compared with that. */
  async #keepPinned(
    want: Want,
    block: number,
    content: Uint8Array,
    space: Reservation,
  ): Promise<void> {
    if (this.#present[block] === 1) return;
    this.#sums[block] = digestOf(content);
    await this.#write(want, block, content, space);
  }

  /** The content of a block, fetched again on its own while it is wrong: a bounded number of times. */
  async #verified(
    want: Want,
    piece: Piece,
    stored: StoredPiece,
    digest: Digest,
  ): Promise<Uint8Array> {
    const doubts = new Doubts();
    for (let attempt = 1, bytes = stored; ; attempt++) {
      try {
        return doubts.open(piece, bytes, digest);
      } catch (error) {
        this.#context.noteMismatch(this.digest, want.source, error);
        if (attempt >= TRIES || classOf(error) !== "transient") throw error;
      }
      const origin = this.#context.origin(want.source);
      bytes = (await getPieces(origin, [piece], want.isDemand, want.signal, doubts.avoid))[0]!;
    }
  }

  async #write(want: Want, block: number, content: Uint8Array, space: Reservation): Promise<void> {
    this.#checkNotDropped();
    if (this.#present[block] === 1) return;
    try {
      await this.#file.write(content, block * BLOCK_BYTES);
    } catch (error) {
      throw this.#failed(error);
    }
    this.#note(want, block, content.length, space);
  }

  /** Most likely a full disk, or one that hangs, which this file's end relieves. */
  #failed(cause: unknown): BurrowError {
    this.#failure = ioError("can't write to a partial file", this.#file.path, cause);
    void this.drop();
    return this.#failure;
  }

  /** A block that was written is present from now on; another may have brought it meanwhile: the same bytes. */
  #note({ asked = NOBODY, source }: Want, block: number, length: number, space: Reservation): void {
    this.#checkNotDropped();
    if (this.#present[block] === 1) return;
    this.#present[block] = 1;
    this.#presentCount++;
    this.#count(expectedCost(length) - FILE_COST_BYTES, space);
    this.#context.counters.blocks++;
    const isAwaited = source.isAhead !== true && block >= asked.first && block < asked.end;
    if (!isAwaited) source.onPrefetch?.(this.digest, block, length);
  }

  #checkNotDropped(): void {
    if (!this.#isDropped) return;
    throw this.#failure ?? new BurrowError("BURROW_IO", "the partial file was dropped");
  }

  #finish(): Promise<void> {
    this.#finished ??= this.#verifyWhole();
    return this.#finished;
  }

  async #verifyWhole(): Promise<void> {
    try {
      // A block may be on its way from two origins: the later one is written once more, and a sealed file takes no writes.
      while (this.#writing.size > 0) await Promise.allSettled(this.#writing);
      const isPinned = this.#sums.length > 0;
      const sum = await this.#file.sum(isPinned ? this.#sums : undefined);
      if (sum === undefined || (!isPinned && sum !== this.#sum)) {
        throw new BurrowError("BURROW_DIGEST_MISMATCH", "blocks are right but not their blob", {
          context: { blob: showDigest(this.digest) },
        });
      }
      await this.#keepWhole(sum);
      this.#context.counters.blobs++;
      this.#context.counters.blobBytes += this.size;
    } finally {
      this.#isDropped = true;
      // What matters is that a wrong one becomes no file of blobs/.
      void this.#end();
    }
  }

  async #keepWhole(sum: Digest): Promise<void> {
    if (this.#memory !== undefined) {
      this.#memory.adopt(this.digest, this.#file.takeFd(), this.#costBytes);
    } else {
      const { digest, size } = this;
      const { fd, path } = this.#file;
      const cost = await this.#cache.publish(fd, path, "blobs", digest, sum, size);
      const { room } = this.#cache;
      room.add(groupOf("blobs", digest), cost);
      room.subtract("partial", this.#costBytes);
    }
    this.#costBytes = 0;
  }

  #count(bytes: number, space?: Reservation): void {
    this.#costBytes += bytes;
    const { room, group } = this.#medium;
    if (space === undefined) room.add(group, bytes);
    else space.keep(group, bytes);
  }

  /** Ends with the file, whatever became of it; one without a name takes its space until nobody has it open. */
  async #end(): Promise<void> {
    const fd = this.#file.takeFd();
    const costBytes = this.#costBytes;
    const { room, lingering, group } = this.#medium;
    this.#costBytes = 0;
    const isLingering = fd >= 0 && costBytes > 0 && isInUse(fd);
    await this.#file.remove(isLingering ? -1 : fd);
    room.subtract(group, costBytes);
    if (isLingering) lingering.take(fd, costBytes);
  }
}
