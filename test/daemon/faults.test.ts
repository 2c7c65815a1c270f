// What goes wrong at the origin, on the disk or with the processes: bytes that are right, or an errno in time (pitfalls B1 to B7,
// C1, D4 to D6).

import fs from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { type Test, test } from "tap";
import { Errno } from "../../lib/base/errno.ts";
import { BLOCK_BYTES } from "../../lib/base/limits.ts";
import { AnswerState } from "../../lib/cache/mailbox-wire.ts";
import type { DaemonConfig } from "../../lib/daemon/config.ts";
import { digestOf } from "../../lib/store/hash.ts";
import { objectPath } from "../../lib/store/layout.ts";
import {
  exited,
  type Files,
  noise,
  type Published,
  publish,
  TestNode,
} from "../suite/daemon-node.ts";
import { type Fault, OriginServer } from "../suite/origin-server.ts";

const SMALL: Files = Object.fromEntries(
  Array.from({ length: 50 }, (_, i) => [`file${i}`, noise(10_000 + i, i + 1)]),
);
const LARGE: Files = { large: noise(12 * BLOCK_BYTES + 5, 77) };
/** Short, so that tests are; the shape of the behaviour is that of the defaults. */
const QUICK: Partial<DaemonConfig> = { deadlineMs: 1500, headerMs: 300, stallMs: 300 };

interface Scene {
  readonly node: TestNode;
  readonly server: OriginServer;
  readonly published: Published;
  readonly mountId: string;
}

async function scene(t: Test, files: Files): Promise<Scene> {
  const node = new TestNode();
  t.teardown(() => node.close());
  const published = await publish(node.store, files);
  const server = await OriginServer.start(node.store);
  t.teardown(() => server.close());
  return { node, server, published, mountId: node.mount(server.url, published.digest) };
}

/** Every file in blobs/ is what its name says. */
function checkCache(t: Test, node: TestNode, message: string): void {
  const root = `${node.cache}/blobs`;
  for (const shard of fs.readdirSync(root)) {
    for (const name of fs.readdirSync(`${root}/${shard}`)) {
      const actual = digestOf(fs.readFileSync(`${root}/${shard}/${name}`));
      if (actual !== name) t.fail(`${message}: a wrong file in blobs/`);
    }
  }
}

const FAULTS: Fault[] = [
  "flip",
  "short-body",
  "wrong-range",
  "whole",
  "stall-headers",
  "stall-body",
  "503",
  "reset",
  "404",
];

