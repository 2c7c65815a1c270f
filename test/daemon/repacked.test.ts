// Owns: proof that a daemon which knows where content was finds it again after packs were written anew and the old ones removed.
// Plane: control.

import { test } from "tap";
import { digestOfPath } from "../../lib/store/layout.ts";
import { openStore } from "../../lib/store/open.ts";
import type { Pack } from "../../lib/store/pack-use.ts";
import { repack, usersOf } from "../../lib/store/repack.ts";
import { noise, publish, TestNode } from "../suite/daemon-node.ts";

test("packs that are gone are looked for by the locator as it is now", async (t) => {
  const node = new TestNode();
  t.teardown(() => node.close());
  const files = { large: noise(12_000_000, 1), small: noise(5_000, 2) };
  const { digest, row, refs } = await publish(node.store, files);
  await node.start({ background: false });
  const client = await node.connect(node.mount(node.store, digest));
  t.match(await client.askBlocks(0, row("large"), 0, 1), { errno: 0 });
  const store = await openStore(node.store);
  const packs: Pack[] = [];
  for await (const object of store.sizes("packs"))
    packs.push({ ...object, digest: digestOfPath(object.path)! });
  const { faults } = await repack(store, packs, await usersOf(store, [digest], packs), {
    // In the old order it would come out as it was.
    order: (blob) => (blob === refs.get("large")!.digest ? 0 : undefined),
    packBytes: 1_000_000,
    check: async () => {},
    onReplaced: async () => {},
  });
  t.same(faults, []);
  for (const { path } of packs) await store.remove(path);
  t.match(await client.askBlocks(0, row("large"), 40, 1), { errno: 0 }, "a block");
  t.match(await client.askBlob(0, row("small")), { errno: 0 }, "a small file");
  const { fetch } = await node.settled();
  t.equal(fetch["failedAsks"], 0);
  t.ok(fetch["refreshed"]! > 0);
});
