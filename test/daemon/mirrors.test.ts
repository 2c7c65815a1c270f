// A daemon that knows mirrors of its origin: sandboxes notice nothing of those that are down or lie, and STATUS says which they are.

import fs from "node:fs";
import { tmpdir } from "node:os";
import { dirname } from "node:path";
import { type Test, test } from "tap";
import { BLOCK_BYTES } from "../../lib/base/limits.ts";
import { digestOf } from "../../lib/store/hash.ts";
import { exited, noise } from "../suite/daemon-node.ts";
import { SMALL, scene } from "../suite/daemon-scene.ts";
import { OriginServer } from "../suite/origin-server.ts";
import { until } from "../suite/wait.ts";

const FILES = { ...SMALL, large: noise(12 * BLOCK_BYTES + 5, 77) };

/** A scene whose origin has another server of the same store as its mirror, and the file that says so. */
async function mirrored(t: Test, more: object = {}) {
  const found = await scene(t, FILES);
  const mirror = await OriginServer.start(found.node.store);
  t.teardown(() => mirror.close());
  const origins = `${found.node.root}/origins.json`;
  const plan = { mirrors: [mirror.url], ...more };
  fs.writeFileSync(origins, JSON.stringify({ format: 1, origins: { [found.server.url]: plan } }));
  return { ...found, mirror, origins };
}

test("the origin is down from the start: all comes from its mirror, the index too", async (t) => {
  const { node, server, mirror, origins, published, mountId } = await mirrored(t);
  server.fault = () => "reset";
  await node.start({ origins });
  const client = await node.connect(mountId);
  for (let i = 0; i < 50; i++)
    t.equal((await client.askBlob(0, published.row(`file${i}`))).errno, 0);
  t.equal((await client.askBlob(0, published.row("large"))).errno, 0);
  const { origins: figures } = await node.settled();
  const { places, transient, bytes } = figures[server.url]!;
  t.match(places, [
    { name: server.url, bytes: 0, state: "resting" },
    { name: mirror.url, state: "up", transient: 0 },
  ]);
  t.ok(bytes > 0);
  t.ok(transient <= 4, `${transient} requests to the one that is down`);
});

test("an origin that lies is found out, left alone, and named", async (t) => {
  const { node, server, mirror, origins, published, mountId } = await mirrored(t);
  server.fault = (path) => (path.startsWith("packs/") ? "flip" : "none");
  await node.start({ origins, background: false });
  const client = await node.connect(mountId);
  t.equal((await client.askBlocks(0, published.row("large"), 2, 4)).errno, 0);
  t.equal((await client.askBlob(0, published.row("file25"))).errno, 0);
  const { origins: figures, fetch } = await node.settled();
  t.match(figures[server.url]!.places, [
    { mismatches: 1, state: "resting", why: /another digest/ },
    { name: mirror.url, mismatches: 0, state: "up" },
  ]);
  t.equal(fetch["mismatches"], 1);
  t.match(node.output, new RegExp(`"event":"mismatch".*"place":"${server.url}"`));
});

test("all are down: the answer is an errno, and the log names each", async (t) => {
  const { node, server, mirror, origins, published, mountId } = await mirrored(t);
  await node.start({ origins, deadlineMs: 10_000 });
  const client = await node.connect(mountId);
  t.equal((await client.askBlob(0, published.row("file0"))).errno, 0);
  await node.settled();
  for (const one of [server, mirror]) one.fault = () => "503";
  t.not((await client.askBlocks(0, published.row("large"), 1, 1)).errno, 0);
  t.match(node.output, new RegExp(`"places":"${server.url}: [^"]*503[^"]*${mirror.url}: `));
  for (const one of [server, mirror]) one.fault = () => "none";
  t.equal((await client.askBlocks(0, published.row("large"), 1, 1)).errno, 0);
});

test("a file of origins that has a slip in it is refused at the start, and the slip named", async (t) => {
  const { node, origins } = await mirrored(t, { mirrours: [] });
  t.not(await exited(node.spawn({ origins })), 0);
  t.match(node.output, /no .*mirrours/);
});

test("a tier is filled with what it lacked, and the next node asks the origin for nothing of that", async (t) => {
  const at = `${fs.mkdtempSync(`${tmpdir()}/burrow-tier-`)}/tier`;
  t.teardown(() => fs.rmSync(dirname(at), { recursive: true, force: true }));
  const { node, server, origins, published, mountId } = await mirrored(t, { tier: { at } });
  const filled = async () => (await node.status()).origins[server.url]!.tier!.filled;
  const packs = () => fs.readdirSync(at, { recursive: true, withFileTypes: true });
  const all = async () => {
    const client = await node.connect(mountId);
    for (let i = 0; i < 50; i++)
      t.equal((await client.askBlob(0, published.row(`file${i}`))).errno, 0);
    t.equal((await client.askBlob(0, published.row("large"))).errno, 0);
    client.close();
  };
  const first = await node.start({ origins });
  await all();
  t.ok(await until(async () => (await filled()) === 2), "the pack and the index");
  first.kill("SIGTERM");
  await exited(first);
  const files = packs().filter((entry) => entry.isFile());
  t.equal(files.length, 2);
  for (const { parentPath, name } of files)
    t.equal(digestOf(fs.readFileSync(`${parentPath}/${name}`)), name, "whole and right");
  node.cache = `${node.root}/other`;
  const before = server.count("packs");
  const second = await node.start({ origins });
  await all();
  t.equal(server.count("packs"), before, "all came from the tier");
  second.kill("SIGTERM");
  await exited(second);
  // What others put there is believed no more than an origin: it is found wrong, and put right.
  const pack = files.find(({ parentPath }) => parentPath.includes("/packs/"))!;
  const path = `${pack.parentPath}/${pack.name}`;
  const bytes = fs.readFileSync(path);
  fs.writeFileSync(path, Buffer.from(bytes).fill(7, 100, bytes.length - 100));
  node.cache = `${node.root}/third`;
  await node.start({ origins });
  await all();
  const { origins: figures } = await node.settled();
  // On a slow machine its rest is over by now, and it is right again.
  const [tier] = figures[server.url]!.places;
  t.match(tier, { isTier: true, why: /another digest/ });
  t.ok(tier!.rests > 0);
  t.ok(await until(async () => (await filled()) >= 1));
  t.same(fs.readFileSync(path), bytes, "healed");
});

test("a tier that can't be written harms nobody", async (t) => {
  const { node, origins, published, mountId, server } = await mirrored(t, {
    tier: { at: "/proc/self/no-tier" },
  });
  await node.start({ origins });
  const client = await node.connect(mountId);
  t.equal((await client.askBlob(0, published.row("file0"))).errno, 0);
  const failed = async () => (await node.status()).origins[server.url]!.tier!.failed;
  t.ok(await until(async () => (await failed()) === 1));
  t.equal((await client.askBlob(0, published.row("large"))).errno, 0);
  t.equal(await failed(), 1, "left alone for a while");
  t.match(node.output, /"event":"tier not filled".*"tier":"\/proc\/self\/no-tier"/);
});
