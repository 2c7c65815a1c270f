// burrow preload: packages into a store and environments into a node's cache ahead of their use. docs/preload.md. Control plane.

import type { Command } from "commander";
import type { Digest } from "../base/digest.ts";
import { BurrowError } from "../base/error.ts";
import { PRELOAD_MEMORY_BYTES } from "../base/limits.ts";
import { openCache } from "../cache/cache.ts";
import type { ExplicitPackage } from "../ingest/conda/explicit.ts";
import { pythonTarget } from "../ingest/conda/noarch.ts";
import { defaultJobs, WorkerPool } from "../preload/pool.ts";
import { Preloader } from "../preload/preloader.ts";
import type { DeltaStore } from "../store/deltas.ts";
import type { HeldLease } from "../store/garbage.ts";
import { objectPath } from "../store/layout.ts";
import { refuseReadOnly, writingStore } from "../store/open.ts";
import { addCommonOptions, type Context, collect, contextOf } from "./context.ts";
import { findDigest, isDigestLike, isDigestOrFile } from "./digests.ts";
import { checkPrefix, DEFAULT_PREFIX, makeEnvironmentIn } from "./env.ts";
import { checkPython, isFile, isPackage, packagesOf } from "./env-input.ts";
import { checkWheel, isWheel } from "./env-wheel.ts";
import { noteImport } from "./environment.ts";
import { onInterrupt } from "./interrupt.ts";
import { Progress, type ProgressLine, SILENCE } from "./output.ts";
import { findPackage } from "./package-note.ts";
import { Packages } from "./packages.ts";
import { PreloadOutput } from "./preload-output.ts";
import { readProfile } from "./profile-paths.ts";
import { parseSize } from "./query.ts";
import { isDirectory } from "./stage.ts";
import { findDamage, REPAIR } from "./store-verify.ts";
import { warm } from "./warm.ts";
import { checkAllHere } from "./warm-room.ts";

interface PreloadOptions {
  to?: string;
  jobs: string;
  memory?: string;
  prefix: string;
  python?: string;
  packages?: string[];
  channel?: string[];
  warm: boolean;
  profile?: string;
  repair?: boolean;
  quiet?: boolean;
  store?: string;
  json?: boolean;
}

const JOBS_MAX = 256;

const EXAMPLES = `
Each LOCK is an environment, all PACKAGEs together are one more, all SPECs another; a DIGEST is a
snapshot that the store has, to be brought to this node. Wheels (.whl files) are installed in each
environment that is made, as by env create. What is done stays done: after Ctrl-C, a kill or a
failure the same command goes on. Exits 1 when anything failed, after all else was done.

Examples:
  burrow preload explicit.txt other.txt
  burrow preload -c ./channel 'numpy>=1.24' pandas
  burrow preload --no-warm --to /srv/store --jobs 8 locks/*.txt
  burrow preload --no-warm --to s3://packages/store -c s3://packages/channel numpy
  burrow preload --store https://packages.example/store sha256:…
  burrow preload --packages ~/.conda/pkgs explicit.txt
  burrow preload --profile pandas.profile sha256:…`;

/** One environment to be: its packages, and what errors call it. */
interface Wanted {
  readonly source: string;
  readonly items: readonly ExplicitPackage[];
}

export function addPreload(program: Command): void {
  addCommonOptions(program.command("preload"))
    .argument(
      "<source...>",
      "locks, packages (.conda, .tar.bz2), specs, digests of snapshots; wheels beside them",
    )
    .description("bring environments into the store and this node's cache ahead of their use")
    .option("--to <STORE>", "the store to fill, in place of --store: a directory or an s3 URL")
    .option("--jobs <N>", "packages worked at together", String(defaultJobs()))
    .option("--memory <SIZE>", "memory of all jobs together (default 1G)")
    .option("--prefix <DIR>", "where the environments are seen in the sandbox", DEFAULT_PREFIX)
    .option("--python <X.Y>", "Python of noarch packages where a list has no python package")
    .option("-c, --channel <CHANNEL>", "where to solve specs: in priority, repeatable", collect)
    .option(
      "--packages <DIR>",
      "look here for archives first; never written to; repeatable",
      collect,
    )
    .option(
      "--profile <FILE>",
      "bring to this node's cache what its paths name, not all: one a line, as the sandbox sees them or as layer show does",
    )
    .option("--no-warm", "fill the store alone, not this node's cache")
    .option("--repair", REPAIR)
    .option("--quiet", "errors alone")
    .addHelpText("after", EXAMPLES)
    .action(async (sources: string[], options: PreloadOptions) => {
      if (options.to !== undefined && options.store !== undefined)
        throw new BurrowError("BURROW_USAGE", "--to takes the place of --store: give one of them");
      const store = options.to ?? options.store;
      const context = contextOf({ ...options, ...(store === undefined ? {} : { store }) });
      process.exitCode = await preload(context, sources, options);
    });
}

