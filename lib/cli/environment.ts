// Environment manifests and import notes in a store: what a snapshot was made of, and which layer a source became, so that nothing
// is imported twice. JSON objects beside the layers, never needed to serve. docs/format/store.md. Control plane.

import { createHash } from "node:crypto";
import { type Digest, parseDigest, showDigest } from "../base/digest.ts";
import { BurrowError } from "../base/error.ts";
import { digestOfPath, objectPath } from "../store/layout.ts";
import { type Backend, classOf, type WritableBackend } from "../store/store.ts";
import { counted } from "./output.ts";

export const ENVIRONMENT_FORMAT = 1;
const JSON_MAX_BYTES = 64 * 1024 * 1024;

export interface EnvironmentPackage {
  readonly name: string;
  readonly version: string;
  readonly build: string;
  readonly subdir: string;
  readonly url: string;
  readonly sha256: string;
  readonly layer: string;
}

/** A wheel beside the packages. */
export interface EnvironmentWheel {
  /** Of its project, as the file's name has it. */
  readonly name: string;
  readonly version: string;
  readonly url: string;
  readonly sha256: string;
  readonly layer: string;
}

/** What `burrow env create` keeps of an environment, under the digest of its snapshot. */
export interface Environment {
  readonly format: typeof ENVIRONMENT_FORMAT;
  readonly prefix: string;
  readonly python: string | null;
  readonly packages: readonly EnvironmentPackage[];
  /** Above the packages, in their order. */
  readonly wheels?: readonly EnvironmentWheel[];
  /** Paths below the prefix that several packages have: the last package's file is served. */
  readonly clobbers: readonly {
    readonly path: string;
    readonly winner: string;
    readonly losers: readonly string[];
    readonly isSame: boolean;
  }[];
  /** Variables of a command that runs in it, for people: a launch takes those of the snapshot's root. */
  readonly variables?: Readonly<Record<string, string>>;
  /** What burrow env compile made it of. */
  readonly compiled?: {
    /** Snapshot of the environment before. */
    readonly from: string;
    /** Snapshot of the base that the job saw. */
    readonly base: string;
    /** What the job changed: the top of the stack. */
    readonly layer: string;
  };
  /** What burrow layer keep put on top of it, the first kept first. */
  readonly kept?: readonly KeptLayer[];
}

/** What sandboxes changed of an environment. */
export interface KeptLayer {
  /** Snapshot of the environment that they changed. */
  readonly from: string;
  /** What they changed. */
  readonly layer: string;
}

/** A small object; undefined when it isn't there. BURROW_CORRUPT for what is no JSON. */
async function getJson(store: Backend, path: string): Promise<unknown> {
  let bytes: Buffer;
  try {
    bytes = await store.get(path, { maxBytes: JSON_MAX_BYTES });
  } catch (error) {
    if (classOf(error) === "notFound") return undefined;
    throw error;
  }
  try {
    return JSON.parse(bytes.toString("utf8")) as unknown;
  } catch (cause) {
    const context = { path, store: store.origin };
    throw new BurrowError("BURROW_CORRUPT", "it is no JSON", { cause, context });
  }
}

/** What a document says, which may be anything: its lists are lists of what has a layer. BURROW_CORRUPT. */
export function soundEnvironment(value: unknown): Environment {
  const { format, packages, wheels = [], compiled, kept = [] } = partsOf(value);
  if (format !== ENVIRONMENT_FORMAT) throw badDocument("is of another Burrow");
  const lists = [packages, wheels, kept];
  if (!lists.every((list) => Array.isArray(list))) throw badDocument("has no lists of layers");
  const layers: unknown[] = lists.flatMap((list) => list.map((each) => partsOf(each)["layer"]));
  if (compiled !== undefined) layers.push(partsOf(compiled)["layer"], partsOf(compiled)["base"]);
  if (!layers.every((text) => typeof text === "string")) throw badDocument("names no digest");
  return value as Environment;
}

/** Of what is no object none. */
function partsOf(value: unknown): Record<string, unknown> {
  return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : {};
}

export const badDocument = (what: string, cause?: unknown) =>
  new BurrowError("BURROW_CORRUPT", `the document of an environment ${what}`, { cause });

/** The environment of a snapshot. BURROW_NOT_FOUND when the snapshot is none of an environment; BURROW_CORRUPT. */
export async function readEnvironment(store: Backend, snapshot: Digest): Promise<Environment> {
  const value = await getJson(store, objectPath("environments", snapshot));
  if (partsOf(value)["format"] !== ENVIRONMENT_FORMAT) {
    throw new BurrowError(
      "BURROW_NOT_FOUND",
      `no environment ${showDigest(snapshot)}; burrow env ls has all`,
      {
        context: { store: store.origin },
      },
    );
  }
  return soundEnvironment(value);
}

export async function writeEnvironment(
  store: WritableBackend,
  snapshot: Digest,
  environment: Environment,
): Promise<void> {
  const bytes = Buffer.from(`${JSON.stringify(environment)}\n`);
  await store.put(objectPath("environments", snapshot), bytes);
}

/** Where the note about an imported source lies: `parts` are all that its layer depends on. */
function notePath(parts: readonly string[]): string {
  const key = createHash("sha256").update(JSON.stringify(parts)).digest("hex") as Digest;
  return `imports/${key.slice(0, 2)}/${key}`;
}

/** The layer that a source became, and what was noted with it; undefined when it must be imported. */
export async function findImport<T>(
  store: Backend,
  parts: readonly string[],
): Promise<{ layer: Digest; facts: T } | undefined> {
  const value = (await noteOf(store, notePath(parts))) as { layer: string; facts: T } | undefined;
  const layer = typeof value?.layer === "string" ? parseDigest(value.layer) : undefined;
  if (value === undefined || layer === undefined) return undefined;
  return (await store.has(objectPath("locators", layer)))
    ? { layer, facts: value.facts }
    : undefined;
}

/** A note that a disk changed is none: what it was about is imported again. */
async function noteOf(store: Backend, path: string): Promise<unknown> {
  try {
    return (await getJson(store, path)) ?? undefined;
  } catch (error) {
    if (error instanceof BurrowError && error.code === "BURROW_CORRUPT") return undefined;
    throw error;
  }
}

export async function noteImport(
  store: WritableBackend,
  parts: readonly string[],
  layer: Digest,
  facts: unknown,
): Promise<void> {
  const bytes = Buffer.from(`${JSON.stringify({ layer: showDigest(layer), facts })}\n`);
  await store.put(notePath(parts), bytes);
}

/** What layers and snapshots are, as far as environments of the store tell: by their digests as people see them. */
export async function namesOfLayers(store: WritableBackend): Promise<Map<string, string>> {
  const names = new Map<string, string>();
  for await (const path of store.list("environments")) {
    const digest = digestOfPath(path);
    if (digest === undefined) continue;
    // One that can't be read names nothing; who lists environments is told.
    const environment = await readEnvironment(store, digest).catch(() => undefined);
    if (environment === undefined) continue;
    const { packages, wheels = [], compiled, kept = [], prefix } = environment;
    const all = [...packages, ...wheels];
    for (const { name, version, layer } of all) names.set(layer, `${name}-${version}`);
    if (compiled !== undefined) names.set(compiled.layer, "what env compile made");
    for (const { layer } of kept) names.set(layer, "what layer keep made");
    const changed = kept.length === 0 ? "" : "changed ";
    const what = `${changed}${compiled === undefined ? "environment" : "compiled environment"}`;
    names.set(showDigest(digest), `${what} at ${prefix}, ${counted(all.length, "package")}`);
  }
  return names;
}
