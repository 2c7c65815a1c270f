// Owns: proof that a collection removes what nothing refers to, and nothing else: by roots, ages, pins and repacking, whatever is
// broken, and whenever it is killed. Beside writers: gc-writers.test.ts. Plane: control.

import { test } from "tap";
import type { Digest } from "../../lib/base/digest.ts";
import { IndexKind } from "../../lib/layer/format.ts";
import { writeIndex } from "../../lib/layer/writer.ts";
import { objectPath } from "../../lib/store/layout.ts";
import { LEASE_MS } from "../../lib/store/lease.ts";
import { openPackWriter } from "../../lib/store/pack-writer.ts";
import { pin, unpin } from "../../lib/store/pins.ts";
import { entriesOf, noise } from "../suite/daemon-node.ts";
import {
  broken,
  dyingAt,
  forget,
  type Hook,
  makeEnvironment,
  packageOf,
  readAll,
  Scene,
} from "../suite/store-scene.ts";

const DAY_MS = 86_400_000;

/** Two environments that share a package; of the second one another prefix, too. */
async function twoEnvironments(scene: Scene): Promise<{ a: Digest; b: Digest; c: Digest }> {
  const shared = packageOf(...Array.from({ length: 40 }, (_, i) => i + 1));
  const one = packageOf(100, 101);
  const two = packageOf(200, 201);
  const a = await scene.write((store) => makeEnvironment(store, { shared, one }));
  const b = await scene.write((store) => makeEnvironment(store, { shared, two }));
  const c = await scene.write((store) => makeEnvironment(store, { shared, two }, "/opt/other"));
  return { a, b, c };
}

/** Two environments that need a part of one pack, and the name of a third, which needed all of it, forgotten. */
async function sparse(scene: Scene): Promise<{ a: Digest; b: Digest; c: Digest }> {
  const seeds = Array.from({ length: 60 }, (_, i) => i + 1);
  const [big, small, more] = [packageOf(...seeds), packageOf(...seeds.slice(0, 20)), packageOf(77)];
  const a = await scene.write((store) => makeEnvironment(store, { big }));
  const b = await scene.write((store) => makeEnvironment(store, { small, more }));
  const c = await scene.write((store) => makeEnvironment(store, { small, more }, "/opt/other"));
  await forget(scene.store(), a);
  return { a, b, c };
}

/** A base: a snapshot that nothing names. */
async function makeBase(scene: Scene, seed: number): Promise<Digest> {
  return await scene.write(async (store) => {
    const writer = await openPackWriter(store);
    const refs = new Map([["file", await writer.addBytes(noise(9_000, seed))]]);
    return (await writer.finish(writeIndex(IndexKind.snapshot, entriesOf(refs)))).digest;
  });
}

test("what only a forgotten environment needs goes, and all else stays", async (t) => {
  const scene = new Scene();
  const { a, b, c } = await twoEnvironments(scene);
  t.ok((await scene.paths("deltas")).length > 0, "some are deltas");
  const before = await scene.paths();
  t.match(await scene.collect(), { freed: { objects: 0 }, faults: [] }, "all are named");
  t.same(await scene.paths(), before);
  await forget(scene.store(), a);
  const { freed, kept, later, faults } = await scene.collect();
  t.match({ freed, later, faults }, { freed: { objects: 8 }, later: { objects: 0 }, faults: [] });
  const after = await scene.paths();
  t.equal(kept.objects, after.length);
  t.equal(before.length - 1 - after.length, 8, "snapshot, layer, pack, notes of one package");
  t.same(await broken(scene), []);
  for (const digest of [b, c]) await readAll(scene.store(), digest);
  t.same(await scene.paths("garbage", "leases", "collectors"), [], "nothing of the collection");
  await forget(scene.store(), b);
  await scene.collect();
  t.same(await broken(scene), []);
  await readAll(scene.store(), c);
  await forget(scene.store(), c);
  await scene.collect();
  t.same(await scene.paths(), [], "nothing is left when nothing is named");
});

test("a delta goes that is beside what it makes", async (t) => {
  const scene = new Scene();
  await twoEnvironments(scene);
  const store = scene.store();
  const [delta = ""] = await scene.paths("deltas/locators");
  const whole = delta.slice("deltas/".length);
  await store.whole.put(whole, await store.get(whole));
  t.match(await scene.collect(), { freed: { objects: 1 }, faults: [] });
  t.equal(await store.whole.has(delta), false);
  t.equal(await store.whole.has(whole), true);
  t.same(await broken(scene), []);
});

test("what is new stays, by the store's clock", async (t) => {
  const scene = new Scene();
  const { a } = await twoEnvironments(scene);
  await forget(scene.store(), a);
  await scene.store().put(objectPath("packs", a), Buffer.from("left by a killed writer"));
  t.match(await scene.collect({ keepMs: DAY_MS }), {
    freed: { objects: 0 },
    later: { objects: 1, bytes: 23 },
  });
  scene.nowMs += DAY_MS + 1;
  t.match(await scene.collect({ keepMs: DAY_MS }), { freed: { objects: 9 } });
  t.same(await broken(scene), []);
});

