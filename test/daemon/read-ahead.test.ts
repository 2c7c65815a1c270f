// Who reads a large blob in order finds the next blocks on their way; who reads here and there gets what was asked for. Test.

import { test } from "tap";
import { BLOCK_BYTES } from "../../lib/base/limits.ts";
import { noise } from "../suite/daemon-node.ts";
import { scene } from "../suite/daemon-scene.ts";

const BLOCKS = 40;
const FILES = { large: noise(BLOCKS * BLOCK_BYTES, 5) };

test("blocks that follow are fetched before they are asked for", async (t) => {
  const { node, published, mountId } = await scene(t, FILES);
  await node.start({ background: false });
  const client = await node.connect(mountId);
  const row = published.row("large");
  const blocksAfter = async (...asked: number[]) => {
    for (const block of asked) t.equal((await client.askBlocks(0, row, block, 1)).errno, 0);
    return (await node.settled()).fetch["blocks"]!;
  };
  // A run of the first block brings another.
  const first = await blocksAfter(0);
  t.ok(first <= 2, `${first} blocks for the first, which says nothing of what is read next`);
  const ahead = await blocksAfter(1, 2);
  t.ok(ahead >= 2 + 8, `${ahead} blocks when two more were asked for`);
  const elsewhere = await blocksAfter(30, 20);
  t.ok(elsewhere <= ahead + 4, `${elsewhere - ahead} blocks for two that are elsewhere`);
});

test("the longer somebody reads in order the more is fetched ahead", async (t) => {
  const { node, published, mountId } = await scene(t, { large: noise(120 * BLOCK_BYTES, 6) });
  await node.start({ background: false });
  const client = await node.connect(mountId);
  const row = published.row("large");
  const aheadAfter = async (first: number, count: number) => {
    t.equal((await client.askBlocks(0, row, first, count)).errno, 0);
    return (await node.settled()).fetch["blocks"]! - first - count;
  };
  const steps: number[] = [];
  for (let first = 0; first < 64; first += 4) steps.push(await aheadAfter(first, 4));
  t.equal(steps[0], 8, "four blocks from the start are read in order");
  const most = Math.max(...steps);
  t.ok(
    most >= 32 && most < 32 + 16,
    `${most} at most: the last request may reach past what is wanted`,
  );
  t.ok(Math.min(...steps.slice(4)) >= 12, `never less than half: ${steps.join(" ")}`);
});

test("who reads to the end of a blob has it whole soon after", async (t) => {
  const { node, published, mountId } = await scene(t, FILES);
  await node.start({ background: true });
  const client = await node.connect(mountId);
  const row = published.row("large");
  for (let block = 0; block < BLOCKS; block++)
    t.equal((await client.askBlocks(0, row, block, 1)).errno, 0);
  const { fetch } = await node.settled();
  t.match(fetch, { blocks: BLOCKS, blobs: 1 }, "each block once");
});
