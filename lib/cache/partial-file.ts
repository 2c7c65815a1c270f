// PartialFile: the file of a large blob that is on its way: in partial/, by way of the disk's queues, or in memory. It knows nothing of
// which blocks are there. Control plane.

import { randomBytes } from "node:crypto";
import fs from "node:fs";
import type { Digest } from "../base/digest.ts";
import { BurrowError } from "../base/error.ts";
import { Calls, failureIn, type Results } from "../sys/calls.ts";
import { native } from "../sys/native.ts";
import { type CacheDirectory, writeFully } from "./directory.ts";
import { isInUse } from "./lingering.ts";
import { type MemoryTier, openForReading } from "./memory-tier.ts";
import { hashFile, keepInPool, type StoredBlock } from "./pool.ts";
import { sumOfBlocks } from "./sums.ts";

const FLAGS = fs.constants.O_RDWR | fs.constants.O_CREAT | fs.constants.O_EXCL;

export class PartialFile {
  /** Name below partial/, never used again by any daemon. */
  readonly name: string;
  readonly path: string;
  readonly #cache: CacheDirectory;
  readonly #memory: MemoryTier | undefined;
  readonly #size: number;
  /** -1: it has none yet, or no more. */
  #fd: number;
  /** Written since the last landing was begun. */
  #airborneBytes = 0;
  #lastLanding: Promise<void> = Promise.resolve();
  /** Not begun yet. */
  #nextLanding: Promise<void> | undefined;

  /** In `memory`, or on disk: then it must be made first. */
  constructor(
    cache: CacheDirectory,
    memory: MemoryTier | undefined,
    { digest, size }: { readonly digest: Digest; readonly size: number },
  ) {
    this.#cache = cache;
    this.#memory = memory;
    this.#size = size;
    this.name = `${digest}.${randomBytes(8).toString("hex")}`;
    this.path = `${cache.root}/partial/${this.name}`;
    this.#fd = memory?.create(size) ?? -1;
  }

  get isOpen(): boolean {
    return this.#fd >= 0;
  }

  /** Whether a gofer has it open: then its end would free nothing. */
  get isInUse(): boolean {
    return this.#fd >= 0 && isInUse(this.#fd);
  }

  /** Makes it in partial/, unless nobody wants it any more. Throws BURROW_NO_SPACE or BURROW_IO, and nothing is left. */
  async make(isWanted: () => boolean): Promise<void> {
    const calls = new Calls();
    const fd = { at: calls.open(this.path, FLAGS, 0o644) };
    calls.fchmod(fd, 0o644);
    calls.truncate(fd, this.#size);
    calls.ifFailed(() => calls.close(fd)).ifFailed(() => calls.unlink(this.path));
    const { disk } = this.#cache;
    const undo = (made: Results) => {
      if (failureIn(made) === 0) void disk.remove(this.path, made[fd.at]!);
    };
    const what = "can't make a partial file";
    const made = await disk.calls("write", calls, what, this.path, { late: undo });
    if (isWanted()) this.#fd = made[fd.at]!;
    else undo(made);
  }

  /** An FD for reading one in memory, the caller's; -1 when it is closed. */
  openForReading(): number {
    return this.#fd < 0 ? -1 : openForReading(this.#fd);
  }

  /** Through an FD of its own: this file may be dropped while it hangs, and the number be another's. */
  async write(content: Uint8Array, offset: number): Promise<void> {
    if (this.#memory !== undefined) return writeFully(this.#fd, content, offset);
    const ownFd = this.#dupFd();
    const calls = new Calls();
    calls.pwrite(ownFd, content, offset);
    calls.always(() => calls.close(ownFd));
    const options = { bytes: content.length, ownFd };
    this.#airborneBytes += content.length;
    await this.#cache.disk.calls("write", calls, "can't write a block", this.path, options);
  }

  /** Writes blocks whose content is right, off the loop: which ones; in memory none, which is for the loop. Likewise through an FD of its own. */
  async keep(blocks: readonly StoredBlock[]): Promise<Set<number>> {
    // A thread is no good to a daemon whose threads may all wait for a disk.
    if (this.#memory !== undefined) return new Set();
    const { disk } = this.#cache;
    const ownFd = this.#dupFd();
    let isBegun = false;
    const work = () => {
      isBegun = true;
      return keepInPool(ownFd, blocks).finally(() => void disk.close(ownFd));
    };
    const bytes = blocks.reduce((sum, { length }) => sum + length, 0);
    this.#airborneBytes += bytes;
    return await disk.run("write", work, { bytes }).finally(() => {
      if (!isBegun) void disk.close(ownFd);
    });
  }

  /**
   * Resolves when the disk has taken all that was written before: what the kernel forgets from then on is read from there. One at a time,
   * and who comes meanwhile shares the next: the kernel tells each open file once of a write that failed, whoever asks (linux,
   * Documentation/core-api/errseq), so that all whom it may concern hear of it. BURROW_IO, BURROW_NO_SPACE.
   */
  land(): Promise<void> {
    if (this.#memory !== undefined) return Promise.resolve();
    this.#nextLanding ??= this.#lastLanding.then(() => {
      this.#nextLanding = undefined;
      const work = this.#landNow();
      this.#lastLanding = work.catch(() => undefined);
      return work;
    });
    return this.#nextLanding;
  }

  async #landNow(): Promise<void> {
    const ownFd = this.#dupFd();
    const calls = new Calls();
    if (this.#cache.holdsRanges) calls.syncRange(ownFd);
    else calls.fsync(ownFd);
    calls.always(() => calls.close(ownFd));
    const options = { bytes: this.#airborneBytes, ownFd };
    this.#airborneBytes = 0;
    await this.#cache.disk.calls("write", calls, "can't keep a block", this.path, options);
  }

  #dupFd(): number {
    const ownFd = native.dupFd(this.#fd);
    if (ownFd >= 0) return ownFd;
    throw new BurrowError("BURROW_IO", "no FD to write by", { errno: -ownFd });
  }

  /** What all of it comes to; of one whose blocks must come to `sums`, undefined when one doesn't. */
  async sum(sums?: readonly Digest[]): Promise<Digest | undefined> {
    const disk = this.#memory === undefined ? this.#cache.disk : undefined;
    return await (sums === undefined
      ? hashFile(this.#fd, disk)
      : sumOfBlocks(this.#fd, this.#size, sums, disk));
  }

  /** Its FD, while it lives. */
  get fd(): number {
    return this.#fd;
  }

  /** Its FD, for who keeps it from now on. */
  takeFd(): number {
    const fd = this.#fd;
    this.#fd = -1;
    return fd;
  }

  /** Ends with its name, and with the FD unless that is -1. */
  async remove(fd: number): Promise<void> {
    if (this.#memory === undefined) await this.#cache.disk.remove(this.path, fd);
    else if (fd >= 0) fs.closeSync(fd);
  }
}
