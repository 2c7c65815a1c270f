// sha256 of bytes as a Digest. Control plane.

import { hash } from "node:crypto";
import type { Digest } from "../base/digest.ts";

/** The Digest of bytes. About 1 us for small ones; 1.9 GB/s with SHA-NI, 0.4 without. */
export function digestOf(bytes: Uint8Array): Digest {
  return hash("sha256", bytes, "hex") as Digest;
}