/** Tells digests: where specs can be meant those with sha256: alone. */
function digestTest({ channel }: PreloadOptions): (text: string) => boolean {
  return channel === undefined ? isDigestOrFile : isDigestLike;
}

function jobsOf(text: string): number {
  const jobs = /^\d{1,4}$/.test(text) ? Number(text) : 0;
  if (jobs >= 1 && jobs <= JOBS_MAX) return jobs;
  throw new BurrowError("BURROW_USAGE", `--jobs: "${text}" is no number from 1 to ${JOBS_MAX}`);
}

/** Does all that can be done: the exit code. */
async function preload(
  context: Context,
  sources: readonly string[],
  options: PreloadOptions,
): Promise<number> {
  const jobs = jobsOf(options.jobs);
  const memoryBytes =
    options.memory === undefined ? PRELOAD_MEMORY_BYTES : parseSize(options.memory, "--memory");
  const isDigest = digestTest(options);
  const wheels = sources.filter(isWheel);
  for (const wheel of wheels) checkWheel(wheel);
  if (wheels.length > 0 && sources.every((text) => isWheel(text) || isDigest(text)))
    throw new BurrowError("BURROW_USAGE", `${wheels[0]} needs a lock or packages to lie beside`);
  const prefix = checkPrefix(options.prefix);
  if (options.python !== undefined) pythonTarget(options.python);
  if (sources.some((text) => !isDigest(text))) refuseReadOnly(context.store);
  if (options.repair === true && sources.every(isDigest))
    throw new BurrowError("BURROW_USAGE", "--repair needs packages or a lock to write again from");
  if (!options.warm && options.profile !== undefined)
    throw new BurrowError(
      "BURROW_USAGE",
      "--profile says what to warm, and --no-warm to warm nothing",
    );
  const paths = options.profile === undefined ? undefined : await readProfile(options.profile);
  const output = new PreloadOutput({
    isJson: context.isJson,
    isQuiet: options.quiet === true,
    screen: process.stderr.isTTY ? process.stderr : undefined,
  });
  for (const folder of options.packages ?? [])
    if (!isDirectory(folder)) output.note(`--packages: ${folder} is no directory: passed over`);
  const stopWatching = onInterrupt(() => output.interrupted());
  try {
    const digests = await digestsOf(context, sources.filter(isDigest), output);
    const others = sources.filter((text) => !isDigest(text) && !isWheel(text));
    const wanted = await listsOf(context, others, options, output);
    output.begin(
      wanted.reduce((sum, { items }) => sum + items.length, 0),
      jobs,
    );
    if (wanted.length > 0) {
      const target = { prefix, jobs, memoryBytes, wheels };
      digests.push(...(await loadAll(context, wanted, { ...options, ...target }, output)));
    }
    if (options.warm) await warmAll(context, new Set(digests), paths, output);
    output.end();
  } finally {
    stopWatching();
  }
  return output.exitCode;
}

/** Snapshots that were named. */
async function digestsOf(
  context: Context,
  sources: readonly string[],
  output: PreloadOutput,
): Promise<Digest[]> {
  const digests: Digest[] = [];
  for (const text of sources) {
    try {
      digests.push(await findDigest(context, text));
    } catch (error) {
      output.fail(error, { what: text });
    }
  }
  return digests;
}

