// burrow env create | show: conda environments as snapshots of a store, made of packages given explicitly. Control plane.

import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, dirname, join, resolve } from "node:path";
import type { Command } from "commander";
import { type Digest, parseDigest, showDigest } from "../base/digest.ts";
import { BurrowError } from "../base/error.ts";
import { nameOf, showName } from "../base/name.ts";
import { type ExplicitPackage, parseExplicit, pythonVersionOf } from "../ingest/conda/explicit.ts";
import { checkArchive, importCondaPackage } from "../ingest/conda/import.ts";
import { IndexKind } from "../layer/format.ts";
import { entriesOf, mergeLayers } from "../layer/merge.ts";
import { writeIndex } from "../layer/writer.ts";
import { KnownBlobs } from "../store/known.ts";
import { openOrigin, openStore } from "../store/open.ts";
import { openPackWriter } from "../store/pack-writer.ts";
import type { WritableBackend } from "../store/store.ts";
import { addCommonOptions, type Context, contextOf } from "./context.ts";
import { download } from "./download.ts";
import {
  ENVIRONMENT_FORMAT,
  type Environment,
  type EnvironmentPackage,
  findImport,
  noteImport,
  readEnvironment,
  writeEnvironment,
} from "./environment.ts";
import { onInterrupt } from "./interrupt.ts";
import { digestArgument, readIndex } from "./layer.ts";
import { Progress, print, showBytes, table } from "./output.ts";

const DEFAULT_PREFIX = "/opt/env";
/** Part of the key of every imported package: change it when the same package becomes another layer. */
const LINK_VERSION = "1";

interface CreateOptions {
  prefix?: string;
  python?: string;
  quiet?: boolean;
}

const EXAMPLES = `
LOCK is an @EXPLICIT list (conda list --explicit --sha256), or packages: .conda and .tar.bz2 files or URLs.
Packages that the store has are not read again. The same packages, prefix and Python give the same digest.

Examples:
  burrow env create explicit.txt
  burrow env create --prefix /opt/conda numpy-1.24.2-py311_0.conda https://…/six-1.16.0-pyh6c4a22f_0.tar.bz2`;

export function addEnv(program: Command): void {
  const env = program.command("env").description("make and inspect conda environments");
  addCommonOptions(env.command("create"))
    .argument("<lock...>", "an @EXPLICIT list, or packages in their order")
    .description("turn packages into a snapshot of the store; print its digest")
    .option("--prefix <DIR>", "where the environment is seen in the sandbox", DEFAULT_PREFIX)
    .option("--python <X.Y>", "Python of noarch packages when the list has no python package")
    .option("--quiet", "no progress")
    .addHelpText("after", EXAMPLES)
    .action(async (locks: string[], options: CreateOptions & { json?: boolean }) => {
      const context = contextOf(options);
      const progress = new Progress(options.quiet === true);
      const made = await createEnvironment(context, locks, options, progress);
      print(
        context.isJson,
        { ...made, snapshot: showDigest(made.snapshot) },
        showDigest(made.snapshot),
      );
    });
  addCommonOptions(env.command("show"))
    .argument("<snapshot>", "digest that env create printed")
    .description("list the packages of an environment")
    .addHelpText("after", "\nExample:\n  burrow env show sha256:… --json")
    .action(async (text: string, options) => {
      await showEnvironment(contextOf(options), text);
    });
}

