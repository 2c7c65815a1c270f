// PackUse: which packs of a store are needed, and about how much of each: a bit for each of 8,192 parts of a pack, so 1 KiB a pack
// whatever refers to it how often: 100,000 packs are 100 MB. Pure. Control plane.

import type { Digest } from "../base/digest.ts";
import type { Locator } from "./locator.ts";
import type { SizedObject } from "./store.ts";

const PARTS = 8192;

export interface Pack extends SizedObject {
  readonly digest: Digest;
}

interface Use {
  pack: Pack;
  /** The listing that had it last. */
  listing: number;
  /** Undefined while nothing refers to it. */
  parts: Uint8Array | undefined;
  /** Where the last chunk that is referred to ends, and who refers to it. */
  endBytes: number;
  from: string;
}

export class PackUse {
  readonly #uses = new Map<Digest, Use>();
  /** Packs that are referred to and not in the store, with one that refers to each. */
  readonly missing = new Map<Digest, string>();

  #listing = 0;

  /** What isn't added from now on is no longer in the store. */
  beginListing(): void {
    this.#listing++;
  }

  /** A pack that the store has. */
  add(pack: Pack): void {
    const known = this.#uses.get(pack.digest);
    const listing = this.#listing;
    if (known === undefined)
      this.#uses.set(pack.digest, { pack, listing, parts: undefined, endBytes: 0, from: "" });
    else Object.assign(known, { pack, listing });
    this.missing.delete(pack.digest);
  }

  /** Notes all that a locator of kind packs refers to; `from` is its path. Throws BURROW_CORRUPT. */
  mark(locator: Locator, from: string): void {
    const uses: (Use | undefined)[] = [];
    for (let number = 0; number < locator.packCount; number++) {
      const digest = locator.packAt(number);
      const use = this.#uses.get(digest);
      if (use === undefined) this.missing.set(digest, from);
      else use.parts ??= new Uint8Array(PARTS / 8);
      uses.push(use);
    }
    locator.eachChunk((number, offset, stored) => {
      const use = uses[number];
      if (use?.parts === undefined) return;
      if (offset + stored > use.endBytes) Object.assign(use, { endBytes: offset + stored, from });
      const partBytes = partOf(use.pack);
      const last = Math.min(PARTS - 1, Math.floor((offset + stored - 1) / partBytes));
      for (let part = Math.floor(offset / partBytes); part <= last; part++)
        use.parts[part >> 3]! |= 1 << (part & 7);
    });
  }

  /** Notes that all of a pack is needed. */
  keep(digest: Digest): void {
    const use = this.#uses.get(digest);
    if (use !== undefined) use.parts = new Uint8Array(PARTS / 8).fill(0xff);
  }

  /** Forgets what refers to packs. */
  clear(): void {
    this.#uses.clear();
    this.missing.clear();
  }

  isUsed(digest: Digest): boolean {
    return this.#uses.get(digest)?.parts !== undefined;
  }

  /** Packs that nothing refers to. */
  *unused(): Iterable<Pack> {
    for (const { pack, listing, parts } of this.#uses.values())
      if (parts === undefined && listing === this.#listing) yield pack;
  }

  /** Packs that end before what is referred to in them. */
  *short(): Iterable<{ readonly pack: Pack; readonly endBytes: number; readonly from: string }> {
    for (const { pack, listing, endBytes, from } of this.#uses.values())
      if (endBytes > pack.bytes && listing === this.#listing) yield { pack, endBytes, from };
  }

  /** Packs that something refers to, and how many of their bytes at most. */
  *used(): Iterable<{ readonly pack: Pack; readonly liveBytes: number }> {
    for (const { pack, listing, parts } of this.#uses.values()) {
      if (parts === undefined || listing !== this.#listing) continue;
      let count = 0;
      for (const bits of parts) for (let left = bits; left > 0; left &= left - 1) count++;
      yield { pack, liveBytes: Math.min(pack.bytes, count * partOf(pack)) };
    }
  }
}

function partOf({ bytes }: Pack): number {
  return Math.max(1, Math.ceil(bytes / PARTS));
}
