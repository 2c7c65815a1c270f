// Owners: which layer of an environment a path is of, and whose it hides. A snapshot doesn't say: layers are merged when it is made. The
// environment's manifest has them in their order, and their indexes are compared with it. Control plane.

import { type Digest, parseDigest, showDigest } from "../base/digest.ts";
import { BurrowError } from "../base/error.ts";
import { type PackageEntries, throughLinks } from "../ingest/conda/prefix-tree.ts";
import { entriesOf } from "../layer/entries.ts";
import { inParallel } from "../store/parallel.ts";
import type { Backend } from "../store/store.ts";
import { type Environment, readEnvironment } from "./environment.ts";
import { readIndex } from "./read-index.ts";

/** What put a layer there. */
export interface Owner {
  readonly kind: "package" | "wheel" | "compiled" | "kept";
  /** NAME-VERSION-BUILD, NAME-VERSION, or the command that made it. */
  readonly title: string;
  readonly layer: Digest;
  readonly name?: string;
  readonly version?: string;
  readonly build?: string;
  readonly url?: string;
  /** Of its archive. */
  readonly sha256?: string;
}

export interface Owners {
  readonly environment: Environment;
  /** In the order in which they are stacked. */
  readonly all: readonly Owner[];
  /** Whose a path below the snapshot's root is (latin1, no directory): the last is served, it hides those before it. */
  claimsOf(path: string): readonly Owner[];
}

/** Indexes read at once. */
const PARALLEL = 8;

/** The owners in an environment's snapshot. BURROW_NOT_FOUND where its manifest or a layer is gone; else what the store throws. */
export async function ownersOf(store: Backend, snapshot: Digest): Promise<Owners> {
  const environment = await manifestOf(store, snapshot);
  const all = ownersIn(environment);
  const stack = new Array<PackageEntries>(all.length);
  await inParallel([...all.entries()], PARALLEL, async ([i, { title, layer }]) => {
    stack[i] = { name: title, entries: [...entriesOf(await readIndex(store, layer))] };
  });
  // What sandboxes made was captured in its place; packages were laid there through each other's symlinks.
  const made = all.findIndex(({ kind }) => kind === "compiled" || kind === "kept");
  const packages = made < 0 ? stack : stack.slice(0, made);
  const laid = [...throughLinks(packages, environment.prefix), ...stack.slice(packages.length)];
  const claims = new Map<string, Owner[]>();
  for (const [i, { entries }] of laid.entries()) {
    for (const { path, type } of entries) {
      if (type === "directory" || type === "whiteout") continue;
      const others = claims.get(path);
      if (others === undefined) claims.set(path, [all[i]!]);
      else others.push(all[i]!);
    }
  }
  return { environment, all, claimsOf: (path) => claims.get(path) ?? [] };
}

async function manifestOf(store: Backend, snapshot: Digest): Promise<Environment> {
  try {
    return await readEnvironment(store, snapshot);
  } catch (cause) {
    if (!(cause instanceof BurrowError) || cause.code !== "BURROW_NOT_FOUND") throw cause;
    const what = `${showDigest(snapshot)} has no list of packages`;
    const why = `it is no environment, or burrow env rm took it off "burrow env ls"`;
    throw new BurrowError("BURROW_NOT_FOUND", `${what} (${why}): whose its files are isn't known`);
  }
}

function ownersIn({ packages, wheels = [], compiled, kept = [] }: Environment): Owner[] {
  const owners: Owner[] = packages.map(({ name, version, build, url, sha256, layer }) => ({
    kind: "package",
    title: `${name}-${version}-${build}`,
    layer: parseDigest(layer)!,
    name,
    version,
    build,
    url,
    sha256,
  }));
  for (const { name, version, url, sha256, layer } of wheels) {
    const title = `${name}-${version}`;
    owners.push({ kind: "wheel", title, layer: parseDigest(layer)!, name, version, url, sha256 });
  }
  if (compiled !== undefined) {
    const layer = parseDigest(compiled.layer)!;
    owners.push({ kind: "compiled", title: "burrow env compile", layer });
  }
  for (const { layer } of kept) {
    owners.push({ kind: "kept", title: "burrow layer keep", layer: parseDigest(layer)! });
  }
  return owners;
}
