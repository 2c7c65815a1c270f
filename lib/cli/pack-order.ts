// Pack order: what starts over layers and snapshots are known to read, as the order in which packs that are written anew have it.
// Control plane.

import type { Digest } from "../base/digest.ts";
import { BLOCK_BYTES } from "../base/limits.ts";
import { isLarge } from "../cache/pieces.ts";
import type { Index } from "../layer/index.ts";
import { ANY_COMMAND, type Profile, type ProfileAsk } from "../preload/profile.ts";
import { inParallel } from "../store/parallel.ts";
import type { ReadOrder } from "../store/repack.ts";
import type { WritableBackend } from "../store/store.ts";
import { profileIn } from "./package-profiles.ts";
import { readIndex } from "./read-index.ts";

const PARALLEL = 8;

/** Blocks that are looked at: an order's asks may be any of anybody, each for all of a large file. Those of 256 GiB. */
const BLOCKS_MAX = 1 << 20;

/** Gathers what is read, the first first. */
export class PackOrder {
  readonly #places = new Map<string, number>();
  #blocksLeft = BLOCKS_MAX;

  /** Of how many chunks. */
  get size(): number {
    return this.#places.size;
  }

  readonly of: ReadOrder = (blob, block) => this.#places.get(`${blob} ${block}`);

  /** Adds what a start over a snapshot or layer reads, after what is there; of more than BLOCKS_MAX blocks in all what comes first. */
  add(index: Index, asks: readonly ProfileAsk[]): void {
    for (const { row, first, count } of asks) {
      if (row >= index.blobCount) continue;
      const size = index.blobSize(row);
      const blocks = isLarge(size) ? Math.ceil(size / BLOCK_BYTES) : 1;
      const wanted = count === 0 ? blocks : Math.min(blocks, first + count);
      const end = Math.min(wanted, first + this.#blocksLeft);
      this.#blocksLeft -= Math.max(0, end - first);
      for (let block = first; block < end; block++) {
        const key = `${index.blobDigest(row)} ${block}`;
        if (!this.#places.has(key)) this.#places.set(key, this.#places.size);
      }
    }
  }
}

/** What the store knows of starts over some layers and snapshots; undefined of none. */
export async function orderIn(
  store: WritableBackend,
  of: Iterable<Digest>,
): Promise<ReadOrder | undefined> {
  const order = new PackOrder();
  const found = new Map<Digest, Profile>();
  const all = [...of];
  await inParallel(all, PARALLEL, async (digest) => {
    // A hint: one that can't be had is none.
    const profile = await profileIn(store, digest).catch(() => undefined);
    if (profile?.knows(ANY_COMMAND) === true) found.set(digest, profile);
  });
  for (const digest of all) {
    const profile = found.get(digest);
    if (profile !== undefined) order.add(await readIndex(store, digest), profile.asks(ANY_COMMAND));
  }
  return order.size === 0 ? undefined : order.of;
}
