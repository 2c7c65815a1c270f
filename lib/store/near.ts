// Notes of which layer or snapshot is near another one that has yet to be made: the same packages under another prefix. A hint for
// who writes: what is noted is whole, so that it can be the base of deltas. docs/format/deltas.md. Control plane.

import { createHash } from "node:crypto";
import { type Digest, parseDigest, showDigest } from "../base/digest.ts";
import type { DeltaStore } from "./deltas.ts";
import { objectPath } from "./layout.ts";

const NOTE_MAX_BYTES = 4096;

function notePath(parts: readonly string[]): string {
  const key = createHash("sha256").update(JSON.stringify(parts)).digest("hex");
  return `near/${key.slice(0, 2)}/${key}`;
}

/** The index that was noted under `parts`, which say all that the near ones have in common; undefined when it isn't there whole. */
export async function findNear(
  store: DeltaStore,
  parts: readonly string[],
): Promise<Digest | undefined> {
  let near: Digest | undefined;
  try {
    const bytes = await store.get(notePath(parts), { maxBytes: NOTE_MAX_BYTES });
    const value = JSON.parse(bytes.toString("utf8")) as { readonly near?: unknown } | null;
    near = parseDigest(String(value?.near));
  } catch {
    return undefined; // A missing hint costs some bytes of the store, a bad one no more.
  }
  if (near === undefined || !(await store.whole.has(objectPath("indexes", near)))) return undefined;
  return (await store.whole.has(objectPath("locators", near))) ? near : undefined;
}

/** Notes an index for those to come. Of two at once the last stays: either will do. */
export async function noteNear(
  store: DeltaStore,
  parts: readonly string[],
  near: Digest,
): Promise<void> {
  await store.put(notePath(parts), Buffer.from(`${JSON.stringify({ near: showDigest(near) })}\n`));
}
