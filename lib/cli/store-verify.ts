// burrow store verify: whether all that a store holds can be had and is what its names say: indexes and locators, also those that
// deltas make, packs, and each chunk of each file. Reads only; --repair of the commands that write begins with it. Control plane.

import type { Command } from "commander";
import { type Digest, parseDigest, showDigest } from "../base/digest.ts";
import { BurrowError } from "../base/error.ts";
import { Origin } from "../cache/origins.ts";
import { readLocator } from "../store/known.ts";
import { digestOfPath, objectPath } from "../store/layout.ts";
import { isStore, openOrigin } from "../store/open.ts";
import { NO_MIRRORS } from "../store/origins-file.ts";
import { inParallel } from "../store/parallel.ts";
import type { Backend, WritableBackend } from "../store/store.ts";
import { addListedOptions, type Context, contextOf } from "./context.ts";
import { listedStore } from "./digests.ts";
import { readEnvironment } from "./environment.ts";
import { readFacts } from "./image-facts.ts";
import { counted, ExitCode, Progress, type ProgressLine, print, SILENCE } from "./output.ts";
import { PackCheck, packsOf } from "./pack-check.ts";
import { checkNotes } from "./package-note.ts";
import { readIndex } from "./read-index.ts";
import { type Fault, Faults, showFault } from "./store-faults.ts";
import { layersOf } from "./store-roots.ts";

const HELP = `
Nothing is changed. What is wrong is named with its reason; indexes without a locator that no
environment names are of imports that were cut short, and no fault, nor are packs that nothing leads
to. What is wrong is written again by the command that made it, with --repair.

Examples:
  burrow store verify --store /srv/store
  burrow store verify --json
  burrow env create --repair explicit.txt`;

/** What the option of commands that write says. */
export const REPAIR = "check the store first, and write again what of this is damaged in it";
/** Indexes that are read at once: round trips to a store behind a network. */
const INDEXES = 8;
/** Packs that are held at once: 32 MiB each. */
const PACKS = 4;

export function addStoreVerify(store: Command): void {
  addListedOptions(store.command("verify"))
    .description("check that all of a store can be read and is right; exits 1 when anything is not")
    .addHelpText("after", HELP)
    .action(async (options) => {
      const context = contextOf(options);
      const progress = new Progress(false, context.isJson);
      const { faults, unneeded, damaged, ...counts } = await verifyStore(context, progress);
      progress.end();
      const touched = [...damaged].filter((path) => path.startsWith("locators/"));
      const digests = touched.map((path) => showDigest(digestOfPath(path)!)).sort();
      const said = `indexes ${counts.indexes}, files ${counts.blobs}, packs ${counts.packs}: faults ${faults.length}`;
      const lines = faults.map(showFault);
      if (unneeded.length > 0)
        lines.push(`damaged, and nothing leads to it: ${counted(unneeded.length, "pack")}`);
      if (digests.length > 0)
        lines.push(`layers and snapshots that need what is wrong: ${digests.join(", ")}`);
      print(
        context.isJson,
        { ...counts, faults, unneeded, damaged: digests },
        [said, ...lines].join("\n"),
      );
      if (faults.length > 0) process.exitCode = ExitCode.failed;
    });
}

