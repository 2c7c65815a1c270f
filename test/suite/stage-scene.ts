// A stage of a bucket on a node: listed, its index in the cache, and a mount of it. Tests only.

import type { Test } from "tap";
import { keepIndex, openCache } from "../../lib/cache/cache.ts";
import { ensureStageKey } from "../../lib/cache/stage-key.ts";
import { importStage } from "../../lib/ingest/stage/import.ts";
import { IndexKind } from "../../lib/layer/format.ts";
import { writeIndex } from "../../lib/layer/writer.ts";
import { type Published, publishedOf, TestNode } from "./daemon-node.ts";
import { type S3Server, service } from "./s3-server.ts";

export interface Stage extends Published {
  readonly mountId: string;
  readonly imported: Awaited<ReturnType<typeof importStage>>;
}

/** Lists the prefix "box/data" as it is now, for a tenant. */
export async function listStage(
  node: TestNode,
  source: string,
  tenant: string = "",
): Promise<Stage> {
  const cache = openCache(node.cache);
  const naming = { key: ensureStageKey(cache), tenant };
  const imported = await importStage(source, { naming, baseMs: 1 });
  const refs = new Map(
    imported.entries.flatMap((entry) =>
      entry.type === "file" ? [[entry.path, entry.blob] as const] : [],
    ),
  );
  const bytes = writeIndex(IndexKind.snapshot, imported.entries);
  const digest = await keepIndex(cache, bytes, imported.locator);
  const mountId = node.mount(source, digest);
  return { ...publishedOf(digest, bytes, refs), mountId, imported };
}

/** A service with the bucket "box", a node without a daemon yet, and where the stage lies. */
export async function stageScene(
  t: Test,
  files: Readonly<Record<string, Uint8Array>>,
  isVersioned = false,
): Promise<{ server: S3Server; node: TestNode; source: string }> {
  const server = await service(t);
  if (isVersioned) server.versioned.add("box");
  for (const [name, bytes] of Object.entries(files)) server.put(`box/data/${name}`, bytes);
  const node = new TestNode();
  t.teardown(() => node.close());
  return { server, node, source: server.address("box/data") };
}
