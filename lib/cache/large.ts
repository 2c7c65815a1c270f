// LargeBlob: one blob that is cut into blocks, while it is on its way to this node: its partial file, which blocks are in it,
// and which are being fetched. A block counts as present only after its digest was right and it was written; the whole
// becomes a file of blobs/ only after its own digest was right. Control plane.

import { randomBytes } from "node:crypto";
import fs from "node:fs";
import { type Digest, showDigest } from "../base/digest.ts";
import { BurrowError } from "../base/error.ts";
import { BLOCK_BYTES, FETCH_RUN_BYTES } from "../base/limits.ts";
import { digestOf } from "../store/hash.ts";
import { classOf, isAstray } from "../store/store.ts";
import { type CacheDirectory, dropFile, hashFile, ioError, writeFully } from "./directory.ts";
import { Doubts } from "./doubts.ts";
import type { FetchContext } from "./fetch-context.ts";
import { isInUse, type Lingering } from "./lingering.ts";
import { type MemoryTier, openForReading } from "./memory-tier.ts";
import type { Origin } from "./origins.ts";
import { failuresOf, Pending, type Run } from "./pending.ts";
import {
  getPieces,
  type Piece,
  pieceCount,
  runLength,
  type Source,
  type StoredPiece,
} from "./pieces.ts";
import {
  costOf,
  expectedCost,
  FILE_COST_BYTES,
  groupOf,
  type Reservation,
  type Room,
} from "./room.ts";
import { sumOfBlocks } from "./sums.ts";

/** One background request: long enough for bandwidth, short enough to let demand in between. */
const BACKGROUND_RUN_BYTES = 1024 * 1024;
/** One demand request at most, whatever was asked for. */
const RUN_MAX_BYTES = 4 * 1024 * 1024;
/** Blocks that are fetched ahead of who reads in order: the link carries them while the last ones are verified, and read. */
const READ_AHEAD_BLOCKS = 8;
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
}

