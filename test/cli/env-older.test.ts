// Owns: proof that a sandbox gets no variables of an environment that nothing vouches for. Plane: control.

import fs from "node:fs";
import { test } from "tap";
import { showDigest } from "../../lib/base/digest.ts";
import { readEnvironment, writeEnvironment } from "../../lib/cli/environment.ts";
import { rootEntry } from "../../lib/layer/entries.ts";
import { Index } from "../../lib/layer/index.ts";
import { layerOf, mergeIndexes } from "../../lib/layer/merge.ts";
import { objectPath } from "../../lib/store/layout.ts";
import { writingStore } from "../../lib/store/open.ts";
import { openPackWriter } from "../../lib/store/pack-writer.ts";
import { makeEnvironment, packageOf } from "../suite/store-scene.ts";
import { newNode } from "./cli.ts";

test("an environment that an earlier Burrow compiled runs without the variables of its document", async (t) => {
  const node = newNode(t);
  node.file("base/etc/hostname", "here\n");
  const digest = await writingStore(node.store, "a test", async (store) => {
    const plain = await makeEnvironment(store, { one: packageOf(1) });
    const index = new Index(await store.get(objectPath("indexes", plain)));
    const root = rootEntry(index);
    const xattrs = new Map([...root.xattrs!, ["user.burrow.captured", "ab".repeat(32)]]);
    const writer = await openPackWriter(store);
    const merged = mergeIndexes([index, layerOf([{ ...root, xattrs }])]);
    const { digest: made } = await writer.writeSnapshot(merged, [plain]);
    const document = await readEnvironment(store, plain);
    const variables = { LD_PRELOAD: "/stage/x/evil.so", "A=B\nC": { x: 1 } } as never;
    await writeEnvironment(store, made, { ...document, variables });
    return made;
  });
  const env = showDigest(digest);
  const made = await node.run([
    "bundle",
    "--base",
    "base",
    "--env",
    env,
    "--id",
    "one",
    "out",
    "ls",
  ]);
  t.match(made, { code: 0, stdout: "one\n" });
  t.match(
    made.stderr,
    `${env.slice(0, 19)} was compiled by an earlier Burrow: it runs without its variables; run "burrow env compile`,
  );
  const config = fs.readFileSync(node.path("out/config.json"), "utf8");
  t.notMatch(config, /LD_PRELOAD|evil|A=B/);
  t.match(config, '"PATH=/opt/env/bin');
});
