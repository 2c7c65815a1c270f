// Origins of other tenants: one that hangs or refuses fails and delays who reads from it, though others want the same blobs.

import { type Test, test } from "tap";
import { Errno } from "../../lib/base/errno.ts";
import { BLOCK_BYTES } from "../../lib/base/limits.ts";
import { openCache } from "../../lib/cache/cache.ts";
import { Fetcher, type FetcherOptions } from "../../lib/cache/fetcher.ts";
import { Sources } from "../../lib/daemon/sources.ts";
import { type Files, noise, publish, TestNode } from "../suite/daemon-node.ts";
import { diskBytes } from "../suite/disk-bytes.ts";
import { type Fault, OriginServer } from "../suite/origin-server.ts";
import { until } from "../suite/wait.ts";

const BLOCKS = 48;
const FILES: Files = {
  large: noise(BLOCKS * BLOCK_BYTES, 7),
  ...Object.fromEntries(Array.from({ length: 40 }, (_, i) => [`f${i}`, noise(2000, i + 1)])),
};

/** One snapshot at two origins: an honest one, and one whose packs are the test's to withhold. */
async function twoOrigins(t: Test, options: FetcherOptions = {}) {
  const node = new TestNode();
  t.teardown(() => node.close());
  const { digest, row } = await publish(node.store, FILES);
  const other = await OriginServer.start(node.store);
  t.teardown(() => other.close());
  const cache = openCache(node.cache);
  cache.startUp(false);
  const fetcher = new Fetcher(cache, { background: false, ...options });
  t.teardown(async () => {
    fetcher.close();
    // What is still being kept would make the folder anew behind the one who removes it.
    await until(() => fetcher.isIdle);
  });
  const sources = new Sources(cache, node.state, (origin) => fetcher.origins.get(origin).reader);
  const open = (origin: string) =>
    sources.open({ snapshot: digest, origin }, AbortSignal.timeout(600_000));
  /** Has the other origin do this to its packs, but for the first so many requests. */
  const fails = (fault: Fault, from = 1) => {
    other.fault = (path, count) => (path.startsWith("packs/") && count >= from ? fault : "none");
  };
  return { node, row, other, fetcher, open, fails, digest };
}

test("an origin that never answers holds nobody else up", async (t) => {
  const { node, row, other, fetcher, open, fails } = await twoOrigins(t);
  const mine = await open(node.store);
  const theirs = await open(other.url);
  fails("stall-headers");
  let answered = 0;
  const theirAsks = [
    fetcher.ask(theirs, row("f0"), 0, 0),
    fetcher.ask(theirs, row("large"), 0, 4),
    fetcher.ask(theirs, row("large"), 40, 1),
  ].map((ask) => ask.finally(() => answered++));
  t.ok(await until(() => other.count("packs") >= 3));
  // The run that hangs would bring all neighbours of f0 along.
  for (let i = 0; i < 40; i++)
    t.equal((await fetcher.ask(mine, row(`f${i}`), 0, 0)).errno, 0, `f${i}`);
  for (const first of [0, 2, 40])
    t.equal((await fetcher.ask(mine, row("large"), first, 2)).errno, 0, `block ${first}`);
  t.equal((await fetcher.ask(mine, row("large"), 0, 0)).errno, 0, "all of it");
  t.equal(answered, 0, "the others still wait");
  fetcher.close();
  await Promise.all(theirAsks);
});

test("a background stream that hangs leaves the streaming to others", async (t) => {
  const { node, row, other, fetcher, open, fails } = await twoOrigins(t, { background: true });
  const mine = await open(node.store);
  const theirs = await open(other.url);
  fails("stall-headers", 2);
  t.equal((await fetcher.ask(theirs, row("large"), 0, 1)).errno, 0);
  t.ok(await until(() => other.count("packs") === 2), "the stream has begun, and hangs");
  t.equal((await fetcher.ask(mine, row("large"), 20, 1)).errno, 0);
  t.ok(await until(() => fetcher.counters.blobs === 1), "it is whole");
  t.equal(fetcher.counters.blocks, BLOCKS, "each block was written once");
});

for (const fault of ["403", "404"] as const) {
  test(`an origin that says ${fault} says so to its own reader`, async (t) => {
    const { node, row, other, fetcher, open, fails } = await twoOrigins(t);
    const mine = await open(node.store);
    const theirs = await open(other.url);
    fails(fault);
    other.delayMs = 100;
    const theirAsks = [
      fetcher.ask(theirs, row("f0"), 0, 0),
      fetcher.ask(theirs, row("large"), 0, 4),
    ];
    t.ok(await until(() => other.count("packs") >= 2));
    const myAsks = [fetcher.ask(mine, row("f0"), 0, 0), fetcher.ask(mine, row("large"), 0, 4)];
    for (const { errno } of await Promise.all(myAsks)) t.equal(errno, 0);
    const [small] = await Promise.all(theirAsks);
    t.equal(small!.errno, Errno.EIO);
  });
}

test("an index that one origin withholds is read from another", async (t) => {
  const { node, row, other, fetcher, open, digest } = await twoOrigins(t);
  other.fault = () => "stall-headers";
  let isOpen = false;
  void open(other.url).then(
    () => {
      isOpen = true;
    },
    () => undefined,
  );
  t.ok(await until(() => other.requests.length > 0));
  const mine = await open(node.store);
  t.equal(mine.snapshot, digest);
  t.equal((await fetcher.ask(mine, row("f0"), 0, 0)).errno, 0);
  t.equal(isOpen, false);
});

test("blobs that come from two origins at once are kept and counted once", async (t) => {
  const { node, row, other, fetcher, open } = await twoOrigins(t);
  const sources = [await open(node.store), await open(other.url)];
  const before = fetcher.shelf.cache.room.usedBytes;
  const asks = sources.flatMap((source) =>
    Array.from({ length: 40 }, (_, i) => fetcher.ask(source, row(`f${i}`), 0, 0)),
  );
  for (const { errno } of await Promise.all(asks)) t.equal(errno, 0);
  t.ok(await until(() => fetcher.isIdle));
  t.equal(fetcher.counters.blobs, 40);
  const { room } = fetcher.shelf.cache;
  t.equal(room.facts.reservedBytes, 0);
  const spare = room.usedBytes - before - diskBytes(`${node.cache}/blobs`);
  t.ok(spare <= 40 * 1024, `${spare} bytes more than there are`);
});
