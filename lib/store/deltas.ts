// Indexes and locators that are kept as deltas of others: a wrapper that makes the whole object where the store has its delta
// alone, and what writes one. A delta's base is a whole object, so one more is read and no more. docs/format/deltas.md is the
// normative text. Control plane.

import { viewOf } from "../base/bytes.ts";
import { DIGEST_BYTES, type Digest, digestAt } from "../base/digest.ts";
import { BurrowError } from "../base/error.ts";
import { COMPRESSED_MIN_BYTES, DELTA_BYTES_MAX } from "../base/limits.ts";
import { applyDelta, makeDelta, TABLE_COLUMNS } from "./delta-codec.ts";
import { digestOf } from "./hash.ts";
import { type DeltaFolder, digestOfPath, isNamedByContent, objectPath } from "./layout.ts";
import { type Backend, classOf, type GetOptions, isDamage, type WritableBackend } from "./store.ts";

const MAGIC = "BRWDELTA";
const VERSION = 1;
const Header = {
  version: 8,
  base: 16,
  baseSum: 48,
  madeSum: 80,
  baseBytes: 112,
  madeBytes: 116,
  bytes: 120,
} as const;

/** A delta that takes more than this part of what it makes is not worth a second object; of what would be compressed, half of that. */
const WORTH = 0.5;

/** Folders whose objects may be deltas. */
export const DELTA_FOLDERS: readonly DeltaFolder[] = ["indexes", "locators"];

/** Where the delta of an object lies. */
export function deltaPath(path: string): string {
  return `deltas/${path}`;
}

function folderOf(path: string): DeltaFolder | undefined {
  return DELTA_FOLDERS.find((folder) => path.startsWith(`${folder}/`));
}

/** What a delta says of itself: hints, all of them, but the sums bind base and result to it. */
export interface Delta {
  /** Name of the base: another object of the same folder. */
  readonly base: Digest;
  readonly baseSum: Digest;
  readonly baseBytes: number;
  readonly madeSum: Digest;
  readonly madeBytes: number;
  readonly body: Uint8Array;
}

/** BURROW_CORRUPT for what is no delta of the object at `path`. */
function readDelta(path: string, bytes: Buffer): Delta {
  const refuse = (why: string) => bad(path, why);
  if (bytes.length < Header.bytes || bytes.toString("latin1", 0, MAGIC.length) !== MAGIC)
    throw refuse("it is none");
  const view = viewOf(bytes);
  if (view.getUint32(Header.version, true) !== VERSION) throw refuse("unknown version");
  const delta = {
    base: digestAt(bytes, Header.base),
    baseSum: digestAt(bytes, Header.baseSum),
    baseBytes: view.getUint32(Header.baseBytes, true),
    madeSum: digestAt(bytes, Header.madeSum),
    madeBytes: view.getUint32(Header.madeBytes, true),
    body: bytes.subarray(Header.bytes),
  };
  if (Math.max(delta.baseBytes, delta.madeBytes) > DELTA_BYTES_MAX)
    throw refuse("base or result is too large");
  const name = digestOfPath(path);
  if (delta.base === name) throw refuse("it is its own base");
  if (!isNamedByContent(path)) return delta;
  if (delta.madeSum !== name) throw refuse("it makes another object");
  if (delta.baseSum !== delta.base) throw refuse("it contradicts the name of its base");
  return delta;
}

function encodeDelta(base: Digest, from: Uint8Array, made: Uint8Array): Buffer | undefined {
  const body = makeDelta(from, made, TABLE_COLUMNS);
  if (body === undefined) return undefined;
  const head = Buffer.alloc(Header.bytes);
  head.write(MAGIC, 0, "latin1");
  head.writeUInt32LE(VERSION, Header.version);
  head.write(base, Header.base, DIGEST_BYTES, "hex");
  head.write(digestOf(from), Header.baseSum, DIGEST_BYTES, "hex");
  head.write(digestOf(made), Header.madeSum, DIGEST_BYTES, "hex");
  head.writeUInt32LE(from.length, Header.baseBytes);
  head.writeUInt32LE(made.length, Header.madeBytes);
  return Buffer.concat([head, body]);
}

/** A store with deltas, and the same without what they make. */
export interface DeltaStore extends WritableBackend {
  readonly whole: WritableBackend;
}

