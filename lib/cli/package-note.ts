// The notes about layers of conda packages, compared with what the layers say of themselves: a note is a hint, and one that names the
// layer of another package would put that into an environment. Control plane.

import { type Digest, parseDigest } from "../base/digest.ts";
import { BurrowError } from "../base/error.ts";
import { showName } from "../base/name.ts";
import type { PackageFacts } from "../ingest/conda/environment.ts";
import { type PackageRecord, recordPath } from "../ingest/conda/record.ts";
import { isObject } from "../ingest/oci/document.ts";
import { readLocator } from "../store/known.ts";
import { inParallel } from "../store/parallel.ts";
import { type Backend, classOf, type WritableBackend } from "../store/store.ts";
import { findImport } from "./environment.ts";
import { contentAt } from "./layer-content.ts";
import { readIndex } from "./read-index.ts";

const NOTE_MAX_BYTES = 64 * 1024 * 1024;
/** Notes read at once. */
const PARALLEL = 8;
/** What note and layer must agree in. */
const FACTS = ["name", "version", "build", "subdir", "sha256", "md5"] as const;

/**
 * The layer that a package became before: its note, where the key and the layer's own record of the package bear it out. undefined when
 * the package must be imported. Throws what a store throws that can't be reached.
 */
export async function findPackage(
  store: Backend,
  key: readonly string[],
): Promise<{ layer: Digest; facts: PackageFacts } | undefined> {
  const found = await findImport<PackageFacts>(store, key);
  if (found === undefined || !isFacts(found.facts)) return undefined;
  const { sha256, md5 } = found.facts;
  if (!key.includes(sha256) && !key.includes(`md5:${md5}`)) return undefined;
  try {
    return (await contradictionOf(store, found.layer, found.facts)) ? undefined : found;
  } catch (error) {
    if (classOf(error) === "transient") throw error;
    return undefined; // what is damaged bears nothing out
  }
}

/** Hears of the notes of a store that say of a package's layer what it is not, by their paths. */
export async function checkNotes(
  store: WritableBackend,
  fault: (path: string, error: unknown) => void,
): Promise<void> {
  const paths: string[] = [];
  for await (const path of store.list("imports")) paths.push(path);
  await inParallel(paths, PARALLEL, async (path) => {
    try {
      const bytes = await store.get(path, { maxBytes: NOTE_MAX_BYTES });
      const note: unknown = JSON.parse(bytes.toString("utf8"));
      const { layer, facts } = isObject(note) ? note : {};
      const digest = parseDigest(String(layer));
      if (digest === undefined) throw corrupt("it names no layer");
      // Of others than packages, and of layers that are gone: nobody takes those for there.
      if (!isFacts(facts)) return;
      const why = await contradictionOf(store, digest, facts).catch(() => undefined);
      if (why !== undefined) throw corrupt(why);
    } catch (error) {
      if (classOf(error) !== "notFound") fault(path, error);
    }
  });
}

const corrupt = (why: string) => new BurrowError("BURROW_CORRUPT", why);

function isFacts(facts: unknown): facts is PackageFacts {
  return isObject(facts) && FACTS.every((name) => typeof facts[name] === "string");
}

/** In what a layer's own record contradicts what is said of it. */
async function contradictionOf(
  store: Backend,
  layer: Digest,
  facts: PackageFacts,
): Promise<string | undefined> {
  const [index, locator] = await Promise.all([readIndex(store, layer), readLocator(store, layer)]);
  const said = `${facts.name}-${facts.version}-${facts.build}`;
  const content = await contentAt(store, index, locator, recordPath(facts));
  if (content === undefined) return `the layer that it names is not of ${said}`;
  const record = JSON.parse(content.toString("utf8")) as Partial<PackageRecord> | null;
  const { sitePackages } = facts;
  const site = sitePackages === undefined ? undefined : showName(sitePackages);
  const wrong =
    record?.python_site_packages_path === site
      ? FACTS.find((name) => record?.[name] !== facts[name])
      : "python_site_packages_path";
  return wrong && `the layer that it names is of another ${said}: it has another ${wrong}`;
}