export interface Verified {
  readonly indexes: number;
  /** Distinct. */
  readonly blobs: number;
  readonly packs: number;
  readonly faults: readonly Fault[];
  /** What is wrong with packs that no locator leads to: of what was repaired, or never published. */
  readonly unneeded: readonly Fault[];
  /** Paths of packs, indexes and locators that are wrong, and of locators that lead to what is. */
  readonly damaged: Set<string>;
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
  // A connection that breaks is no fault of what is stored.
  const options = { tries: 3, origins: NO_MIRRORS };
  const reader = openOrigin(context.store, options);
  const origin = new Origin(context.store, options, INDEXES);
  const faults = new Faults();
  const unneeded = new Faults();
  let isSure = true;
  try {
    const check: PackCheck = new PackCheck(origin, (what, error, files) => {
      const isPack = what.startsWith("packs/");
      (isPack && isSure && !check.needs(what) ? unneeded : faults).add(what, error, files);
    });
    const lacking = new Set<string>();
    let done = 0;
    await inParallel(indexes, INDEXES, async ({ path, digest }) => {
      try {
        const index = await readIndex(reader, digest);
        const locator = await readLocator(reader, digest);
        await readFacts(reader, digest, index).catch((error: unknown) =>
          faults.add(objectPath("images", digest), error),
        );
        if (locator.kind === "packs" && !(await check.add(index, locator))) lacking.add(path);
      } catch (error) {
        // Nobody knows where it leads.
        isSure = false;
        faults.add(path, error);
      }
      const where = `index ${++done} of ${indexes.length}`;
      progress.update(`${where}: ${counted(check.files, "file")}, faults ${faults.size}`);
    });
    await checkEnvironments(listed, reader, new Set(indexes.map(({ digest }) => digest)), faults);
    await checkNotes(listed, (path, error) => faults.add(path, error));
    const named = new Set([...packs.map(({ path }) => path), ...check.packs()]);
    done = 0;
    await inParallel(named, PACKS, async (path) => {
      await check.check(path, reader);
      progress.update(`pack ${++done} of ${named.size}: faults ${faults.size}`);
    });
    const damaged = await damageOf(reader, indexes, faults, lacking);
    // A writer that makes it again must not believe that it is there.
    for (const pack of unneeded.keys()) damaged.add(pack);
    const counts = { indexes: indexes.length, blobs: check.files, packs: packs.length };
    const digests = indexes.map(({ digest }) => digest);
    const lists = await Promise.all([faults, unneeded].map((some) => some.list(reader, digests)));
    return { ...counts, faults: lists[0]!, unneeded: lists[1]!, damaged };
  } finally {
    reader.close();
    origin.close();
  }
}

/** Documents of environments, and that the snapshot of each and its layers are `published`, or have been since. */
export async function checkEnvironments(
  listed: WritableBackend,
  reader: Backend,
  published: ReadonlySet<Digest>,
  faults: Faults,
): Promise<void> {
  for await (const path of listed.list("environments")) {
    const digest = digestOfPath(path);
    if (digest === undefined) continue;
    const missing = new Set<string>();
    let failure: unknown;
    try {
      const named = new Set([digest, ...layersOf(await readEnvironment(reader, digest))]);
      const absent = [...named].filter((each) => !published.has(each));
      await inParallel(absent, INDEXES, async (each) => {
        const locator = objectPath("locators", each);
        if (!(await reader.has(locator))) missing.add(locator);
      });
    } catch (error) {
      failure = error;
    }
    if (failure === undefined && missing.size === 0) continue;
    // One that was removed meanwhile takes along what it names.
    if (!(await reader.has(path).catch(() => true))) continue;
    if (failure !== undefined) faults.add(path, failure);
    const why = `it is missing, and ${path} names it`;
    for (const each of missing) faults.add(each, new BurrowError("BURROW_NOT_FOUND", why));
  }
}

type Named = { readonly path: string; readonly digest: Digest };

/** What a writer must not believe in, by the faults that were found; `lacking`: locators that contradict their indexes. */
async function damageOf(
  reader: Backend,
  indexes: readonly Named[],
  faults: Faults,
  lacking: ReadonlySet<string>,
): Promise<Set<string>> {
  const damaged = new Set<string>();
  if (faults.size === 0) return damaged;
  for (const what of faults.keys()) if (what.startsWith("packs/")) damaged.add(what);
  const wrong = [...faults.keys()].flatMap((what) => parseDigest(what) ?? []);
  await inParallel(indexes, INDEXES, async ({ path, digest }) => {
    if (faults.has(path)) {
      // Which of the two is wrong is not asked: both are soon written again.
      damaged.add(path).add(objectPath("indexes", digest));
      return;
    }
    const locator = await readLocator(reader, digest);
    const isTouched =
      lacking.has(path) ||
      [...packsOf(locator)].some((pack) => faults.has(pack)) ||
      wrong.some((blob) => locator.find(blob) >= 0);
    if (isTouched) damaged.add(path);
  });
  return damaged;
}

/** What of a store a command that was told to repair must write again; nothing of one that isn't there yet. */
export async function findDamage(context: Context, progress: ProgressLine): Promise<Set<string>> {
  const reader = openOrigin(context.store);
  const isThere = await isStore(reader);
  reader.close();
  if (!isThere) return new Set();
  const { damaged, faults } = await verifyStore(context, progress);
  progress.line(faults.length === 0 ? "nothing is damaged" : `faults: ${faults.length}`);
  return damaged;
}

/** What is named by a digest in a folder of the store. */
async function digestsIn(store: WritableBackend, folder: "locators" | "packs"): Promise<Named[]> {
  const found: Named[] = [];
  for await (const path of store.list(folder)) {
    const digest = digestOfPath(path);
    if (digest !== undefined) found.push({ path, digest });
  }
  return found;
}
