// Owns: proof that what a preload made, and what it goes on to build upon it, stays while others collect the store. Plane: control.

import { createHash } from "node:crypto";
import fs from "node:fs";
import { test } from "tap";
import { parseDigest } from "../../lib/base/digest.ts";
import { collect } from "../../lib/store/gc.ts";
import { objectPath } from "../../lib/store/layout.ts";
import { Lease } from "../../lib/store/lease.ts";
import { openStore } from "../../lib/store/open.ts";
import { conda } from "../ingest/conda/packages.ts";
import { noise } from "../suite/daemon-node.ts";
import { OriginServer } from "../suite/origin-server.ts";
import { forget, PORTS, readAll } from "../suite/store-scene.ts";
import { until } from "../suite/wait.ts";
import { newNode } from "./cli.ts";

const NOW = { keepMs: 0, isAll: false, isRepacking: true };

test("what a preload makes again stays to its end, beside a collector without a grace", async (t) => {
  const node = newNode(t);
  let lines = "@EXPLICIT\n";
  let held: Promise<void> | undefined;
  const server = await OriginServer.start(node.path("channel"), async ({ url = "" }) => {
    if (url.includes("/two-")) await held;
    return { path: url.slice(1), headers: {} };
  });
  t.teardown(() => server.close());
  for (const [i, name] of ["one", "two"].entries()) {
    const own = { name: `share/${name}`, content: noise(40_000, i) };
    const files = [{ name: "share/same", content: noise(80_000, 7) }, own];
    const bytes = await conda({ index: { name }, files });
    const file = `${name}-1.0-h0_0.conda`;
    node.file(`channel/linux-64/${file}`, bytes);
    lines += `${server.url}/linux-64/${file}#sha256:${createHash("sha256").update(bytes).digest("hex")}\n`;
  }
  node.file("lock.txt", lines);
  const first = await node.run(["preload", "--no-warm", "lock.txt"]);
  t.equal(first.code, 0, first.stderr);
  const store = await openStore(node.store);
  const digest = parseDigest(first.stdout.trim())!;
  // A list that has all of it, which nobody may remove yet.
  await forget(store, digest);
  const early = await Lease.open(store.whole, "an earlier writer");
  t.match(await collect(store, PORTS, NOW), { freed: { objects: 0 }, faults: [] });
  await early.close();
  const times = async () => {
    const all: number[] = [];
    for await (const { modifiedMs } of store.sizes("imports")) all.push(modifiedMs);
    return all;
  };
  const before = await times();
  t.equal(before.length, 2);
  let release = () => {};
  held = new Promise((resolve) => {
    release = resolve;
  });
  const second = node.run(["preload", "--no-warm", "--jobs", "1", "lock.txt"]);
  const isNoted = async () => Math.max(...(await times())) > Math.max(...before);
  t.ok(await until(isNoted), "the first package is noted anew");
  for (const _ of [1, 2]) t.match(await collect(store, PORTS, NOW), { faults: [] });
  release();
  const { code, stdout, stderr } = await second;
  t.equal(code, 0, stderr);
  t.equal(stdout, first.stdout);
  t.match(stderr, /\n2 packages: 2 ingested/);
  await readAll(store, digest);
  t.equal(await store.has(objectPath("environments", digest)), true);
  t.match(await collect(store, PORTS, NOW), { faults: [] });
  await readAll(store, digest);
  t.same(fs.readdirSync(`${node.store}/leases`), []);
});
