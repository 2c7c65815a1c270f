// What a daemon does to its cache, once through, for tests that kill it in the middle: fetches, a large blob that becomes whole, pins,
// eviction, and fetching again. Its arguments: cache, state, origin, snapshot, rows, the row of the large blob, and, if any, a
// file for notes of what is done. It looks for MARK where that begins.

import fs from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import type { Digest } from "../../lib/base/digest.ts";
import { openCache } from "../../lib/cache/cache.ts";
import { Fetcher } from "../../lib/cache/fetcher.ts";
import { Keeper } from "../../lib/cache/keeper.ts";
import { pin, unpin } from "../../lib/cache/pins.ts";
import { PinnedBlobs } from "../../lib/daemon/pinned.ts";
import { Sources } from "../../lib/daemon/sources.ts";

/** What it notes, in this order. */
export const NOTES = [
  "begun",
  "started",
  "asked",
  "settled",
  "pinned",
  "unpinning",
  "unpinned",
  "emptied",
  "done",
] as const;

/** A path that is nowhere: the call that looks for it is where a trace begins to count. */
export const MARK = "/burrow-crash-begins";

const [cacheRoot, state, origin, snapshot, rows, large, notes] = process.argv.slice(2) as [
  string,
  string,
  string,
  Digest,
  string,
  string,
  string | undefined,
];

function note(word: (typeof NOTES)[number]): void {
  if (notes !== undefined) fs.appendFileSync(notes, `${word}\n`);
}

if (cacheRoot !== undefined) {
  fs.existsSync(MARK);
  note("begun");
  const cache = openCache(cacheRoot);
  cache.startUp(false);
  note("started");
  const fetcher = new Fetcher(cache);
  const keeper = new Keeper(cache, fetcher, new PinnedBlobs(cache), 64 * 1024 * 1024);
  await keeper.start();
  const sources = new Sources(cache, state, (name) => fetcher.origins.get(name).reader);
  const source = await sources.open({ snapshot, origin }, AbortSignal.timeout(20_000));
  const settled = async () => {
    while (!fetcher.isIdle) await sleep(1);
  };
  const smalls = rows.split(",").map(Number);
  for (const row of smalls) await fetcher.ask(source, row, 0, 0);
  note("asked");
  await fetcher.ask(source, Number(large), 0, 2);
  await settled();
  note("settled");
  await pin(cache, snapshot);
  note("pinned");
  await cache.room.makeRoom(1e9);
  note("unpinning");
  unpin(cache, snapshot);
  note("unpinned");
  for (let i = 0; i < 2; i++) await cache.room.makeRoom(1e9);
  note("emptied");
  await fetcher.ask(source, smalls[0]!, 0, 0);
  await settled();
  await keeper.tick();
  keeper.stop();
  fetcher.close();
  note("done");
  process.stdout.write("done\n");
}
