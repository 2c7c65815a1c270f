// The seal: a sealed file is read-only and its mtime is a function of its digest, so one fstat tells a truncated,
// overwritten or swapped file from a verified one. It guards against accidents, not against root; docs/format/cache.md,
// "Seal", is the normative text and native/addon/fd.c openBlob the gofer's check. Control plane.

import { createHash } from "node:crypto";
import { closeSync, mkdirSync, openSync, writeSync } from "node:fs";
import { dirname } from "node:path";
import type { Digest } from "../base/digest.ts";
import { errnoName } from "../base/errno.ts";
import { BurrowError } from "../base/error.ts";
import { S_IFMT, S_IFREG } from "../base/file-types.ts";
import { native } from "../sys/native.ts";
import { type CacheFolder, cachePath } from "./layout.ts";

export interface Seal {
  readonly sec: number;
  readonly nsec: number;
}

const ANY_WRITE = 0o222;
const NSEC = 1_000_000_000;

/** The mtime of a sealed file: any write, truncation or replacement moves it. */
export function sealOf(digest: Digest): Seal {
  const sec = Number.parseInt(digest.slice(0, 8), 16) % 0x8000_0000;
  return { sec, nsec: Number.parseInt(digest.slice(8, 16), 16) % NSEC };
}

/** Seals an open file whose content was verified and fsynced; its mode must lose its write bits as well. */
export function setSeal(fd: number, digest: Digest): void {
  const { sec, nsec } = sealOf(digest);
  const result = native.futimens(fd, sec, nsec);
  if (result < 0)
    throw new BurrowError("BURROW_IO", `can't seal a file: ${errnoName(result)}`, {
      errno: -result,
    });
}

const facts = new Float64Array(5);

/** Whether an open file has the size (-1: any) and the seal of a digest. */
export function isSealed(fd: number, digest: Digest, size: number): boolean {
  return native.statFd(fd, facts) >= 0 && saysSealed(facts, digest, size);
}

/** The same by what stat(2) said of it, as statFd and Calls.stat leave it. */
export function saysSealed(facts: Float64Array, digest: Digest, size: number): boolean {
  const { sec, nsec } = sealOf(digest);
  const mode = facts[1]!;
  return (
    (mode & S_IFMT) === S_IFREG &&
    (mode & ANY_WRITE) === 0 &&
    (size < 0 || facts[0] === size) &&
    facts[2] === sec &&
    facts[3] === nsec
  );
}

/** Puts bytes where a cache has them, sealed, with no care for power cuts: for a rehearsal and tests. Their digest. */
export function putSealed(cache: string, folder: CacheFolder, bytes: Uint8Array): Digest {
  const digest = createHash("sha256").update(bytes).digest("hex") as Digest;
  const path = cachePath(cache, folder, digest);
  mkdirSync(dirname(path), { recursive: true });
  const fd = openSync(path, "w", 0o444);
  writeSync(fd, bytes);
  setSeal(fd, digest);
  closeSync(fd);
  return digest;
}
