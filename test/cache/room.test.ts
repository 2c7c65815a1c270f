// The room of a cache: what is reserved, kept and given back; what the survey finds; what the evictor has go, and what stays.

import fs from "node:fs";
import { tmpdir } from "node:os";
import { type Test, test } from "tap";
import type { Digest } from "../../lib/base/digest.ts";
import { openCache } from "../../lib/cache/cache.ts";
import type { CacheDirectory } from "../../lib/cache/directory.ts";
import type { Lane } from "../../lib/cache/disk.ts";
import { Evictor } from "../../lib/cache/evictor.ts";
import { BATCH_FILES } from "../../lib/cache/names.ts";
import { expectedCost, Room } from "../../lib/cache/room.ts";
import { lookAt, Survey } from "../../lib/cache/survey.ts";
import { joinSuspects } from "../../lib/cache/suspects.ts";
import { digestOf } from "../../lib/store/hash.ts";
import { native } from "../../lib/sys/native.ts";
import { noise } from "../suite/daemon-node.ts";
import { diskBytes } from "../suite/disk-bytes.ts";
import { syncCalls } from "../suite/sync-calls.ts";

const FILE_BYTES = 10_000;
const NOTHING = { isPinned: () => false, isPromised: () => false };

/** A cache of so many files, below `base`. */
async function cacheOf(
  t: Test,
  count: number,
  base = tmpdir(),
): Promise<[CacheDirectory, Digest[]]> {
  const root = fs.mkdtempSync(`${base}/burrow-room-`);
  t.teardown(() => fs.rmSync(root, { recursive: true, force: true }));
  const cache = openCache(root);
  const digests: Digest[] = [];
  for (let i = 0; i < count; i++) {
    const bytes = noise(FILE_BYTES, i + 1);
    const digest = digestOf(bytes);
    await cache.writeSealed("blobs", digest, bytes);
    digests.push(digest);
  }
  return [cache, digests];
}

const isHere = (cache: CacheDirectory, digest: Digest) =>
  fs.existsSync(cache.path("blobs", digest));

test("what is reserved is not there for others; what is kept is used", async (t) => {
  const room = new Room();
  room.limitBytes = 100_000;
  const first = await room.reserve(60_000);
  t.equal(room.tryReserve(60_000), undefined);
  // The second waits for what the first may give back, and gets it.
  const second = room.reserve(50_000);
  first.keep("partial", 20_000);
  t.match(room.facts, { usedBytes: 20_000, reservedBytes: 40_000 });
  first.release();
  first.release();
  (await second).release();
  t.match(room.facts, { usedBytes: 20_000, reservedBytes: 0 });
  await t.rejects(room.reserve(100_001), { code: "BURROW_NO_SPACE", errno: 28 });
  await t.rejects(room.reserve(90_000), { code: "BURROW_NO_SPACE" }, "nothing can go");
  room.linger(50_000);
  await t.rejects(room.reserve(40_000), { code: "BURROW_NO_SPACE" }, "removed but open");
  room.linger(-50_000);
  (await room.reserve(40_000)).release();
  const held = await room.reserve(70_000);
  const stop = new AbortController();
  const late = room.reserve(70_000, stop.signal);
  stop.abort();
  await t.rejects(late, { code: "BURROW_TIMEOUT" });
  held.release();
});

test("where there is memory nobody waits for space that may come", async (t) => {
  const room = new Room();
  room.limitBytes = 100_000;
  room.isPatient = false;
  let looks = 0;
  room.makeRoom = () => Promise.resolve(++looks);
  const held = await room.reserve(90_000);
  for (let i = 0; i < 20; i++) {
    await t.rejects(room.reserve(20_000), { code: "BURROW_NO_SPACE" }, "though some is reserved");
  }
  t.equal(looks, 1, "a look that finds too little is not made again for each");
  held.release();
  (await room.reserve(20_000)).release();
});

test("until all was looked at what comes in is paid for by what goes", async (t) => {
  const room = new Room();
  room.limitBytes = 100_000;
  room.unknown(10_000);
  (await room.reserve(10_000)).keep("partial", 10_000);
  t.equal(room.tryReserve(1), undefined);
  let asked = 0;
  room.makeRoom = (bytes) => {
    asked += bytes;
    room.subtract("blobs/ab", bytes);
    return Promise.resolve(bytes);
  };
  (await room.reserve(5_000)).keep("partial", 5_000);
  t.equal(asked, 5_000);
  room.makeRoom = () => Promise.resolve(0);
  const waiting = room.reserve(5_000);
  room.surveyed();
  t.ok(await waiting);
});

