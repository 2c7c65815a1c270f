// Pool: what would keep the event loop busy is done by workers (native/addon/workers.c): blocks are decompressed, verified and written, whole
// files hashed. docs/design/0013-off-the-loop.md. Control plane.

import { createHash } from "node:crypto";
import fs from "node:fs";
import { promisify } from "node:util";
import { DIGEST_BYTES, type Digest, digestAt } from "../base/digest.ts";
import { errnoName } from "../base/errno.ts";
import { BurrowError } from "../base/error.ts";
import { BLOCK_BYTES } from "../base/limits.ts";
import { Codec } from "../store/codec.ts";
import { native } from "../sys/native.ts";
import type { Disk } from "./disk.ts";

const readAsync = promisify(fs.read);

/** Of a file that is hashed: a thread is taken for some 10 ms, so that others come by. */
const HASH_PART_BYTES = 4 * 1024 * 1024;
/** Without the pool: what is hashed on the loop in one go. */
const HASH_PIECE_BYTES = 1024 * 1024;
const HASH_STATE_BYTES = 256;
/** Fields of a block in keepBlocks' plan. */
const PLAN_FIELDS = 5;

/** A block as it came. */
export interface StoredBlock {
  readonly stored: Uint8Array;
  readonly codec: number;
  /** Bytes of its content. */
  readonly length: number;
  /** Where it goes: its number in the file. */
  readonly block: number;
  /** What its content must come to. */
  readonly digest: Digest;
}

/**
 * Writes those blocks to their places in a file whose content is right: which ones. What is left is for the caller to look at: wrong content, a
 * delta, a disk that doesn't take it. The caller changes nothing of the bytes and the file until then. Never rejects.
 */
export async function keepInPool(fd: number, blocks: readonly StoredBlock[]): Promise<Set<number>> {
  const kept = new Set<number>();
  // Mostly one: a run comes in one piece.
  const byMemory = new Map<ArrayBufferLike, StoredBlock[]>();
  for (const block of blocks) {
    if (!isSimple(block)) continue;
    const { buffer } = block.stored;
    const some = byMemory.get(buffer);
    if (some === undefined) byMemory.set(buffer, [block]);
    else some.push(block);
  }
  const works = [...byMemory].map(async ([buffer, some]) => {
    const digests = Buffer.alloc(DIGEST_BYTES * some.length);
    const plan = new Uint32Array(PLAN_FIELDS * some.length);
    for (const [i, { stored, codec, length, block, digest }] of some.entries()) {
      plan.set([stored.byteOffset, stored.length, codec, length, block], PLAN_FIELDS * i);
      digests.write(digest, DIGEST_BYTES * i, "hex");
    }
    if ((await native.keepBlocks(fd, new Uint8Array(buffer), plan, digests)) !== 0) return;
    for (const [i, { block }] of some.entries()) {
      if (isZero(digests.subarray(DIGEST_BYTES * i, DIGEST_BYTES * (i + 1)))) kept.add(block);
    }
  });
  await Promise.all(works);
  return kept;
}

function isSimple({ codec, length, stored }: StoredBlock): boolean {
  const isKnown = codec === Codec.raw || codec === Codec.lz4;
  return isKnown && length <= BLOCK_BYTES && stored.buffer.byteLength <= 0xffff_ffff;
}

function isZero(bytes: Uint8Array): boolean {
  return bytes.every((byte) => byte === 0);
}

/** sha256 of an open file, read by position in parts, by way of a disk's queue where there is one. BURROW_IO. */
export async function hashFile(fd: number, disk?: Disk): Promise<Digest> {
  const state = new Uint8Array(HASH_STATE_BYTES);
  for (let offset = 0; ; ) {
    const start = offset;
    let isRefused = false;
    const part = async () => {
      const work = native.hashPart(fd, state, start, HASH_PART_BYTES);
      isRefused = typeof work === "number";
      return await work;
    };
    const got = await (disk?.run("look", part, { bytes: HASH_PART_BYTES }) ?? part());
    if (isRefused && offset === 0) return await hashOnLoop(fd);
    if (got < 0)
      throw new BurrowError("BURROW_IO", `can't read a file: ${errnoName(got)}`, { errno: -got });
    if (got < HASH_PART_BYTES) return digestAt(state, 0);
    offset += got;
  }
}

/** The same where Node.js has no OpenSSL that can be called, or the FD is none, which this says. */
async function hashOnLoop(fd: number): Promise<Digest> {
  const hash = createHash("sha256");
  const piece = Buffer.allocUnsafe(HASH_PIECE_BYTES);
  for (let offset = 0; ; ) {
    const { bytesRead } = await readAsync(fd, piece, 0, piece.length, offset);
    if (bytesRead === 0) return hash.digest("hex") as Digest;
    hash.update(piece.subarray(0, bytesRead));
    offset += bytesRead;
  }
}