for (const fault of FAULTS) {
  test(`an origin with ${fault} for ever: EIO in time; right again after`, async (t) => {
    const { node, server, published, mountId } = await scene(t, { ...SMALL, ...LARGE });
    await node.start(QUICK);
    const client = await node.connect(mountId);
    server.fault = (path) => (path.startsWith("packs/") ? fault : "none");
    const startedMs = Date.now();
    const answers = await Promise.all([
      // The flipped bit is in the middle of what is asked for: of the run around this file, too.
      client.askBlob(0, published.row("file25")),
      client.askBlocks(0, published.row("large"), 2, 2),
    ]);
    t.ok(Date.now() - startedMs < 2500, "within the deadline");
    for (const { errno } of answers)
      t.ok(errno === Errno.EIO || errno === Errno.ETIMEDOUT, `${errno}`);
    t.ok(server.count("packs") < 40, `${server.count("packs")} requests: tries are bounded`);
    checkCache(t, node, fault);
    server.fault = () => "none";
    t.equal((await client.askBlob(0, published.row("file25"))).errno, 0);
    t.equal((await client.askBlocks(0, published.row("large"), 2, 1)).errno, 0);
    const { fetch } = await node.settled();
    t.equal(fetch["blobs"], 51);
    if (fault === "flip") t.ok(fetch["mismatches"]! >= 2, "counted");
    if (fault === "flip")
      t.match(node.output, /"event":"mismatch".*"origin":"http.*"path":"packs\//);
    checkCache(t, node, `after ${fault}`);
  });
}

test("a bad neighbour hurts nobody but itself", async (t) => {
  const { node, server, published, mountId } = await scene(t, SMALL);
  await node.start(QUICK);
  const client = await node.connect(mountId);
  // The middle of a long run is some neighbour's.
  server.fault = (path, count) => (path.startsWith("packs/") && count === 1 ? "flip" : "none");
  t.equal((await client.askBlob(0, published.row("file0"))).errno, 0);
  const { fetch } = await node.settled();
  t.equal(fetch["mismatches"], 1);
  checkCache(t, node, "after a bad neighbour");
  const answers = await Promise.all(
    Array.from({ length: 50 }, (_, i) => client.askBlob(0, published.row(`file${i}`))),
  );
  t.ok(answers.every(({ errno }) => errno === 0));
  t.equal((await node.settled()).fetch["blobs"], 50);
});

test("a herd of fifty asks fetches each chunk once", async (t) => {
  const { node, server, published, mountId } = await scene(t, { ...SMALL, ...LARGE });
  await node.start();
  server.delayMs = 30;
  const clients = await Promise.all(Array.from({ length: 10 }, () => node.connect(mountId)));
  const asks = clients.flatMap((client) => [
    ...[0, 7, 14, 21].map((i) => client.askBlob(0, published.row(`file${i}`))),
    client.askBlocks(0, published.row("large"), 5, 2),
  ]);
  const answers = await Promise.all(asks);
  t.equal(answers.length, 50);
  t.ok(answers.every(({ errno }) => errno === 0));
  const { fetch } = await node.settled();
  t.equal(fetch["blobs"], 51);
  t.equal(fetch["blocks"], 13, "each block once");
  const ranges = server.requests
    .filter(({ path }) => path.startsWith("packs/"))
    .map(({ range }) => range);
  const packed = Object.values(SMALL).length * 10_000 + LARGE["large"]!.length;
  const asked = ranges.reduce((sum, range) => {
    const [first, last] = /(\d+)-(\d+)/.exec(range)!.slice(1).map(Number);
    return sum + last! - first! + 1;
  }, 0);
  t.ok(asked < packed * 1.01, `${asked} bytes asked of ${packed}`);
});

test("a flight outlives the connection that started it", async (t) => {
  const { node, server, published, mountId } = await scene(t, { ...SMALL, ...LARGE });
  await node.start();
  server.delayMs = 200;
  const leader = await node.connect(mountId);
  const follower = await node.connect(mountId);
  void leader.askBlob(0, published.row("file9"));
  void leader.askBlocks(0, published.row("large"), 1, 1);
  await sleep(50);
  const followed = [
    follower.askBlob(0, published.row("file9")),
    follower.askBlocks(0, published.row("large"), 1, 1),
  ];
  leader.close();
  for (const { errno } of await Promise.all(followed)) t.equal(errno, 0);
  t.equal((await node.settled()).fetch["failedAsks"], 0);
});

test("kill -9 in the middle of a fetch: the next daemon finds nothing wrong and nothing left", async (t) => {
  const { node, server, published, mountId } = await scene(t, {
    ...SMALL,
    large: noise(80 * BLOCK_BYTES, 5),
  });
  for (let round = 0; round < 5; round++) {
    const daemon = await node.start();
    const client = await node.connect(mountId);
    server.delayMs = 10;
    void client.askBlocks(0, published.row("large"), round * 3, 1);
    for (let i = round; i < 50; i += 5) void client.askBlob(0, published.row(`file${i}`));
    await sleep(20 + 25 * round);
    daemon.kill("SIGKILL");
    await exited(daemon);
    checkCache(t, node, `round ${round}`);
  }
  fs.writeFileSync(`${node.cache}/tmp/left`, "x");
  fs.writeFileSync(`${node.cache}/partial/left`, "x");
  server.delayMs = 0;
  await node.start();
  t.same(node.names("tmp"), []);
  t.same(node.names("partial"), []);
  const client = await node.connect(mountId);
  const answers = await Promise.all(
    Array.from({ length: 50 }, (_, i) => client.askBlob(0, published.row(`file${i}`))),
  );
  t.ok(answers.every(({ errno }) => errno === 0));
  t.equal((await client.askBlob(0, published.row("large"))).state, AnswerState.complete);
  await node.settled();
  checkCache(t, node, "at the end");
});

test("an origin that is down at the start, and one that goes down in between", async (t) => {
  const { node, server, published, mountId } = await scene(t, {
    ...SMALL,
    large: noise(40 * BLOCK_BYTES, 8),
  });
  server.fault = () => "reset";
  await node.start(QUICK);
  const client = await node.connect(mountId);
  t.equal((await client.askBlob(0, 0)).errno, Errno.EIO, "no index, no wait");
  server.fault = () => "none";
  const row = published.row("large");
  const { name, errno } = await client.askBlocks(0, row, 0, 1);
  t.equal(errno, 0);
  server.fault = () => "stall-body";
  const fd = fs.openSync(
    fs.existsSync(`${node.cache}/partial/${name}`)
      ? `${node.cache}/partial/${name}`
      : node.blobPath(published.refs.get("large")!.digest),
    "r",
  );
  const block = Buffer.alloc(BLOCK_BYTES);
  fs.readSync(fd, block, 0, BLOCK_BYTES, 0);
  fs.closeSync(fd);
  t.same(
    block,
    noise(40 * BLOCK_BYTES, 8).subarray(0, BLOCK_BYTES),
    "what was answered stays right",
  );
  const later = await client.askBlocks(0, row, 39, 1);
  t.ok(later.errno === 0 || later.errno === Errno.ETIMEDOUT || later.errno === Errno.EIO);
  server.fault = () => "none";
  t.equal((await client.askBlocks(0, row, 39, 1)).errno, 0, "the failure has no memory");
  t.equal((await client.askBlob(0, row)).errno, 0);
  checkCache(t, node, "after an outage");
});

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

test("evicted while mapped: the mapping stays right, the blob comes again", async (t) => {
  const { node, published, mountId } = await scene(t, SMALL);
  await node.start({ limitBytes: 100_000, idleMs: 0 });
  const client = await node.connect(mountId);
  await client.askBlob(0, published.row("file6"));
  const digest = published.refs.get("file6")!.digest;
  const fd = fs.openSync(node.blobPath(digest), "r");
  for (let i = 0; i < 300 && fs.existsSync(node.blobPath(digest)); i++) await sleep(20);
  t.equal(fs.fstatSync(fd).nlink, 0, "evicted by unlink");
  const bytes = Buffer.alloc(SMALL["file6"]!.length);
  fs.readSync(fd, bytes, 0, bytes.length, 0);
  fs.closeSync(fd);
  t.same(bytes, SMALL["file6"], "whoever has it keeps it");
  t.equal((await client.askBlob(0, published.row("file6"))).errno, 0);
  t.same(fs.readFileSync(node.blobPath(digest)), SMALL["file6"]);
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