/** A reader of `inner` that makes what is a delta there. Asks for the delta when the whole object is missing, and only then. */
export function resolving(inner: Backend): Backend {
  return {
    origin: inner.origin,
    get: (path: string, options: GetOptions = {}) => getResolved(inner, path, options),
    async has(path: string, signal?: AbortSignal): Promise<boolean> {
      if (await inner.has(path, signal)) return true;
      return folderOf(path) !== undefined && (await inner.has(deltaPath(path), signal));
    },
    close: () => inner.close(),
  };
}

/** The same of a store that can be written: what is put is whole, what is listed are whole objects and those that deltas make. */
export function resolvingStore(inner: WritableBackend): DeltaStore {
  return {
    ...resolving(inner),
    whole: inner,
    put: (path, bytes) => inner.put(path, bytes),
    sizes: (folder) => inner.sizes(folder),
    remove: (path) => inner.remove(path),
    async *list(folder: string): AsyncIterable<string> {
      if (folderOf(`${folder}/`) === undefined) {
        yield* inner.list(folder);
        return;
      }
      const seen = new Set<string>();
      for await (const path of inner.list(folder)) {
        seen.add(path);
        yield path;
      }
      for await (const delta of inner.list(deltaPath(folder))) {
        const path = delta.slice(deltaPath("").length);
        if (!seen.has(path)) yield path;
      }
    },
  };
}

async function getResolved(inner: Backend, path: string, options: GetOptions): Promise<Buffer> {
  try {
    return await inner.get(path, options);
  } catch (error) {
    const isDelta = folderOf(path) !== undefined && options.range === undefined;
    if (!isDelta || classOf(error) !== "notFound") throw error;
    const found = await deltaOf(inner, path, options.signal);
    if (found === undefined) {
      // A collector may have written a locator whole meanwhile, and removed the delta then.
      if (folderOf(path) === "locators") return await inner.get(path, options);
      throw error;
    }
    const most = options.maxBytes ?? DELTA_BYTES_MAX;
    if (found.madeBytes > most) throw bad(path, `it makes more than ${most} bytes`);
    return await makeWhole(inner, path, found, options.signal);
  }
}

/**
 * What the delta of the object at `path` is made of, by its head. Damage is believed when a second read finds it too: for what is of nothing a
 * base would be removed, or written anew.
 */
export async function baseOfDelta(store: Backend, path: string): Promise<Digest> {
  const range = { offset: 0, length: Header.bytes };
  const read = async () => readDelta(path, await store.get(deltaPath(path), { range })).base;
  try {
    return await read();
  } catch (error) {
    if (!isDamage(error)) throw error;
    return await read();
  }
}

/**
 * Locators that are deltas, by what they are deltas of. A damaged one is of nothing, and `onFault` hears of it; one that can't be had now may
 * be of any, so none may be written anew: its error is thrown.
 */
export async function locatorsByBase(
  store: DeltaStore,
  onFault: (what: string, error: unknown) => void,
): Promise<Map<Digest, Digest[]>> {
  const found = new Map<Digest, Digest[]>();
  for await (const path of store.whole.list(deltaPath("locators"))) {
    const digest = digestOfPath(path);
    if (digest === undefined) continue;
    try {
      const base = await baseOfDelta(store.whole, objectPath("locators", digest));
      const known = found.get(base);
      if (known === undefined) found.set(base, [digest]);
      else known.push(digest);
    } catch (error) {
      if (classOf(error) === "notFound") continue;
      if (!isDamage(error)) throw error;
      onFault(path, error);
    }
  }
  return found;
}

/** Writes a locator anew, as a whole; the `dependents`, which are deltas of it, become whole first. */
export async function replaceLocator(
  store: DeltaStore,
  digest: Digest,
  bytes: Uint8Array,
  dependents: readonly Digest[],
): Promise<void> {
  for (const each of dependents) {
    const path = objectPath("locators", each);
    if (!(await store.whole.has(path))) await store.whole.put(path, await store.get(path));
    await store.whole.remove(deltaPath(path));
  }
  const path = objectPath("locators", digest);
  await store.whole.put(path, bytes);
  await store.whole.remove(deltaPath(path));
}

/** The delta of the object at `path`; undefined when there is none. */
export async function deltaOf(
  inner: Backend,
  path: string,
  signal?: AbortSignal,
): Promise<Delta | undefined> {
  let bytes: Buffer;
  try {
    bytes = await inner.get(deltaPath(path), {
      maxBytes: DELTA_BYTES_MAX,
      ...(signal ? { signal } : {}),
    });
  } catch (error) {
    if (classOf(error) === "notFound") return undefined;
    throw error;
  }
  return readDelta(path, bytes);
}

