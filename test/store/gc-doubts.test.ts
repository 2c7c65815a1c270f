// Owns: proof that a collection removes nothing, and writes nothing anew, for the sake of what it could not read: a delta whose base it can't
// find out has one all the same. Plane: control.

import { type Test, test } from "tap";
import type { Digest } from "../../lib/base/digest.ts";
import { resolvingStore } from "../../lib/store/deltas.ts";
import { collect } from "../../lib/store/gc.ts";
import { objectPath } from "../../lib/store/layout.ts";
import {
  broken,
  forget,
  type Hook,
  makeEnvironment,
  PORTS,
  packageOf,
  readAll,
  Scene,
} from "../suite/store-scene.ts";

/** An environment that is kept as deltas, its base, and a third that all of their packs were made for: it has no name any more. */
async function deltas(t: Test, scene: Scene): Promise<{ base: Digest; near: Digest }> {
  const seeds = Array.from({ length: 60 }, (_, i) => i + 1);
  const [big, small, more] = [packageOf(...seeds), packageOf(...seeds.slice(0, 20)), packageOf(77)];
  const forgotten = await scene.write((store) => makeEnvironment(store, { big }));
  const base = await scene.write((store) => makeEnvironment(store, { small, more }));
  const near = await scene.write((store) => makeEnvironment(store, { small, more }, "/opt/other"));
  await forget(scene.store(), forgotten);
  const paths = await scene.paths("deltas");
  for (const folder of ["locators", "indexes"])
    t.ok(paths.includes(`deltas/${folder}/${near.slice(0, 2)}/${near}`), `a delta in ${folder}`);
  return { base, near };
}

for (const folder of ["locators", "indexes"])
  test(`what a delta in ${folder} is made of stays while the delta can't be read`, async (t) => {
    const scene = new Scene();
    const { base, near } = await deltas(t, scene);
    await forget(scene.store(), base);
    // The other half says nothing of a base.
    const other = objectPath(folder === "locators" ? "indexes" : "locators", near);
    const { whole } = scene.store();
    await whole.put(other, await scene.store().get(other));
    await whole.remove(`deltas/${other}`);
    const path = `deltas/${folder}/${near.slice(0, 2)}/${near}`;
    const failing: Hook = (call, asked) => {
      if (call === "get" && asked === path) throw new Error("the network is gone");
    };
    const blind = await scene.collect({}, failing);
    t.match(blind.faults[0], { what: path, why: /the network is gone.*; all layers .* are kept/ });
    t.same(await broken(scene), []);
    await readAll(scene.store(), near);
    t.same((await scene.collect()).faults, []);
    t.same(await broken(scene), []);
    await readAll(scene.store(), near);
  });

test("no locator is written anew while it can't be told what is a delta of it", async (t) => {
  const scene = new Scene();
  const { base, near } = await deltas(t, scene);
  // Leases are read for the first time when it begins to write anew.
  let isRepacking = false;
  let isOver = false;
  const failing: Hook = (call, asked) => {
    isRepacking ||= call === "list" && asked === "leases";
    if (isOver || call !== "get" || !isRepacking || !asked.startsWith("deltas/locators/")) return;
    isOver = true;
    throw new Error("the network is gone");
  };
  const { faults, repacked } = await scene.collect({ isRepacking: true }, failing);
  t.match(faults[0], { why: /the network is gone/ });
  t.same(await broken(scene), []);
  for (const digest of [base, near]) await readAll(scene.store(), digest);
  t.equal(repacked.packs, 0);
  t.match(await scene.collect({ isRepacking: true }), { repacked: { packs: 1 }, faults: [] });
  t.same(await broken(scene), []);
});

for (const isRepacking of [false, true])
  test(`a delta that a bad line made damaged once has a base, repacking ${isRepacking}`, async (t) => {
    const made = new Scene();
    const { base, near } = await deltas(t, made);
    if (!isRepacking) await forget(made.store(), base);
    let lies = 0;
    for (let n = 0; lies === n; n++) {
      const scene = await made.copy();
      const inner = scene.backend();
      let reads = 0;
      const lying = resolvingStore({
        ...inner,
        async get(path, options) {
          const bytes = await inner.get(path, options);
          if (!path.startsWith("deltas/locators/") || reads++ !== n) return bytes;
          lies++;
          return Buffer.alloc(bytes.length, "a page for people");
        },
      });
      const options = { keepMs: 0, isAll: false, isRepacking, clock: scene.clock() };
      // It may end early.
      await collect(lying, PORTS, options).catch(() => undefined);
      t.same(await broken(scene), [], `read ${n}`);
      await readAll(scene.store(), near);
    }
    t.ok(lies > 1, `${lies} lies`);
  });

test("a delta that is none keeps nothing", async (t) => {
  const scene = new Scene();
  const { base, near } = await deltas(t, scene);
  const { whole } = scene.store();
  for (const bytes of [Buffer.alloc(0), Buffer.alloc(300, 1)]) {
    await whole.put(`deltas/locators/${near.slice(0, 2)}/${near}`, bytes);
    const { faults } = await scene.collect();
    t.match(faults[0], { what: /^deltas/, why: /it is none|ends at 0/ });
    for (const { why } of faults) t.notMatch(why, /all layers/);
  }
  await readAll(scene.store(), base);
});
