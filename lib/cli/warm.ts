// Warming: blobs of a snapshot, all or what a profile names, whole in this node's cache, brought by the daemon, so that nobody who uses
// them waits for a store.
// What is said to be done was looked at. Control plane.

import { readFileSync } from "node:fs";
import { type Digest, showDigest } from "../base/digest.ts";
import { Errno, errnoName } from "../base/errno.ts";
import { BurrowError } from "../base/error.ts";
import { BLOCK_BYTES, BLOCK_DIGESTS_OVER_BYTES } from "../base/limits.ts";
import { Asker } from "../cache/asker.ts";
import { ensureIndex, openCache } from "../cache/cache.ts";
import { daemonStatus, ensureDaemon } from "../cache/client.ts";
import type { CacheDirectory } from "../cache/directory.ts";
import type { Index } from "../layer/index.ts";
import { Locator } from "../store/locator.ts";
import { inParallel } from "../store/parallel.ts";
import { type Context, makeFolders } from "./context.ts";
import { codeOfFailure } from "./fetched.ts";
import { ensureFacts } from "./image-facts.ts";
import { named } from "./profile-paths.ts";
import { inodesFor, writeMounts } from "./query.ts";
import { noSuchDigest, soundIndex } from "./read-index.ts";
import { sweepRuns, withRun } from "./runs.ts";
import { checkRoom, evicted, isHere } from "./warm-room.ts";

/** What warming one snapshot came to. */
export interface Warmth {
  readonly fetchedBlobs: number;
  readonly fetchedBytes: number;
  readonly presentBlobs: number;
  /** Paths of the profile that the snapshot does not have. */
  readonly missing: readonly string[];
}

/** Asks at the daemon at once: it sends 8 requests to an origin. */
const ASKS = 32;
/** Blocks of a large file in one ask: 16 MiB, which its deadline of 25 s must see. */
const BLOCKS = 64;
/** Where none of so many blobs, from all over the packs, can be had, the others are not asked for. */
const PROBES = 4;
/** More would use up what the daemon allows for tries, and wait. */
const PROBES_AT_ONCE = 2;
/** Asks for one blob, and looks at all of them: a daemon that ended is started again. */
const TRIES = 3;
/** The mount that a snapshot is asked by has a scratch space, as all have; nobody uses it. */
const UPPER_BYTES = 1024 * 1024;

const EVERYTHING = { rows: undefined, missing: [] };

interface Wanted {
  readonly row: number;
  readonly digest: Digest;
  readonly size: number;
}

/**
 * Has a snapshot in the cache: all of it, or what `paths` name (profile-paths.ts). `together`: what else is to be there at the same time, to which
 * this is added. onBytes hears of bytes here and bytes in all. BURROW_NO_SPACE, before anything is fetched where it can be told;
 * BURROW_ORIGIN, or what the daemon has to say, naming a blob that can't be had, after the others were tried.
 */
export async function warm(
  context: Context,
  snapshot: Digest,
  paths: readonly string[] | undefined,
  together: Map<Digest, number>,
  onBytes: (done: number, whole: number) => void,
): Promise<Warmth> {
  makeFolders(context.state, `${context.state}/mounts`);
  const cache = openCache(context.cache);
  const index = await indexOf(context, cache, snapshot);
  await ensureFacts(cache, context.store, snapshot, index);
  const { rows, missing: unknown } = paths === undefined ? EVERYTHING : named(index, paths);
  const all = listBlobs(index, new Locator(readFileSync(cache.path("locators", snapshot))));
  const wanted = rows === undefined ? all : all.filter(({ row }) => rows.has(row));
  const missing = wanted.filter((blob) => !isBlobHere(cache, blob));
  if (missing.length > 0) {
    await ensureDaemon({ cache: context.cache, state: context.state });
    await checkRoom(cache, new Map([...together, ...sizesOf(wanted)]));
  }
  await bring(context, cache, snapshot, wanted, onBytes);
  for (const [digest, size] of sizesOf(wanted)) together.set(digest, size);
  return {
    fetchedBlobs: missing.length,
    fetchedBytes: bytesOf(missing),
    presentBlobs: wanted.length - missing.length,
    missing: unknown,
  };
}

/** Has blobs fetched until a look at each finds it here, or it is clear that some won't come or stay. */
async function bring(
  context: Context,
  cache: CacheDirectory,
  snapshot: Digest,
  wanted: readonly Wanted[],
  onBytes: (done: number, whole: number) => void,
): Promise<void> {
  const whole = bytesOf(wanted);
  const lookAgain = () => wanted.filter((blob) => !isBlobHere(cache, blob));
  let left = lookAgain();
  // Of one that was killed when all had come. Who has something to bring sweeps as it begins.
  if (left.length === 0) await sweepRuns(context);
  onBytes(whole - bytesOf(left), whole);
  const source = { snapshot, origin: context.store };
  const upper = { sizeBytes: UPPER_BYTES, inodes: inodesFor(UPPER_BYTES) };
  for (let count = 1; left.length > 0; count++) {
    let failed = 0;
    let mountId = "";
    try {
      await withRun(context, async ({ id }) => {
        mountId = id;
        writeMounts(context, id, source, [], { tmp: upper }, { profile: "off" });
        await ensureDaemon({ cache: context.cache, state: context.state });
        const start = whole - bytesOf(left);
        failed = await askAll(context, id, left, (bytes) => onBytes(start + bytes, whole));
      });
    } catch (error) {
      const isLost = error instanceof BurrowError && error.code === "BURROW_DAEMON";
      if (!isLost || count >= TRIES) throw error;
    }
    left = lookAgain();
    const first = left[0];
    if (first === undefined || count < TRIES) continue;
    // What was had and isn't here has gone again.
    if (failed === 0) throw await evicted(cache, left.length, wanted.length);
    throw await failure(context, mountId, "BURROW_ORIGIN", first, Errno.EIO);
  }
}

