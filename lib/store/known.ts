// What a store already holds: every blob named by a locator in it, so that equal content is packed once. Read
// once, then kept up to date by the writers that share it. Control plane.

import type { Digest } from "../base/digest.ts";
import { objectPath } from "./layout.ts";
import { Locator } from "./locator.ts";
import { type BlobPlace, placeAt } from "./locator-writer.ts";
import type { Backend, WritableBackend } from "./store.ts";

/** Locators read at once: of a store behind a network each is a round trip. */
const PARALLEL = 8;

/** The blobs of a store. Several PackWriters may share one. */
export class KnownBlobs {
  readonly #rows = new Map<Digest, { locator: Locator; row: number }>();

  /** Reads every locator. One that can't be read is passed over: its blobs are packed again. */
  static async load(store: WritableBackend): Promise<KnownBlobs> {
    const known = new KnownBlobs();
    const read = async (path: string) => {
      try {
        return checked(await store.get(path));
      } catch {
        return undefined; // half a locator can't exist by the writing rules, and dedup may be imperfect, never wrong
      }
    };
    const take = async (paths: readonly string[]) => {
      for (const locator of await Promise.all(paths.map(read))) if (locator) known.add(locator);
    };
    let some: string[] = [];
    for await (const path of store.list("locators")) {
      some.push(path);
      if (some.length < PARALLEL) continue;
      await take(some);
      some = [];
    }
    await take(some);
    return known;
  }

  get count(): number {
    return this.#rows.size;
  }

  place(digest: Digest): BlobPlace | undefined {
    const found = this.#rows.get(digest);
    return found && placeAt(found.locator, found.row);
  }

  /** Takes in a locator whose packs are in the store. A blob of deltas is not known by it: a place alone does not say of what they are. */
  add(locator: Locator): void {
    if (locator.kind !== "packs") return;
    for (let row = 0; row < locator.blobCount; row++) {
      const digest = locator.digestAt(row);
      if (!this.#rows.has(digest) && !locator.hasDelta(row))
        this.#rows.set(digest, { locator, row });
    }
  }
}

/** The locator of an index in a store, to be walked. BURROW_CORRUPT. */
export async function readLocator(
  store: Backend,
  index: Digest,
  signal?: AbortSignal,
): Promise<Locator> {
  return checked(await store.get(objectPath("locators", index), signal ? { signal } : {}));
}

function checked(bytes: Uint8Array): Locator {
  const locator = new Locator(bytes);
  if (locator.kind === "packs") locator.check();
  return locator;
}
