// BlobRef: what names immutable content of a regular file. Any plane.

import type { Digest } from "./digest.ts";

/** blocks: one digest per BLOCK_BYTES when size > BLOCK_DIGESTS_OVER_BYTES, else empty. */
export interface BlobRef {
  readonly digest: Digest;
  readonly size: number;
  readonly blocks: readonly Digest[];
  /** `digest` names an object of a stage by what pins it, not by its bytes: there are no block digests (store/object-pin.ts). */
  readonly isPinned?: true;
}
