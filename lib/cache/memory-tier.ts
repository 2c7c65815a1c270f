// MemoryTier: blobs that the cache's disk can't take now: it is full, read-only or failing. Each is a file of memory without a name,
// which gofers get with the answer, so nothing is left of them when the daemon ends, however it ends. Control plane.

import fs from "node:fs";
import { LRUCache } from "lru-cache";
import type { Digest } from "../base/digest.ts";
import { Errno, errnoName } from "../base/errno.ts";
import { BurrowError } from "../base/error.ts";
import { ioError } from "../store/node-error.ts";
import { native } from "../sys/native.ts";
import { openFilesLimit } from "../sys/open-files.ts";
import { writeFully } from "./directory.ts";
import { isInUse, Lingering } from "./lingering.ts";
import { expectedCost, Room } from "./room.ts";

const GROUP = "memory";
/** Each blob is an FD: this share of those that the process may have, and no more blobs than that at once. */
const FD_SHARE = 1 / 4;
const BLOBS_MAX = 65_536;
/** Looked at in one go for those that nobody has open: some milliseconds. */
const LOOKED_MAX = 4_096;

interface Held {
  /** Ours, for writing; gofers get others, for reading. */
  readonly fd: number;
  readonly costBytes: number;
}

export interface MemoryFacts {
  readonly limitBytes: number;
  readonly usedBytes: number;
  readonly blobs: number;
}

export class MemoryTier {
  readonly room = new Room();
  readonly lingering = new Lingering(this.room);
  readonly #blobs: LRUCache<Digest, Held>;
  readonly #blobsMax: number;

  /** limitBytes 0: takes nothing. `filesLimit`: how many files the process may have open. */
  constructor(limitBytes: number, filesLimit = openFilesLimit()) {
    this.room.limitBytes = Math.max(1, limitBytes);
    this.room.makeRoom = (bytes) => Promise.resolve(this.#evict(bytes));
    this.#blobsMax = Math.max(1, Math.floor(Math.min(BLOBS_MAX, filesLimit * FD_SHARE)));
    this.#blobs = new LRUCache({
      maxSize: Math.max(1, limitBytes),
      sizeCalculation: ({ costBytes }) => costBytes,
      dispose: ({ fd, costBytes }) => this.#end(fd, costBytes),
    });
  }

  get facts(): MemoryFacts {
    const { limitBytes, usedBytes } = this.room;
    return { limitBytes, usedBytes, blobs: this.#blobs.size };
  }

  /** A file for a blob of this size, all holes: an FD, the caller's, whose cost the caller counts in `room`. BURROW_NO_SPACE. */
  create(sizeBytes: number): number {
    const made = native.memfd("burrow-blob", sizeBytes);
    if (made < 0) {
      throw new BurrowError("BURROW_NO_SPACE", `no memory for a blob: ${errnoName(made)}`, {
        errno: -made,
      });
    }
    try {
      // Opened anew: the kernel doesn't count a memfd's first FD among those who write it, and so grants no lease on it (linux,
      // fs/locks.c check_conflicting_open), by which we learn who else has the file.
      const fd = fs.openSync(`/proc/self/fd/${made}`, "r+");
      fs.fchmodSync(fd, 0o444);
      return fd;
    } catch (error) {
      throw ioError("can't open a file of memory", GROUP, error);
    } finally {
      fs.closeSync(made);
    }
  }

  /** Takes a whole, verified file that `create` made and whose cost was counted. */
  adopt(digest: Digest, fd: number, costBytes: number): void {
    this.#blobs.set(digest, { fd, costBytes });
  }

  /** Keeps verified bytes. BURROW_NO_SPACE, BURROW_TIMEOUT. */
  async put(digest: Digest, bytes: Uint8Array, signal?: AbortSignal): Promise<void> {
    if (this.#blobs.has(digest)) return;
    const cost = expectedCost(bytes.length);
    if (this.#blobs.size >= this.#blobsMax) this.#evict(1);
    if (this.#blobs.size >= this.#blobsMax) {
      throw new BurrowError("BURROW_NO_SPACE", "no FD for one more blob in memory", {
        errno: Errno.ENOSPC,
        context: { blobs: this.#blobs.size },
      });
    }
    const space = await this.room.reserve(cost, signal);
    let fd = -1;
    try {
      fd = this.create(bytes.length);
      writeFully(fd, bytes, 0);
      space.keep(GROUP, cost);
      this.adopt(digest, fd, cost);
    } catch (error) {
      if (fd >= 0) fs.closeSync(fd);
      throw error instanceof BurrowError ? error : ioError("can't keep a blob", GROUP, error);
    } finally {
      space.release();
    }
  }

  has(digest: Digest): boolean {
    return this.#blobs.has(digest);
  }

  /** The size of a blob; -1 when it isn't here. */
  sizeOf(digest: Digest): number {
    const held = this.#blobs.peek(digest);
    return held === undefined ? -1 : fs.fstatSync(held.fd).size;
  }

  /** An FD for reading, the caller's own; -1 when the blob isn't here. */
  open(digest: Digest): number {
    const held = this.#blobs.get(digest);
    return held === undefined ? -1 : openForReading(held.fd);
  }

  /** The bytes of a blob; undefined when it isn't here. */
  read(digest: Digest): Buffer | undefined {
    const fd = this.open(digest);
    if (fd < 0) return undefined;
    try {
      return fs.readFileSync(fd);
    } finally {
      fs.closeSync(fd);
    }
  }

  drop(digest: Digest): void {
    this.#blobs.delete(digest);
  }

  close(): void {
    this.#blobs.clear();
    this.lingering.close();
  }

  /** Has those go that were used longest ago and nobody has open, of which there may be too few: the end of others frees nothing. */
  #evict(bytes: number): number {
    const oldest: Digest[] = [];
    for (const digest of this.#blobs.rkeys()) if (oldest.push(digest) >= LOOKED_MAX) break;
    let freed = 0;
    for (const digest of oldest) {
      if (freed >= bytes) break;
      // What is in use is asked again after all others.
      const held = this.#blobs.get(digest);
      if (held === undefined || isInUse(held.fd)) continue;
      this.#blobs.delete(digest);
      freed += held.costBytes;
    }
    return freed;
  }

  /** Memory of a file that a sandbox has open is not free yet. */
  #end(fd: number, costBytes: number): void {
    this.room.subtract(GROUP, costBytes);
    if (isInUse(fd)) this.lingering.take(fd, costBytes);
    else fs.closeSync(fd);
  }
}

/** Another FD of a file of memory, which can't write it. */
export function openForReading(fd: number): number {
  return fs.openSync(`/proc/self/fd/${fd}`, "r");
}
