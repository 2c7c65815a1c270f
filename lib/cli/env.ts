// burrow env create | show | ls: conda environments as snapshots of a store, made of packages given explicitly. Control plane.

import { lstatSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { pathToFileURL } from "node:url";
import type { Command } from "commander";
import { type Digest, parseDigest, showDigest } from "../base/digest.ts";
import { BurrowError } from "../base/error.ts";
import { nameOfArchive } from "../ingest/conda/dist.ts";
import {
  type Clobber,
  findClobbers,
  type ImportedEnvironment,
  importEnvironment,
  keyWithoutPrefix,
  type Link,
  type PackageFacts,
} from "../ingest/conda/environment.ts";
import { type ExplicitPackage, formatExplicit } from "../ingest/conda/explicit.ts";
import { pythonTarget } from "../ingest/conda/noarch.ts";
import { type PackageEntries, throughLinks } from "../ingest/conda/prefix-tree.ts";
import { plainUrl } from "../ingest/conda/record.ts";
import { noteMade, openNear } from "../ingest/near-index.ts";
import { entriesOf } from "../layer/entries.ts";
import type { Index } from "../layer/index.ts";
import { layerOf, mergeIndexes } from "../layer/merge.ts";
import { startFiles } from "../preload/start-files.ts";
import { finishLayer } from "../preload/start-order.ts";
import type { DeltaStore } from "../store/deltas.ts";
import { KnownBlobs } from "../store/known.ts";
import { openOrigin, refuseReadOnly, writingStore } from "../store/open.ts";
import { openPackWriter } from "../store/pack-writer.ts";
import { hasEnded, ownOwner } from "../sys/owner.ts";
import { addCommonOptions, addListedOptions, type Context, collect, contextOf } from "./context.ts";
import { findDigest, listedStore } from "./digests.ts";
import { download } from "./download.ts";
import { checkPython, type InputOptions, packagesOf } from "./env-input.ts";
import { isPrefix, rootOfPrefix } from "./env-root.ts";
import { checkWheel, importWheels, isWheel } from "./env-wheel.ts";
import {
  ENVIRONMENT_FORMAT,
  type Environment,
  noteImport,
  readEnvironment,
} from "./environment.ts";
import { onInterrupt } from "./interrupt.ts";
import {
  checkWritable,
  counted,
  Progress,
  type ProgressLine,
  print,
  showBytes,
  table,
  writeText,
} from "./output.ts";
import { findPackage } from "./package-note.ts";
import { publishEnvironment } from "./package-profiles.ts";
import { readIndex } from "./read-index.ts";
import { findDamage, REPAIR } from "./store-verify.ts";

export const DEFAULT_PREFIX = "/opt/env";

interface CreateOptions extends InputOptions {
  prefix?: string;
  python?: string;
  lock?: string;
  quiet?: boolean;
  repair?: boolean;
}

const EXAMPLES = `
INPUT is a lock (@EXPLICIT list, conda-lock.yml, pixi.lock), an environment.yml, packages (.conda
and .tar.bz2 files or URLs), or specs to solve with --channel: a directory, a URL (http, https, s3)
or a name. The first channel that has a package wins. Wheels (.whl files) beside any of these are
installed for the environment's Python as by pip --no-deps. Packages that the store has are not read
again. The same packages, prefix and Python give the same digest.

Examples:
  burrow env create explicit.txt
  burrow env create --channel ./channel --lock explicit.txt 'numpy>=1.24' pandas
  burrow env create --channel s3://bucket/channel --store s3://bucket/store numpy
  burrow env create environment.yml
  burrow env create explicit.txt ./demo-1.0-py3-none-any.whl
  burrow env create --prefix /opt/conda numpy-1.24.2-py311_0.conda https://…/six-1.16.0-pyh6c4a22f_0.tar.bz2`;

/** The command "env", for others to add theirs to. */
export function addEnv(program: Command): Command {
  const env = program.command("env").description("make and inspect conda environments");
  addListedOptions(env.command("create"))
    .argument("<input...>", "a lock, an environment.yml, packages in their order, or specs")
    .description("turn packages into a snapshot of the store; print its digest")
    .option("-c, --channel <CHANNEL>", "where to solve specs: in priority, repeatable", collect)
    .option("--lock <FILE>", "write the packages as an @EXPLICIT list with sha256")
    .option("--environment <NAME>", "which environment of a pixi.lock (default: default)")
    .option("--prefix <DIR>", "where the environment is seen in the sandbox", DEFAULT_PREFIX)
    .option("--python <X.Y>", "Python of noarch packages when the list has no python package")
    .option("--repair", REPAIR)
    .option("--quiet", "no progress")
    .addHelpText("after", EXAMPLES)
    .action(async (locks: string[], options: CreateOptions & { json?: boolean }) => {
      const context = contextOf(options);
      const progress = new Progress(options.quiet === true, context.isJson);
      const made = await createEnvironment(context, locks, options, progress);
      print(
        context.isJson,
        { ...made, snapshot: showDigest(made.snapshot) },
        showDigest(made.snapshot),
      );
    });
  addCommonOptions(env.command("show"))
    .argument("<snapshot>", "digest that env create printed, or its first digits")
    .description("list the packages of an environment")
    .addHelpText("after", "\nExample:\n  burrow env show sha256:… --json")
    .action(async (text: string, options) => {
      await showEnvironment(contextOf(options), text);
    });
  addListedOptions(env.command("ls"))
    .description("list the environments of the store")
    .addHelpText("after", "\nExample:\n  burrow env ls --store /srv/store")
    .action(async (options) => {
      await listEnvironments(contextOf(options));
    });
  return env;
}

/** A prefix without a slash at its end. BURROW_USAGE. */
export function checkPrefix(text: string): string {
  const prefix = text.replace(/\/+$/, "");
  if (isPrefix(prefix)) return prefix;
  throw new BurrowError("BURROW_USAGE", `--prefix: "${text}" is no absolute path below /`);
}

export async function createEnvironment(
  context: Context,
  locks: string | readonly string[],
  options: CreateOptions,
  progress: Progress,
): Promise<{ snapshot: Digest; environment: Environment }> {
  checkCreate(context, options);
  // One text is a file, as --env of a run means it, and not a spec that happens to have no slash.
  const fileOf = (text: string) => (text.includes("/") ? text : `./${text}`);
  const words = typeof locks === "string" ? [fileOf(locks)] : locks;
  const wheels = words.filter(isWheel);
  for (const file of wheels) checkWheel(file);
  const others = words.filter((word) => !isWheel(word));
  if (others.length === 0) {
    const what = `${wheels[0]} alone is no environment: give a lock, packages or specs with a Python, too`;
    throw new BurrowError("BURROW_USAGE", what);
  }
  const items = await packagesOf(others, options, context.cache, progress);
  checkPython(items, options.python);
  const damaged = options.repair ? await findDamage(context, progress) : new Set<string>();
  return await makeEnvironment(context, items, { ...options, wheels, damaged }, progress);
}

/** What needs no package to be known as wrong. BURROW_USAGE, BURROW_UNSUPPORTED. */
function checkCreate(context: Context, { prefix, python, lock }: CreateOptions): void {
  checkPrefix(prefix ?? DEFAULT_PREFIX);
  if (python !== undefined) pythonTarget(python);
  refuseReadOnly(context.store);
  if (lock !== undefined) checkWritable(lock, "--lock");
}

interface MakeOptions extends CreateOptions {
  /** Files, put above the packages in their order. */
  readonly wheels?: readonly string[];
  /** What of the store is to be written again (openStore). */
  readonly damaged?: Set<string>;
}

interface Made {
  readonly snapshot: Digest;
  readonly environment: Environment;
}

/** An environment of packages in their order. */
export async function makeEnvironment(
  context: Context,
  items: readonly ExplicitPackage[],
  options: MakeOptions,
  progress: ProgressLine,
): Promise<Made> {
  if (items.length === 0) throw new BurrowError("BURROW_BAD_LOCK", "the lock names no packages");
  checkPrefix(options.prefix ?? DEFAULT_PREFIX);
  return await writingStore(
    context.store,
    "env create",
    (store) => makeEnvironmentIn(store, items, options, progress),
    options.damaged,
  );
}

/** The same under a lease that is held: what the work before it has found or made is there yet. */
export async function makeEnvironmentIn(
  store: DeltaStore,
  items: readonly ExplicitPackage[],
  options: MakeOptions,
  progress: ProgressLine,
): Promise<Made> {
  const prefix = checkPrefix(options.prefix ?? DEFAULT_PREFIX);
  const known = await KnownBlobs.load(store);
  const imported = await importPackages(store, known, items, prefix, options.python, progress);
  const { python } = imported;
  const names = imported.packages.map(({ facts }) => facts.name);
  const place = { prefix, python, packages: names };
  const wheels = await importWheels(store, known, options.wheels ?? [], place, progress);
  const parts: Part[] = [
    ...imported.packages.map(({ facts, layer }) => {
      return { name: distName(facts), sha256: facts.sha256, layer };
    }),
    ...wheels.map(({ url, sha256, layer }) => {
      return { name: nameOfArchive(url), sha256, layer: parseDigest(layer)! };
    }),
  ];
  const { snapshot, clobbers } = await mergeParts(store, known, parts, prefix, progress);
  const environment: Environment = {
    format: ENVIRONMENT_FORMAT,
    prefix,
    python: python?.version ?? null,
    packages: imported.packages.map(({ item, facts, layer }) => {
      const { name, version, build, subdir, sha256 } = facts;
      const ids = { name, version, build, subdir };
      return { ...ids, url: urlOf(item), sha256, layer: showDigest(layer) };
    }),
    ...(wheels.length === 0 ? {} : { wheels }),
    clobbers,
  };
  await publishEnvironment(store, snapshot, environment, progress);
  if (options.lock !== undefined) {
    writeText(options.lock, lockOf(imported));
    if (wheels.length > 0)
      progress.line(`${options.lock} has the conda packages alone: give the wheels again with it`);
  }
  progress.end();
  return { snapshot, environment };
}

/** A layer of an environment. */
interface Part {
  readonly name: string;
  /** Of its archive. */
  readonly sha256: string;
  readonly layer: Digest;
}

/** Publishes the snapshot of layers laid into one prefix, the last uppermost. */
async function mergeParts(
  store: DeltaStore,
  known: KnownBlobs,
  parts: readonly Part[],
  prefix: string,
  progress: ProgressLine,
): Promise<{ snapshot: Digest; clobbers: Clobber[] }> {
  const packages: (PackageEntries & { readonly index: Index })[] = [];
  for (const { name, layer } of parts) {
    const index = await readIndex(store, layer);
    packages.push({ name, entries: [...entriesOf(index)], index });
  }
  const stack = throughLinks(packages, prefix);
  const clobbers = findClobbers(stack);
  for (const { path, winner, losers, isSame } of clobbers) {
    if (!isSame) progress.line(`${path} of ${losers.join(", ")} gives way to that of ${winner}`);
  }
  const nearKey = ["environment", ...parts.map(({ sha256 }) => sha256)];
  const near = await openNear(store, nearKey);
  const writer = await openPackWriter(store, { known, near });
  const indexes = stack.map(({ index, entries }, i) =>
    entries === packages[i]!.entries ? index : layerOf(entries),
  );
  const bytes = mergeIndexes([...indexes, layerOf([rootOfPrefix(prefix)])]);
  const layers = parts.map(({ layer }) => layer);
  const { digest: snapshot } = await writer.writeSnapshot(bytes, layers, startFiles(bytes));
  await noteMade(store, nearKey, near, snapshot);
  return { snapshot, clobbers };
}

/** Where a package came from: a file by its path, a URL without secrets. */
function urlOf({ path, url }: ExplicitPackage): string {
  return path === undefined ? plainUrl(url) : pathToFileURL(path).href;
}

/** An @EXPLICIT list of what was imported: files by their paths, URLs without secrets, as conda writes them. */
function lockOf({ packages }: ImportedEnvironment<Digest>): string {
  const lines = packages.map(({ item, facts }) => ({
    url: urlOf(item),
    sha256: facts.sha256,
  }));
  return formatExplicit(lines, ["platform: linux-64"]);
}

function distName({ name, version, build }: PackageFacts): string {
  return `${name}-${version}-${build}`;
}

/** Folders of downloads: SCRATCH, OWNER, "@" and something of mkdtemp's. */
const SCRATCH = "burrow-packages-";

/** Removes the downloads of commands that were killed. Only what is ours: others may write beside it. */
function sweepScratch(): void {
  for (const name of readdirSync(tmpdir())) {
    if (!name.startsWith(SCRATCH) || !hasEnded(name.slice(SCRATCH.length).split("@")[0]!)) continue;
    const path = join(tmpdir(), name);
    const facts = lstatSync(path, { throwIfNoEntry: false });
    if (!facts?.isDirectory() || facts.uid !== process.geteuid?.()) continue;
    rmSync(path, { recursive: true, force: true });
  }
}

/** A layer of the store for each package; downloads are gone when their package is done, or on Ctrl-C. */
async function importPackages(
  store: DeltaStore,
  known: KnownBlobs,
  items: readonly ExplicitPackage[],
  prefix: string,
  pythonVersion: string | undefined,
  progress: ProgressLine,
): Promise<ImportedEnvironment<Digest>> {
  sweepScratch();
  const scratch = mkdtempSync(join(tmpdir(), `${SCRATCH}${ownOwner()}@`));
  const clean = () => rmSync(scratch, { recursive: true, force: true });
  const stopWatching = onInterrupt(clean);
  const labelOf = (item: ExplicitPackage) =>
    `[${items.indexOf(item) + 1}/${items.length}] ${basename(item.url)}`;
  try {
    return await importEnvironment<Digest>(items, {
      prefix,
      ...(pythonVersion === undefined ? {} : { pythonVersion }),
      fetch: async (item) => {
        const onBytes = (bytes: number) => progress.update(`${labelOf(item)}: ${showBytes(bytes)}`);
        const size = item.size === undefined ? {} : { size: item.size };
        return item.path ?? (await download(item.url, scratch, { onBytes, ...size }));
      },
      release: (item, path) => {
        if (item.path === undefined) rmSync(path, { force: true });
      },
      find: (key) => findPackage(store, key),
      makeLayer: (key, item, link) =>
        makeLayer(store, known, key, link, (text) => progress.update(`${labelOf(item)}: ${text}`)),
      onPackage: ({ item, isNew, warnings }) => {
        if (isNew) progress.line(labelOf(item));
        for (const warning of warnings) progress.line(`  ${warning}`);
      },
    });
  } finally {
    stopWatching();
    clean();
  }
}

async function makeLayer(
  store: DeltaStore,
  known: KnownBlobs,
  key: readonly string[],
  link: Link,
  onProgress: (text: string) => void,
): Promise<Digest> {
  const nearKey = keyWithoutPrefix(key);
  const near = await openNear(store, nearKey);
  const writer = await openPackWriter(store, { known, near });
  const { counts } = writer;
  const { entries, facts } = await link(writer, () =>
    onProgress(`${counted(counts.blobs, "file")}, ${showBytes(counts.contentBytes)}`),
  );
  const { digest } = await finishLayer(writer, entries);
  await noteMade(store, nearKey, near, digest);
  await noteImport(store, key, digest, facts);
  return digest;
}

async function showEnvironment(context: Context, text: string): Promise<void> {
  const snapshot = await findDigest(context, text);
  const environment = await readEnvironment(openOrigin(context.store), snapshot);
  const rows = environment.packages.map(({ name, version, build, layer }) => [
    name,
    version,
    build,
    layer.slice(0, 19),
  ]);
  for (const { name, version, layer } of environment.wheels ?? [])
    rows.push([name, version, "wheel", layer.slice(0, 19)]);
  const { prefix, python, compiled, kept = [] } = environment;
  const from =
    compiled && `, compiled from ${compiled.from.slice(0, 19)} on ${compiled.base.slice(0, 19)}`;
  const last = kept.at(-1);
  const changed = last && `, kept of sandboxes that changed ${last.from.slice(0, 19)}`;
  const head = `prefix ${prefix}, Python ${python ?? "none"}, ${counted(rows.length, "package")}${from ?? ""}${changed ?? ""}`;
  print(
    context.isJson,
    { snapshot: showDigest(snapshot), ...environment },
    `${head}\n${table(rows)}`,
  );
}

interface ListedEnvironment {
  readonly snapshot: string;
  readonly prefix: string;
  readonly python: string | null;
  /** Snapshot of the environment that env compile made it of. */
  readonly compiledFrom: string | null;
  readonly packages: readonly string[];
}

async function listEnvironments(context: Context): Promise<void> {
  const store = await listedStore(context);
  const rows: ListedEnvironment[] = [];
  for await (const path of store.list("environments")) {
    const digest = parseDigest(basename(path));
    if (digest === undefined) continue;
    const environment = await readEnvironment(store, digest);
    const { prefix, python, packages, wheels = [], compiled } = environment;
    const names = [...packages, ...wheels].map(({ name, version }) => `${name}-${version}`);
    const compiledFrom = compiled?.from ?? null;
    rows.push({ snapshot: showDigest(digest), prefix, python, compiledFrom, packages: names });
  }
  const cells = rows.map(({ snapshot, prefix, python, compiledFrom, packages }) => [
    snapshot,
    prefix,
    python ?? "none",
    compiledFrom?.slice(0, 19) ?? "",
    String(packages.length),
    shorten(packages.toReversed().join(" ")),
  ]);
  const head = ["snapshot", "prefix", "Python", "compiled from", "packages", "the last first"];
  print(context.isJson, rows, table([head, ...cells]));
}

/** A taste of a long list: the last packages of a lock are those that the others were installed for. */
function shorten(text: string): string {
  return text.length <= 40 ? text : `${text.slice(0, 39)}…`;
}
