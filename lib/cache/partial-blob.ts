// PartialBlob: what of a large blob is on this node: its partial file, which blocks are in it, and the space they take. A block counts as
// present only after its digest was right and the disk has taken it; the whole becomes a file of blobs/ only after its own digest was
// right. Who has the blocks fetched is LargeBlob. docs/design/0037-landed-blocks.md. Control plane.

import { type Digest, showDigest } from "../base/digest.ts";
import { BurrowError } from "../base/error.ts";
import { BLOCK_BYTES } from "../base/limits.ts";
import { digestOf } from "../store/hash.ts";
import { ioError } from "../store/node-error.ts";
import { classOf } from "../store/store.ts";
import type { CacheDirectory } from "./directory.ts";
import { Doubts } from "./doubts.ts";
import type { FetchContext } from "./fetch-context.ts";
import { isInUse, type Lingering } from "./lingering.ts";
import type { MemoryTier } from "./memory-tier.ts";
import { PartialFile } from "./partial-file.ts";
import { getPieces, type Piece, pieceCount, type Source, type StoredPiece } from "./pieces.ts";
import type { StoredBlock } from "./pool.ts";
import { expectedCost, FILE_COST_BYTES, groupOf, type Reservation, type Room } from "./room.ts";

/** Tries for a block whose content is wrong. */
const TRIES = 3;

/** Where the partial file is: in partial/, or in memory. */
interface Medium {
  readonly room: Room;
  readonly lingering: Lingering;
  readonly group: string;
}

/** Blocks that are brought: from where, and for whom. */
export interface Delivery {
  readonly source: Source;
  readonly row: number;
  readonly signal: AbortSignal;
  readonly isDemand: boolean;
  /** The blocks that somebody waits for: [first, end); what else comes was brought ahead. */
  readonly asked?: { readonly first: number; readonly end: number };
}

/** What nobody waits for. */
export const NOBODY = { first: 0, end: 0 };

export class PartialBlob {
  readonly digest: Digest;
  readonly size: number;
  readonly count: number;
  readonly #cache: CacheDirectory;
  readonly #context: FetchContext;
  /** In whose memory the file is; undefined: on disk. */
  readonly #memory: MemoryTier | undefined;
  readonly #medium: Medium;
  readonly #present: Uint8Array;
  #presentCount = 0;
  /** Of a pinned object: what its blocks came to when they were fetched. */
  readonly #sums: Digest[] = [];
  /** What all of it comes to: its name, but for a tenant's file. */
  #sum: Digest;
  /** Writes under way. */
  readonly #writing = new Set<Promise<unknown>>();
  /** What the partial file takes. */
  #costBytes = 0;
  readonly #file: PartialFile;
  /** When it has its file; rejects with BURROW_NO_SPACE or BURROW_IO, and nothing is left. */
  readonly opened: Promise<void>;
  #finished: Promise<void> | undefined;
  /** When the file is gone, of a dropped one. */
  #ended: Promise<void> | undefined;
  #isDropped = false;
  #isGivenUp = false;
  /** The write that it was dropped for; told to who joined it, too, so that they turn to memory. */
  #failure: BurrowError | undefined;

  /** Has a file made in partial/, or in `memory` at once. */
  constructor(
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
    this.#file = new PartialFile(cache, memory, blob);
    this.opened = memory === undefined ? this.#open() : Promise.resolve();
    // Who asks for blocks of it hears why it can't be.
    this.opened.catch(() => undefined);
    this.#count(FILE_COST_BYTES);
  }

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

  /** Dropped for what is no fault of its own: who waits for it may have it elsewhere. */
  get isGivenUp(): boolean {
    return this.#isGivenUp;
  }

  /** Whether a gofer has the partial file open: then its end would free nothing. */
  get isInUse(): boolean {
    return this.#file.isInUse;
  }

  get costBytes(): number {
    return this.#costBytes;
  }

  /** Whether all of it is here and it is becoming a file of blobs/, or has become one. */
  get isFinishing(): boolean {
    return this.#finished !== undefined;
  }

  /** Whether every block is present. */
  get isComplete(): boolean {
    return this.#presentCount === this.count;
  }

  isPresent(block: number): boolean {
    return this.#present[block] === 1;
  }

