// Sums: what the bytes of a whole file of the cache must come to. Mostly its name; of an object of a bucket, which is named by what pins it,
// what its bytes came to when they were fetched: kept with the file, as an extended attribute, and written before the file has its name.
// Control plane.

import { createHash } from "node:crypto";
import { type Digest, isDigest } from "../base/digest.ts";
import { BurrowError } from "../base/error.ts";
import { BLOCK_BYTES } from "../base/limits.ts";
import { digestOf } from "../store/hash.ts";
import { Calls, type FdOf } from "../sys/calls.ts";
import type { Disk } from "./disk.ts";

const SUM_XATTR = "user.burrow.sum";
const SUM_BYTES = 64;

/**
 * Has a chain note what an open file's bytes come to. Where that can't be, say on a file system without such attributes, nothing is noted:
 * after a boot the file is dropped and fetched anew.
 */
export function noteSum(calls: Calls, fd: FdOf, sum: Digest): void {
  calls.optional(() => calls.setXattr(fd, SUM_XATTR, Buffer.from(sum, "latin1")));
}

/** What the bytes of an open file of the cache must come to. */
export async function expectedSum(fd: number, name: Digest, disk?: Disk): Promise<Digest> {
  const out = Buffer.alloc(SUM_BYTES);
  const calls = new Calls();
  calls.optional(() => calls.getXattr(fd, SUM_XATTR, out));
  const got = await (disk === undefined ? calls.run() : disk.run("look", () => calls.run()));
  if (got[0] !== SUM_BYTES) return name;
  const sum = out.toString("latin1");
  return isDigest(sum) ? sum : name;
}

/** The sha256 of a file whose blocks are what `sums` says of each; undefined when one isn't. */
export async function sumOfBlocks(
  fd: number,
  size: number,
  sums: readonly Digest[],
  disk?: Disk,
): Promise<Digest | undefined> {
  const whole = createHash("sha256");
  const block = Buffer.alloc(BLOCK_BYTES);
  for (let i = 0; i * BLOCK_BYTES < size; i++) {
    const length = Math.min(BLOCK_BYTES, size - i * BLOCK_BYTES);
    const bytes = block.subarray(0, length);
    const got = await readPiece(fd, bytes, i * BLOCK_BYTES, disk);
    if (got !== length || digestOf(bytes) !== sums[i]) return undefined;
    whole.update(bytes);
  }
  return whole.digest("hex") as Digest;
}

async function readPiece(fd: number, out: Uint8Array, offset: number, disk?: Disk) {
  const calls = new Calls();
  const place = calls.pread(fd, out, offset);
  const bytes = out.length;
  const results =
    disk === undefined ? await calls.run() : await disk.run("look", () => calls.run(), { bytes });
  const got = results[place]!;
  if (got >= 0) return got;
  throw new BurrowError("BURROW_IO", "can't read a cached file", { errno: -got });
}
