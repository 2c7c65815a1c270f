// Very many large files that are read at once (pitfalls E1): what is fetched ahead of readers is paid from one budget, and not from one of
// each file; the daemon's memory doesn't grow with their number, and nobody waits behind what others may want later.

import fs from "node:fs";
import { t as file, test } from "tap";
import { BLOCK_BYTES } from "../../lib/base/limits.ts";
import { type Files, noise } from "../suite/daemon-node.ts";
import { scene } from "../suite/daemon-scene.ts";
import { isLong } from "../suite/long.ts";
import { until } from "../suite/wait.ts";

file.setTimeout(600_000);

const MIB = 1024 * 1024;
const CLIENTS = 20;
const HANDLES = isLong ? 2_000 : 60;
/**
 * What the daemon may have resident: 128 MiB of segments that a crowd shares (lib/cache/segments.ts), 64 MiB on their way to the disk
 * (lib/cache/intake.ts), 8 requests with 4 MiB on the wire and in the block's or segment's place each, and what a process of Node.js with
 * 2,000 files open takes.
 */
const BOUND_BYTES = 640 * MIB;
/** Common to all, so that the store is small: each file has its own blocks in the cache all the same. */
const COMMON = noise(14 * BLOCK_BYTES, 1);

/** So many files, each made when it is looked at: together they are 7 GB. */
function larges(count: number): Files {
  const files = {};
  for (let i = 0; i < count; i++) {
    const get = () => Buffer.concat([COMMON, Buffer.from(`the end of file ${i}`)]);
    Object.defineProperty(files, `large${i}`, { enumerable: true, get });
  }
  return files;
}

function peakOf(pid: number): number {
  const text = fs.readFileSync(`/proc/${pid}/status`, "latin1");
  return Number(/^VmHWM:\s*(\d+) kB/m.exec(text)?.[1]) * 1024;
}

/** Requests to the origin for 32 readers of whom each is read ahead of by four, and for one more ask. */
const AHEAD_MAX = 32 * 4 + 1;

test("of sixty readers not all are read ahead of, and who asks comes soon", async (t) => {
  const files = { ...larges(60), small: noise(5_000) };
  const { node, server, published, mountId } = await scene(t, files);
  await node.start({ background: false, deadlineMs: 500_000 });
  const client = await node.connect(mountId);
  const row = (i: number) => published.row(`large${i}`);
  // A request brings two blocks: the second is here when it is asked for, and says that the file is read in order.
  for (let i = 0; i < 60; i++) t.equal((await client.askBlocks(0, row(i), 0, 1)).errno, 0);
  await node.settled();
  server.fault = () => "stall-headers";
  for (let i = 0; i < 60; i++) t.equal((await client.askBlocks(0, row(i), 1, 1)).errno, 0);
  const small = client.askBlob(0, published.row("small"));
  const waiting = async () => {
    const { demand = 0, demandQueued = 0 } = (await node.status()).queues[server.url] ?? {};
    return demand + demandQueued;
  };
  t.ok(await until(async () => (await waiting()) > 8), "they are read ahead of");
  t.ok((await waiting()) <= AHEAD_MAX, `${await waiting()} requests under way and in line`);
  server.fault = () => "none";
  server.hangUp();
  t.equal((await small).errno, 0);
});

test(`${HANDLES} large files are read ahead of at once`, { timeout: 600_000 }, async (t) => {
  const files = larges(HANDLES);
  const { node, server, published, mountId } = await scene(t, files);
  server.delayMs = 20;
  const daemon = await node.start({ background: false, deadlineMs: 500_000 });
  const idleBytes = peakOf(daemon.pid!);
  const clients = await Promise.all(Array.from({ length: CLIENTS }, () => node.connect(mountId)));
  let failed = 0;
  const startedMs = performance.now();
  const read = async (i: number) => {
    const client = clients[i % CLIENTS]!;
    for (const block of [0, 1, 2]) {
      const { errno } = await client.askBlocks(0, published.row(`large${i}`), block, 1);
      if (errno !== 0) failed++;
    }
  };
  await Promise.all(Array.from({ length: HANDLES }, (_, i) => read(i)));
  const { fetch } = await node.settled();
  const seconds = (performance.now() - startedMs) / 1000;
  const peak = peakOf(daemon.pid!);
  const said = `${Math.round(peak / MIB)} MiB at most, ${Math.round(idleBytes / MIB)} at the start; ${fetch["blocks"]} blocks in ${seconds.toFixed(1)} s`;
  t.comment(said);
  t.equal(failed, 0);
  t.ok(fetch["blocks"]! > HANDLES * 3, "some were read ahead of");
  t.ok(peak <= BOUND_BYTES, said);
});
