// What a store has that is near a layer or snapshot which is to be made: found by its note, its files by their paths. A hint that
// saves space: whatever is wrong with it, there is just none. Control plane.

import type { BlobRef } from "../base/blob.ts";
import type { Digest } from "../base/digest.ts";
import { entriesOf } from "../layer/entries.ts";
import { faultOf, Index } from "../layer/index.ts";
import type { DeltaStore } from "../store/deltas.ts";
import { objectPath } from "../store/layout.ts";
import { findNear, noteNear } from "../store/near.ts";
import type { NearIndex } from "../store/pack-writer.ts";

/** The index that was noted under `parts`, all that the near ones have in common. */
export async function openNear(
  store: DeltaStore,
  parts: readonly string[],
): Promise<NearIndex | undefined> {
  const digest = await findNear(store, parts);
  if (digest === undefined) return undefined;
  let files: Map<string, BlobRef> | undefined;
  try {
    const bytes = await store.get(objectPath("indexes", digest));
    if (faultOf(bytes) !== undefined) return undefined;
    const index = new Index(bytes);
    return {
      digest,
      bytes,
      blobAt: (path) => {
        files ??= filesOf(index);
        return files.get(path);
      },
    };
  } catch {
    return undefined;
  }
}

function filesOf(index: Index): Map<string, BlobRef> {
  const files = new Map<string, BlobRef>();
  for (const entry of entriesOf(index))
    if (entry.type === "file") files.set(entry.path, entry.blob);
  return files;
}

/** Notes what was made for those to come, unless there was something near it already. */
export async function noteMade(
  store: DeltaStore,
  parts: readonly string[],
  near: NearIndex | undefined,
  made: Digest,
): Promise<void> {
  if (near === undefined) await noteNear(store, parts, made);
}