test("a look beside a removal leaves the sum on the safe side, and right when both have ended", (t) => {
  const group = "blobs/ab";
  for (const isGone of [true, false]) {
    for (const isFound of [true, false]) {
      const room = new Room();
      room.endLook(group, 100_000);
      const removal = room.beginRemoval(group, 40_000);
      room.beginLook(group);
      room.endLook(group, isFound ? 100_000 : 60_000);
      const there = isGone ? 60_000 : 100_000;
      t.ok(room.usedBytes >= there);
      removal.end(isGone);
      removal.end(isGone);
      // What was found and then went is counted until the next look.
      const isSafe = isGone && isFound ? room.usedBytes === 100_000 : room.usedBytes === there;
      if (isGone || isFound) t.ok(isSafe, `gone ${isGone}, found ${isFound}: ${room.usedBytes}`);
      room.beginLook(group);
      room.endLook(group, there);
      t.equal(room.usedBytes, there, "the next look has nothing added");
    }
  }
  t.end();
});

test("a survey finds what the disk gives, and later what others wrote and removed", async (t) => {
  const [cache, digests] = await cacheOf(t, 300);
  const counted = cache.room.usedBytes;
  const other = openCache(cache.root);
  const survey = new Survey(other);
  other.room.limitBytes = 1e9;
  other.room.unknown(0);
  await survey.run();
  t.equal(other.room.isSurveyed, true);
  t.equal(other.room.usedBytes, counted, "the same as was counted while it was written");
  const real = diskBytes(`${cache.root}/blobs`);
  t.ok(counted >= real && counted < real * 1.2, `${counted} for ${real} bytes`);
  for (const digest of digests.slice(0, 200)) fs.rmSync(cache.path("blobs", digest));
  await cache.writeSealed("indexes", digests[0]!, Buffer.alloc(100_000));
  for (let i = 0; i < 60; i++) await survey.again();
  t.match(other.room.byFolder(), { indexes: Number });
  const left = diskBytes(`${cache.root}/blobs`) + diskBytes(`${cache.root}/indexes`);
  t.ok(other.room.usedBytes >= left && other.room.usedBytes < left * 1.2);
});

for (const base of [tmpdir(), "/dev/shm"]) {
  test(`what is read stays, what isn't goes, in ${base}`, async (t) => {
    const [cache, digests] = await cacheOf(t, 400, base);
    const evictor = new Evictor(cache, NOTHING);
    t.equal(evictor.hasReferences, true);
    // Once round: all were new, so some of them had to go; the rest is marked.
    t.ok((await evictor.makeRoom(20 * expectedCost(FILE_BYTES))) > 0);
    await evictor.makeRoom(20 * expectedCost(FILE_BYTES));
    const here = digests.filter((digest) => isHere(cache, digest));
    const used = here.slice(0, 100);
    for (const digest of used) fs.readFileSync(cache.path("blobs", digest));
    await evictor.makeRoom((here.length - 150) * expectedCost(FILE_BYTES));
    const left = digests.filter((digest) => isHere(cache, digest));
    t.ok(left.length < 160, `${left.length} are left`);
    const stayed = used.filter((digest) => isHere(cache, digest)).length;
    t.ok(stayed >= 95, `${stayed} of those that were read`);
    for (const digest of left) t.equal(cache.check("blobs", digest, FILE_BYTES), "sealed");
  });

  test(`what somebody has open or mapped stays, pinned files too, in ${base}`, async (t) => {
    const [cache, digests] = await cacheOf(t, 40, base);
    const [open, mapped, spared] = digests as [Digest, Digest, Digest];
    const evictor = new Evictor(cache, { ...NOTHING, isPinned: (digest) => digest === spared });
    const fd = fs.openSync(cache.path("blobs", open), "r");
    const other = fs.openSync(cache.path("blobs", mapped), "r");
    const bytes = native.map(other, 0, FILE_BYTES, false) as ArrayBuffer;
    fs.closeSync(other);
    await evictor.makeRoom(1e9);
    t.same(
      digests.filter((digest) => isHere(cache, digest)),
      [open, mapped, spared],
    );
    t.ok(evictor.counters.inUse >= 2);
    t.equal(evictor.counters.evicted, 37);
    fs.closeSync(fd);
    native.unmap(bytes);
    await evictor.makeRoom(1e9);
    t.same(
      digests.filter((digest) => isHere(cache, digest)),
      [spared],
    );
  });
}

test("a file that can't be removed keeps no other", {
  skip: process.getuid?.() === 0 ? false : "needs root",
}, async (t) => {
  const [cache, digests] = await cacheOf(t, 20);
  const path = cache.path("blobs", digests[0]!);
  fs.rmSync(path);
  fs.mkdirSync(path);
  fs.mkdirSync(`${path}/below`);
  const evictor = new Evictor(cache, NOTHING);
  await evictor.makeRoom(1e9);
  t.equal(digests.filter((digest) => isHere(cache, digest)).length, 1);
  t.ok(evictor.counters.stuck > 0);
});

