// How a chunk is compressed in a pack: LZ4 blocks with their length in front (lz4-napi), or raw where that does
// not shrink. The codec stands beside each chunk, so others can be added. Control plane.

import { compress, compressSync, uncompressSync } from "lz4-napi";
import { viewOf } from "../base/bytes.ts";
import { BurrowError } from "../base/error.ts";
import { BLOCK_BYTES, BLOCK_DIGESTS_OVER_BYTES } from "../base/limits.ts";

export const Codec = { raw: 0, lz4: 1 } as const;
export type Codec = (typeof Codec)[keyof typeof Codec];

/** Largest chunk: a whole small blob. Larger blobs are cut into blocks. */
export const CHUNK_MAX_BYTES = BLOCK_DIGESTS_OVER_BYTES;
/** lz4-napi puts the length of the content in front of the block, as u32. */
const LENGTH_BYTES = 4;

export interface Packed {
  readonly codec: Codec;
  readonly bytes: Uint8Array;
}

/** Compresses a chunk. Off the main thread when it is long enough to pay for the hop. */
export async function compressChunk(bytes: Uint8Array): Promise<Packed> {
  const packed =
    bytes.length <= BLOCK_BYTES ? compressSync(toBuffer(bytes)) : await compress(bytes);
  return packed.length < bytes.length
    ? { codec: Codec.lz4, bytes: packed }
    : { codec: Codec.raw, bytes: Uint8Array.from(bytes) };
}

/**
 * The `length` bytes of a chunk. Throws BURROW_CORRUPT when they can't be had. The length in front of the block
 * is compared BEFORE decompressing: lz4-napi allocates whatever it says (2 GiB in 4.8 s were seen).
 */
export function expandChunk(codec: number, bytes: Uint8Array, length: number): Uint8Array {
  if (length > CHUNK_MAX_BYTES) throw corrupt(`a chunk of ${length} bytes is too long`);
  if (codec === Codec.raw) {
    if (bytes.length !== length)
      throw corrupt(`a raw chunk has ${bytes.length} bytes, not ${length}`);
    return bytes;
  }
  if (codec !== Codec.lz4) throw corrupt(`unknown codec ${codec}`);
  if (bytes.length < LENGTH_BYTES || viewOf(bytes).getUint32(0, true) !== length) {
    throw corrupt("an LZ4 chunk claims another length");
  }
  const content = expandLz4(bytes);
  if (content.length !== length)
    throw corrupt(`a chunk expands to ${content.length}, not ${length}`);
  return content;
}

function expandLz4(bytes: Uint8Array): Uint8Array {
  try {
    return uncompressSync(bytes);
  } catch (cause) {
    throw corrupt("a chunk is no LZ4 block", cause);
  }
}

function corrupt(message: string, cause?: unknown): BurrowError {
  return new BurrowError("BURROW_CORRUPT", message, { class: "transient", cause });
}

function toBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
