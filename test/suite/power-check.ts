// What a node finds in its cache after a power cut, in the order in which a start goes on: files as they stand, the start, pins, what is
// counted, then every blob by the daemon's own way of asking, one of them damaged with its seal kept. Prints a line of PowerFacts.
// Arguments: state, origin, snapshot, seed, cache.

import fs from "node:fs";
import { basename } from "node:path";
import type { Digest } from "../../lib/base/digest.ts";
import { openCache, statCache } from "../../lib/cache/cache.ts";
import type { CacheDirectory } from "../../lib/cache/directory.ts";
import { Fetcher } from "../../lib/cache/fetcher.ts";
import { listPins } from "../../lib/cache/pins.ts";
import { setSeal } from "../../lib/cache/seal.ts";
import { Survey } from "../../lib/cache/survey.ts";
import { joinSuspects } from "../../lib/cache/suspects.ts";
import { Sources } from "../../lib/daemon/sources.ts";
import { digestOf } from "../../lib/store/hash.ts";
import { cpuMs } from "./cpu.ts";
import { diskBytes } from "./disk-bytes.ts";

export interface PowerFacts {
  /** Of files that stood in blobs/ before the start: sealed, but with other bytes than their names say; without a seal. */
  readonly wrong: readonly string[];
  readonly unsealed: number;
  /** Blobs in blobs/ and suspect/. */
  readonly found: number;
  readonly startMs: number;
  readonly startCpuMs: number;
  readonly wasSuspect: boolean;
  /** What the start left in tmp/ and partial/. */
  readonly leftovers: readonly string[];
  readonly pins: readonly string[];
  readonly countedBytes: number;
  readonly thereBytes: number;
  /** Blobs that became suspect. */
  readonly suspects: number;
  /** Of all that were asked for then: errnos; those that are sealed and right. */
  readonly failed: readonly number[];
  readonly right: number;
  /** Found on disk at the ask; hashed for it, and right or wrong; fetched because another was. */
  readonly hits: number;
  readonly revived: number;
  readonly dropped: number;
  readonly neighbours: number;
  readonly isDamaged: boolean;
}

/** What in blobs/ is sealed and wrong, as it stands. */
function look(root: string): { wrong: string[]; unsealed: number; found: number } {
  const wrong: string[] = [];
  let unsealed = 0;
  const found = new Set<string>();
  for (const folder of ["blobs", "suspect"]) {
    for (const path of filesBelow(`${root}/${folder}`)) {
      found.add(basename(path));
      if (folder === "suspect") continue;
      if ((fs.statSync(path).mode & 0o222) !== 0) unsealed++;
      else if (digestOf(fs.readFileSync(path)) !== basename(path)) wrong.push(path);
    }
  }
  return { wrong, unsealed, found: found.size };
}

function filesBelow(folder: string): string[] {
  if (!fs.existsSync(folder)) return [];
  const entries = fs.readdirSync(folder, { recursive: true, withFileTypes: true });
  return entries.filter((entry) => entry.isFile()).map(({ path, name }) => `${path}/${name}`);
}

/** Flips a byte of a suspect blob behind the file system's back, as it were: the seal stays. */
function damage(cache: CacheDirectory, seed: number): boolean {
  const suspects = [...cache.digests("suspect")];
  if (suspects.length === 0) return false;
  const digest = suspects[seed % suspects.length]!;
  const path = cache.path("suspect", digest);
  const fd = fs.openSync(path, "r+");
  const byte = Buffer.alloc(1);
  // One that is empty is damaged enough.
  const at = seed % Math.max(1, fs.fstatSync(fd).size);
  fs.readSync(fd, byte, 0, 1, at);
  byte[0]! ^= 1;
  fs.writeSync(fd, byte, 0, 1, at);
  setSeal(fd, digest);
  fs.closeSync(fd);
  return true;
}

/** Looks at the cache at `root`, starts it, and asks for everything. */
async function powerFacts(
  root: string,
  state: string,
  origin: string,
  snapshot: Digest,
  seed: number,
): Promise<PowerFacts> {
  const before = look(root);
  let cache!: CacheDirectory;
  let wasSuspect = false;
  const startedMs = performance.now();
  const startCpuMs = cpuMs(() => {
    cache = openCache(root);
    wasSuspect = cache.startUp(false);
  });
  const startMs = performance.now() - startedMs;
  const leftovers = ["tmp", "partial"].flatMap((name) => fs.readdirSync(`${root}/${name}`));
  const pins = listPins(cache);
  await joinSuspects(cache, () => false);
  cache.room.unknown(0);
  await new Survey(cache).run();
  const sums = ["blobs", "suspect", "indexes"].flatMap((name) =>
    fs.readdirSync(`${root}/${name}`).map((shard) => diskBytes(`${root}/${name}/${shard}`)),
  );
  const thereBytes = sums.reduce((sum, bytes) => sum + bytes, 0);
  const countedBytes = cache.room.usedBytes;
  const { suspects } = statCache(cache);
  const isDamaged = damage(cache, seed);
  const fetcher = new Fetcher(cache);
  const sources = new Sources(cache, state, (name) => fetcher.origins.get(name).reader);
  const source = await sources.open({ snapshot, origin }, AbortSignal.timeout(20_000));
  const failed: number[] = [];
  let right = 0;
  for (let row = 0; row < source.table.count; row++) {
    const digest = source.table.digestAt(row);
    const { errno } = await fetcher.ask(source, row, 0, 0);
    if (errno !== 0) failed.push(errno);
    else if (
      cache.check("blobs", digest, source.table.sizeOf(row)) === "sealed" &&
      digestOf(fs.readFileSync(cache.path("blobs", digest))) === digest
    )
      right++;
  }
  const { hits, resealed: revived, dropped, neighbours } = fetcher.counters;
  fetcher.close();
  return {
    ...before,
    ...{ startMs, startCpuMs, wasSuspect, leftovers, pins, countedBytes, thereBytes },
    ...{ suspects, failed, right, hits, revived, dropped, neighbours, isDamaged },
  };
}

const [state, origin, snapshot, seed, root] = process.argv.slice(2) as [
  string,
  string,
  Digest,
  string,
  string,
];
if (root !== undefined) {
  const found = await powerFacts(root, state, origin, snapshot, Number(seed));
  process.stdout.write(`@@ facts ${JSON.stringify(found)}\n`);
}