async function indexOf(context: Context, cache: CacheDirectory, snapshot: Digest): Promise<Index> {
  let bytes: Buffer;
  try {
    bytes = await ensureIndex(cache, context.store, snapshot);
  } catch (cause) {
    throw noSuchDigest(cause, snapshot, context.store);
  }
  return soundIndex(bytes, snapshot, context.store);
}

/** The blobs of a snapshot as they lie in packs, so that neighbours come by one request. */
function listBlobs(index: Index, locator: Locator): Wanted[] {
  const rows = Array.from({ length: index.blobCount }, (_, row) => {
    const digest = index.blobDigest(row);
    return { row, digest, size: index.blobSize(row), place: placeOf(locator, digest) };
  });
  return rows.sort((a, b) => (a.place < b.place ? -1 : 1));
}

function placeOf(locator: Locator, digest: Digest): string {
  const row = locator.find(digest);
  if (row < 0 || locator.kind !== "packs" || locator.chunkCount(row) === 0) return "";
  const { pack, offset } = locator.chunkAt(row, 0);
  return `${pack} ${String(offset).padStart(10, "0")}`;
}

/** Asks for blobs: how many could not be had. */
async function askAll(
  context: Context,
  mountId: string,
  blobs: readonly Wanted[],
  onBytes: (bytes: number) => void,
): Promise<number> {
  const asker = await Asker.open(context.cache, mountId);
  let done = 0;
  const take = (bytes: number) => {
    done += bytes;
    onBytes(done);
  };
  let had = 0;
  const ask = async (some: readonly Wanted[], width: number): Promise<number> => {
    let last = 0;
    await inParallel(some, width, async (blob) => {
      const errno = await askOne(asker, blob, take);
      if (errno === 0) had++;
      else last = errno;
      // The others are worth a try whatever this one lacks, but for space.
      if (errno === Errno.ENOSPC)
        throw await failure(context, mountId, "BURROW_NO_SPACE", blob, errno);
    });
    return last;
  };
  try {
    // Each that fails was tried for some seconds: where all of these do, the others would take as long for nothing.
    const probes = spread(blobs, PROBES);
    const errno = await ask([...probes], PROBES_AT_ONCE);
    if (had === 0) throw await failure(context, mountId, "BURROW_ORIGIN", blobs[0]!, errno);
    await ask(
      blobs.filter((blob) => !probes.has(blob)),
      ASKS,
    );
    return blobs.length - had;
  } finally {
    asker.close();
  }
}

/** Some of many that lie far from each other. */
function spread<T>(all: readonly T[], count: number): Set<T> {
  const step = (all.length - 1) / (count - 1);
  return new Set(Array.from({ length: count }, (_, i) => all[Math.round(i * step)]!));
}

/** Has one blob here: 0 or an errno. A large one comes piece by piece, each within the daemon's deadline. */
async function askOne(
  asker: Asker,
  { row, size }: Wanted,
  take: (bytes: number) => void,
): Promise<number> {
  const again = async (ask: () => Promise<number>) => {
    let errno = await ask();
    for (let count = 1; errno === Errno.ETIMEDOUT && count < TRIES; count++) errno = await ask();
    return errno;
  };
  const blockCount = size > BLOCK_DIGESTS_OVER_BYTES ? Math.ceil(size / BLOCK_BYTES) : 0;
  for (let first = 0; first < blockCount; first += BLOCKS) {
    const count = Math.min(BLOCKS, blockCount - first);
    const errno = await again(() => asker.blocks(0, row, first, count));
    if (errno !== 0) return errno;
    take(Math.min(size, (first + count) * BLOCK_BYTES) - first * BLOCK_BYTES);
  }
  const errno = await again(() => asker.blob(0, row));
  if (errno === 0 && blockCount === 0) take(size);
  return errno;
}

function isBlobHere(cache: CacheDirectory, { digest, size }: Wanted): boolean {
  return isHere(cache, digest, size);
}

function sizesOf(blobs: readonly Wanted[]): Map<Digest, number> {
  return new Map(blobs.map(({ digest, size }) => [digest, size]));
}

function bytesOf(blobs: readonly Wanted[]): number {
  return blobs.reduce((sum, { size }) => sum + size, 0);
}

/** What to say of a blob that did not come: the daemon knows more. */
async function failure(
  context: Context,
  mountId: string,
  code: "BURROW_NO_SPACE" | "BURROW_ORIGIN",
  blob: Wanted,
  errno: number,
): Promise<BurrowError> {
  const status = await daemonStatus(context.cache).catch(() => undefined);
  const lastFailure = status?.failures?.[mountId];
  const why = lastFailure?.error ?? errnoName(errno);
  const told = code === "BURROW_ORIGIN" ? codeOfFailure(lastFailure) : code;
  return new BurrowError(told, `can't bring a file to this node: ${why}`, {
    context: { blob: showDigest(blob.digest), cache: context.cache, origin: context.store },
  });
}
