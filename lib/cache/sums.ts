// Sums: what the bytes of a whole file of the cache must come to. Mostly its name; of an object of a bucket, which is named by what pins it,
// what its bytes came to when they were fetched: kept with the file, as an extended attribute, and written before the file has its name.
// Control plane.

import { createHash } from "node:crypto";
import fs from "node:fs";
import { type Digest, isDigest } from "../base/digest.ts";
import { Errno, errnoName } from "../base/errno.ts";
import { BurrowError } from "../base/error.ts";
import { BLOCK_BYTES } from "../base/limits.ts";
import { digestOf } from "../store/hash.ts";
import { hostFs } from "../sys/hostfs.ts";

const SUM_XATTR = "user.burrow.sum";
const SUM_BYTES = 64;

/**
 * Notes what an open file's bytes come to. On a file system without such attributes nothing is noted: after a boot the file is dropped and
 * fetched anew. BURROW_IO, BURROW_NO_SPACE.
 */
export function setSum(fd: number, sum: Digest): void {
  const result = hostFs.setXattr(fd, SUM_XATTR, Buffer.from(sum, "latin1"), 0);
  if (result >= 0 || result === -Errno.EOPNOTSUPP) return;
  const isFull = result === -Errno.ENOSPC || result === -Errno.EDQUOT;
  const what = `can't note what a file comes to: ${errnoName(result)}`;
  throw new BurrowError(isFull ? "BURROW_NO_SPACE" : "BURROW_IO", what, { errno: -result });
}

/** What the bytes of an open file of the cache must come to. */
export function expectedSum(fd: number, name: Digest): Digest {
  const out = Buffer.alloc(SUM_BYTES);
  if (hostFs.getXattr(fd, SUM_XATTR, out) !== SUM_BYTES) return name;
  const sum = out.toString("latin1");
  return isDigest(sum) ? sum : name;
}

/** The sha256 of a file whose blocks are what `sums` says of each; undefined when one isn't. */
export async function sumOfBlocks(
  fd: number,
  size: number,
  sums: readonly Digest[],
): Promise<Digest | undefined> {
  const whole = createHash("sha256");
  const block = Buffer.alloc(BLOCK_BYTES);
  for (let i = 0; i * BLOCK_BYTES < size; i++) {
    const length = Math.min(BLOCK_BYTES, size - i * BLOCK_BYTES);
    const bytes = block.subarray(0, length);
    const got = await read(fd, bytes, i * BLOCK_BYTES);
    if (got !== length || digestOf(bytes) !== sums[i]) return undefined;
    whole.update(bytes);
  }
  return whole.digest("hex") as Digest;
}

function read(fd: number, out: Uint8Array, position: number): Promise<number> {
  return new Promise((resolve, reject) => {
    fs.read(fd, out, 0, out.length, position, (error, bytes) =>
      error === null ? resolve(bytes) : reject(error),
    );
  });
}
