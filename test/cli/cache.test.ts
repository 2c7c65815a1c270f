// Owns: proof that `burrow cache` says how near its limit a cache is, and that what is pinned stays. Plane: control.
import fs from "node:fs";
import { test } from "tap";
import { noise, publish, TestNode } from "../suite/daemon-node.ts";
import { until } from "../suite/wait.ts";
import { newNode, ZEROS } from "./cli.ts";

const FILES = Object.fromEntries(
  Array.from({ length: 60 }, (_, i) => [`f${i}`, noise(40_000 + i, i + 1)]),
);
const OTHERS = Object.fromEntries(
  Array.from({ length: 60 }, (_, i) => [`g${i}`, noise(40_000 + i, i + 1001)]),
);
const LIMIT = 4_500_000;

test("what is pinned stays whatever else is fetched; unpinned, it goes", async (t) => {
  const cli = newNode(t);
  const node = new TestNode();
  t.teardown(() => node.close());
  const pinned = await publish(node.store, FILES);
  const others = await publish(node.store, OTHERS);
  await node.start({ limitBytes: LIMIT });
  const first = await node.connect(node.mount(node.store, pinned.digest));
  const second = await node.connect(node.mount(node.store, others.digest));
  const run = (...words: string[]) => cli.run(["cache", ...words, "--cache", node.cache]);
  const name = `sha256:${pinned.digest}`;
  t.match(await run("pin", name), { code: 1, stderr: /no such snapshot in the cache/ });
  for (const file of Object.keys(FILES)) await first.askBlob(0, pinned.row(file));
  await node.settled();
  const digits = pinned.digest.slice(0, 8);
  for (const text of [name, digits, `sha256:${digits}`])
    t.match(await run("pin", text), { code: 0, stdout: "pinned 1 snapshot\n" });
  t.match(await run("pin", "0000000"), { code: 1, stderr: /no such snapshot in the cache/ });
  t.match(await run("unpin", "0000000"), { code: 1, stdout: "unpinned 0 snapshots\n" });
  t.match(await run("pin", digits.slice(0, 5)), { code: 2, stderr: /the first 6 or more/ });
  t.match(await run("pin", name, ZEROS), { code: 1 }, "one of them can't be");
  t.match(await run("pin", "nonsense"), { code: 2, stderr: /is no digest/ });
  t.equal((await run("pins")).stdout, `${name}\n`);
  const isHere = (file: string) => fs.existsSync(node.blobPath(pinned.refs.get(file)!.digest));
  const press = async () => {
    await Promise.all(Object.keys(OTHERS).map((file) => second.askBlob(0, others.row(file))));
  };
  for (let i = 0; i < 4; i++) await press();
  t.same(
    Object.keys(FILES).filter((file) => !isHere(file)),
    [],
    "none was evicted",
  );
  const shown = JSON.parse((await run("stats", "--json")).stdout);
  t.match(shown, { pins: [name], room: { limitBytes: LIMIT, isSurveyed: true } });
  t.ok(shown.room.evicted > 0);
  t.match((await run("show")).stdout, /\nlimit +4\.50 MB\ntaken +\S+ MB \(.*blobs /);
  t.match(await run("unpin", digits), { code: 0, stdout: "unpinned 1 snapshot\n" });
  t.equal((await run("unpin", name)).code, 1, "it wasn't pinned");
  t.equal((await run("pins")).stdout, "none\n");
  const goes = async () => {
    await press();
    return !Object.keys(FILES).every(isHere);
  };
  t.ok(await until(goes));
});

test("what is cleared is no longer counted", async (t) => {
  const cli = newNode(t);
  const node = new TestNode();
  t.teardown(() => node.close());
  const { digest, row } = await publish(node.store, FILES);
  await node.start({ limitBytes: 20_000_000 });
  const client = await node.connect(node.mount(node.store, digest));
  for (const file of Object.keys(FILES)) await client.askBlob(0, row(file));
  await until(async () => (await node.settled()).room.isSurveyed);
  const before = (await node.settled()).room;
  t.ok(before.byFolder["blobs"]! > 2_400_000);
  t.match(await cli.run(["cache", "clear", "--cache", node.cache]), { code: 0 });
  const { usedBytes, byFolder, evicted } = (await node.status()).room;
  t.ok((byFolder["blobs"] ?? 0) < 1_200_000, "no more than folders");
  t.ok(before.usedBytes - usedBytes > 2_300_000);
  t.equal(evicted, 0);
});
