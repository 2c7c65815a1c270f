// A demand for what comes ahead of its use has its turn on the disk before the rest of that: a cold start waited 0.7 s for a file that had
// come, and stood in line to be written behind hundreds that nobody asked for yet.

import { test } from "tap";
import { openCache } from "../../lib/cache/cache.ts";
import { Fetcher } from "../../lib/cache/fetcher.ts";
import { Sources } from "../../lib/daemon/sources.ts";
import { digestOf } from "../../lib/store/hash.ts";
import { noise, publish, TestNode } from "../suite/daemon-node.ts";
import { until } from "../suite/wait.ts";

const COUNT = 24;
const FILES = Object.fromEntries(
  Array.from({ length: COUNT }, (_, i) => [`f${i}`, noise(5_000 + i, i + 1)]),
);

test("who is wanted while its folder is made isn't written behind others", async (t) => {
  const node = new TestNode();
  t.teardown(() => node.close());
  const cache = openCache(node.cache);
  cache.startUp(false);
  const bytes = noise(5_000, 1);
  const digest = digestOf(bytes);
  let isAhead = true;
  const written: unknown[] = [];
  const { disk } = cache;
  const run = disk.run.bind(disk);
  disk.run = async (lane, work, options = {}, late) => {
    if (options.bytes === bytes.length) written.push(options.behind);
    else if (lane === "write") isAhead = false;
    return await run(lane, work, options, late);
  };
  await cache.writeSealed("blobs", digest, bytes, undefined, digest, () => isAhead);
  t.notOk(isAhead, "it was wanted before it came to its write");
  t.same(written, [undefined]);
});

test("a demand doesn't stand in line for the disk behind what was brought ahead", async (t) => {
  const node = new TestNode();
  t.teardown(() => node.close());
  const published = await publish(node.store, FILES);
  const cache = openCache(node.cache);
  cache.startUp(false);
  const fetcher = new Fetcher(cache);
  t.teardown(() => fetcher.close());
  const sources = new Sources(cache, node.state, (origin) => fetcher.origins.get(origin).reader);
  const from = { snapshot: published.digest, origin: node.store };
  const source = await sources.open(from, AbortSignal.timeout(20_000));

  let release: () => void = () => undefined;
  const held = new Promise<void>((resolve) => {
    release = resolve;
  });
  const queued: string[] = [];
  const begun: string[] = [];
  const { disk } = cache;
  const run = disk.run.bind(disk);
  // What is written ahead takes all places and keeps them for now; else nothing is in its way.
  disk.run = async (lane, work, options = {}, late) => {
    const { behind } = options;
    if (lane !== "write") return await run(lane, work, options, late);
    if (behind === undefined) return await work();
    queued.push(behind);
    const waiting = async () => {
      begun.push(behind);
      await held;
      return await work();
    };
    return await run(lane, waiting, options, late);
  };

  const rows = Object.keys(FILES).map((name) => published.row(name));
  const ahead = { ...source, isAhead: true };
  const brought = rows.map((row) => fetcher.prefetch(ahead, row, 0, 0));
  const files = new Set(rows.map((row): string => source.table.digestAt(row)));
  const isFile = (name: string) => files.has(name);
  t.ok(await until(() => queued.filter(isFile).length === COUNT), "all have come");
  const isBegun = new Set(begun);
  const last = queued.findLast((name) => isFile(name) && !isBegun.has(name));
  const row = rows.find((each) => source.table.digestAt(each) === last)!;
  let isHurried = false;
  const hurry = disk.hurry.bind(disk);
  disk.hurry = (name) => {
    hurry(name);
    isHurried ||= name === last;
  };
  const answer = fetcher.ask(source, row, 0, 0);
  t.ok(await until(() => isHurried), "the demand is told of");
  release();
  t.equal((await answer).errno, 0);
  t.same(
    await Promise.all(brought),
    rows.map(() => true),
    "the others come, too",
  );
  t.equal(begun[isBegun.size], last, "next of all");
});
