// Owns: proof that writers and the collector can be at work at the same time, in any order of their calls, and that nobody who reads
// finds a thing missing. Plane: control.

import fc from "fast-check";
import { test } from "tap";
import type { Digest } from "../../lib/base/digest.ts";
import { resolvingStore } from "../../lib/store/deltas.ts";
import { objectPath } from "../../lib/store/layout.ts";
import { LEASE_MS } from "../../lib/store/lease.ts";
import { isLong, soakMs } from "../suite/long.ts";
import {
  broken,
  forget,
  type Hook,
  makeEnvironment,
  type Package,
  packageOf,
  readAll,
  Scene,
} from "../suite/store-scene.ts";

/** Of the points between two calls, every so many, from one that the seed says. */
const STRIDE = isLong ? 1 : 3;
const START = Number(process.env["BURROW_SEED"] ?? Date.now()) % STRIDE;
const SEEDS = Array.from({ length: 24 }, (_, i) => i + 1);
const BIG = packageOf(...SEEDS);
const SMALL = packageOf(...SEEDS.slice(0, 8));

/** What writers make: what was forgotten again, the same of another prefix, and something new that shares files with both. */
const WORK: Readonly<Record<string, [Readonly<Record<string, Package>>, string?]>> = {
  again: [{ big: BIG }],
  prefix: [{ big: BIG }, "/opt/other"],
  shared: [{ small: SMALL, more: packageOf(77, 2) }],
  fresh: [{ big: BIG, own: packageOf(3, 90) }],
};
type Work = keyof typeof WORK;

/** A store with garbage: an environment that was forgotten, and one that needs some of its packs. */
async function garbageScene(): Promise<{ scene: Scene; kept: Digest }> {
  const scene = new Scene();
  const gone = await scene.write((store) => makeEnvironment(store, { big: BIG }));
  const kept = await scene.write((store) => makeEnvironment(store, { small: SMALL }));
  await forget(scene.store(), gone);
  return { scene, kept };
}

/** What must hold when all actors are done. */
async function check(scene: Scene, made: readonly Digest[]): Promise<string[]> {
  const wrong = await broken(scene);
  for (const digest of made) {
    const isThere = await scene.store().has(objectPath("environments", digest));
    if (!isThere) wrong.push(`${digest.slice(0, 8)} has no document`);
    await readAll(scene.store(), digest).catch((error: unknown) => wrong.push(String(error)));
  }
  const left = await scene.paths("leases", "collectors");
  return [...wrong, ...left.map((path) => `${path} is left`)];
}

test("a whole writer between any two steps of the collector, and the other way round", async (t) => {
  const { scene: begun, kept } = await garbageScene();
  let points = 0;
  for (const work of ["again", "prefix", "shared"] as const) {
    for (const isWriterFirst of [true, false]) {
      // Of one work before every call of the writer; else before changes: reads alone leave nothing for others to see.
      const isEvery = work === "shared" && isWriterFirst;
      const isPoint = (call: string, path: string) =>
        (isEvery && !path.startsWith("holds/")) || call === "put" || call === "remove";
      for (let at = START; ; at += STRIDE) {
        const scene = await begun.copy();
        const write = (hook?: Hook, sleep?: () => Promise<void>) =>
          scene.write((store) => makeEnvironment(store, ...WORK[work]!), hook, sleep);
        const gc = (hook?: Hook) => scene.collect({ isRepacking: true }, hook);
        // The inner one may wait for the outer one: then that goes on.
        let inner: Promise<unknown> | undefined;
        let isOuterDone = () => {};
        const outerDone = new Promise<void>((resolve) => {
          isOuterDone = resolve;
        });
        let calls = 0;
        const between: Hook = async (call, path) => {
          if (inner !== undefined || !isPoint(call, path) || calls++ < at) return;
          let isAsleep = () => {};
          const asleep = new Promise<void>((resolve) => {
            isAsleep = resolve;
          });
          const sleep = async () => {
            isAsleep();
            await outerDone;
          };
          inner = isWriterFirst ? gc() : write(undefined, sleep);
          await Promise.race([inner, asleep]);
        };
        const outer = isWriterFirst ? write(between) : gc(between);
        const first = await outer.finally(isOuterDone);
        if (inner === undefined) break;
        points++;
        const made = (isWriterFirst ? first : await inner) as Digest;
        await inner;
        // What was held back for the writer's sake is judged again.
        for (const _ of [1, 2]) {
          const wrong = await check(scene, [made, kept]);
          if (wrong.length > 0) t.same(wrong, [], `${work}, ${isWriterFirst}, change ${at}`);
          const { faults } = await scene.collect({ isRepacking: true });
          if (faults.length > 0) t.same(faults, [], `${work}, ${isWriterFirst}, change ${at}`);
        }
      }
    }
  }
  t.comment(`${points} points, from ${START}`);
  t.ok(points > 80 / STRIDE, "many points");
});

