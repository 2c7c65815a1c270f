// Warm room: whether what is to be brought to a node can stay there, within the limit of its cache and beside what is pinned. Control plane.

import type { Digest } from "../base/digest.ts";
import { Errno } from "../base/errno.ts";
import { BurrowError } from "../base/error.ts";
import { heldWhole } from "../cache/cache.ts";
import { daemonStatus, type RoomStatus } from "../cache/client.ts";
import type { CacheDirectory } from "../cache/directory.ts";
import { lastingBytes } from "../cache/keeper.ts";
import { listPins } from "../cache/pins.ts";
import { expectedSum } from "../cache/room.ts";
import { faultOf, Index } from "../layer/index.ts";
import { counted, showBytes } from "./output.ts";

/** Files by digest, with their sizes. */
export type Sizes = ReadonlyMap<Digest, number>;

/** What of a cache can be evicted for others, by folder. */
const EVICTABLE: readonly string[] = ["blobs", "suspect", "partial"];
const HELP = "give the daemon a larger --cache-bytes, or name what is needed in a --profile";

export function isHere(cache: CacheDirectory, digest: Digest, size: number): boolean {
  return cache.check("blobs", digest, size) === "sealed";
}

/** Refuses files that can't all be in the cache at once. BURROW_NO_SPACE, saying what there is, and what to do. */
export async function checkRoom(cache: CacheDirectory, files: Sizes): Promise<void> {
  const room = (await daemonStatus(cache.root))?.room;
  if (room === undefined || room.limitBytes === 0) return;
  const neededBytes = expectedSum(files);
  const pinnedBytes = expectedSum(await pinnedBeside(cache, files));
  const lastingRoom = lastingBytes(room.limitBytes) - fixedBytes(room) - pinnedBytes;
  if (neededBytes <= lastingRoom) return;
  const free = showBytes(Math.max(0, lastingRoom));
  const what = `${counted(files.size, "file")} of ${showBytes(neededBytes)} can't all be on this node`;
  const why = `within the limit of ${showBytes(room.limitBytes)} there is room for ${free}`;
  const pinned = pinnedBytes === 0 ? "" : ` beside ${showBytes(pinnedBytes)} of what is pinned`;
  throw tooLittle(`${what}: ${why}${pinned}; ${HELP}`, cache);
}

/** Looks at each file once more. BURROW_NO_SPACE where some have gone since they came. */
export async function checkAllHere(cache: CacheDirectory, files: Sizes): Promise<void> {
  const gone = [...files].filter(([digest, size]) => !isHere(cache, digest, size)).length;
  if (gone > 0) throw await evicted(cache, gone, files.size);
}

/** What to say of files that came and went. */
export async function evicted(
  cache: CacheDirectory,
  gone: number,
  all: number,
): Promise<BurrowError> {
  const { limitBytes = 0 } = (await daemonStatus(cache.root).catch(() => undefined))?.room ?? {};
  const limit =
    limitBytes === 0 ? "its disk is nearly full" : `its limit is ${showBytes(limitBytes)}`;
  const what = `of ${counted(all, "file")} ${gone} aren't in the cache any more: ${limit}`;
  return tooLittle(`${what}; ${HELP}`, cache);
}

function tooLittle(message: string, cache: CacheDirectory): BurrowError {
  const context = { cache: cache.root };
  return new BurrowError("BURROW_NO_SPACE", message, { errno: Errno.ENOSPC, context });
}

function fixedBytes({ byFolder }: RoomStatus): number {
  const kept = Object.entries(byFolder).filter(([folder]) => !EVICTABLE.includes(folder));
  return kept.reduce((sum, [, bytes]) => sum + bytes, 0);
}

/** Files on this node that are pinned and not among these. */
async function pinnedBeside(cache: CacheDirectory, files: Sizes): Promise<Sizes> {
  const found = new Map<Digest, number>();
  for (const snapshot of listPins(cache)) {
    const bytes = await heldWhole(cache, "indexes", snapshot).catch(() => undefined);
    if (bytes === undefined || faultOf(bytes) !== undefined) continue;
    const index = new Index(bytes);
    for (let row = 0; row < index.blobCount; row++) {
      const digest = index.blobDigest(row);
      const size = index.blobSize(row);
      if (!files.has(digest) && isHere(cache, digest, size)) found.set(digest, size);
    }
  }
  return found;
}
