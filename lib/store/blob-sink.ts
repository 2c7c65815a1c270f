// BlobSink: where ingest puts content: the one thing that it knows of a store. Control plane.

import type { BlobRef } from "../base/blob.ts";
import type { Digest } from "../base/digest.ts";

export interface BlobSink {
  /**
   * Stores content unless it is there already. `path`: where its layer has it, in latin1: a hint of what it may be like. `digest`: of
   * these bytes, by a caller that has hashed them.
   */
  addBytes(bytes: Uint8Array, path?: string, digest?: Digest): Promise<BlobRef>;
  /** The same for content that comes in pieces; `sizeHint` is its size as announced, in bytes. */
  addStream(chunks: AsyncIterable<Uint8Array>, sizeHint: number): Promise<BlobRef>;
}
