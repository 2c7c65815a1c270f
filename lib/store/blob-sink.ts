// BlobSink: where ingest puts content: the one thing that it knows of a store. Control plane.

import type { BlobRef } from "../base/blob.ts";

export interface BlobSink {
  /** Stores content unless it is there already. */
  addBytes(bytes: Uint8Array): Promise<BlobRef>;
  /** The same for content that comes in pieces; `sizeHint` is its size as announced, in bytes. */
  addStream(chunks: AsyncIterable<Uint8Array>, sizeHint: number): Promise<BlobRef>;
}
