// The index of a layer or snapshot in a store, by its digest, in the words of who asked for it. Control plane.

import { type Digest, showDigest } from "../base/digest.ts";
import { BurrowError } from "../base/error.ts";
import { MERGE_ENTRIES_MAX } from "../base/limits.ts";
import { faultOf, Index } from "../layer/index.ts";
import { objectPath } from "../store/layout.ts";
import { type Backend, classOf } from "../store/store.ts";

/** What was not found by its digest, said in the words of who asked; any other error as it is. */
export function noSuchDigest(error: unknown, digest: Digest, store: string): unknown {
  if (classOf(error) !== "notFound") return error;
  const what = `no layer or snapshot ${showDigest(digest)}`;
  return new BurrowError("BURROW_NOT_FOUND", what, { context: { store } });
}

export async function readIndex(store: Backend, digest: Digest): Promise<Index> {
  let bytes: Buffer;
  try {
    bytes = await store.get(objectPath("indexes", digest));
  } catch (error) {
    throw noSuchDigest(error, digest, store.origin);
  }
  return soundIndex(bytes, digest, store.origin);
}

/** An index of bytes that have its digest: they may be bad all the same. BURROW_BAD_INDEX. */
export function soundIndex(bytes: Buffer, digest: Digest, store: string): Index {
  const fault = faultOf(bytes);
  if (fault === undefined) return new Index(bytes);
  throw new BurrowError("BURROW_BAD_INDEX", `${showDigest(digest)}: ${fault}`, {
    context: { store },
  });
}

/**
 * The indexes of layers, each read once. BURROW_BAD_INDEX as soon as there are more entries than can be merged: an image may name
 * hundreds of layers that the store has, and their indexes would take all memory first.
 */
export async function readStack(
  store: Backend,
  layers: readonly Digest[],
  maxEntries = MERGE_ENTRIES_MAX,
): Promise<Index[]> {
  const indexes = new Map<Digest, Index>();
  const stack: Index[] = [];
  let entries = 0;
  for (const layer of layers) {
    const index = indexes.get(layer) ?? (await readIndex(store, layer));
    indexes.set(layer, index);
    stack.push(index);
    entries += index.direntCount;
    if (entries <= maxEntries) continue;
    const what = `${stack.length} of ${layers.length} layers have ${entries} entries, over ${maxEntries}`;
    throw new BurrowError("BURROW_BAD_INDEX", what, { context: { layer: showDigest(layer) } });
  }
  return stack;
}
