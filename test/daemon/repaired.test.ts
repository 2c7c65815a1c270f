// Owns: proof that a daemon which knows where content was finds it where a repair has put it, when what lies at the old place is wrong or
// cut off; and that it doesn't ask for locators over and over where nothing was repaired. Plane: control.

import fs from "node:fs";
import path from "node:path";
import { type Test, test } from "tap";
import { noise, publish, TestNode } from "../suite/daemon-node.ts";
import { SMALL, scene } from "../suite/daemon-scene.ts";
import { OriginServer } from "../suite/origin-server.ts";

const FILES = { ...SMALL, large: noise(2_000_000, 99) };

const DAMAGES = {
  "cut off": (file: string) => fs.truncateSync(file, 5_000),
  "other content": (file: string) => fs.writeFileSync(file, Buffer.alloc(fs.statSync(file).size)),
};

function packsOf(node: TestNode): string[] {
  const folder = path.join(node.store, "packs");
  const names = fs.readdirSync(folder, { recursive: true, encoding: "utf8" });
  return names.filter((name) => /[0-9a-f]{64}$/.test(name)).map((name) => path.join(folder, name));
}

/** As --repair leaves a store: the same snapshot in packs of other names, the damaged ones beside them. */
async function repair(node: TestNode): Promise<void> {
  const wrong = packsOf(node).map((file) => ({ file, bytes: fs.readFileSync(file) }));
  for (const folder of ["packs", "locators"])
    fs.rmSync(path.join(node.store, folder), { recursive: true });
  await publish(node.store, Object.fromEntries(Object.entries(FILES).reverse()));
  for (const { file, bytes } of wrong) {
    fs.mkdirSync(path.dirname(file), { recursive: true });
    fs.writeFileSync(file, bytes);
  }
}

async function originOf(t: Test, node: TestNode, isRemote: boolean): Promise<string> {
  if (!isRemote) return node.store;
  const server = await OriginServer.start(node.store);
  t.teardown(() => server.close());
  return server.url;
}

for (const [how, damage] of Object.entries(DAMAGES)) {
  for (const isRemote of [false, true]) {
    test(`a pack that is ${how}, ${isRemote ? "behind a server" : "in a directory"}`, async (t) => {
      const node = new TestNode();
      t.teardown(() => node.close());
      const { digest, row } = await publish(node.store, FILES);
      const origin = await originOf(t, node, isRemote);
      await node.start({ background: false });
      const client = await node.connect(node.mount(origin, digest));
      t.match(await client.askBlocks(0, row("large"), 0, 1), { errno: 0 });
      for (const file of packsOf(node)) damage(file);
      await repair(node);
      const small = () => client.askBlob(0, row("file40"));
      const block = () => client.askBlocks(0, row("large"), 7, 1);
      // Whichever comes first finds it out.
      for (const ask of isRemote ? [block, small] : [small, block])
        t.match(await ask(), { errno: 0 }, node.output);
      t.match(await client.askBlob(0, row("large")), { errno: 0 }, "all of a large file");
      const { fetch } = await node.settled();
      t.match(fetch, { failedAsks: 0, refreshed: 1 });
    });
  }
}

test("what nobody repaired costs few requests for locators, however much of it is asked for", async (t) => {
  const { node, server, published, mountId } = await scene(t, SMALL);
  await node.start();
  const client = await node.connect(mountId);
  for (const file of packsOf(node)) DAMAGES["other content"](file);
  const before = server.count("locators");
  const answers = await Promise.all(
    Object.keys(SMALL).map((name) => client.askBlob(0, published.row(name))),
  );
  t.ok(answers.every(({ errno }) => errno > 0));
  t.ok(server.count("locators") - before <= 5, `${server.count("locators") - before}`);
  t.match((await node.settled()).fetch, { refreshed: 0 });
});
