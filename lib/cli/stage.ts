// Stages for a query: listed, pinned by their manifest's digest, indexed into the cache. Control plane.

import type { Digest } from "../base/digest.ts";
import { keepIndex } from "../cache/cache.ts";
import type { CacheDirectory } from "../cache/directory.ts";
import { importStage } from "../ingest/stage/import.ts";
import { IndexKind } from "../layer/format.ts";
import { writeIndex } from "../layer/writer.ts";

/** The snapshot of a stage as it is now, with its index in the cache. */
export async function importStageIndex(cache: CacheDirectory, source: string): Promise<Digest> {
  const stage = await importStage(source);
  return await keepIndex(cache, writeIndex(IndexKind.snapshot, stage.entries), stage.locator);
}