  /** Whether the blocks [from, to) are present. */
  hasAll(from: number, to: number): boolean {
    for (let block = from; block < to; block++) if (this.#present[block] === 0) return false;
    return true;
  }

  /**
   * Unlinks the partial file and closes it: resolves when its space is free, or sure to be. Gofers that have it open keep what they know
   * to be present.
   */
  drop(): Promise<void> {
    if (this.#isDropped) return Promise.resolve();
    this.#isDropped = true;
    if (this.#finished !== undefined) return Promise.resolve();
    this.#isGivenUp = this.#failure === undefined;
    this.#ended = this.#end();
    return this.#ended;
  }

  /** Space for blocks that are about to come. BURROW_NO_SPACE. */
  async reserve(pieces: readonly Piece[], signal: AbortSignal): Promise<Reservation> {
    const cost = pieces.reduce((sum, { length }) => sum + expectedCost(length), 0);
    return await this.#medium.room.reserve(cost, signal);
  }

  /** Gives back what is left of it: what was written to a file that is dropped takes its space until that is gone. */
  release(space: Reservation): void {
    if (this.#ended === undefined) space.release();
    else void this.#ended.then(() => space.release());
  }

  /**
   * Keeps what is right of blocks as they are stored, in that space: present when the disk has them. Throws for the first that isn't,
   * after the others were kept.
   */
  async keep(
    want: Delivery,
    first: number,
    pieces: readonly Piece[],
    stored: readonly StoredPiece[],
    space: Reservation,
  ): Promise<void> {
    // What is right doesn't wait until what is wrong was fetched again.
    const right = await this.#writeRight(want, first, pieces, stored);
    await this.#land(want, first, pieces, right, space);
    const written = new Set<number>();
    let failure: unknown;
    for (const [i, piece] of pieces.entries()) {
      const block = first + i;
      this.#sum = piece.sum ?? this.#sum;
      if (this.#present[block] === 1) continue;
      try {
        const content = await this.#contentOf(want, block, piece, stored[i]!);
        this.checkNotDropped();
        await this.#onDisk(this.#file.write(content, block * BLOCK_BYTES));
        written.add(block);
      } catch (error) {
        if (this.#isDropped) throw error;
        failure ??= error;
      }
    }
    await this.#land(want, first, pieces, written, space);
    if (failure !== undefined) throw failure;
  }

  /** Has the disk take blocks that were written, which are present then. */
  async #land(
    want: Delivery,
    first: number,
    pieces: readonly Piece[],
    written: ReadonlySet<number>,
    space: Reservation,
  ): Promise<void> {
    if (written.size === 0) return;
    this.checkNotDropped();
    await this.#onDisk(this.#file.land());
    for (const block of written) this.#note(want, block, pieces[block - first]!.length, space);
  }

  /** Writes blocks whose content is right, off the loop: which ones. */
  async #writeRight(
    { source, row }: Delivery,
    first: number,
    pieces: readonly Piece[],
    stored: readonly StoredPiece[],
  ): Promise<Set<number>> {
    const blocks: StoredBlock[] = [];
    for (const [i, { codec, length, pin }] of pieces.entries()) {
      const block = first + i;
      if (pin !== undefined || this.#present[block] === 1) continue;
      const digest = source.table.blockDigest(row, block);
      blocks.push({ stored: stored[i]!.stored, codec, length, block, digest });
    }
    if (blocks.length === 0 || !this.#file.isOpen) return new Set();
    return await this.#onDisk(this.#file.keep(blocks));
  }

  /** What a block is to hold; of a pinned object what came, which whatever is read of it later is compared with. */
  async #contentOf(
    want: Delivery,
    block: number,
    piece: Piece,
    stored: StoredPiece,
  ): Promise<Uint8Array> {
    if (piece.pin === undefined) {
      const digest = want.source.table.blockDigest(want.row, block);
      return await this.#verified(want, piece, stored, digest);
    }
    this.#sums[block] = digestOf(stored.stored);
    return stored.stored;
  }

  /** The content of a block, fetched again on its own while it is wrong: a bounded number of times. */
  async #verified(
    want: Delivery,
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

  /** Work on the file, whose end waits for it. Where it fails the disk is full, most likely, or hangs, which this file's end relieves. */
  async #onDisk<T>(work: Promise<T>): Promise<T> {
    this.#writing.add(work);
    try {
      return await work;
    } catch (cause) {
      // Who comes later hears what it was dropped for, and not that it has no FD.
      this.checkNotDropped();
      this.#failure = ioError("can't write to a partial file", this.#file.path, cause);
      void this.drop();
      throw this.#failure;
    } finally {
      this.#writing.delete(work);
    }
  }

  /** A block that the disk has is present from now on; another may have brought it meanwhile: the same bytes. */
  #note(
    { asked = NOBODY, source }: Delivery,
    block: number,
    length: number,
    space: Reservation,
  ): void {
    this.checkNotDropped();
    if (this.#present[block] === 1) return;
    this.#present[block] = 1;
    this.#presentCount++;
    this.#count(expectedCost(length) - FILE_COST_BYTES, space);
    this.#context.counters.blocks++;
    const isAwaited = source.isAhead !== true && block >= asked.first && block < asked.end;
    if (!isAwaited) source.onPrefetch?.(this.digest, block, length);
  }

  /** Throws what it was dropped for. */
  checkNotDropped(): void {
    if (!this.#isDropped) return;
    throw this.#failure ?? new BurrowError("BURROW_IO", "the partial file was dropped");
  }

  /** Makes it a file of blobs/, once; every block must be present. BURROW_DIGEST_MISMATCH. */
  finish(): Promise<void> {
    this.#finished ??= this.#verifyWhole();
    return this.#finished;
  }

  async #verifyWhole(): Promise<void> {
    try {
      // A block may be on its way from two origins: the later one is written once more, and a sealed file takes no writes.
      while (this.#writing.size > 0) await Promise.allSettled(this.#writing);
      if (!this.#file.isOpen) this.checkNotDropped();
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
