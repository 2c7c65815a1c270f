// Owns: proof that what starts read lies together after it was laid out, that all else can be read as before, whatever leads there, and
// that a writer at work or damage leaves the store as it was. Plane: control.

import { type Test, test } from "tap";
import type { Digest } from "../../lib/base/digest.ts";
import { Index } from "../../lib/layer/index.ts";
import { readLocator } from "../../lib/store/known.ts";
import { layOut } from "../../lib/store/lay-out.ts";
import { digestOfPath, objectPath } from "../../lib/store/layout.ts";
import type { Pack } from "../../lib/store/pack-use.ts";
import { type ReadOrder, repack, usersOf } from "../../lib/store/repack.ts";
import { noise } from "../suite/daemon-node.ts";
import {
  broken,
  makeEnvironment,
  type Package,
  PORTS,
  readAll,
  Scene,
} from "../suite/store-scene.ts";

/** Twelve files of 200 KB, which don't compress. */
const packageOf = (seed: number): Package =>
  Object.fromEntries(
    Array.from({ length: 12 }, (_, i) => [`file${i}`, noise(200_000 + i, 100 * seed + i)]),
  );

async function twoEnvironments(scene: Scene): Promise<{ a: Digest; b: Digest }> {
  const [shared, one, two] = [packageOf(1), packageOf(2), packageOf(3)];
  const a = await scene.write((store) => makeEnvironment(store, { shared, one }));
  const b = await scene.write((store) => makeEnvironment(store, { shared, two }));
  return { a, b };
}

/** Every third blob of a snapshot, the last first. */
async function orderOf(scene: Scene, snapshot: Digest): Promise<ReadOrder> {
  const index = new Index(await scene.store().get(objectPath("indexes", snapshot)));
  const places = new Map<string, number>();
  for (let row = index.blobCount - 1; row >= 0; row -= 3)
    places.set(index.blobDigest(row), places.size);
  return (blob, block) => (block === 0 ? places.get(blob) : undefined);
}

/** Places of what is read, in its order. */
async function placesOf(scene: Scene, snapshot: Digest, order: ReadOrder) {
  const locator = await readLocator(scene.store(), snapshot);
  const places: { place: number; pack: Digest; offset: number; end: number }[] = [];
  for (let row = 0; row < locator.blobCount; row++) {
    const place = order(locator.digestAt(row), 0);
    if (place === undefined) continue;
    const { pack, offset, stored } = locator.chunkAt(row, 0);
    places.push({ place, pack, offset, end: offset + stored });
  }
  return places.sort((a, b) => a.place - b.place);
}

async function checkAll(t: Test, scene: Scene, ...digests: readonly Digest[]): Promise<void> {
  t.same(await broken(scene), []);
  for (const digest of digests) await readAll(scene.store(), digest);
}

test("what starts read lies together, and everybody finds everything", async (t) => {
  const scene = new Scene();
  const { a, b } = await twoEnvironments(scene);
  const order = await orderOf(scene, a);
  const options = { clock: scene.clock() };
  const done = await layOut(scene.store(), PORTS, a, order, options);
  t.match(done, { isDone: true, faults: [], repacked: { packs: 2 }, after: { count: 1 } });
  t.ok(done.before.count >= 6, `${done.before.count} ranges`);
  t.equal(done.before.bytes, done.after.bytes);
  const places = await placesOf(scene, a, order);
  t.equal(new Set(places.map(({ pack }) => pack)).size, 1);
  const byOffset = [...places].sort((x, y) => x.offset - y.offset);
  for (const [i, { offset }] of byOffset.entries())
    if (i > 0) t.equal(offset, byOffset[i - 1]!.end, "without gaps");
  const locator = await readLocator(scene.store(), a);
  const pack = places[0]!.pack;
  const number = Array.from({ length: locator.packCount }, (_, i) => i).find(
    (i) => locator.packAt(i) === pack,
  )!;
  t.equal(locator.startOf(number), byOffset.at(-1)!.end, "and it is told up to where");
  await checkAll(t, scene, a, b);

  const again = await layOut(scene.store(), PORTS, a, order, options);
  t.match(again, { isDone: true, repacked: { packs: 0 } }, "it lies together");
  const other = await orderOf(scene, b);
  const beside = { ...options, orderOf: async () => order };
  await layOut(scene.store(), PORTS, b, other, beside);
  await checkAll(t, scene, a, b);
  const twice = await layOut(scene.store(), PORTS, b, other, beside);
  t.match(twice, { isDone: true, repacked: { packs: 0 } }, "once is enough, whoever else reads it");
  const kept = await layOut(scene.store(), PORTS, a, order, options);
  t.ok(kept.before.count <= 3, "what the other one was laid out for stays together");
  t.same(await scene.paths("leases", "collectors", "holds"), []);

  await scene.collect();
  t.same(await broken(scene), []);
});

test("the old packs go when their time is over, and not before", async (t) => {
  const scene = new Scene();
  const { a, b } = await twoEnvironments(scene);
  const before = await scene.paths("packs");
  const options = { clock: scene.clock() };
  await layOut(scene.store(), PORTS, a, await orderOf(scene, a), options);
  const day = 86_400_000;
  t.match(await scene.collect({ keepMs: day }), { freed: { objects: 0 }, faults: [] });
  const during = await scene.paths("packs");
  t.ok(before.every((path) => during.includes(path)));
  scene.nowMs += day + 1;
  t.match(await scene.collect({ keepMs: day }), { freed: { objects: 2 }, faults: [] });
  await checkAll(t, scene, a, b);
});

test("a pack that is damaged is left, with a word; a writer at work has the store", async (t) => {
  const scene = new Scene();
  const { a, b } = await twoEnvironments(scene);
  const order = await orderOf(scene, a);
  const options = { clock: scene.clock() };
  const held = scene.write(async () => {
    const during = await layOut(scene.store(), PORTS, a, order, options);
    t.match(during, { isDone: false, repacked: { packs: 0 } });
  });
  await held;
  const locator = await readLocator(scene.store(), a);
  const path = objectPath("packs", locator.packAt(0));
  const bytes = await scene.store().get(path);
  const damaged = Buffer.from(bytes);
  damaged[bytes.length >> 1]! ^= 1;
  await scene.store().put(path, damaged);
  const done = await layOut(scene.store(), PORTS, a, order, options);
  t.match(done, { isDone: true, repacked: { packs: 1 }, faults: [{ what: path }] });
  await scene.store().put(path, bytes);
  await checkAll(t, scene, a, b);
  await t.rejects(layOut(scene.store(), PORTS, "0".repeat(64) as Digest, order, options), {
    code: "BURROW_NOT_FOUND",
  });
});

test("a pack that comes out as it was stays", async (t) => {
  const scene = new Scene();
  const digest = await scene.write((store) =>
    makeEnvironment(store, { alone: { large: noise(5_000_000, 1) } }),
  );
  const store = scene.store();
  const packs: Pack[] = [];
  for await (const object of store.whole.sizes("packs"))
    packs.push({ ...object, digest: digestOfPath(object.path)! });
  const replaced: Pack[] = [];
  const done = await repack(store, packs, await usersOf(store, [digest], packs), {
    check: async () => {},
    onReplaced: async (old) => void replaced.push(...old),
  });
  t.same(replaced, []);
  t.same(done, { packs: 0, oldBytes: 0, newBytes: 0, faults: [] });
  for (const { path } of replaced) await store.whole.remove(path);
  await checkAll(t, scene, digest);
});