test("two writers and the collector, in any order of their calls", {
  timeout: 120_000 + soakMs,
}, async (t) => {
  const { scene: begun, kept } = await garbageScene();
  const works = fc.constantFrom<Work>("again", "prefix", "shared", "fresh");
  let swept = 0;
  let runs = 0;
  const property = fc.asyncProperty(fc.scheduler(), works, works, async (s, one, two) => {
    const scene = await begun.copy();
    const hook =
      (who: string): Hook =>
      (call, path) =>
        s.schedule(Promise.resolve(), `${who} ${call} ${path.slice(0, 20)}`);
    const write = (who: string, work: Work) =>
      scene.write(
        (store) => makeEnvironment(store, ...WORK[work]!),
        hook(who),
        () => s.schedule(Promise.resolve(), `${who} sleeps`),
      );
    const gc = async () => {
      // Again and again, with what earlier ones left.
      for (let round = 0; round < 3; round++) {
        const { freed } = await scene.collect({ isRepacking: true }, hook("gc"));
        swept += freed.objects;
      }
    };
    const all = Promise.all([write("one", one), write("two", two), gc()]);
    await s.waitFor(all);
    const [first, second] = await all;
    const wrong = await check(scene, [first, second, kept]);
    if (wrong.length > 0) throw new Error(wrong.join("\n"));
    runs++;
  });
  const soak = { numRuns: 1_000_000, interruptAfterTimeLimit: soakMs };
  const seed = Number(process.env["BURROW_SEED"] ?? Date.now() % 0x7fff_ffff);
  await fc.assert(property, { seed, ...(soakMs > 0 ? soak : { numRuns: isLong ? 100 : 15 }) });
  t.comment(`seed ${seed}: ${runs} runs, ${swept} objects freed`);
  t.ok(swept > 0, "the collector did remove things meanwhile");
});

test("a writer that was killed holds things back for an hour, then no more", async (t) => {
  const { scene } = await garbageScene();
  let puts = 0;
  const dying: Hook = (call) => {
    if (call === "put" && puts++ > 3) throw new Error("killed");
    if (call === "remove") throw new Error("killed");
  };
  await t.rejects(
    scene.write((store) => makeEnvironment(store, { own: packageOf(300) }), dying),
    { message: "killed" },
  );
  t.match(await scene.collect(), { freed: { objects: 0 }, writers: ["a writer"], faults: [] });
  scene.nowMs += LEASE_MS / 2;
  t.match(await scene.collect(), { freed: { objects: 0 }, writers: ["a writer"] });
  scene.nowMs += LEASE_MS / 2 + 1000;
  const { freed, writers } = await scene.collect();
  t.ok(freed.objects > 0);
  t.same(writers, []);
  t.same(await scene.paths("leases", "garbage"), []);
  t.same(await broken(scene), []);
});

test("what an old list has is spared for what led to it later, though a collection was killed between", async (t) => {
  const scene = new Scene();
  const gone = await scene.write((store) => makeEnvironment(store, { big: BIG }));
  await forget(scene.store(), gone);
  let made: Digest | undefined;
  const last = await scene.write(async (store) => {
    // The list names the pack; its collector is killed before it removes a thing, while this writer is at work.
    let puts = 0;
    const dying: Hook = (call, path) => {
      if (call === "put" && path.startsWith("collectors/") && puts++ > 0) throw new Error("killed");
    };
    await t.rejects(scene.collect({}, dying), { message: "killed" });
    made = await makeEnvironment(store, { small: SMALL });
    return made;
  });
  t.equal((await scene.paths("garbage")).length, 1);
  await forget(scene.store(), last);
  const after = await scene.write(async (store) => {
    // It avoids the old list, and finds the pack by what was published since.
    let isDone = false;
    const meanwhile: Hook = async (call, path) => {
      if (isDone || call !== "put" || !path.startsWith("locators/")) return;
      isDone = true;
      t.match(await scene.collect(), { faults: [] });
    };
    const inner = resolvingStore({
      ...store.whole,
      put: async (path, bytes) => {
        await meanwhile("put", path);
        await store.whole.put(path, bytes);
      },
    });
    const digest = await makeEnvironment(inner, { again: SMALL });
    t.ok(isDone);
    return digest;
  });
  t.same(await check(scene, [after]), []);
  t.match(await scene.collect(), { faults: [] });
  t.same(await check(scene, [after]), []);
});

test("a writer whose machine slept for long is told, and publishes nothing", async (t) => {
  const { scene } = await garbageScene();
  const work = scene.write(async (store) => {
    scene.nowMs += LEASE_MS + 1;
    return await makeEnvironment(store, WORK["fresh"]![0]);
  });
  await t.rejects(work, { code: "BURROW_TIMEOUT", class: "transient" });
  t.match((await scene.collect()).faults, []);
  t.same(await broken(scene), []);
});
