// ObjectPins: which state of which object, or which content, a blob of a stage is. A locator says so, and is believed when the blob's name, under the node's
// key, says the same. Control plane.

import { type Digest, showDigest } from "../base/digest.ts";
import { BurrowError } from "../base/error.ts";
import type { Locator, PinnedFile } from "../store/locator.ts";
import { pinnedDigest, tenantDigest } from "../store/object-pin.ts";
import { parseS3, type S3Place } from "../store/s3-place.ts";
import type { Disk } from "./disk.ts";
import { stageKeyThrough } from "./stage-key.ts";

export class ObjectPins {
  readonly #root: string;
  readonly #disk: Disk;
  #key: Buffer | undefined;
  readonly #places = new Map<string, S3Place>();

  constructor({ root, disk }: { readonly root: string; readonly disk: Disk }) {
    this.#root = root;
    this.#disk = disk;
  }

  /** The object that a blob is; undefined when the locator is of another kind. Throws for one that leads elsewhere. */
  async of(
    origin: string,
    locator: Locator,
    digest: Digest,
    size: number,
  ): Promise<PinnedFile | undefined> {
    if (locator.kind !== "pinned") return undefined;
    const row = locator.find(digest);
    if (row < 0) throw wrong("does not name the object", digest, origin);
    const found = locator.pinnedAt(row);
    const { path, pin, sum } = found;
    const { tenant } = locator;
    const nameBy = (key: Buffer) =>
      pin === undefined
        ? tenantDigest(key, tenant, sum, size)
        : pinnedDigest(key, tenant, this.#place(origin), path, pin);
    const isNamedBy = (key: Buffer | undefined) => key !== undefined && nameBy(key) === digest;
    if (pin === undefined || pin.size === size) {
      if (isNamedBy(this.#key)) return found;
      // The first time, or there is another key by now.
      this.#key = await stageKeyThrough(this.#disk, this.#root);
      if (isNamedBy(this.#key)) return found;
    }
    throw wrong(
      "leads to another object, or to another service than it was listed at",
      digest,
      origin,
    );
  }

  #place(origin: string): S3Place {
    let place = this.#places.get(origin);
    if (place === undefined) {
      place = parseS3(origin);
      this.#places.set(origin, place);
    }
    return place;
  }
}

function wrong(what: string, digest: Digest, origin: string): BurrowError {
  return new BurrowError("BURROW_CORRUPT", `the stage's list on this node ${what}`, {
    context: { blob: showDigest(digest), origin },
  });
}