test("a partial sum never falls below what is there, whatever happens during a look", async (t) => {
  const [cache, digests] = await cacheOf(t, 0);
  const survey = new Survey(cache);
  cache.room.unknown(0);
  const looking = survey.run();
  for (let i = 0; i < 200; i++) {
    const bytes = noise(FILE_BYTES, i + 1);
    const digest = digestOf(bytes);
    await cache.writeSealed("blobs", digest, bytes);
    if (i % 3 === 0) await cache.drop("blobs", digest);
    else digests.push(digest);
  }
  await looking;
  t.ok(cache.room.usedBytes >= diskBytes(`${cache.root}/blobs`));
});

test("of an earlier boot and the one before: suspects join in the background", async (t) => {
  const [cache, digests] = await cacheOf(t, 30);
  t.equal(cache.startUp(true), true);
  t.same([...cache.digests("blobs")], []);
  t.equal(await cache.revive("suspect", digests[0]!), FILE_BYTES);
  const again = noise(FILE_BYTES, 1000);
  // In a shard that has suspects.
  const shard = digests[1]!.slice(0, 2);
  fs.mkdirSync(`${cache.root}/blobs/${shard}`, { recursive: true });
  fs.writeFileSync(`${cache.root}/blobs/${shard}/${digests[1]!.replace(/.$/, "x")}`, again);
  t.equal(cache.startUp(true), true);
  t.ok(fs.readdirSync(`${cache.root}/suspect`).some((name) => name.startsWith(`${shard}.`)));
  t.equal(cache.check("suspect", digests[1]!, FILE_BYTES), "sealed", "the older one stayed");
  await joinSuspects(cache, () => false);
  t.notOk(fs.readdirSync(`${cache.root}/suspect`).some((name) => name.includes(".")));
  t.same([...cache.digests("suspect")], [...digests].sort());
  t.equal(fs.readdirSync(`${cache.root}/suspect/${shard}`).length >= 2, true);
  for (const digest of digests) t.equal(await cache.revive("suspect", digest), FILE_BYTES);
});

test("an evictor that was stopped takes nothing more", async (t) => {
  const [cache, digests] = await cacheOf(t, 30);
  const evictor = new Evictor(cache, NOTHING);
  const going = evictor.makeRoom(1e9);
  evictor.stop();
  await going;
  t.ok(digests.every((digest) => isHere(cache, digest)));
});

test("a look, an eviction and a move of suspects make no call on the thread of who has them done", async (t) => {
  const [cache, digests] = await cacheOf(t, 150);
  // All in one shard.
  const shard = `${cache.root}/blobs/ab`;
  fs.mkdirSync(shard, { recursive: true });
  for (const digest of digests)
    fs.renameSync(cache.path("blobs", digest), `${shard}/ab${digest.slice(2)}`);
  const evictor = new Evictor(cache, NOTHING);
  cache.room.limitBytes = 1;
  const calls = syncCalls(t);
  t.equal((await lookAt(cache, "blobs/ab"))?.length, 150);
  t.same(calls.seen, []);
  calls.pause();
  fs.renameSync(shard, `${cache.root}/suspect/ab.01`);
  calls.resume();
  await joinSuspects(cache, () => false);
  t.same(calls.seen, []);
  await lookAt(cache, "suspect/ab");
  await evictor.makeRoom(150 * FILE_BYTES);
  t.same(calls.seen, []);
  calls.pause();
  t.ok(fs.readdirSync(`${cache.root}/suspect/ab`).length < 75, "most of them went");
});

test("a look at a large folder, and its move, bring no more names at once than a turn of the loop can take", async (t) => {
  const [cache] = await cacheOf(t, 0);
  const disk = cache.disk;
  const run = disk.run.bind(disk);
  let most = 0;
  disk.run = async <T>(lane: Lane, work: () => Promise<T>): Promise<T> => {
    const outcome = await run(lane, work);
    if (Array.isArray(outcome)) most = Math.max(most, outcome.length);
    return outcome;
  };
  // None, one list that is full, and one that is short.
  for (const [shard, files] of Object.entries({ aa: 0, ab: 2 * BATCH_FILES, ac: 700 })) {
    const folder = `${cache.root}/blobs/${shard}`;
    fs.mkdirSync(folder);
    for (let i = 0; i < files; i++) fs.writeFileSync(`${folder}/${shard}${i}`, "");
    t.equal((await lookAt(cache, `blobs/${shard}`))?.length, files);
    fs.renameSync(folder, `${cache.root}/suspect/${shard}.01`);
    await joinSuspects(cache, () => false);
    t.equal(fs.readdirSync(`${cache.root}/suspect/${shard}`).length, files);
  }
  t.equal(most, BATCH_FILES);
});