test("bases stay, and with all of them asked for those that are pinned", async (t) => {
  const scene = new Scene();
  const pinned = await makeBase(scene, 1);
  const other = await makeBase(scene, 2);
  t.match(await scene.collect(), { freed: { objects: 0 } });
  await scene.write((store) => pin(store, pinned));
  await t.rejects(
    scene.write((store) => pin(store, "0".repeat(64) as Digest)),
    { code: "BURROW_NOT_FOUND" },
  );
  t.match(await scene.collect({ isAll: true }), { freed: { objects: 3 }, faults: [] });
  await readAll(scene.store(), pinned);
  t.equal(await scene.store().has(objectPath("indexes", other)), false);
  t.equal(await unpin(scene.store(), pinned), true);
  t.equal(await unpin(scene.store(), pinned), false);
  await scene.collect({ isAll: true });
  t.same(await scene.paths(), []);
});

test("what can't be read or removed is reported, and blocks nothing else", async (t) => {
  const scene = new Scene();
  const { a, b } = await twoEnvironments(scene);
  const store = scene.store();
  await forget(store, a);
  await store.put(`imports/ab/${"ab".repeat(32)}`, Buffer.from("no JSON"));
  const refusing: Hook = (call, path) => {
    if (call === "remove" && path === objectPath("locators", a)) throw new Error("immutable");
  };
  const first = await scene.collect({}, refusing);
  const named = [/^imports\/ab/, new RegExp(`^locators/${a.slice(0, 2)}`)];
  for (const what of named)
    t.ok(
      first.faults.some((fault) => what.test(fault.what)),
      String(what),
    );
  t.equal(first.faults.length, named.length);
  t.equal(await store.has(objectPath("indexes", a)), true, "with its locator");
  t.same(await broken(scene), [], "what stays is whole");
  const second = await scene.collect();
  t.equal(second.faults.length, 1, "the note");
  t.equal(await store.has(objectPath("indexes", a)), false);
  await readAll(store, b);
  const path = objectPath("locators", b);
  const right = await store.get(path);
  await store.put(path, Buffer.from("no locator"));
  const third = await scene.collect();
  t.ok(third.faults.some(({ what, why }) => what === path && /bad locator/.test(why)));
  await store.put(path, right);
  t.same(await broken(scene), [], "no pack went that it may have led to");
});

test("an environment's document that can't be read keeps all layers and snapshots", async (t) => {
  const scene = new Scene();
  const { a, b } = await twoEnvironments(scene);
  const base = await makeBase(scene, 5);
  await forget(scene.store(), a);
  const path = objectPath("environments", b);
  const right = await scene.store().get(path);
  const document = JSON.parse(right.toString()) as { compiled?: object };
  const layer = await makeBase(scene, 6);
  document.compiled = { base: `sha256:${base}`, from: `sha256:${a}`, layer: `sha256:${layer}` };
  const failing: Hook = (call, asked) => {
    if (call === "get" && asked === path) throw new Error("503 SlowDown");
  };
  for (const [text, hook] of [["{dam", undefined] as const, [undefined, failing] as const]) {
    await scene.store().put(path, Buffer.from(text ?? JSON.stringify(document)));
    const { faults, freed } = await scene.collect({ isAll: true, isRepacking: true }, hook);
    t.match(faults, [{ what: path }]);
    t.equal(faults.length, 1);
    t.equal(freed.objects, 0);
    for (const digest of [a, b, base, layer]) await readAll(scene.store(), digest);
  }
  t.match(await scene.collect({ isAll: true }), { faults: [] });
  for (const digest of [b, base]) await readAll(scene.store(), digest);
});

test("one damaged locator keeps the packs of its content, and no others", async (t) => {
  const scene = new Scene();
  const { a, b, c } = await twoEnvironments(scene);
  await forget(scene.store(), a);
  const base = await makeBase(scene, 5);
  const path = objectPath("locators", base);
  const right = await scene.store().get(path);
  await scene.store().put(path, right.subarray(0, 100));
  const { freed, faults } = await scene.collect({ isRepacking: true });
  t.match(faults, [{ what: path, why: /bad locator/ }]);
  t.equal(freed.objects, 8, "the pack of the forgotten environment too");
  await scene.store().put(path, right);
  t.same(await broken(scene), []);
  for (const digest of [b, base]) await readAll(scene.store(), digest);
  const failing: Hook = (call, asked) => {
    if (call === "get" && asked === path) throw new Error("the network is gone");
  };
  await forget(scene.store(), c);
  const packs = await scene.paths("packs");
  const blind = await scene.collect({}, failing);
  t.match(blind.faults, [{ what: path, why: /the network is gone/ }]);
  t.ok(blind.freed.objects > 0);
  t.same(await scene.paths("packs"), packs, "no pack goes that it may lead to");
  await scene.collect();
  t.ok((await scene.paths("packs")).length < packs.length);
  t.same(await broken(scene), []);
});

