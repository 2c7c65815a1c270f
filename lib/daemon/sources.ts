// Sources: from a mount id to the snapshots a gofer may ask of, and from a snapshot to its table of blobs. Tables are read on
// the first ask, verified, and kept by bytes: one bad snapshot breaks nothing but itself. Control plane.

import { LRUCache } from "lru-cache";
import { type Digest, showDigest } from "../base/digest.ts";
import { BurrowError } from "../base/error.ts";
import { ensureIndex } from "../cache/cache.ts";
import { inOwnTime } from "../cache/deadlines.ts";
import type { CacheDirectory } from "../cache/directory.ts";
import { Disk, STALL_MS } from "../cache/disk.ts";
import type { BlobTable, Source } from "../cache/pieces.ts";
import { isMountId, readMountLater, type SnapshotSource } from "../gofer/mount.ts";
import { faultOf, Index } from "../layer/index.ts";
import type { Start } from "../preload/start.ts";
import { digestOf } from "../store/hash.ts";
import type { Backend } from "../store/store.ts";

/** Index bytes kept: an environment of 20,000 files has about 2 MB. */
const INDEXES_MAX_BYTES = 512 * 1024 * 1024;

export interface DescribedView {
  readonly snapshots: readonly SnapshotSource[];
  /** Where each of them is in the view. */
  readonly places: readonly string[];
  /** What is known of what it starts. */
  readonly start?: Start;
  /** The key of the command that it is for; "": nobody said. */
  readonly command: string;
  readonly isProfiled: boolean;
  /** Whose it is; "": nobody said. */
  readonly tenant: string;
}

/** A source, and its index. */
export interface IndexSource extends Source {
  readonly table: BlobTable & { readonly index: Index };
}

export class Sources {
  readonly #cache: CacheDirectory;
  readonly #state: string;
  /** On which the state lies: another one than the cache's, perhaps. */
  readonly #disk: Disk;
  readonly #readerOf: (origin: string) => Backend;
  readonly #tables = new LRUCache<Digest, IndexTable>({ maxSize: INDEXES_MAX_BYTES });
  /** By origin, too: who waits for one that hangs does so for their own. */
  readonly #reading = new Map<string, Promise<IndexTable>>();

  /** `readerOf` opens an origin, or gives the one that is open. */
  constructor(cache: CacheDirectory, state: string, readerOf: (origin: string) => Backend) {
    this.#cache = cache;
    this.#disk = new Disk(state);
    this.#disk.stallMs = STALL_MS;
    // It is only read: what has ended says that it can be.
    this.#disk.onEnded = () => this.#disk.recovered();
    this.#state = state;
    this.#readerOf = readerOf;
  }

  /** Snapshots of a mount by number: its base, then its grafts in order; and what is to be learned of it. Throws when there is no such view. */
  async view(mountId: string): Promise<DescribedView> {
    if (!isMountId(mountId)) throw new BurrowError("BURROW_USAGE", "no valid mount id");
    const mount = await this.#disk.run("look", () => readMountLater(this.#state, mountId));
    if (mount.kind !== "view") {
      throw new BurrowError("BURROW_USAGE", "the mount is no view", { context: { mountId } });
    }
    const { base, grafts, command = "", tenant = "", profile, start } = mount;
    return {
      snapshots: [base, ...grafts],
      places: ["/", ...grafts.map(({ at }) => at)],
      command,
      tenant,
      isProfiled: profile !== "off",
      ...(start === undefined ? {} : { start }),
    };
  }

  /** The source behind a snapshot of a mount; reads its index when it is not held. */
  async open(snapshot: SnapshotSource, signal: AbortSignal): Promise<IndexSource> {
    const digest = snapshot.snapshot;
    const held = this.#tables.get(digest);
    if (held !== undefined) return { snapshot: digest, origin: snapshot.origin, table: held };
    const key = `${digest} ${snapshot.origin}`;
    const joined = () => this.#reading.get(key);
    const begin = () => {
      const reading = this.#read(snapshot, signal).finally(() => this.#reading.delete(key));
      this.#reading.set(key, reading);
      return reading;
    };
    const table = await inOwnTime(signal, joined, begin);
    return { snapshot: digest, origin: snapshot.origin, table };
  }

  async #read({ snapshot, origin }: SnapshotSource, signal: AbortSignal): Promise<IndexTable> {
    const reader = this.#readerOf(origin);
    const bytes = await ensureIndex(this.#cache, origin, snapshot, {
      reader,
      signal,
      // What is verified is as good in memory.
      onUnkept: () => undefined,
    });
    const fault = faultOf(bytes);
    if (fault !== undefined) {
      throw new BurrowError("BURROW_BAD_INDEX", fault, {
        context: { snapshot: showDigest(snapshot), origin },
      });
    }
    const table = new IndexTable(new Index(bytes));
    this.#tables.set(snapshot, table, { size: bytes.length });
    return table;
  }
}

/** The fetcher's view of an index. Rows were bounded by `count` before they come here. */
class IndexTable implements BlobTable {
  readonly index: Index;
  readonly #lists = new Map<number, Digest>();
  #listedBlocks = 0;

  constructor(index: Index) {
    this.index = index;
  }

  get count(): number {
    return this.index.blobCount;
  }

  digestAt(row: number): Digest {
    return this.index.blobDigest(row);
  }

  sizeOf(row: number): number {
    return this.index.blobSize(row);
  }

  blockCount(row: number): number {
    return this.index.blockCount(row);
  }

  blockDigest(row: number, block: number): Digest {
    if (block < this.index.blockCount(row)) return this.index.blockDigest(row, block);
    throw new BurrowError("BURROW_BAD_INDEX", "the index has no digest for a block");
  }

  /** Once for each blob; blobs that share blocks could make it endless work, so all lists together are as long as the table of blocks. */
  blocksDigest(row: number): Digest {
    const known = this.#lists.get(row);
    if (known !== undefined) return known;
    const listed = this.#listedBlocks + this.index.blockCount(row);
    if (listed > this.index.blockTotal)
      throw new BurrowError("BURROW_BAD_INDEX", "blobs of the index share digests of blocks");
    const list = digestOf(this.index.blockDigests(row));
    this.#listedBlocks = listed;
    this.#lists.set(row, list);
    return list;
  }
}
