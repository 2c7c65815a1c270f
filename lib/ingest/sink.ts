// Putting one file's content into a BlobSink: small ones whole, large ones as they come, and none of another size than was
// announced. Also a sink that keeps nothing. Control plane.

import { createHash } from "node:crypto";
import type { BlobRef } from "../base/blob.ts";
import type { Digest } from "../base/digest.ts";
import { BLOCK_DIGESTS_OVER_BYTES } from "../base/limits.ts";
import type { BlobSink } from "../store/blob-sink.ts";
import { blockDigests, groupBytes, regroup } from "../store/blocks.ts";
import { digestOf } from "../store/hash.ts";

/**
 * The bytes of one file as they come; or, for those who know that it is small, in one piece. Read it once,
 * and change nothing in it; each piece is good until the next is asked for.
 */
export interface Content extends AsyncIterable<Uint8Array> {
  whole(): Promise<Uint8Array>;
  /** Of all of it, where that is known already. */
  readonly digest?: Digest | undefined;
}

/** Files up to this size are held in memory whole; it is also where block digests begin. */
export const WHOLE_MAX_BYTES = BLOCK_DIGESTS_OVER_BYTES;

/**
 * Stores content that was announced as `size` bytes. `wrongSize` makes the error when there are fewer or more; nothing of the
 * surplus is kept.
 */
export async function addContent(
  sink: BlobSink,
  chunks: AsyncIterable<Uint8Array> | Content,
  size: number,
  wrongSize: (actual: number) => Error,
): Promise<BlobRef> {
  if (size <= WHOLE_MAX_BYTES && "whole" in chunks) {
    const bytes = await chunks.whole();
    if (bytes.length !== size) throw wrongSize(bytes.length);
    return await sink.addBytes(bytes, undefined, chunks.digest);
  }
  if (size > WHOLE_MAX_BYTES) return await sink.addStream(exactly(chunks, size, wrongSize), size);
  const parts: Uint8Array[] = [];
  for await (const chunk of exactly(chunks, size, wrongSize)) parts.push(chunk);
  return await sink.addBytes(parts.length === 1 ? parts[0]! : Buffer.concat(parts));
}

async function* exactly(
  chunks: AsyncIterable<Uint8Array>,
  size: number,
  wrongSize: (actual: number) => Error,
): AsyncIterable<Uint8Array> {
  let count = 0;
  for await (const chunk of chunks) {
    count += chunk.length;
    if (count > size) throw wrongSize(count);
    yield chunk;
  }
  if (count < size) throw wrongSize(count);
}

/** A sink that names content and keeps none of it: for dry runs, comparisons and tests. */
export function discardingSink(): BlobSink {
  return {
    async addBytes(bytes, _path, digest) {
      const isLarge = bytes.length > BLOCK_DIGESTS_OVER_BYTES;
      const blocks = isLarge ? blockDigests(bytes) : [];
      return { digest: digest ?? digestOf(bytes), size: bytes.length, blocks };
    },
    async addStream(chunks, sizeHint) {
      const whole = createHash("sha256");
      const blocks: Digest[] = [];
      let size = 0;
      for await (const group of regroup(chunks, groupBytes(sizeHint))) {
        whole.update(group);
        size += group.length;
        blocks.push(...blockDigests(group));
      }
      const digest = whole.digest("hex") as Digest;
      return { digest, size, blocks: size > BLOCK_DIGESTS_OVER_BYTES ? blocks : [] };
    },
  };
}
