// Owns: proof that a lay-out that is killed at any change leaves nothing that is believed and missing. Plane: control.

import { test } from "tap";
import type { Digest } from "../../lib/base/digest.ts";
import { readLocator } from "../../lib/store/known.ts";
import { layOut } from "../../lib/store/lay-out.ts";
import { LEASE_MS } from "../../lib/store/lease.ts";
import { noise } from "../suite/daemon-node.ts";
import { broken, dyingAt, type Hook, makeEnvironment, PORTS, Scene } from "../suite/store-scene.ts";

const files = (seed: number) =>
  Object.fromEntries(Array.from({ length: 9 }, (_, i) => [`f${i}`, noise(200_000, seed + i)]));

test("killed at any point it leaves nothing that is believed and missing", async (t) => {
  const begun = new Scene();
  const [shared, one, two] = [files(10), files(20), files(30)];
  const a = await begun.write((store) => makeEnvironment(store, { shared, one }));
  await begun.write((store) => makeEnvironment(store, { shared, two }));
  await begun.write((store) => makeEnvironment(store, { shared, one }, "/opt/other"));
  const locator = await readLocator(begun.store(), a);
  const read = new Map<Digest, number>();
  for (let row = 0; row < locator.blobCount; row += 3) read.set(locator.digestAt(row), row);
  let count = 0;
  for (let at = 0; ; at++) {
    const scene = await begun.copy();
    const { hook, isReached } = dyingAt(at);
    const order = (blob: Digest) => read.get(blob);
    const run = (hook?: Hook) =>
      layOut(scene.store(hook), PORTS, a, order, { clock: scene.clock(), packBytes: 500_000 });
    await run(hook).catch(() => undefined);
    const wrong = await broken(scene);
    if (wrong.length > 0) t.same(wrong, [], `killed at change ${at}`);
    if (!isReached()) break;
    count++;
    scene.nowMs += LEASE_MS + 1;
    await run();
    scene.nowMs += LEASE_MS + 1;
    await scene.collect();
    const still = await broken(scene);
    if (still.length > 0) t.same(still, [], `killed at change ${at}, laid out and collected`);
  }
  t.comment(`${count} points`);
  t.ok(count >= 15, "many points");
});
