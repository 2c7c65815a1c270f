// sha256 of bytes as a Digest. Control plane.

import { createHash } from "node:crypto";
import type { Digest } from "../base/digest.ts";

/** The Digest of bytes. About 0.5 us for small ones and 1.9 GB/s with SHA-NI. */
export function digestOf(bytes: Uint8Array): Digest {
  return createHash("sha256").update(bytes).digest("hex") as Digest;
}