export class LargeBlob {
  readonly digest: Digest;
  readonly size: number;
  readonly count: number;
  /** Name below partial/, never used again by any daemon. */
  readonly name: string;
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
  /** What the partial file takes. */
  #costBytes = 0;
  #fd: number;
  #finished: Promise<void> | undefined;
  /** Origins that it is streamed from. */
  readonly #streaming = new Set<string>();
  /** Where the last ask ended. */
  #readEnd = 0;
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
    this.#memory = memory;
    const { room, lingering } = memory ?? cache;
    this.#medium = { room, lingering, group: memory === undefined ? "partial" : "memory" };
    this.#present = new Uint8Array(this.count);
    this.name = `${blob.digest}.${randomBytes(8).toString("hex")}`;
    this.#fd = memory?.create(blob.size) ?? fs.openSync(this.#path, "wx+", 0o644);
  }

  /** Starts a blob, with a file in partial/ or in `memory`. BURROW_NO_SPACE, BURROW_IO. */
  static create(
    cache: CacheDirectory,
    context: FetchContext,
    wanted: { readonly digest: Digest; readonly size: number },
    memory?: MemoryTier,
  ): LargeBlob {
    let blob: LargeBlob | undefined;
    try {
      blob = new LargeBlob(cache, context, wanted, memory);
      if (memory === undefined) {
        fs.fchmodSync(blob.#fd, 0o644);
        fs.ftruncateSync(blob.#fd, wanted.size);
      }
      blob.#count(FILE_COST_BYTES);
      return blob;
    } catch (error) {
      blob?.drop();
      if (error instanceof BurrowError) throw error;
      throw ioError("can't make a partial file", `${cache.root}/partial`, error);
    }
  }

  get isInMemory(): boolean {
    return this.#memory !== undefined;
  }

  /** An FD for reading a file in memory, the caller's; -1 when it is closed. */
  openForReading(): number {
    return this.#fd < 0 ? -1 : openForReading(this.#fd);
  }

  get #path(): string {
    return `${this.#cache.root}/partial/${this.name}`;
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
    const want = { source, row, signal, runBytes, isDemand: true };
    const end = first + count;
    const asked = this.#demand(want, first, end);
    // Who fails to get these asks for them itself.
    if (first > 0 && first === this.#readEnd) this.#readAhead(want, end).catch(() => undefined);
    this.#readEnd = end;
    await asked;
    if (this.#presentCount < this.count || this.#streaming.size > 0) return false;
    await this.#finish();
    return true;
  }

  async #readAhead(want: Want, from: number): Promise<void> {
    const signal = this.#context.deadline();
    const to = Math.min(this.count, from + READ_AHEAD_BLOCKS);
    if (from < to && !this.#hasAll(from, to)) await this.#demand({ ...want, signal }, from, to);
  }

  /** Fetches all of it at once, as demand. */
  async complete(source: Source, row: number, signal: AbortSignal): Promise<void> {
    const want = { source, row, signal, runBytes: RUN_MAX_BYTES, isDemand: true };
    await this.#demand(want, 0, this.count);
    await this.#finish();
  }

  async #demand(want: Want, from: number, to: number): Promise<void> {
    this.#demands++;
    try {
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
    return this.#fd >= 0 && isInUse(this.#fd);
  }

  get costBytes(): number {
    return this.#costBytes;
  }

  /** Unlinks the partial file and closes it. Gofers that have it open keep what they know to be present. */
  drop(): void {
    if (this.#isDropped) return;
    this.#isDropped = true;
    this.#unname();
    if (this.#finished === undefined) this.#closeFd();
  }

  async #streamRest(source: Source, row: number): Promise<void> {
    const origin = this.#context.origin(source);
    // What comes from elsewhere is waited for, by fetching the rest first.
    for (const isPatient of [true, false]) await this.#streamFrom(origin, source, row, isPatient);
    if (this.#presentCount === this.count) await this.#finish();
  }

  async #streamFrom(
    origin: Origin,
    source: Source,
    row: number,
    isPatient: boolean,
  ): Promise<void> {
    for (let at = 0; at < this.count && !this.#isDropped; ) {
      const isPassed = isPatient && this.#pending.isElsewhere(source.origin, at);
      if (this.#present[at] === 1 || isPassed) {
        at++;
        continue;
      }
      const signal = this.#context.deadline();
      const want = { source, row, signal, runBytes: BACKGROUND_RUN_BYTES, isDemand: false };
      // Its turn comes first, then the choice of blocks: demand never waits for a request that only stands in line.
      await origin.inBackground(signal, () => this.#fetch(want, at, at + 1));
    }
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
    const failures = await failuresOf(own);
    const shared = await failuresOf(others);
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
    const cost = pieces.reduce((sum, { length }) => sum + expectedCost(length), 0);
    const space = await this.#medium.room.reserve(cost, want.signal);
    try {
      const stored = await getPieces(origin, pieces, want.isDemand, want.signal);
      await this.#keep(want, first, pieces, stored, space);
    } finally {
      space.release();
    }
  }

  async #keep(
    want: Want,
    first: number,
    pieces: readonly Piece[],
    stored: readonly StoredPiece[],
    space: Reservation,
  ): Promise<void> {
    let failure: unknown;
    for (const [i, piece] of pieces.entries()) {
      try {
        if (piece.pin !== undefined) {
          this.#keepPinned(first + i, stored[i]!.stored, space);
          continue;
        }
        this.#sum = piece.sum ?? this.#sum;
        const digest = want.source.table.blockDigest(want.row, first + i);
        this.#write(first + i, await this.#verified(want, piece, stored[i]!, digest), space);
      } catch (error) {
        if (this.#isDropped) throw error;
        failure ??= error;
      }
    }
    if (failure !== undefined) throw failure;
  }

  /** Keeps a block of a pinned object, and what it comes to: whatever is read of it later is compared with that. */
  #keepPinned(block: number, content: Uint8Array, space: Reservation): void {
    if (this.#present[block] === 1) return;
    this.#sums[block] = digestOf(content);
    this.#write(block, content, space);
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

  #write(block: number, content: Uint8Array, space: Reservation): void {
    if (this.#isDropped)
      throw this.#failure ?? new BurrowError("BURROW_IO", "the partial file was dropped");
    if (this.#present[block] === 1) return;
    try {
      writeFully(this.#fd, content, block * BLOCK_BYTES);
    } catch (error) {
      // Most likely a full disk, which this file's end relieves.
      this.#failure = ioError("can't write to a partial file", this.#path, error);
      this.drop();
      throw this.#failure;
    }
    this.#present[block] = 1;
    this.#presentCount++;
    this.#count(expectedCost(content.length) - FILE_COST_BYTES, space);
    this.#context.counters.blocks++;
  }

  #finish(): Promise<void> {
    this.#finished ??= this.#verifyWhole();
    return this.#finished;
  }

  async #verifyWhole(): Promise<void> {
    try {
      const isPinned = this.#sums.length > 0;
      const sum = await (isPinned
        ? sumOfBlocks(this.#fd, this.size, this.#sums)
        : hashFile(this.#fd));
      if (sum === undefined || (!isPinned && sum !== this.#sum)) {
        throw new BurrowError("BURROW_DIGEST_MISMATCH", "blocks are right but not their blob", {
          context: { blob: showDigest(this.digest) },
        });
      }
      await this.#keepWhole(sum);
      this.#context.counters.blobs++;
      this.#context.counters.blobBytes += this.size;
    } catch (error) {
      this.#unname();
      throw error;
    } finally {
      this.#isDropped = true;
      this.#closeFd();
    }
  }

  async #keepWhole(sum: Digest): Promise<void> {
    if (this.#memory !== undefined) {
      this.#memory.adopt(this.digest, this.#fd, this.#costBytes);
      this.#fd = -1;
    } else {
      await this.#cache.publish(this.#fd, this.#path, "blobs", this.digest, sum);
      const { room } = this.#cache;
      room.add(groupOf("blobs", this.digest), costOf(fs.fstatSync(this.#fd)));
      room.subtract("partial", this.#costBytes);
    }
    this.#costBytes = 0;
  }

  /** Removes the partial file's name; on a disk that takes no writes the next daemon does. */
  #unname(): void {
    if (this.#memory !== undefined) return;
    try {
      dropFile(this.#path);
    } catch {
      // What matters is that it becomes no file of blobs/.
    }
  }

  #count(bytes: number, space?: Reservation): void {
    this.#costBytes += bytes;
    const { room, group } = this.#medium;
    if (space === undefined) room.add(group, bytes);
    else space.keep(group, bytes);
  }

  /** Ends with the file, whatever became of it; one without a name takes its space until nobody has it open. */
  #closeFd(): void {
    if (this.#fd < 0) return;
    const { room, lingering, group } = this.#medium;
    room.subtract(group, this.#costBytes);
    if (this.#costBytes > 0 && isInUse(this.#fd)) {
      lingering.take(this.#fd, this.#costBytes);
    } else {
      fs.closeSync(this.#fd);
    }
    this.#costBytes = 0;
    this.#fd = -1;
  }
}
