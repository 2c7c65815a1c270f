// PinnedBlobs: which blobs belong to pinned snapshots, at 8 bytes each. Control plane.

import fs from "node:fs";
import { type Digest, isDigest } from "../base/digest.ts";
import { heldWhole } from "../cache/cache.ts";
import type { CacheDirectory } from "../cache/directory.ts";
import { type Pinned, pinsFolder } from "../cache/pins.ts";
import { faultOf, Index } from "../layer/index.ts";
import { errnoOf } from "../store/node-error.ts";

/** A blob is known by so many digits of its digest: that another one has them, and stays as well, hurts nobody. */
const KEY_DIGITS = 13;

export class PinnedBlobs implements Pinned {
  readonly #cache: CacheDirectory;
  readonly #keys = new Map<Digest, Float64Array>();

  constructor(cache: CacheDirectory) {
    this.#cache = cache;
  }

  get snapshots(): number {
    return this.#keys.size;
  }

  has(digest: Digest): boolean {
    if (this.#keys.size === 0) return false;
    const key = keyOf(digest);
    for (const keys of this.#keys.values()) if (holds(keys, key)) return true;
    return false;
  }

  /** Reads what was pinned and forgets what was unpinned since. A snapshot whose index is gone or wrong has no blobs here. */
  async refresh(): Promise<void> {
    const pins = await this.#pins();
    // On a disk that can't be read what was pinned stays so.
    if (pins === undefined) return;
    for (const known of [...this.#keys.keys()]) if (!pins.has(known)) this.#keys.delete(known);
    for (const snapshot of pins) {
      if (this.#keys.has(snapshot)) continue;
      const bytes = await heldWhole(this.#cache, "indexes", snapshot).catch(() => undefined);
      if (bytes !== undefined && faultOf(bytes) === undefined)
        this.#keys.set(snapshot, keysOf(new Index(bytes)));
    }
  }

  /** Snapshots that are pinned; undefined when nobody can tell. */
  async #pins(): Promise<Set<Digest> | undefined> {
    const folder = pinsFolder(this.#cache);
    try {
      const names = await this.#cache.disk.run("look", () => fs.promises.readdir(folder));
      return new Set(names.filter(isDigest));
    } catch (error) {
      return errnoOf(error).code === "ENOENT" ? new Set() : undefined;
    }
  }
}

function keyOf(digest: Digest): number {
  return Number.parseInt(digest.slice(0, KEY_DIGITS), 16);
}

function keysOf(index: Index): Float64Array {
  const keys = new Float64Array(index.blobCount);
  for (let row = 0; row < keys.length; row++) keys[row] = keyOf(index.blobDigest(row));
  return keys.sort();
}

function holds(sorted: Float64Array, key: number): boolean {
  let low = 0;
  let high = sorted.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (sorted[middle]! < key) low = middle + 1;
    else high = middle;
  }
  return sorted[low] === key;
}
