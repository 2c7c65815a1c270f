// Lists of a bucket's objects that lie: who can write a store, a bucket or the hints in a cache has the daemon read nothing under a name
// that isn't that object's, and gets no file of another tenant's.

import fs from "node:fs";
import { test } from "tap";
import { Errno } from "../../lib/base/errno.ts";
import { BLOCK_BYTES } from "../../lib/base/limits.ts";
import { keepIndex, openCache, verifyCache } from "../../lib/cache/cache.ts";
import { ensureStageKey } from "../../lib/cache/stage-key.ts";
import { createManifest } from "../../lib/ingest/stage/scan.ts";
import { IndexKind } from "../../lib/layer/format.ts";
import { writeIndex } from "../../lib/layer/writer.ts";
import { digestOf } from "../../lib/store/hash.ts";
import {
  encodeFileLocator,
  encodePinnedLocator,
  type PinnedPlace,
} from "../../lib/store/locator-writer.ts";
import type { ObjectPin } from "../../lib/store/store.ts";
import { entriesOf, noise, publishedOf, TestNode } from "../suite/daemon-node.ts";
import { OriginServer } from "../suite/origin-server.ts";
import { temporary } from "../suite/served.ts";
import { listStage, type Stage, stageScene } from "../suite/stage-scene.ts";

const SMALL = Buffer.from("1,2\n");
const OTHER = Buffer.from("3,4\n");
const LARGE = noise(6 * BLOCK_BYTES, 9);
const FILES = { a: SMALL, b: OTHER, large: LARGE };

function blobs(node: TestNode): string[] {
  return fs
    .readdirSync(`${node.cache}/blobs`, { recursive: true, encoding: "utf8" })
    .filter((name) => name.includes("/"));
}

type ObjectPlace = PinnedPlace & { readonly pin: ObjectPin };

/** The places of a list, as its locator has them. */
function placesOf(stage: Stage, etags: Readonly<Record<string, string>>): ObjectPlace[] {
  return [...stage.refs].map(([path, { digest, size }]) => {
    return { path, digest, size, pin: { versionId: undefined, etag: etags[path]!, size } };
  });
}

test("a locator that leads to another object, state or tenant leads nowhere", async (t) => {
  const { server, node, source } = await stageScene(t, FILES);
  const stage = await listStage(node, source, "one");
  const etags: Record<string, string> = {};
  for (const [name, bytes] of Object.entries(FILES))
    etags[name] = server.tagOf(`box/data/${name}`, bytes).replaceAll('"', "");
  const right = placesOf(stage, etags);
  t.same(encodePinnedLocator("one", right), stage.imported.locator, "the test knows the format");
  const [a, b, large] = right as [ObjectPlace, ObjectPlace, ObjectPlace];
  const lies: Record<string, Buffer> = {
    "another object": encodePinnedLocator("one", [{ ...a, path: "b", pin: b.pin }, b, large]),
    "another state": encodePinnedLocator("one", [{ ...a, pin: b.pin }, b, large]),
    "another tenant": encodePinnedLocator("two", right),
    "no object": encodePinnedLocator("one", [b, large]),
    "a longer one": encodePinnedLocator("one", [{ ...a, size: 5 }, b, large]),
    "plain files": encodeFileLocator(
      right.map(({ path, digest, pin }) => ({ path, digest, size: pin.size })),
    ),
    "bytes without end": Buffer.concat([stage.imported.locator.subarray(0, 60), noise(500)]),
  };
  const path = `${node.cache}/locators/${stage.digest.slice(0, 2)}/${stage.digest}`;
  for (const [name, locator] of Object.entries(lies)) {
    fs.writeFileSync(path, locator);
    const daemon = await node.start({ background: false, deadlineMs: 5000 });
    const client = await node.connect(stage.mountId);
    t.equal((await client.askBlob(0, stage.row("a"))).errno, Errno.EIO, name);
    if (name === "plain files" || name === "another tenant")
      t.equal((await client.askBlocks(0, stage.row("large"), 0, 1)).errno, Errno.EIO, name);
    t.same(blobs(node), [], "nothing is kept");
    t.same(fs.readdirSync(`${node.cache}/partial`), []);
    daemon.kill("SIGTERM");
    await new Promise((resolve) => daemon.once("exit", resolve));
  }
  fs.writeFileSync(path, stage.imported.locator);
  await node.start({ background: false });
  const client = await node.connect(stage.mountId);
  t.equal((await client.askBlob(0, stage.row("a"))).errno, 0, "the right one is believed");
});

