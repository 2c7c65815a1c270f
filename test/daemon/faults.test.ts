// What goes wrong at the origin, or with the processes: bytes that are right, or an errno in time (pitfalls B1, B4 to B7,
// D4, D5).

import fs from "node:fs";
import { type Test, test } from "tap";
import { Errno } from "../../lib/base/errno.ts";
import { BLOCK_BYTES } from "../../lib/base/limits.ts";
import { AnswerState } from "../../lib/cache/mailbox-wire.ts";
import type { DaemonConfig } from "../../lib/daemon/config.ts";
import { digestOf } from "../../lib/store/hash.ts";
import { exited, type Files, noise, type TestNode } from "../suite/daemon-node.ts";
import { SMALL, scene } from "../suite/daemon-scene.ts";
import { isLong } from "../suite/long.ts";
import type { Fault } from "../suite/origin-server.ts";
import { LATE_MS, sleep, until } from "../suite/wait.ts";

const LARGE: Files = { large: noise(12 * BLOCK_BYTES + 5, 77) };
/** Short, so that tests are; the shape of the behaviour is that of the defaults. */
const QUICK: Partial<DaemonConfig> = { deadlineMs: 1500, headerMs: 300, stallMs: 300 };

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
  "stall-body",
  "whole",
  "wrong-range",
  "stall-headers",
  "503",
  "reset",
  "404",
];

for (const fault of isLong ? FAULTS : FAULTS.slice(0, 4)) {
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
    t.ok(Date.now() - startedMs < LATE_MS, "within the deadline, and what a busy machine adds");
    for (const { errno } of answers)
      t.ok(errno === Errno.EIO || errno === Errno.ETIMEDOUT, `${errno}`);
    t.ok(server.count("packs") < 40, `${server.count("packs")} requests: tries are bounded`);
    checkCache(t, node, fault);
    server.fault = () => "none";
    // An ask's time is short here, and a loaded machine may need more for it.
    const isRight = async () => (await client.askBlob(0, published.row("file25"))).errno === 0;
    t.ok(await until(isRight));
    const blocks = () => client.askBlocks(0, published.row("large"), 2, 1);
    t.ok(await until(async () => (await blocks()).errno === 0));
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
  await node.start();
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
  // By its deadline, where a busy machine takes as long for the tries.
  const refused = await client.askBlob(0, 0);
  t.ok([Errno.EIO, Errno.ETIMEDOUT].includes(refused.errno as never), `no index: ${refused.errno}`);
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
