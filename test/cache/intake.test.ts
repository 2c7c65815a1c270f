// What may be on its way from an origin to the disk: a bound that holds while the disk takes nothing, and ends with that. Test.

import fs from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { test } from "tap";
import { BLOCK_BYTES } from "../../lib/base/limits.ts";
import { openCache } from "../../lib/cache/cache.ts";
import type { CacheDirectory } from "../../lib/cache/directory.ts";
import { Fetcher, type FetcherOptions } from "../../lib/cache/fetcher.ts";
import { Intake } from "../../lib/cache/intake.ts";
import { Sources } from "../../lib/daemon/sources.ts";
import { type Files, noise } from "../suite/daemon-node.ts";
import { scene } from "../suite/daemon-scene.ts";
import { until } from "../suite/wait.ts";

const MIB = 1024 * 1024;
const never = () => new AbortController().signal;

/** Takes in the order in which it is called: what has been granted so far, and how to give it back. */
function taker(intake: Intake) {
  const granted: string[] = [];
  const give = new Map<string, () => void>();
  const take = async (name: string, bytes: number, signal = never()) => {
    give.set(name, await intake.take(bytes, signal));
    granted.push(name);
  };
  return { granted, give: (name: string) => give.get(name)!(), take };
}

const settled = () => new Promise((resolve) => setImmediate(resolve));

test("who comes first takes first, and nobody takes what isn't free", async (t) => {
  const intake = new Intake(10);
  const { granted, give, take } = taker(intake);
  for (const [name, bytes] of Object.entries({ a: 6, b: 4, c: 5, d: 1 })) void take(name, bytes);
  await settled();
  t.same(granted, ["a", "b"]);
  t.equal(intake.takenBytes, 10);
  give("b");
  give("b");
  await settled();
  t.same(granted, ["a", "b"], "given back once, and a short one doesn't overtake");
  give("a");
  await settled();
  t.same(granted, ["a", "b", "c", "d"]);
  give("c");
  give("d");
  t.equal(intake.takenBytes, 0);
});

test("what is longer than all there may be comes alone", async (t) => {
  const { granted, give, take } = taker(new Intake(10));
  for (const [name, bytes] of Object.entries({ a: 1, long: 50, b: 1 })) void take(name, bytes);
  await settled();
  t.same(granted, ["a"]);
  give("a");
  await settled();
  t.same(granted, ["a", "long"]);
  give("long");
  await settled();
  t.same(granted, ["a", "long", "b"]);
});

test("who gives up waiting lets the next one by", async (t) => {
  const { granted, take } = taker(new Intake(10));
  const abort = new AbortController();
  void take("a", 6);
  const long = take("long", 9, abort.signal);
  void take("b", 4);
  await settled();
  t.same(granted, ["a"]);
  abort.abort();
  await t.rejects(long, { code: "BURROW_TIMEOUT" });
  await settled();
  t.same(granted, ["a", "b"]);
  await t.rejects(take("c", 1, abort.signal), { code: "BURROW_TIMEOUT" });
});

/** Fewer than make a crowd, for which whole segments are fetched. */
const LARGES = 12;
const NAMES = Array.from({ length: LARGES }, (_, i) => `large${i}`);
const FILES: Files = {
  ...Object.fromEntries(NAMES.map((name, i) => [name, noise(6 * BLOCK_BYTES, i + 1)])),
  small: noise(5_000, 90),
};
/** Of an ask: two blocks. */
const RUN_BYTES = 2 * BLOCK_BYTES;

