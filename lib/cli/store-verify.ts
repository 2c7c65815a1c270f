// burrow store verify: whether all that a store holds can be had and is what its names say: indexes and locators, also those that
// deltas make, packs, and each chunk of each file. Reads only. Control plane.

import type { Command } from "commander";
import { type Digest, showDigest } from "../base/digest.ts";
import { explain } from "../base/error.ts";
import { Origin } from "../cache/origins.ts";
import { getPieces, openPiece, pieceAt, pieceCount } from "../cache/pieces.ts";
import type { Index } from "../layer/index.ts";
import { readLocator } from "../store/known.ts";
import { digestOfPath } from "../store/layout.ts";
import type { Locator } from "../store/locator.ts";
import { openOrigin } from "../store/open.ts";
import { NO_MIRRORS } from "../store/origins-file.ts";
import type { Backend, WritableBackend } from "../store/store.ts";
import { addCommonOptions, type Context, contextOf } from "./context.ts";
import { listedStore } from "./digests.ts";
import { counted, ExitCode, Progress, type ProgressLine, print, SILENCE } from "./output.ts";
import { readIndex } from "./read-index.ts";

const HELP = `
Nothing is changed. What is wrong is named with its reason; indexes without a locator are of imports that were cut short, and no fault.

Examples:
  burrow store verify --store /srv/store
  burrow store verify --json`;

/** Chunks that are read at once; a chunk of a directory's store is read without waiting for others. */
const PARALLEL = 4;
const DEADLINE_MS = 60_000;

export function addStoreVerify(store: Command): void {
  addCommonOptions(store.command("verify"))
    .description("check that all of a store can be read and is right; exits 1 when anything is not")
    .addHelpText("after", HELP)
    .action(async (options) => {
      const context = contextOf(options);
      const progress = new Progress(false, context.isJson);
      const { faults, ...counts } = await verifyStore(context, progress);
      progress.end();
      const said = `indexes ${counts.indexes}, files ${counts.blobs}, packs ${counts.packs}: faults ${faults.length}`;
      const lines = faults.map(({ what, why }) => `${what}: ${why}`);
      print(context.isJson, { ...counts, faults }, [said, ...lines].join("\n"));
      if (faults.length > 0) process.exitCode = ExitCode.failed;
    });
}

interface Fault {
  /** Path of an object, or a file's digest. */
  readonly what: string;
  readonly why: string;
}

export interface Verified {
  indexes: number;
  /** Distinct. */
  blobs: number;
  packs: number;
  readonly faults: Fault[];
}

/** Reads all of a store that can be listed. Throws for a place that is none; what is wrong with it is among the faults. */
export async function verifyStore(
  context: Context,
  progress: ProgressLine = SILENCE,
): Promise<Verified> {
  const listed = await listedStore(context);
  const indexes = await digestsIn(listed, "locators");
  const packs = await digestsIn(listed, "packs");
  const all = `${counted(indexes.length, "index", "indexes")}, ${counted(packs.length, "pack")}`;
  progress.begin(`checking ${context.store}: ${all}`);
  // Of this place alone, wherever else the store lies.
  const options = { tries: 1, origins: NO_MIRRORS };
  const reader = openOrigin(context.store, options);
  const origin = new Origin(context.store, options, PARALLEL);
  const found: Verified = { indexes: 0, blobs: 0, packs: 0, faults: [] };
  const check = async (what: string, work: () => Promise<void>) => {
    try {
      await work();
    } catch (error) {
      found.faults.push({ what, why: explain(error) });
    }
  };
  try {
    const seen = new Set<Digest>();
    for (const { path, digest } of indexes) {
      found.indexes++;
      const where = `index ${found.indexes} of ${indexes.length}`;
      await check(path, async () => {
        const { index, locator } = await readPublished(reader, digest);
        for (let row = 0; row < index.blobCount; row++) {
          const blob = index.blobDigest(row);
          if (seen.has(blob) || locator.kind !== "packs") continue;
          seen.add(blob);
          progress.update(`${where}: ${counted(seen.size, "file")}, faults ${found.faults.length}`);
          await check(showDigest(blob), () => checkBlob(origin, index, row, locator));
        }
      });
    }
    found.blobs = seen.size;
    for (const { path } of packs) {
      found.packs++;
      const where = `pack ${found.packs} of ${packs.length}`;
      progress.update(`${where}: faults ${found.faults.length}`);
      // Read whole, it is compared with its name.
      await check(path, async () => void (await reader.get(path)));
    }
  } finally {
    reader.close();
    origin.close();
  }
  return found;
}

/** What is named by a digest in a folder of the store. */
async function digestsIn(
  store: WritableBackend,
  folder: "locators" | "packs",
): Promise<{ path: string; digest: Digest }[]> {
  const found: { path: string; digest: Digest }[] = [];
  for await (const path of store.list(folder)) {
    const digest = digestOfPath(path);
    if (digest !== undefined) found.push({ path, digest });
  }
  return found;
}

async function readPublished(
  reader: Backend,
  digest: Digest,
): Promise<{ index: Index; locator: Locator }> {
  const index = await readIndex(reader, digest);
  return { index, locator: await readLocator(reader, digest) };
}

/** Reads a file's chunks as the daemon does, each compared with its digest. */
async function checkBlob(
  origin: Origin,
  index: Index,
  row: number,
  locator: Locator,
): Promise<void> {
  const digest = index.blobDigest(row);
  const size = index.blobSize(row);
  const blocks = index.blockCount(row);
  const signal = AbortSignal.timeout(DEADLINE_MS);
  for (let k = 0; size > 0 && k < pieceCount(size); k++) {
    const piece = pieceAt(locator, digest, size, k);
    const [got] = await getPieces(origin, [piece], true, signal);
    openPiece(piece, got!, blocks === 0 ? digest : index.blockDigest(row, k));
  }
}
