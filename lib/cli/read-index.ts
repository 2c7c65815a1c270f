// The index of a layer or snapshot in a store, by its digest, in the words of who asked for it. Control plane.

import { type Digest, showDigest } from "../base/digest.ts";
import { BurrowError } from "../base/error.ts";
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
