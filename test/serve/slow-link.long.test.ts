// A crowd behind a slow link: what all of them want takes several times a deadline to come, and each read that waits for it is right, since
// bytes do come. When nothing comes any more, or too little in all, it is EIO in time (pitfalls B6, D11). Deadlines are a fifth of the real ones.

import { t as file, type Test, test } from "tap";
import { Errno } from "../../lib/base/errno.ts";
import { Mid } from "../../lib/wire/lisafs/mid.ts";
import { noise, type Published, publish, TestNode } from "../suite/daemon-node.ts";
import { contentOf, walkTo } from "../suite/lisafs-calls.ts";
import { OriginServer } from "../suite/origin-server.ts";
import { serveMount } from "../suite/served.ts";
import { SlowLink } from "../suite/slow-link.ts";
import { LATE_MS, sleep, until } from "../suite/wait.ts";

file.setTimeout(900_000);

const DEADLINE_MS = 5_000;
const MISS_MS = 6_000;
const ENV = { BURROW_MISS_DEADLINE_MS: String(MISS_MS) };
/** A 40th of 10 Mbit/s: the crowd's 8 MB take half a minute. */
const LINK_BYTES_PER_S = 250_000;
const COUNT = 16;
const FILES = Object.fromEntries(
  Array.from({ length: COUNT }, (_, i) => [`file${i}`, noise(520_000 + i, i + 1)] as const),
);

interface SlowScene {
  readonly node: TestNode;
  readonly link: SlowLink;
  readonly published: Published;
  readonly mountId: string;
}

async function slowScene(t: Test, askMaxMs: number): Promise<SlowScene> {
  const node = new TestNode();
  t.teardown(() => node.close());
  const published = await publish(node.store, FILES);
  const server = await OriginServer.start(node.store);
  t.teardown(() => server.close());
  const link = await SlowLink.start(server.url, LINK_BYTES_PER_S);
  t.teardown(() => link.close());
  await node.start({ deadlineMs: DEADLINE_MS, askMaxMs, stallMs: 2_000, background: false });
  return { node, link, published, mountId: node.mount(link.url, published.digest) };
}

/** Has a daemon asked for all files but one, each by a peer of its own: the errnos. */
function crowd({ node, published, mountId }: SlowScene): Promise<number[]> {
  const asks = Object.keys(FILES)
    .slice(1)
    .map(async (name) => {
      const client = await node.connect(mountId);
      return (await client.askBlob(0, published.row(name))).errno;
    });
  return Promise.all(asks);
}

/** Waits until so many stand in line for the origin. */
function queued({ node, link }: SlowScene, count: number): Promise<boolean> {
  return until(async () => ((await node.status()).queues[link.url]?.demandQueued ?? 0) >= count);
}

test("a crowd behind a slow link waits for several deadlines, and all of it is right", async (t) => {
  const scene = await slowScene(t, 300_000);
  const { node, mountId } = scene;
  const { client } = await serveMount(t, node, mountId, { env: ENV });
  const control = walkTo(client, "file0");
  client.channels[0]!.timeoutMs = 200_000;
  const startedMs = performance.now();
  const all = crowd(scene);
  t.ok(await queued(scene, 5), "they stand in line");
  const { errno, fds } = await client.callBeside(Mid.OpenAt, { fd: control });
  t.equal(errno, 0, "the sandbox's own, behind them");
  t.ok(fds.length === 1 && contentOf(fds[0]!).equals(FILES["file0"]!), "and right");
  client.takeBack(fds);
  t.same(await all, Array(COUNT - 1).fill(0), "and so for each of them");
  const tookMs = performance.now() - startedMs;
  t.ok(tookMs > 2 * MISS_MS, `it took ${(tookMs / 1000).toFixed(1)} s`);
});

test("when nothing comes any more, who waits has EIO a deadline later", async (t) => {
  const scene = await slowScene(t, 300_000);
  const { node, link, mountId } = scene;
  const { client } = await serveMount(t, node, mountId, { env: ENV });
  const control = walkTo(client, "file0");
  const all = crowd(scene);
  t.ok(await queued(scene, 5), "they stand in line");
  await sleep(DEADLINE_MS);
  link.isDark = true;
  const cutMs = performance.now();
  client.channels[0]!.timeoutMs = 200_000;
  const { errno } = await client.callBeside(Mid.OpenAt, { fd: control });
  t.equal(errno, Errno.EIO);
  const errnos = await all;
  t.ok(performance.now() - cutMs < MISS_MS + LATE_MS, "in time");
  t.ok(errnos.includes(Errno.ETIMEDOUT) || errnos.includes(Errno.EIO), errnos.join(" "));
  link.isDark = false;
  const isAgain = async () => {
    const opened = await client.callBeside(Mid.OpenAt, { fd: control });
    client.takeBack(opened.fds);
    return opened.errno === 0;
  };
  t.ok(await until(isAgain), "right again after");
});

test("whatever comes, no read waits longer than the longest time", async (t) => {
  const askMaxMs = 2 * DEADLINE_MS;
  const scene = await slowScene(t, askMaxMs);
  const { link } = scene;
  // Enough to be no drip, too little for anything to be here by then.
  link.bytesPerSecond = 100_000;
  const startedMs = performance.now();
  const errnos = await crowd(scene);
  const tookMs = performance.now() - startedMs;
  t.ok(
    errnos.every((errno) => errno !== 0),
    errnos.join(" "),
  );
  t.ok(tookMs > askMaxMs - 500 && tookMs < askMaxMs + LATE_MS, `after ${tookMs.toFixed(0)} ms`);
});