test("packs that are mostly garbage are repacked; the old ones go after the grace", async (t) => {
  const scene = new Scene();
  const { b } = await sparse(scene);
  t.ok((await scene.paths("deltas/locators")).length > 0, "some locators are deltas");
  scene.nowMs += DAY_MS + 1;
  const first = await scene.collect({ keepMs: DAY_MS, isRepacking: true });
  t.match(first, { faults: [], repacked: { packs: 1 }, later: { objects: 1 } });
  t.ok(first.repacked.newBytes < first.repacked.oldBytes / 2);
  t.same(await broken(scene), []);
  const old = first.later.bytes;
  const second = await scene.collect({ keepMs: DAY_MS, isRepacking: true });
  t.match(second, { repacked: { packs: 0 }, later: { bytes: old }, freed: { objects: 0 } });
  scene.nowMs += DAY_MS + 1;
  const third = await scene.collect({ keepMs: DAY_MS, isRepacking: true });
  t.match(third, { freed: { objects: 1, bytes: old }, later: { objects: 0 }, faults: [] });
  t.same(await broken(scene), []);
  await readAll(scene.store(), b);
  t.match(await scene.collect(), { freed: { objects: 0 } });
});

test("killed at any point it leaves nothing that is believed and missing", async (t) => {
  const begun = new Scene();
  const { a } = await sparse(begun);
  let count = 0;
  for (let at = 0; ; at++) {
    const scene = await begun.copy();
    const { hook, isReached } = dyingAt(at);
    const outcome = await scene.collect({ isRepacking: true }, hook).then(
      () => "done" as const,
      () => "killed" as const,
    );
    const wrong = await broken(scene);
    if (wrong.length > 0) t.same(wrong, [], `killed at change ${at}`);
    if (outcome === "done" && !isReached()) break;
    count++;
    scene.nowMs += LEASE_MS + 1;
    const again = await scene.collect({ isRepacking: true });
    if (again.faults.length > 0) t.same(again.faults, [], `killed at change ${at}`);
    const leftover = await scene.paths("garbage", "leases", "collectors");
    if (leftover.length > 0) t.same(leftover, [], `killed at change ${at}`);
    if (await scene.store().has(objectPath("indexes", a))) t.fail(`killed at ${at}: it stays`);
    const still = await broken(scene);
    if (still.length > 0) t.same(still, [], `killed at change ${at}, collected again`);
  }
  t.comment(`${count} points`);
  t.ok(count >= 25, "many points");
});

test("a garbage list that can't be understood is reported, and stops neither collector nor writer", async (t) => {
  const scene = new Scene();
  const { a, b } = await twoEnvironments(scene);
  await forget(scene.store(), a);
  const lists = {
    "garbage/half": '{"format":1,"sinceMs":0,"isRepl',
    "garbage/outside": JSON.stringify({
      format: 1,
      sinceMs: 0,
      isReplaced: false,
      paths: ["../x"],
    }),
  };
  const { whole } = scene.store();
  for (const [path, text] of Object.entries(lists)) await whole.put(path, Buffer.from(text));
  const faults = [{ what: "garbage/half" }, { what: "garbage/outside" }];
  // What one of them says has moved may be what nothing refers to: nodes look there until the grace is over.
  t.match(await scene.collect({ keepMs: DAY_MS }), { freed: { objects: 0 }, faults });
  scene.nowMs += DAY_MS + 1;
  t.match(await scene.collect({ keepMs: DAY_MS }), { freed: { objects: 0 }, faults });
  const three = packageOf(300, 301);
  const d = await scene.write((store) => makeEnvironment(store, { three }));
  scene.nowMs += DAY_MS + 1;
  const done = await scene.collect({ keepMs: DAY_MS });
  t.match(done, { freed: { objects: 8 }, faults });
  t.match(done.faults[0], { why: /can't be understood; remove it/ });
  t.same(await scene.paths("garbage"), Object.keys(lists));
  t.same(await broken(scene), []);
  for (const digest of [b, d]) await readAll(scene.store(), digest);
});

test("one at a time", async (t) => {
  const scene = new Scene();
  let inner: Promise<unknown> | undefined;
  const nesting: Hook = async (call, path) => {
    if (inner !== undefined || call !== "list" || path !== "packs") return;
    inner = scene.collect().catch((error: unknown) => error);
    t.match(await inner, { code: "BURROW_BUSY" });
  };
  await scene.collect({}, nesting);
  t.ok(inner !== undefined);
  await scene.collect();
});
