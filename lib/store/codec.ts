// How a chunk is compressed in a pack: LZ4 blocks with their length in front, a delta of a chunk that is nearly the same, or
// raw where nothing shrinks it. The codec stands beside each chunk, so others can be added. Control plane.

import { compressSync, uncompressSync } from "lz4-napi";
import { viewOf } from "../base/bytes.ts";
import { DIGEST_BYTES, type Digest, digestAt } from "../base/digest.ts";
import { BurrowError } from "../base/error.ts";
import { BLOCK_DIGESTS_OVER_BYTES } from "../base/limits.ts";
import { native } from "../sys/native.ts";
import { applyDelta, makeDelta } from "./delta-codec.ts";

export const Codec = { raw: 0, lz4: 1, delta: 2 } as const;
export type Codec = (typeof Codec)[keyof typeof Codec];

/** Largest chunk: a whole small blob. Larger blobs are cut into blocks. */
export const CHUNK_MAX_BYTES = BLOCK_DIGESTS_OVER_BYTES;
/** The length of the content in front of the block, as u32. */
const LENGTH_BYTES = 4;

/** A delta that takes more than this part of its chunk is not worth reading another one: LZ4 makes a quarter to a half of most. */
const DELTA_WORTH = 1 / 8;

export interface Packed {
  readonly codec: Codec;
  readonly bytes: Uint8Array;
}

/** Where chunks are packed, one after the other: they go into a pack at once. */
const scratch = Buffer.allocUnsafeSlow(CHUNK_MAX_BYTES);
const scratchView = viewOf(scratch);

/**
 * Compresses a chunk. What doesn't shrink is given back as it is. The result is good until the next is compressed: keptOf() is
 * good for longer.
 */
export function compressChunk(bytes: Uint8Array): Packed {
  const shorter = bytes.length - 1;
  if (shorter <= LENGTH_BYTES) return { codec: Codec.raw, bytes };
  const length = native.packLz4(bytes, scratch.subarray(LENGTH_BYTES, shorter));
  if (length < 0) return packedElsewhere(bytes);
  if (length === 0) return { codec: Codec.raw, bytes };
  scratchView.setUint32(0, bytes.length, true);
  return { codec: Codec.lz4, bytes: scratch.subarray(0, LENGTH_BYTES + length) };
}

/** Where the system has no liblz4: the same at half the speed. */
function packedElsewhere(bytes: Uint8Array): Packed {
  const packed = compressSync(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength));
  return packed.length < bytes.length
    ? { codec: Codec.lz4, bytes: packed }
    : { codec: Codec.raw, bytes };
}

/** The same in memory of its own. */
export function keptOf({ codec, bytes }: Packed): Packed {
  return { codec, bytes: Buffer.from(bytes) };
}

/** A chunk as a delta of the same chunk of the blob `near`, whose bytes are `base`; undefined where it is not worth it. */
export function deltaChunk(bytes: Uint8Array, near: Digest, base: Uint8Array): Packed | undefined {
  const body = makeDelta(base, bytes, 1);
  if (body === undefined || DIGEST_BYTES + body.length > bytes.length * DELTA_WORTH)
    return undefined;
  return { codec: Codec.delta, bytes: Buffer.concat([Buffer.from(near, "hex"), body]) };
}

/** The blob that a stored chunk is a delta of; undefined for one that is none or is cut off. */
export function baseOfChunk(codec: number, bytes: Uint8Array): Digest | undefined {
  return codec === Codec.delta && bytes.length > DIGEST_BYTES ? digestAt(bytes, 0) : undefined;
}

/**
 * The `length` bytes of a chunk; of a delta, made of its `base`. Throws BURROW_CORRUPT when they can't be had. The length in front of the block
 * is compared BEFORE decompressing: lz4-napi allocates whatever it says (2 GiB in 4.8 s were seen).
 */
export function expandChunk(
  codec: number,
  bytes: Uint8Array,
  length: number,
  base?: Uint8Array,
): Uint8Array {
  if (length > CHUNK_MAX_BYTES) throw corrupt(`a chunk of ${length} bytes is too long`);
  if (codec === Codec.raw) {
    if (bytes.length !== length)
      throw corrupt(`a raw chunk has ${bytes.length} bytes, not ${length}`);
    return bytes;
  }
  if (codec === Codec.delta) {
    if (base === undefined) throw corrupt("a chunk is a delta, and its base can't be had");
    return applyDelta(base, bytes.subarray(DIGEST_BYTES), length);
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
