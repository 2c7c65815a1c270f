// What a layer or snapshot needs whose locator is damaged: its content is there all the same, named by its index and by the tables of packs,
// so that the locator can be made again. One damaged locator must not keep all packs of a store for ever. Control plane.

import type { Digest } from "../base/digest.ts";
import { Codec } from "./codec.ts";
import { objectPath } from "./layout.ts";
import { blobsIn, PACK_FOOTER_BYTES, tableOffsetOf } from "./pack.ts";
import type { Pack, PackUse } from "./pack-use.ts";
import { inParallel } from "./parallel.ts";
import { type Backend, classOf } from "./store.ts";

const PARALLEL = 8;

export interface LostPorts {
  /** The content that an index names. Throws for bytes that are none. */
  blobsOf(index: Buffer): Iterable<Digest>;
}

/**
 * Keeps those of the packs so far unused that have content of `lost`, whose locators are damaged. A pack without a table that can be read is kept.
 * Resolves with whether more may be needed: some of the content is deltas of other content. `onFault` hears of what can't be read: an index that can't leads to nothing any more.
 */
export async function keepForLost(
  store: Backend,
  ports: LostPorts,
  lost: readonly Digest[],
  packs: PackUse,
  onFault: (what: string, error: unknown) => void,
): Promise<boolean> {
  const wanted = new Set<Digest>();
  for (const digest of lost) {
    const path = objectPath("indexes", digest);
    try {
      for (const blob of ports.blobsOf(await store.get(path))) wanted.add(blob);
    } catch (error) {
      onFault(path, error);
    }
  }
  if (wanted.size === 0) return false;
  let hasDeltas = false;
  await inParallel([...packs.unused()], PARALLEL, async (pack) => {
    try {
      for (const { blob, codec } of blobsIn(await tableOf(store, pack))) {
        if (!wanted.has(blob)) continue;
        packs.keep(pack.digest);
        hasDeltas ||= codec === Codec.delta;
      }
    } catch (error) {
      if (classOf(error) === "notFound") return;
      packs.keep(pack.digest);
      onFault(pack.path, error);
    }
  });
  return hasDeltas;
}

async function tableOf(store: Backend, { path, bytes }: Pack): Promise<Buffer> {
  const end = bytes - PACK_FOOTER_BYTES;
  const footer = await store.get(path, { range: { offset: end, length: PACK_FOOTER_BYTES } });
  const offset = tableOffsetOf(footer);
  return await store.get(path, { range: { offset, length: Math.max(0, end - offset) } });
}