test("a pinned locator brings nothing under a digest of content, nor a large blob without digests", async (t) => {
  const { server, node, source } = await stageScene(t, { a: OTHER, large: LARGE });
  const cache = openCache(node.cache);
  ensureStageKey(cache);
  // What a store may say: a package's file, whose bytes are to come from a bucket of the one who lies.
  const refs = new Map([
    ["a", { digest: digestOf(SMALL), size: 4, blocks: [] }],
    ["large", { digest: digestOf(LARGE), size: LARGE.length, blocks: [], isPinned: true as const }],
  ]);
  const tag = (name: string, bytes: Buffer) => server.tagOf(name, bytes).replaceAll('"', "");
  const places = [...refs].map(([path, { digest, size }]) => {
    const etag = tag(path, path === "a" ? OTHER : LARGE);
    return { path, digest, size, pin: { versionId: undefined, etag, size } };
  });
  const bytes = writeIndex(IndexKind.snapshot, entriesOf(refs));
  await node.start({ background: false });
  for (const locator of [
    encodePinnedLocator("", places),
    encodeFileLocator(places.map(({ path, digest, pin }) => ({ path, digest, size: pin.size }))),
  ]) {
    const digest = await keepIndex(cache, bytes, locator);
    const published = publishedOf(digest, bytes, refs);
    const client = await node.connect(node.mount(source, digest));
    t.equal((await client.askBlob(0, published.row("a"))).errno, Errno.EIO);
    t.equal((await client.askBlob(0, published.row("large"))).errno, Errno.EIO);
    t.equal((await client.askBlocks(0, published.row("large"), 0, 1)).errno, Errno.EIO);
  }
  t.same(blobs(node), []);
  t.same(fs.readdirSync(`${node.cache}/partial`), [], "no file of a size that nobody vouches for");
});

test("tenants share no file of a stage, not even of one object", async (t) => {
  const { server, node, source } = await stageScene(t, FILES);
  const [one, two] = [await listStage(node, source, "one"), await listStage(node, source, "two")];
  const again = await listStage(node, `${source}&region=other`, "one");
  await node.start({ background: false });
  const [first, second, third] = await Promise.all(
    [one, two, again].map(({ mountId }) => node.connect(mountId)),
  );
  const names = Object.keys(FILES);
  for (const name of names) t.equal((await first!.askBlob(0, one.row(name))).errno, 0);
  t.equal(blobs(node).length, 3);
  server.files.requests.length = 0;
  for (const name of names) t.equal((await third!.askBlob(0, again.row(name))).errno, 0);
  t.equal(server.files.requests.length, 0, "one tenant's objects are one, however they are listed");
  for (const name of names) t.equal((await second!.askBlob(0, two.row(name))).errno, 0);
  t.ok(server.files.requests.length >= 3, "each is fetched with what the tenant may read");
  t.equal(blobs(node).length, 6);
  server.refusalOf = () => ({ status: 403, code: "AccessDenied" });
  fs.rmSync(node.blobPath(two.refs.get("a")!.digest));
  t.equal((await second!.askBlob(0, two.row("a"))).errno, Errno.EIO, "not the other's file");
  t.equal((await first!.askBlob(0, one.row("a"))).errno, 0);
  server.refusalOf = () => undefined;
  // A digest of what makes the name is none without the node's key: nobody can work out what to ask for.
  fs.rmSync(`${node.cache}/stage.key`);
  const other = await listStage(node, source, "one");
  for (const [name, { digest }] of one.refs) t.not(other.refs.get(name)!.digest, digest);
  const renamed = await node.connect(other.mountId);
  t.equal((await renamed.askBlob(0, other.row("a"))).errno, 0, "a new key is found");
});

test("a stage with a manifest has files of its own for each tenant, verified as ever", async (t) => {
  const node = new TestNode();
  t.teardown(() => node.close());
  const root = temporary(t);
  for (const [name, bytes] of Object.entries(FILES)) fs.writeFileSync(`${root}/${name}`, bytes);
  fs.writeFileSync(`${root}/empty`, "");
  await createManifest(root);
  const server = await OriginServer.start(root);
  t.teardown(() => server.close());
  const stages = [
    await listStage(node, server.url),
    await listStage(node, server.url, "one"),
    await listStage(node, server.url, "two"),
  ];
  const daemon = await node.start({ background: false });
  const names = [...Object.keys(FILES), "empty"];
  for (const stage of stages) {
    const client = await node.connect(stage.mountId);
    for (const name of names) {
      t.equal((await client.askBlob(0, stage.row(name))).errno, 0, name);
      const wanted = fs.readFileSync(`${root}/${name}`);
      const digest = stage.refs.get(name)!.digest;
      t.ok(fs.readFileSync(node.blobPath(digest)).equals(wanted));
    }
  }
  t.equal(blobs(node).length, 3 * 3 + 1, "an empty file is one for all");
  t.same(await verifyCache(openCache(node.cache)), { checked: 10 + 3, wrong: [] });
  const [, one, two] = stages as [Stage, Stage, Stage];
  fs.writeFileSync(`${root}/a`, OTHER);
  fs.writeFileSync(`${root}/large`, noise(LARGE.length, 10));
  for (const name of ["a", "large"]) fs.rmSync(node.blobPath(two.refs.get(name)!.digest));
  const client = await node.connect(two.mountId);
  t.equal((await client.askBlob(0, two.row("a"))).errno, Errno.EIO, "not what the manifest says");
  t.equal((await client.askBlob(0, two.row("large"))).errno, Errno.EIO);
  daemon.kill("SIGTERM");
  await new Promise((resolve) => daemon.once("exit", resolve));
  await node.start({ background: false, suspect: true });
  const again = await node.connect(one.mountId);
  for (const name of names) t.equal((await again.askBlob(0, one.row(name))).errno, 0, "as it came");
  t.match((await node.settled()).fetch, { resealed: 4, dropped: 0 });
});
