// Reads of large and cold files (pitfalls D7, D8, D10, D14): what was fetched ahead in vain is forgotten, readers of one file don't wait
// for each other, a small read fetches little, and a slow link makes no more requests.

import { type Test, test } from "tap";
import { BLOCK_BYTES, FETCH_RUN_BYTES } from "../../lib/base/limits.ts";
import { exited, noise } from "../suite/daemon-node.ts";
import { scene } from "../suite/daemon-scene.ts";
import { isLong } from "../suite/long.ts";
import type { Fault } from "../suite/origin-server.ts";
import { until } from "../suite/wait.ts";

const BLOCKS = 160;
const FILES = { large: noise(BLOCKS * BLOCK_BYTES, 5) };

const FAULTS = ["503", "flip", "404", "short-body"] as const;
for (const fault of isLong ? FAULTS : FAULTS.slice(0, 2))
  test(`what failed in the background by ${fault} is fetched on demand as if nothing had been`, async (t) => {
    const { node, server, published, mountId } = await scene(t, FILES);
    await node.start();
    const client = await node.connect(mountId);
    const row = published.row("large");
    // The first request for the pack is demand's; what follows is nobody's.
    server.fault = (path, count): Fault =>
      path.startsWith("packs/") && count > 1 ? fault : "none";
    t.equal((await client.askBlocks(0, row, 0, 1)).errno, 0);
    t.ok(await until(() => /"event":"background"/.test(node.output)), "the stream has failed");
    await node.settled();
    server.fault = () => "none";
    const before = server.count("packs");
    for (const block of [150, 70, 10])
      t.equal((await client.askBlocks(0, row, block, 1)).errno, 0, `block ${block}`);
    t.ok(server.count("packs") > before);
    const { fetch } = await node.settled();
    t.equal(fetch["failedAsks"], 0);
    t.equal((await client.askBlob(0, row)).errno, 0, "and all of it is had");
  });

test("64 readers of one file are served side by side", async (t) => {
  const { node, server, published, mountId } = await scene(t, FILES);
  await node.start({ background: false });
  const clients = await Promise.all(Array.from({ length: 64 }, () => node.connect(mountId)));
  const row = published.row("large");
  t.equal((await clients[0]!.askBlocks(0, row, 0, 1)).errno, 0);
  await node.settled();
  server.mostAtOnce = 0;
  server.fault = (path) => (path.startsWith("packs/") ? "stall-headers" : "none");
  const stuck = server.count("packs");
  const held = clients.slice(0, 32).map((client, i) => client.askBlocks(0, row, 4 + 4 * i, 1));
  t.ok(await until(() => server.count("packs") - stuck >= 8), "all requests that there may be");
  // Who reads what is here doesn't wait for those who read what isn't.
  const here = clients.slice(32).map((client) => client.askBlocks(0, row, 0, 1));
  for (const { errno } of await Promise.all(here)) t.equal(errno, 0);
  t.equal(server.mostAtOnce >= 8, true, `${server.mostAtOnce} at once`);
  server.fault = () => "none";
  server.hangUp();
  for (const { errno } of await Promise.all(held)) t.equal(errno, 0);
});

test("a random read of 4 KiB fetches no more than a run of blocks", async (t) => {
  const { node, server, published, mountId } = await scene(t, FILES);
  await node.start({ background: false });
  const client = await node.connect(mountId);
  const row = published.row("large");
  const bytes = async () => (await node.settled()).origins[server.url]!.bytes;
  t.equal((await client.askBlocks(0, row, 77, 1)).errno, 0);
  for (const block of [3, 140, 55, 101, 20]) {
    const before = await bytes();
    t.equal((await client.askBlocks(0, row, block, 1)).errno, 0);
    const fetched = (await bytes()) - before;
    t.ok(fetched <= FETCH_RUN_BYTES, `${fetched} bytes for block ${block}`);
  }
});

/** Requests to the origin, hedges left out, of a client that reads an environment from an empty cache in the order of an import. */
async function coldRequests(t: Test, delayMs: number): Promise<number> {
  const files = Object.fromEntries([
    ...Array.from({ length: 200 }, (_, i) => [`small${i}`, noise(20_000 + i, i + 1)] as const),
    ...Array.from({ length: 3 }, (_, i) => [`library${i}`, noise(3_000_000 + i, 500 + i)] as const),
  ]);
  const { node, server, published, mountId } = await scene(t, files);
  server.delayMs = delayMs;
  const daemon = await node.start();
  const client = await node.connect(mountId);
  for (let i = 0; i < 3; i++) {
    for (let k = 0; k < 20; k++)
      t.equal((await client.askBlob(0, published.row(`small${66 * i + 3 * k}`))).errno, 0);
    t.equal((await client.askBlob(0, published.row(`library${i}`))).errno, 0);
  }
  const { requests, hedges } = (await node.settled()).origins[server.url]!;
  daemon.kill("SIGTERM");
  await exited(daemon);
  return requests - hedges;
}

test("a cold start makes as many requests at 20 and 100 ms as at none", async (t) => {
  const near = await coldRequests(t, 0);
  for (const delayMs of [20, 100]) {
    const far = await coldRequests(t, delayMs);
    t.comment(`${far} requests at ${delayMs} ms, ${near} at none`);
    t.ok(far <= near + 2, `${far} requests at ${delayMs} ms, ${near} at none`);
  }
  t.ok(near <= 40, `${near} requests for 63 files`);
});
