// Pins: layers and snapshots that are to stay whatever else names them. Control plane.

import { type Digest, showDigest } from "../base/digest.ts";
import { BurrowError } from "../base/error.ts";
import { digestOfPath, objectPath } from "./layout.ts";
import type { WritableBackend } from "./store.ts";

const PIN_FORMAT = 1;

/**
 * Pins what the store has: `store` is a writer's, whose lease was taken before, and no sweep is under way that may not have seen it.
 * BURROW_NOT_FOUND for what isn't there, or not whole.
 */
export async function pin(store: WritableBackend, digest: Digest): Promise<void> {
  for (const folder of ["locators", "indexes"] as const) {
    if (await store.has(objectPath(folder, digest))) continue;
    throw new BurrowError("BURROW_NOT_FOUND", `no layer or snapshot ${showDigest(digest)}`, {
      context: { store: store.origin, missing: folder },
    });
  }
  const text = `${JSON.stringify({ format: PIN_FORMAT })}\n`;
  await store.put(objectPath("pins", digest), Buffer.from(text));
}

/** Whether it was pinned. */
export async function unpin(store: WritableBackend, digest: Digest): Promise<boolean> {
  const path = objectPath("pins", digest);
  const isPinned = await store.has(path);
  await store.remove(path);
  return isPinned;
}

export async function* pins(store: WritableBackend): AsyncIterable<Digest> {
  for await (const path of store.list("pins")) {
    const digest = digestOfPath(path);
    if (digest !== undefined) yield digest;
  }
}