/** What a delta makes, verified. `inner` gives whole objects alone, so a base that is a delta itself is missing. */
async function makeWhole(
  inner: Backend,
  path: string,
  delta: Delta,
  signal: AbortSignal | undefined,
): Promise<Buffer> {
  const basePath = objectPath(folderOf(path)!, delta.base);
  let base: Buffer;
  try {
    base = await inner.get(basePath, { maxBytes: delta.baseBytes, ...(signal ? { signal } : {}) });
  } catch (error) {
    if (classOf(error) !== "notFound") throw error;
    throw new BurrowError("BURROW_CORRUPT", "the base of a delta is not there as a whole object", {
      context: { path: deltaPath(path), base: basePath, origin: inner.origin },
    });
  }
  if (base.length !== delta.baseBytes || digestOf(base) !== delta.baseSum)
    throw mismatch(path, "the base of a delta is not the one it was made of", basePath);
  let made: Buffer;
  try {
    made = applyDelta(base, delta.body, delta.madeBytes);
  } catch (cause) {
    throw bad(path, "it can't be applied", basePath, cause);
  }
  if (digestOf(made) !== delta.madeSum)
    throw mismatch(path, "a delta does not make what it says", basePath);
  return made;
}

/** What was kept of an object: all of it, or a delta of the one that `near` names. */
export interface Kept {
  readonly bytes: number;
  readonly isDelta: boolean;
}

/**
 * Puts an index or locator into a store: as a delta of the one of the same folder that `near` names, where the store has that
 * whole and it is worth it. An object that is there whole is replaced by a whole one: readers look for that first. `nearIndex` is
 * that index, where the caller has read it: it isn't read again.
 */
export async function putNear(
  store: DeltaStore,
  path: string,
  bytes: Uint8Array,
  near: Digest,
  nearIndex?: Uint8Array,
): Promise<Kept> {
  const folder = folderOf(path);
  const delta =
    folder === undefined || near === digestOfPath(path) || (await store.whole.has(path))
      ? undefined
      : await encodeNear(store.whole, objectPath(folder, near), near, bytes, nearIndex);
  if (delta === undefined) {
    await store.put(path, bytes);
    return { bytes: bytes.length, isDelta: false };
  }
  await store.put(deltaPath(path), delta);
  return { bytes: delta.length, isDelta: true };
}

async function encodeNear(
  whole: WritableBackend,
  basePath: string,
  near: Digest,
  bytes: Uint8Array,
  nearIndex: Uint8Array | undefined,
): Promise<Buffer | undefined> {
  let base: Uint8Array | undefined;
  try {
    const isFit = nearIndex !== undefined && nearIndex.length <= DELTA_BYTES_MAX;
    if (isFit && isNamedByContent(basePath) && (await whole.has(basePath))) base = nearIndex;
    base ??= await whole.get(basePath, { maxBytes: DELTA_BYTES_MAX });
  } catch {
    return undefined; // Gone, a delta itself, too large, or not to be had: it is a saving, no need.
  }
  const isRight = !isNamedByContent(basePath) || digestOf(base) === near;
  const delta = isRight ? encodeDelta(near, base, bytes) : undefined;
  const most = (bytes.length < COMPRESSED_MIN_BYTES ? WORTH : WORTH / 2) * bytes.length;
  return delta !== undefined && delta.length <= most ? delta : undefined;
}

/** A store whose deltas can be told from whole objects, as openStore gives it. */
export function isDeltaStore(store: WritableBackend): store is DeltaStore {
  return "whole" in store;
}

/** Transient, both: no name binds the bytes of a delta, so a bad mirror or line may do better next. */
function bad(path: string, why: string, base?: string, cause?: unknown): BurrowError {
  const context = { path: deltaPath(path), ...(base === undefined ? {} : { base }) };
  return new BurrowError("BURROW_CORRUPT", `bad delta: ${why}`, {
    class: "transient",
    context,
    cause,
  });
}

function mismatch(path: string, message: string, base: string): BurrowError {
  return new BurrowError("BURROW_DIGEST_MISMATCH", message, {
    class: "transient",
    context: { path: deltaPath(path), base },
  });
}
