// What the CLI does with a cache: bring an index in, list, verify, evict. Blobs are the daemon's business.
// Control plane.

import fs from "node:fs";
import { type Digest, showDigest } from "../base/digest.ts";
import { BurrowError } from "../base/error.ts";
import { digestOf } from "../store/hash.ts";
import { objectPath } from "../store/layout.ts";
import { Locator } from "../store/locator.ts";
import { type OpenOptions, openOrigin } from "../store/open.ts";
import type { Backend } from "../store/store.ts";
import { CacheDirectory } from "./directory.ts";
import { dropFile } from "./ground.ts";
import { openThrough, readThrough } from "./look.ts";
import { hashFile } from "./pool.ts";
import { openRegular } from "./regular-file.ts";
import { expectedSum } from "./sums.ts";

/** Opens a cache directory, making it when it is missing. */
export function openCache(root: string): CacheDirectory {
  return CacheDirectory.open(root, true);
}

/**
 * Has a snapshot's index, verified and sealed, and its locator in the cache; fetches what is missing, both at once: of 300 packages they
 * are 18 MB, and each is a round trip before a start. An index that is here is hashed again: it is what everything else is trusted by, and takes a millisecond. Returns the index's bytes. `reader`: of the
 * origin, where the caller has one open. `onUnkept`: who can do without them in the cache hears that they can't be kept.
 */
export async function ensureIndex(
  cache: CacheDirectory,
  origin: string,
  digest: Digest,
  options: OpenOptions & {
    reader?: Backend;
    signal?: AbortSignal;
    onUnkept?: (error: unknown) => void;
  } = {},
): Promise<Buffer> {
  const held = await heldWhole(cache, "indexes", digest);
  const hasLocator = await isThere(cache, digest);
  if (held !== undefined && hasLocator) return held;
  const backend = options.reader ?? openOrigin(origin, options);
  try {
    const got = options.signal ? { signal: options.signal } : {};
    const get = (folder: "indexes" | "locators") => backend.get(objectPath(folder, digest), got);
    const locating = hasLocator ? undefined : get("locators");
    // Of both failures the index's is told.
    locating?.catch(() => undefined);
    const bytes = held ?? (await get("indexes"));
    const locator = await locating;
    if (locator !== undefined) new Locator(locator);
    try {
      if (locator !== undefined) await cache.writeHint("locators", digest, locator);
      if (held === undefined) await cache.writeSealed("indexes", digest, bytes);
    } catch (error) {
      if (options.onUnkept === undefined) throw error;
      options.onUnkept(error);
    }
    return bytes;
  } finally {
    if (options.reader === undefined) backend.close();
  }
}

/** Whether a snapshot's locator is in the cache: a regular file, whatever is in it. */
async function isThere(cache: CacheDirectory, digest: Digest): Promise<boolean> {
  try {
    void cache.disk.close(await openThrough(cache.disk, cache.path("locators", digest)));
    return true;
  } catch {
    return false;
  }
}

/** Puts an index made on this node (of a stage) and its locator into the cache: its digest. */
export async function keepIndex(
  cache: CacheDirectory,
  index: Uint8Array,
  locator: Uint8Array,
): Promise<Digest> {
  const digest = digestOf(index);
  new Locator(locator);
  await cache.writeHint("locators", digest, locator);
  if ((await heldWhole(cache, "indexes", digest)) === undefined) {
    await cache.writeSealed("indexes", digest, index);
  }
  return digest;
}

/** The bytes of an index, or of what is kept of an image, in the cache when they are right; a wrong file is dropped. */
export async function heldWhole(
  cache: CacheDirectory,
  folder: "indexes" | "images",
  digest: Digest,
): Promise<Buffer | undefined> {
  const state = await cache.look(folder, digest, -1);
  if (state === "missing") return undefined;
  if (state === "broken" && (await cache.revive(folder, digest)) < 0) return undefined;
  const bytes = await readThrough(cache.disk, cache.path(folder, digest));
  if (digestOf(bytes) === digest) return bytes;
  await cache.drop(folder, digest);
  return undefined;
}

export interface CacheFacts {
  readonly blobs: number;
  readonly blobBytes: number;
  readonly suspects: number;
  readonly indexes: number;
  readonly partials: number;
}

/** Counts what is in a cache. */
export function statCache(cache: CacheDirectory): CacheFacts {
  let blobBytes = 0;
  let blobs = 0;
  for (const { size } of listBlobs(cache)) {
    blobs++;
    blobBytes += size;
  }
  return {
    blobs,
    blobBytes,
    suspects: [...cache.digests("suspect")].length,
    indexes: [...cache.digests("indexes")].length,
    partials: fs.readdirSync(`${cache.root}/partial`).length,
  };
}

export interface CachedBlob {
  readonly digest: Digest;
  readonly size: number;
  /** When it was last read, as far as the file system says (relatime: to the day). */
  readonly usedMs: number;
}

/** Whole blobs in a cache, by digest. */
export function* listBlobs(cache: CacheDirectory): Iterable<CachedBlob> {
  for (const digest of cache.digests("blobs")) {
    const stat = fs.lstatSync(cache.path("blobs", digest), { throwIfNoEntry: false });
    if (stat?.isFile() !== true) continue;
    // mtime is the seal; a file that was never read was last used when it was made.
    yield { digest, size: stat.size, usedMs: Math.max(stat.atimeMs, stat.ctimeMs) };
  }
}

/** Hashes every blob, index and what is kept of images: those found wrong, which are dropped. `onFile` hears of how many were checked. */
export async function verifyCache(
  cache: CacheDirectory,
  onFile?: (checked: number) => void,
): Promise<{ checked: number; wrong: Digest[] }> {
  const wrong: Digest[] = [];
  let checked = 0;
  for (const folder of ["blobs", "indexes", "images"] as const) {
    for (const digest of cache.digests(folder)) {
      const path = cache.path(folder, digest);
      checked++;
      onFile?.(checked);
      if (await isRight(path, digest)) continue;
      dropFile(path);
      wrong.push(digest);
    }
  }
  return { checked, wrong };
}

/** Unlinks the blobs used longest ago until at most maxBytes are left: what was removed. `onBlob` hears how much that is so far. */
export async function evict(
  cache: CacheDirectory,
  maxBytes: number,
  onBlob?: (removed: { readonly blobs: number; readonly bytes: number }) => void,
): Promise<{ blobs: number; bytes: number }> {
  const blobs = [...listBlobs(cache)].sort((a, b) => a.usedMs - b.usedMs);
  let left = blobs.reduce((sum, blob) => sum + blob.size, 0);
  const removed = { blobs: 0, bytes: 0 };
  for (const { digest, size } of blobs) {
    if (left <= maxBytes) break;
    await cache.drop("blobs", digest);
    left -= size;
    removed.blobs++;
    removed.bytes += size;
    onBlob?.(removed);
  }
  return removed;
}

async function isRight(path: string, digest: Digest): Promise<boolean> {
  let fd: number;
  try {
    fd = openRegular(path);
  } catch (cause) {
    // Evicted meanwhile is not wrong; what is no file is, and unreadable is a failure.
    const stat = fs.lstatSync(path, { throwIfNoEntry: false });
    if (stat?.isFile() !== true) return stat === undefined;
    throw new BurrowError("BURROW_IO", "can't read a cached file", {
      cause,
      context: { blob: showDigest(digest) },
    });
  }
  try {
    return (await hashFile(fd)) === (await expectedSum(fd, digest));
  } finally {
    fs.closeSync(fd);
  }
}
