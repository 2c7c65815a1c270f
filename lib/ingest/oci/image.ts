// An image and where its layers lie, whichever way it was written: what the two front ends (layout.ts, docker.ts) hand out and the
// import of layers takes. Control plane.

import { type Digest, showDigest } from "../../base/digest.ts";
import { BurrowError } from "../../base/error.ts";
import type { ImageConfig } from "./config.ts";
import { type Platform, showPlatform } from "./document.ts";

export interface ImageLayer {
  /** Where its bytes lie among the image's files. */
  readonly path: string;
  /** sha256 of the plain tar. */
  readonly diffId: Digest;
  /** Of the bytes as they lie there, where something says it. */
  readonly digest?: Digest;
  readonly sizeBytes?: number;
}

export interface Image {
  /** What it is called, in the order of preference; may be none. */
  readonly names: readonly string[];
  /** Of its manifest; of its config where there is no manifest of its own. */
  readonly digest: Digest;
  readonly configDigest: Digest;
  readonly config: ImageConfig;
  readonly layers: readonly ImageLayer[];
}

/** What was seen on the way to an image that runs here. */
export interface Seen {
  readonly images: Image[];
  /** Of images that don't. */
  readonly platforms: Platform[];
  /** Names of all, for who asked for another. */
  readonly names: string[];
}

/**
 * The one image that is meant. Several without names are one by OCI image-spec image-index.md: "the first matching entry". With different
 * names somebody must say which: BURROW_USAGE. BURROW_NOT_FOUND, BURROW_UNSUPPORTED when there is none.
 */
export function theOne(seen: Seen, archive: string, wanted: string | undefined): Image {
  const context = { archive };
  const images = seen.images.filter(
    (image, i) => seen.images.findIndex(({ digest }) => digest === image.digest) === i,
  );
  const [first] = images;
  if (first === undefined) {
    if (seen.platforms.length > 0) {
      const others = [...new Set(seen.platforms.map(showPlatform))].slice(0, 16).join(", ");
      const why = `it has no image for linux/amd64, but for ${others}`;
      throw new BurrowError("BURROW_UNSUPPORTED", why, { context });
    }
    if (wanted === undefined)
      throw new BurrowError("BURROW_UNSUPPORTED", "it has no image", { context });
    throw new BurrowError("BURROW_NOT_FOUND", `it has no image ${wanted}${listed(seen.names)}`, {
      context,
    });
  }
  const labels = new Set(images.map(({ names }) => names.join("\n")));
  if (labels.size === 1) return first;
  const all = images.map(({ names, digest }) => names[0] ?? showDigest(digest));
  throw new BurrowError(
    "BURROW_USAGE",
    `it has several images: name one by --image${listed(all)}`,
    {
      context,
    },
  );
}

function listed(names: readonly string[]): string {
  const few = [...new Set(names)].slice(0, 16);
  return few.length === 0 ? "" : `; it has ${few.join(", ")}`;
}
