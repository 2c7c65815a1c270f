// A list of packages to one layer each: the order, the Python, what is known already and which paths clash. How layers are kept
// is the caller's; activate.d, post-link and the like are linked and not run. docs/conda.md. Control plane.

import { BurrowError } from "../../base/error.ts";
import { showName } from "../../base/name.ts";
import type { LayerEntry } from "../../layer/entry.ts";
import type { BlobSink } from "../../store/blob-sink.ts";
import { plainPath } from "../entry-tree.ts";
import { readCondaArchive } from "./archive.ts";
import { wholeMetadata } from "./content.ts";
import { distOf, nameOfArchive } from "./dist.ts";
import { badPackage } from "./errors.ts";
import type { ExplicitPackage } from "./explicit.ts";
import { type ImportedPackage, importCondaPackage } from "./import.ts";
import { readIndexJson } from "./metadata.ts";
import { type PythonTarget, pythonTarget } from "./noarch.ts";
import { plainUrl } from "./record.ts";
import { checkArchive, type Expected, hashArchive, openArchive } from "./verify.ts";

/** What is noted of a package beside its layer: enough to know it again without its archive. JSON. */
export interface PackageFacts {
  readonly name: string;
  readonly version: string;
  readonly build: string;
  readonly subdir: string;
  /** Of the archive. */
  readonly sha256: string;
  readonly md5: string;
  /** Of a python package that looks for packages elsewhere than usual. Latin1. */
  readonly sitePackages?: string;
}

/** Puts the package into a sink; call it once. */
export type Link = (
  sink: BlobSink,
  onEntry?: (path: string) => void,
) => Promise<ImportedPackage & { readonly facts: PackageFacts }>;

export interface EnvironmentOptions<Layer> {
  readonly prefix: string;
  /** Instead of that of the list's `python` package. */
  readonly pythonVersion?: string;
  /** A local file with the package's archive. It is hashed here. */
  readonly fetch: (item: ExplicitPackage) => Promise<string>;
  /** Called when that file is done with, whatever came of it. */
  readonly release?: (item: ExplicitPackage, path: string) => void | Promise<void>;
  /** The layer that a package became before. `key` is all that its content depends on. */
  readonly find?: (
    key: readonly string[],
  ) => Promise<{ readonly layer: Layer; readonly facts: PackageFacts } | undefined>;
  /** Makes a layer of what `link` yields, keeps it and notes it under `key`. */
  readonly makeLayer: (key: readonly string[], item: ExplicitPackage, link: Link) => Promise<Layer>;
  /** Called for each package when its layer is there, in the order of the work: python first. */
  readonly onPackage?: (done: EnvironmentPackage<Layer>) => void;
}

export interface EnvironmentPackage<Layer> {
  readonly item: ExplicitPackage;
  readonly facts: PackageFacts;
  readonly layer: Layer;
  /** Whether it was made now. */
  readonly isNew: boolean;
  readonly warnings: readonly string[];
}

export interface ImportedEnvironment<Layer> {
  /** In the order of the list: the order in which layers are stacked. */
  readonly packages: readonly EnvironmentPackage<Layer>[];
  readonly python: PythonTarget | undefined;
}

/** Part of every key: change it when the same package becomes another layer. */
const LINK_VERSION = "4";

/** conda's subdirs of what a sandbox can run: all that is served is for Linux on x86-64. */
const SUBDIRS = ["linux-64", "noarch"];

/**
 * Imports the packages of a list that have no layer yet. A package is not even fetched when the list gives its sha256 and `find`
 * knows it. BURROW_BAD_LOCK for a package twice or of another platform, or a noarch: python package where there is no Python; and see importCondaPackage.
 */
