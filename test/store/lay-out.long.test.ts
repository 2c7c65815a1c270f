// Owns: proof that a lay-out that is killed at any change leaves nothing that is believed and missing. Plane: control.

import { t as file, test } from "tap";
import type { Digest } from "../../lib/base/digest.ts";
import { readLocator } from "../../lib/store/known.ts";
import { layOut } from "../../lib/store/lay-out.ts";
import { LEASE_MS } from "../../lib/store/lease.ts";
import { noise } from "../suite/daemon-node.ts";
import { broken, dyingAt, type Hook, makeEnvironment, PORTS, Scene } from "../suite/store-scene.ts";

file.setTimeout(600_000);

const files = (seed: number) =>
  Object.fromEntries(Array.from({ length: 9 }, (_, i) => [`f${i}`, noise(200_000, seed + i)]));

test("killed at any point it leaves nothing that is believed and missing", {
  timeout: 600_000,
}, async (t) => {
  const begun = new Scene();
  const [shared, one, two] = [files(10), files(20), files(30)];
  const a = await begun.write((store) => makeEnvironment(store, { shared, one }));
  await begun.write((store) => makeEnvironment(store, { shared, two }));
  await begun.write((store) => makeEnvironment(store, { shared, one }, "/opt/other"));
  const locator = await readLocator(begun.store(), a);
  // Every second in the order in which they lie: no two together, so that there is something to win.
  if (locator.kind !== "packs") return t.fail(locator.kind);
  const rows = Array.from({ length: locator.blobCount }, (_, row) => row);
  const placeOf = (row: number) => {
    const { pack, offset } = locator.chunkAt(row, 0);
    return `${pack} ${String(offset).padStart(12, "0")}`;
  };
  rows.sort((a, b) => (placeOf(a) < placeOf(b) ? -1 : 1));
  const read = new Map<Digest, number>();
  for (let at = 0; at < rows.length; at += 2) read.set(locator.digestAt(rows[at]!), at);
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