/** Twelve large files of which two blocks are here each, not the first ones, behind an origin whose demands may have 2 MiB on their way. */
async function begun(t: Parameters<typeof scene>[0], options: FetcherOptions = {}) {
  const { node, server, published } = await scene(t, FILES);
  const cache = openCache(node.cache);
  cache.startUp(false);
  const fetcher = new Fetcher(cache, { background: false, intakeBytes: 2 * MIB, ...options });
  t.teardown(() => fetcher.close());
  const sources = new Sources(cache, node.state, (origin) => fetcher.origins.get(origin).reader);
  const from = { snapshot: published.digest, origin: server.url };
  const source = await sources.open(from, AbortSignal.timeout(20_000));
  const ask = async (name: string, first: number, count: number) =>
    (await fetcher.ask(source, published.row(name), first, count)).errno;
  const all = (first: number) => Promise.all(NAMES.map((name) => ask(name, first, 2)));
  t.ok((await all(2)).every((errno) => errno === 0));
  t.ok(await until(() => fetcher.isIdle));
  const intakeBytes = () => fetcher.origins.queues()[server.url]!.intakeBytes;
  t.equal(intakeBytes(), 0);
  return { server, cache, fetcher, ask, all, intakeBytes };
}

/** Has all places of the lane taken in which files are written, until it is called. */
function holdWrites({ disk }: CacheDirectory): () => void {
  let release: () => void = () => undefined;
  const held = new Promise<void>((resolve) => {
    release = resolve;
  });
  for (let i = 0; i < 8; i++) void disk.run("write", () => held, { isPatient: true });
  return release;
}

test("while the disk takes nothing no more is asked for than may wait for it", async (t) => {
  const { server, cache, ask, all, intakeBytes } = await begun(t);
  const release = holdWrites(cache);
  const before = server.requests.length;
  let ended = 0;
  const asks = all(0).finally(() => ended++);
  const small = ask("small", 0, 0);
  const asked = () => server.requests.length - before;
  t.ok(await until(() => asked() >= (2 * MIB) / RUN_BYTES));
  // A further one would have been sent by now: an origin of this machine answers in less.
  await sleep(200);
  t.equal(asked(), (2 * MIB) / RUN_BYTES);
  t.equal(intakeBytes(), 2 * MIB);
  t.equal(ended, 0);
  release();
  t.ok((await asks).every((errno) => errno === 0));
  t.equal(await small, 0);
  t.ok(await until(() => intakeBytes() === 0));
});

test("of an origin that hangs those who wait reserve little of the cache's space", async (t) => {
  const { server, cache, all, intakeBytes } = await begun(t);
  server.fault = () => "stall-headers";
  const asks = all(0);
  t.ok(await until(() => intakeBytes() === 2 * MIB));
  const { reservedBytes } = cache.room.facts;
  t.ok(reservedBytes >= 2 * MIB && reservedBytes < 2.5 * MIB, `${reservedBytes} bytes`);
  server.fault = () => "none";
  server.hangUp();
  t.ok((await asks).every((errno) => errno === 0));
});

test("a disk that hangs holds up nobody for long: all is asked for in memory", async (t) => {
  const { cache, fetcher, ask, all, intakeBytes } = await begun(t, { memoryBytes: 64 * MIB });
  const release = holdWrites(cache);
  const errnos = [...(await all(0)), await ask("small", 0, 0)];
  t.ok(errnos.every((errno) => errno === 0));
  t.equal(fetcher.shelf.facts.isDiskDemoted, true);
  t.ok(await until(() => intakeBytes() === 0));
  release();
});

test("an empty blob that the disk doesn't take gives its space back", async (t) => {
  const { node, server, published } = await scene(t, { empty: Buffer.alloc(0) });
  const cache = openCache(node.cache);
  cache.startUp(false);
  cache.room.limitBytes = MIB;
  const fetcher = new Fetcher(cache);
  t.teardown(() => fetcher.close());
  const sources = new Sources(cache, node.state, (origin) => fetcher.origins.get(origin).reader);
  const from = { snapshot: published.digest, origin: server.url };
  const source = await sources.open(from, AbortSignal.timeout(20_000));
  fs.rmSync(`${node.cache}/tmp`, { recursive: true });
  t.not((await fetcher.ask(source, published.row("empty"), 0, 0)).errno, 0);
  t.equal(cache.room.facts.reservedBytes, 0);
});