export async function importEnvironment<Layer>(
  list: readonly ExplicitPackage[],
  options: EnvironmentOptions<Layer>,
): Promise<ImportedEnvironment<Layer>> {
  const done = new Map<ExplicitPackage, EnvironmentPackage<Layer>>();
  const names = new Map<string, ExplicitPackage>();
  let python =
    options.pythonVersion === undefined ? undefined : pythonTarget(options.pythonVersion);
  for (const item of [...list.filter(isPython), ...list.filter((item) => !isPython(item))]) {
    const one = await importItem(item, isPython(item) ? undefined : python, options);
    const { name, version, sitePackages } = one.facts;
    const other = names.get(name);
    if (other !== undefined) {
      throw new BurrowError("BURROW_BAD_LOCK", `line ${item.line}: ${name} comes twice`, {
        context: { package: plainUrl(item.url), other: plainUrl(other.url) },
      });
    }
    names.set(name, item);
    if (name === "python") python ??= pythonTarget(version, sitePackages);
    done.set(item, one);
    options.onPackage?.(one);
  }
  return { packages: list.map((item) => done.get(item)!), python };
}

/** Whether a package is the Python of its list, by its name. */
export function isPython({ url }: ExplicitPackage): boolean {
  return distOf(url)?.name === "python";
}

/** Where a key has the prefix. */
const PREFIX_AT = 4;

/** All that the layer of a package depends on. */
export function packageKey(
  { url }: ExplicitPackage,
  sha256: string,
  prefix: string,
  python: PythonTarget | undefined,
): string[] {
  const target = [python?.version ?? "", python?.sitePackages ?? ""];
  return ["conda", LINK_VERSION, sha256, plainUrl(url), prefix, ...target];
}

/** Of a package's key, what it has in common with those of the same package under other prefixes. */
export function keyWithoutPrefix(key: readonly string[]): string[] {
  return key.map((part, i) => (i === PREFIX_AT ? "" : part));
}

/** Imports the package in the file `path`, which must be what the item says: see importCondaPackage. */
export async function linkPackage(
  path: string,
  item: ExplicitPackage,
  prefix: string,
  python: PythonTarget | undefined,
  sink: BlobSink,
  onEntry?: (path: string) => void,
): Promise<ImportedPackage & { readonly facts: PackageFacts }> {
  const imported = await importCondaPackage(path, {
    prefix,
    sink,
    subdirs: SUBDIRS,
    url: item.url,
    expected: hashesOf(item),
    ...(python === undefined
      ? {}
      : { pythonVersion: python.version, sitePackages: python.sitePackages }),
    ...(onEntry === undefined ? {} : { onEntry }),
  });
  const facts = factsOf(imported);
  checkDist(item, facts);
  return { ...imported, facts };
}

/** What the archive of a python package says of the Python in it. It is hashed and compared first; see importCondaPackage. */
export async function pythonOfArchive(path: string, item: ExplicitPackage): Promise<PythonTarget> {
  const name = nameOfArchive(item.url);
  await using file = await openArchive(path, name);
  await hashArchive(file, name, hashesOf(item));
  for await (const entry of readCondaArchive(`/proc/self/fd/${file.fd}`, { name })) {
    if (plainPath(entry.name) !== "info/index.json" || entry.content === undefined) continue;
    const { version, sitePackages } = readIndexJson(await wholeMetadata(entry, name), name);
    return pythonTarget(version, sitePackages);
  }
  throw badPackage(name, "it has no info/index.json");
}

async function importItem<Layer>(
  item: ExplicitPackage,
  python: PythonTarget | undefined,
  options: EnvironmentOptions<Layer>,
): Promise<EnvironmentPackage<Layer>> {
  const { prefix, fetch, release, find, makeLayer } = options;
  const keyOf = (sha256: string) => packageKey(item, sha256, prefix, python);
  const early = item.sha256 === undefined ? undefined : await find?.(keyOf(item.sha256));
  if (early !== undefined) {
    checkDist(item, early.facts);
    return { item, ...early, isNew: false, warnings: [] };
  }
  const path = await fetch(item);
  try {
    // With a hash in the list, the import itself checks it: once is enough.
    const sha256 = item.sha256 ?? (await checkArchive(path, hashesOf(item))).sha256;
    const key = keyOf(sha256);
    const late = item.sha256 === undefined ? await find?.(key) : undefined;
    if (late !== undefined) {
      checkDist(item, late.facts);
      return { item, ...late, isNew: false, warnings: [] };
    }
    let facts: PackageFacts | undefined;
    let warnings: readonly string[] = [];
    const layer = await makeLayer(key, item, async (sink, onEntry) => {
      const imported = await linkPackage(path, { ...item, sha256 }, prefix, python, sink, onEntry);
      facts = imported.facts;
      warnings = imported.warnings;
      return imported;
    });
    if (facts === undefined) throw new TypeError("makeLayer must call link");
    return { item, facts, layer, isNew: true, warnings };
  } finally {
    await release?.(item, path);
  }
}

