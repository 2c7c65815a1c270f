// Owns: proof that a writer whose lease was taken for ended, whatever clocks and machines did, publishes nothing that leads nowhere, and
// that those at work are not taken for ended for being unseen. Plane: control.

import { test } from "tap";
import type { Digest } from "../../lib/base/digest.ts";
import { withLease } from "../../lib/store/garbage.ts";
import { LEASE_MS, Lease, UNSEEN_MS } from "../../lib/store/lease.ts";
import { ownOwner } from "../../lib/sys/owner.ts";
import {
  broken,
  forget,
  type Hook,
  makeEnvironment,
  packageOf,
  readAll,
  Scene,
} from "../suite/store-scene.ts";

const BIG = packageOf(1, 2, 3, 4);
const SMALL = packageOf(1, 2, 9);
/** Of a machine that was stopped, or whose time is none of the store's. */
const STILL = { now: () => 5_000, sleep: async () => {} };

/** A store with garbage, and one environment that is named. */
async function garbageScene(): Promise<{ scene: Scene; kept: Digest }> {
  const scene = new Scene();
  const gone = await scene.write((store) => makeEnvironment(store, { big: BIG }));
  const kept = await scene.write((store) => makeEnvironment(store, { own: packageOf(50) }));
  await forget(scene.store(), gone);
  return { scene, kept };
}

test("the store's clock is set while a writer is at work: it fails, and nothing is published that leads nowhere", async (t) => {
  const { scene: begun, kept } = await garbageScene();
  const outcomes = new Map<string, number>();
  // The step comes before each call of the writer that others may see, and its lease is put again after it, or not.
  for (const isRenewed of [false, true]) {
    for (let at = 0; ; at++) {
      const scene = await begun.copy();
      let calls = 0;
      let hasStepped = false;
      const stepping: Hook = async (call, path) => {
        if (hasStepped || call !== "put" || /^(leases|holds)\//.test(path) || calls++ < at) return;
        hasStepped = true;
        scene.nowMs += 25 * LEASE_MS;
        const leases = await scene.paths("leases");
        const bodies = await Promise.all(leases.map((lease) => scene.store().get(lease)));
        const { freed } = await scene.collect();
        if (freed.objects === 0) t.fail(`step ${at}: the writer's lease held`);
        if (!isRenewed) return;
        for (const [i, lease] of leases.entries()) await scene.backend().put(lease, bodies[i]!);
      };
      const made = { small: SMALL, more: BIG };
      const work = withLease(
        scene.backend(stepping),
        "a writer",
        (store) => makeEnvironment(store, made),
        STILL,
      );
      const code = await work.then(
        () => "done",
        (error: { code?: string }) => error.code ?? String(error),
      );
      if (!hasStepped) break;
      outcomes.set(code, (outcomes.get(code) ?? 0) + 1);
      const wrong = await broken(scene);
      if (wrong.length > 0)
        t.same(wrong, [], `step ${at}, ${isRenewed ? "renewed" : "not renewed"}`);
      await readAll(scene.store(), kept);
      t.same(await scene.paths("holds"), []);
      // And again, as its error says.
      const digest = await scene.write((store) => makeEnvironment(store, made));
      await readAll(scene.store(), digest);
    }
  }
  t.same([...outcomes.keys()], ["BURROW_LEASE"]);
  t.ok((outcomes.get("BURROW_LEASE") ?? 0) > 12, "many points");
});

test("a writer that isn't seen here, as in a clone of this machine, is at work while it renews", async (t) => {
  const { scene } = await garbageScene();
  const lease = await Lease.open(scene.backend(), "elsewhere", scene.clock());
  const [path = ""] = await scene.paths("leases");
  const body = await scene.store().get(path);
  const [boot, space, pid] = ownOwner().split("-");
  // The same boot, and no such process.
  const clone = `${boot}-${space}-${pid}-1@${"a".repeat(24)}`;
  for (const [folder, bytes] of [["holds", Buffer.from("{}")] as const, ["leases", body] as const])
    await scene.backend().put(`${folder}/${clone}`, bytes);
  await lease.close();
  t.match(await scene.collect(), { freed: { objects: 0 }, writers: ["elsewhere"] });
  scene.nowMs += UNSEEN_MS - 1_000;
  t.match(await scene.collect(), { freed: { objects: 0 }, writers: ["elsewhere"] });
  await scene.backend().put(`leases/${clone}`, body);
  scene.nowMs += UNSEEN_MS - 1_000;
  t.match(await scene.collect(), { freed: { objects: 0 }, writers: ["elsewhere"] });
  scene.nowMs += 2_000;
  const { freed, writers } = await scene.collect();
  t.ok(freed.objects > 0);
  t.same(writers, []);
  t.same(await scene.paths("leases", "holds", "garbage"), []);
});

test("a collector that another one took for ended removes nothing more", async (t) => {
  const { scene } = await garbageScene();
  let removed = 0;
  let isOther = false;
  const stepping: Hook = async (call, path) => {
    if (isOther && call === "remove" && /^(packs|indexes|locators)\//.test(path)) removed++;
    if (isOther || call !== "put" || !path.startsWith("garbage/")) return;
    isOther = true;
    scene.nowMs += 2 * LEASE_MS;
    await scene.collect();
  };
  await t.rejects(scene.collect({ clock: STILL }, stepping), { code: "BURROW_LEASE" });
  t.equal(removed, 0);
  t.same(await broken(scene), []);
});

test("what commands that were killed left of their leases goes", async (t) => {
  const { scene } = await garbageScene();
  const name = `0123abcd-1-2-3@${"b".repeat(24)}`;
  await scene.backend().put(`holds/${name}`, Buffer.from("{}"));
  await scene.collect();
  t.same(await scene.paths("holds"), [`holds/${name}`], "its lease may come yet");
  scene.nowMs += LEASE_MS + 1_000;
  await scene.collect();
  t.same(await scene.paths("holds"), []);
});

test("a writer that can't read a list waits for a sweep that may remove what is in it", async (t) => {
  const { scene } = await garbageScene();
  const garbage = await scene.paths("imports", "locators", "indexes", "packs");
  const sweeping = `collectors/0123abcd-1-2-3@${"c".repeat(24)}`;
  const list = `garbage/${"d".repeat(32)}`;
  await scene.backend().put(sweeping, Buffer.from(JSON.stringify({ format: 1, stage: "sweep" })));
  await scene.backend().put(list, Buffer.from("damaged"));
  const early: string[] = [];
  let hasSlept = false;
  const watching: Hook = (call, path) => {
    if (!hasSlept && garbage.includes(path)) early.push(`${call} ${path}`);
  };
  const sleep = async () => {
    hasSlept = true;
    await scene.backend().remove(sweeping);
  };
  const work = async (store: Parameters<typeof makeEnvironment>[0]) => {
    t.ok(hasSlept);
    const digest = await makeEnvironment(store, { big: BIG });
    // Nothing goes for the list's sake that a later collection finds in its own.
    await scene.collect();
    return digest;
  };
  const digest = await scene.write(work, watching, sleep);
  t.same(early, []);
  await readAll(scene.store(), digest);
  t.same(await broken(scene), []);
});
