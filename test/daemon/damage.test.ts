// What goes wrong in the cache directory or with packs behind our back: healed, never believed (pitfalls B3, C1).

import fs from "node:fs";
import { test } from "tap";
import { objectPath } from "../../lib/store/layout.ts";
import { exited, publish } from "../suite/daemon-node.ts";
import { SMALL, scene } from "../suite/daemon-scene.ts";

test("a broken file on disk is healed, and a right one sealed again", async (t) => {
  const { node, published, mountId } = await scene(t, SMALL);
  await node.start();
  const client = await node.connect(mountId);
  await client.askBlob(0, published.row("file1"));
  await node.settled();
  const path = (name: string) => node.blobPath(published.refs.get(name)!.digest);
  fs.chmodSync(path("file1"), 0o644);
  fs.truncateSync(path("file1"), 100);
  fs.chmodSync(path("file2"), 0o644);
  fs.writeFileSync(path("file2"), Buffer.alloc(SMALL["file2"]!.length));
  fs.renameSync(path("file4"), path("file3"));
  fs.utimesSync(path("file5"), 1, 1);
  for (const name of ["file1", "file2", "file3", "file4", "file5"]) {
    t.equal((await client.askBlob(0, published.row(name))).errno, 0);
    t.same(fs.readFileSync(path(name)), SMALL[name], name);
    t.equal(fs.statSync(path(name)).mode & 0o7777, 0o444);
  }
  const { fetch } = await node.settled();
  t.equal(fetch["dropped"], 3, "truncated, overwritten, swapped");
  t.equal(fetch["resealed"], 1, "only its time was touched");
});

test("after a boot everything is suspect and verified before use", async (t) => {
  const { node, server, published, mountId } = await scene(t, SMALL);
  const first = await node.start();
  const client = await node.connect(mountId);
  await client.askBlob(0, published.row("file1"));
  await node.settled();
  first.kill("SIGTERM");
  t.equal(await exited(first), 0);
  const path = (name: string) => node.blobPath(published.refs.get(name)!.digest);
  // What a power cut may do: the seal is there, the data is not.
  const { atime, mtime } = fs.statSync(path("file2"));
  fs.chmodSync(path("file2"), 0o644);
  fs.writeFileSync(path("file2"), Buffer.alloc(SMALL["file2"]!.length));
  fs.utimesSync(path("file2"), atime, mtime);
  fs.writeFileSync(`${node.cache}/boot`, "another boot\n");
  const before = server.count("packs");
  await node.start();
  t.equal(fs.existsSync(path("file1")), false, "moved to suspect");
  const again = await node.connect(mountId);
  t.equal((await again.askBlob(0, published.row("file1"))).errno, 0);
  t.equal(server.count("packs"), before, "not fetched again");
  t.equal((await again.askBlob(0, published.row("file2"))).errno, 0);
  t.same(fs.readFileSync(path("file2")), SMALL["file2"]);
  t.match((await node.settled()).fetch, { resealed: 1, dropped: 1 });
});

test("a file that is in use isn't evicted; then it is, and comes again", async (t) => {
  const { node, published, mountId } = await scene(t, SMALL);
  await node.start({ limitBytes: 600_000, memoryBytes: 0, idleMs: 0 });
  const client = await node.connect(mountId);
  await client.askBlob(0, published.row("file6"));
  const path = node.blobPath(published.refs.get("file6")!.digest);
  const fd = fs.openSync(path, "r");
  /** Asks for others until the file is gone, or often enough. */
  const press = async (rounds: number) => {
    for (let i = 0; i < rounds && fs.existsSync(path); i++)
      t.equal((await client.askBlob(0, published.row(`file${i % 50}`))).errno, 0);
  };
  await press(200);
  t.equal(fs.fstatSync(fd).nlink, 1, "it stayed: its end would have freed nothing");
  t.ok((await node.status()).room.inUse > 0);
  fs.unlinkSync(path);
  const bytes = Buffer.alloc(SMALL["file6"]!.length);
  fs.readSync(fd, bytes, 0, bytes.length, 0);
  fs.closeSync(fd);
  t.same(bytes, SMALL["file6"], "whoever has it keeps it");
  t.equal((await client.askBlob(0, published.row("file6"))).errno, 0);
  t.same(fs.readFileSync(path), SMALL["file6"]);
  await press(4000);
  t.equal(fs.existsSync(path), false, "evicted once nobody has it");
});

test("a pack that was rewritten is found through a fresh locator", async (t) => {
  const { node, published, mountId, server } = await scene(t, SMALL);
  const daemon = await node.start();
  const first = await node.connect(mountId);
  await first.askBlob(0, published.row("file0"));
  await node.settled();
  daemon.kill("SIGTERM");
  await exited(daemon);
  fs.rmSync(`${node.cache}/blobs`, { recursive: true });
  fs.rmSync(`${node.store}/packs`, { recursive: true });
  fs.rmSync(`${node.store}/locators`, { recursive: true });
  // The same snapshot packed in another order: other packs, another locator.
  const again = await publish(node.store, Object.fromEntries(Object.entries(SMALL).reverse()));
  t.equal(again.digest, published.digest);
  await node.start();
  const client = await node.connect(mountId);
  t.equal((await client.askBlob(0, published.row("file0"))).errno, 0);
  t.equal((await node.settled()).fetch["refreshed"], 1);
  t.ok(server.requests.some(({ path }) => path === objectPath("locators", published.digest)));
});