/** What the list says of the archive. */
function hashesOf({ sha256, md5, size }: ExplicitPackage): Expected {
  return {
    ...(sha256 === undefined ? {} : { sha256 }),
    ...(md5 === undefined ? {} : { md5 }),
    ...(size === undefined ? {} : { size }),
  };
}

/** A channel that gives the right hash of an archive may still call it what it is not. */
function checkDist({ dist, url }: ExplicitPackage, facts: PackageFacts): void {
  if (dist === undefined) return;
  const said = `${dist.name}-${dist.version}-${dist.build}`;
  const found = `${facts.name.toLowerCase()}-${facts.version}-${facts.build}`;
  if (said.toLowerCase() === found.toLowerCase()) return;
  throw new BurrowError("BURROW_BAD_REPODATA", `the package is not the ${said} it is listed as`, {
    context: { package: found, url: plainUrl(url) },
  });
}

function factsOf({ metadata, record }: ImportedPackage): PackageFacts {
  const { name, version, build, subdir, sitePackages } = metadata;
  const { sha256, md5 } = record;
  const site = sitePackages === undefined ? {} : { sitePackages };
  return { name, version, build, subdir, sha256, md5, ...site };
}

/** A path that several packages write. */
export interface Clobber {
  /** As people read it. */
  readonly path: string;
  /** The last of them in the list: what is served. */
  readonly winner: string;
  readonly losers: readonly string[];
  /** Whether they all write the same. */
  readonly isSame: boolean;
}

/** What one package has at a path. */
interface Claim {
  readonly owner: string;
  readonly order: number;
  /** Undefined for a directory that is only there for what is in it. */
  readonly entry: LayerEntry | undefined;
}

/**
 * Paths that several packages write, in byte order: files and symlinks twice, and those where another has a directory. Directories
 * are shared by right.
 */
export function findClobbers(
  layers: readonly { readonly name: string; readonly entries: Iterable<LayerEntry> }[],
): Clobber[] {
  const claims = new Map<string, Claim[]>();
  const directories = new Map<string, Claim[]>();
  const note = (map: Map<string, Claim[]>, path: string, claim: Claim) => {
    const known = map.get(path);
    if (known === undefined) map.set(path, [claim]);
    else if (known.at(-1)!.order !== claim.order) known.push(claim);
  };
  for (const [order, { name: owner, entries }] of layers.entries()) {
    const seen = new Set<string>();
    for (const entry of entries) {
      const claim = { owner, order, entry };
      note(entry.type === "directory" ? directories : claims, entry.path, claim);
      for (let end = entry.path.lastIndexOf("/"); end > 0; ) {
        const parent = entry.path.slice(0, end);
        if (seen.has(parent)) break;
        seen.add(parent);
        note(directories, parent, { owner, order, entry: undefined });
        end = parent.lastIndexOf("/");
      }
    }
  }
  const clobbers: [string, Claim[]][] = [];
  for (const [path, own] of claims) {
    const others = directories.get(path) ?? [];
    if (own.length + others.length > 1) clobbers.push([path, [...own, ...others]]);
  }
  return clobbers
    .sort(([left], [right]) => (left < right ? -1 : 1))
    .map(([path, all]) => {
      const ordered = all.sort((left, right) => left.order - right.order);
      const first = ordered[0]!.entry;
      return {
        path: showName(path),
        winner: ordered.at(-1)!.owner,
        losers: ordered.slice(0, -1).map(({ owner }) => owner),
        isSame: ordered.every(({ entry }) => isSame(first, entry)),
      };
    });
}

function isSame(left: LayerEntry | undefined, right: LayerEntry | undefined): boolean {
  if (left?.type === "file" && right?.type === "file") {
    return left.blob.digest === right.blob.digest && left.mode === right.mode;
  }
  return left?.type === "symlink" && right?.type === "symlink" && left.target === right.target;
}