/** An environment for each lock, one for all packages that were named themselves, and one for all specs. */
async function listsOf(
  context: Context,
  others: readonly string[],
  { channel, quiet, python }: PreloadOptions,
  output: PreloadOutput,
): Promise<Wanted[]> {
  const progress = new Progress(quiet === true, context.isJson);
  const packages = others.filter(isPackage);
  const specs = others.filter((text) => !isPackage(text) && !isFile(text));
  const locks = others.filter((text) => !isPackage(text) && isFile(text));
  const groups = [...locks.map((text) => [text]), packages, specs].filter(
    ({ length }) => length > 0,
  );
  const wanted: Wanted[] = [];
  for (const group of groups) {
    const source = group === packages ? "packages" : group.join(" ");
    const isSolved = group === specs && channel !== undefined;
    try {
      const items = await packagesOf(group, isSolved ? { channel } : {}, context.cache, progress);
      if (items.length === 0)
        throw new BurrowError("BURROW_BAD_LOCK", "the lock names no packages");
      checkPython(items, python);
      wanted.push({ source, items });
    } catch (error) {
      output.fail(error, { what: source });
    }
  }
  progress.end();
  return wanted;
}

interface LoadOptions {
  readonly prefix: string;
  readonly jobs: number;
  readonly memoryBytes: number;
  readonly python?: string;
  readonly packages?: readonly string[];
  readonly repair?: boolean;
  /** Put above the packages of each. */
  readonly wheels: readonly string[];
}

/** The snapshots of those environments that are whole. */
async function loadAll(
  context: Context,
  wanted: readonly Wanted[],
  options: LoadOptions,
  output: PreloadOutput,
): Promise<Digest[]> {
  const progress = { ...SILENCE, line: (text: string) => output.note(text) };
  const damaged = options.repair ? await findDamage(context, progress) : new Set<string>();
  const work = (store: DeltaStore, held: HeldLease) =>
    loadInto(store, context, wanted, { ...options, damaged, held, progress }, output);
  return await writingStore(context.store, "preload", work, damaged);
}

interface LoadWork extends LoadOptions {
  /** What is to be written again (openStore). */
  readonly damaged: Set<string>;
  /** Of the store. */
  readonly held: HeldLease;
  readonly progress: ProgressLine;
}

async function loadInto(
  store: DeltaStore,
  context: Context,
  wanted: readonly Wanted[],
  options: LoadWork,
  output: PreloadOutput,
): Promise<Digest[]> {
  const { prefix, jobs, memoryBytes, python, damaged, held, progress } = options;
  const packages = new Packages(context.cache, options.packages ?? []);
  const pool = new WorkerPool({ origin: context.store, damaged, held, jobs, memoryBytes });
  const preloader = new Preloader(
    {
      pool,
      find: (key) => findPackage(store, key),
      note: async (key, layer, facts) => {
        // A worker has written it.
        for (const folder of ["indexes", "locators"] as const)
          damaged.delete(objectPath(folder, layer));
        await noteImport(store, key, layer, facts);
      },
      fetch: (item, onBytes) => packages.fetch(item, onBytes),
      release: (archive, isWrong) => packages.release(archive, isWrong),
      onEvent: (event) => output.take(event),
    },
    jobs,
  );
  const pythonVersion = python === undefined ? {} : { pythonVersion: python };
  let done: (ExplicitPackage[] | undefined)[];
  try {
    done = await Promise.all(
      wanted.map(({ items }) => preloader.load({ items, prefix, ...pythonVersion })),
    );
  } finally {
    await pool.close();
  }
  const digests: Digest[] = [];
  // All layers are there: what is left is merging, one after the other for the sake of memory.
  for (const [i, items] of done.entries()) {
    const { source } = wanted[i]!;
    if (items === undefined) continue;
    try {
      const making = {
        prefix,
        wheels: options.wheels,
        ...(python === undefined ? {} : { python }),
      };
      const { snapshot } = await makeEnvironmentIn(store, items, making, progress);
      output.environment(source, snapshot);
      digests.push(snapshot);
    } catch (error) {
      output.fail(error, { what: source });
    }
  }
  return digests;
}

async function warmAll(
  context: Context,
  digests: ReadonlySet<Digest>,
  paths: readonly string[] | undefined,
  output: PreloadOutput,
): Promise<void> {
  const together = new Map<Digest, number>();
  const fail = (error: unknown) => output.fail(error, { what: `can't warm ${context.cache}` });
  for (const digest of digests) {
    try {
      const onBytes = (done: number, whole: number) => output.warming(digest, done, whole);
      output.warmed(digest, await warm(context, digest, paths, together, onBytes));
    } catch (error) {
      fail(error);
    }
  }
  // What came last may have had others go.
  if (together.size > 0) await checkAllHere(openCache(context.cache), together).catch(fail);
}