/** The packages that the arguments name: one lock, or package files and URLs themselves. */
function packagesOf(locks: readonly string[]): ExplicitPackage[] {
  const isPackage = (text: string) => /\.(conda|tar\.bz2)(#.*)?$/.test(text);
  if (locks.every(isPackage)) return parseExplicit(`@EXPLICIT\n${locks.join("\n")}`, "arguments");
  const [path, ...others] = locks;
  if (others.length > 0) {
    throw new BurrowError(
      "BURROW_USAGE",
      "give one lock, or packages (.conda, .tar.bz2), not both",
    );
  }
  let text: string;
  try {
    text = readFileSync(path!, "utf8");
  } catch (cause) {
    throw new BurrowError("BURROW_NOT_FOUND", `can't read the lock ${path}`, { cause });
  }
  const folder = dirname(resolve(path!));
  return parseExplicit(text, path!).map((item) =>
    item.path === undefined ? item : { ...item, path: resolve(folder, item.path) },
  );
}

function checkPrefix(prefix: string): string {
  const isClean =
    /^(\/[^/\0]+)+$/.test(prefix) &&
    !prefix.split("/").some((name) => name === "." || name === "..");
  if (isClean) return prefix;
  throw new BurrowError("BURROW_USAGE", `--prefix: "${prefix}" is no absolute path`);
}

export async function createEnvironment(
  context: Context,
  locks: string | readonly string[],
  options: CreateOptions,
  progress: Progress,
): Promise<{ snapshot: Digest; environment: Environment }> {
  const items = packagesOf(typeof locks === "string" ? [locks] : locks);
  if (items.length === 0) throw new BurrowError("BURROW_BAD_LOCK", "the lock names no packages");
  const prefix = checkPrefix(options.prefix ?? DEFAULT_PREFIX);
  const python = options.python ?? pythonVersionOf(items);
  const store = await openStore(context.store);
  const known = await KnownBlobs.load(store);
  const packages: EnvironmentPackage[] = [];
  for (const [i, item] of items.entries()) {
    const label = `[${i + 1}/${items.length}] ${basename(item.url)}`;
    progress.update(label);
    packages.push(await importItem(store, known, item, { prefix, python }, label, progress));
  }
  const layers = packages.map((each) => parseDigest(each.layer)!);
  const stack = [];
  for (const layer of layers)
    stack.push({ entries: [...entriesOf(await readIndex(store, layer))], at: "" });
  const names = packages.map((each) => `${each.name}-${each.version}-${each.build}`);
  const clobbers = findClobbers(
    stack.map(({ entries }) => entries),
    names,
  );
  for (const { path, winner, losers } of clobbers) {
    progress.line(`both ${losers.join(", ")} and ${winner} have ${path}: the latter's is served`);
  }
  const writer = await openPackWriter(store, { known });
  const index = writeIndex(IndexKind.snapshot, mergeLayers(stack));
  const { digest: snapshot } = await writer.writeSnapshot(index, layers);
  const environment: Environment = {
    format: ENVIRONMENT_FORMAT,
    prefix,
    python: python ?? null,
    packages,
    clobbers,
  };
  await writeEnvironment(store, snapshot, environment);
  progress.end();
  return { snapshot, environment };
}

type Target = { prefix: string; python: string | undefined };
type Facts = Omit<EnvironmentPackage, "layer" | "url">;

/** One package's layer: from the store when it has been imported for this prefix and Python before. */
async function importItem(
  store: WritableBackend,
  known: KnownBlobs,
  item: ExplicitPackage,
  target: Target,
  label: string,
  progress: Progress,
): Promise<EnvironmentPackage> {
  const keyOf = (sha256: string) => [
    "conda",
    LINK_VERSION,
    sha256,
    target.prefix,
    target.python ?? "",
  ];
  const early =
    item.sha256 === undefined ? undefined : await findImport<Facts>(store, keyOf(item.sha256));
  if (early !== undefined) return { ...early.facts, url: item.url, layer: showDigest(early.layer) };
  const scratch = item.path === undefined ? mkdtempSync(join(tmpdir(), "burrow-package-")) : "";
  const clean = () => {
    if (scratch !== "") rmSync(scratch, { recursive: true, force: true });
  };
  const stopWatching = onInterrupt(clean);
  try {
    const onBytes = (bytes: number) => progress.update(`${label}: ${showBytes(bytes)}`);
    const path = item.path ?? (await download(item.url, scratch, { onBytes }));
    const { sha256 } = await checkArchive(path, item);
    const key = keyOf(sha256);
    const late = await findImport<Facts>(store, key);
    if (late !== undefined) return { ...late.facts, url: item.url, layer: showDigest(late.layer) };
    const writer = await openPackWriter(store, { known });
    const { entries, metadata } = await importCondaPackage(path, {
      prefix: target.prefix,
      ...(target.python === undefined ? {} : { pythonVersion: target.python }),
      sink: writer,
      url: item.url,
      sha256,
      onEntry: () =>
        progress.update(
          `${label}: ${writer.counts.blobs} files, ${showBytes(writer.counts.contentBytes)}`,
        ),
    });
    const { digest } = await writer.finish(writeIndex(IndexKind.layer, entries));
    const { name, version, build, subdir } = metadata;
    const facts: Facts = { name, version, build, subdir, sha256 };
    await noteImport(store, key, digest, facts);
    const { contentBytes, storedBytes } = writer.counts;
    progress.line(
      `${label}: ${entries.length} entries, ${showBytes(contentBytes)} in ${showBytes(storedBytes)}`,
    );
    return { ...facts, url: item.url, layer: showDigest(digest) };
  } finally {
    stopWatching();
    clean();
  }
}

/** Paths (no directories) that several packages have, with the last as winner: conda's rule for what is linked later. */
function findClobbers(
  stack: readonly (readonly { path: string; type: string }[])[],
  names: readonly string[],
): Environment["clobbers"] {
  const owners = new Map<string, string[]>();
  for (const [i, entries] of stack.entries()) {
    for (const { path, type } of entries) {
      if (type === "directory") continue;
      const known = owners.get(path);
      if (known === undefined) owners.set(path, [names[i]!]);
      else known.push(names[i]!);
    }
  }
  return [...owners]
    .filter(([, all]) => all.length > 1)
    .map(([path, all]) => ({ path: showName(path), winner: all.at(-1)!, losers: all.slice(0, -1) }))
    .sort((a, b) => (nameOf(a.path) < nameOf(b.path) ? -1 : 1));
}

async function showEnvironment(context: Context, text: string): Promise<void> {
  const snapshot = digestArgument(text);
  const environment = await readEnvironment(openOrigin(context.store), snapshot);
  const rows = environment.packages.map(({ name, version, build, layer }) => [
    name,
    version,
    build,
    layer.slice(0, 19),
  ]);
  const head = `prefix ${environment.prefix}, Python ${environment.python ?? "none"}, ${rows.length} packages`;
  print(context.isJson, { snapshot: text, ...environment }, `${head}\n${table(rows)}`);
}
