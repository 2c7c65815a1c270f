// Owns: proof that what a view reads first is told once, and that the daemon tells by it what was fetched ahead for nothing; and that
// nobody can have it count what is not theirs to tell. Plane: both.

import fs from "node:fs";
import { type Test, test } from "tap";
import { BLOCK_BYTES, TOUCHES_MAX, TOUCHES_PER_FRAME } from "../../lib/base/limits.ts";
import { encodeTouches, TOUCHES_MAX_BYTES } from "../../lib/cache/mailbox-wire.ts";
import { LOCAL_TOUCH } from "../../lib/cache/touches.ts";
import type { PrefetchFigures } from "../../lib/daemon/prefetched.ts";
import { type Files, noise, type TestNode } from "../suite/daemon-node.ts";
import { type Scene, scene } from "../suite/daemon-scene.ts";
import { close, contentOf, open, read, walkTo } from "../suite/lisafs-calls.ts";
import { serveMount } from "../suite/served.ts";
import { until } from "../suite/wait.ts";

const FILES: Files = {
  ...Object.fromEntries(Array.from({ length: 8 }, (_, i) => [`small${i}`, noise(10_000 + i, i)])),
  large: noise(24 * BLOCK_BYTES, 99),
};
const SMALL = 8 * 10_000 + 28;

async function figures(node: TestNode): Promise<PrefetchFigures> {
  return ((await node.status()) as unknown as { prefetch: PrefetchFigures }).prefetch;
}

async function start(t: Test, config = {}): Promise<Scene> {
  const at = await scene(t, FILES);
  await at.node.start({ profiles: true, background: false, ...config });
  return at;
}

test("what came along and is never read is waste", async (t) => {
  const { node, published, mountId } = await start(t);
  const client = await node.connect(mountId);
  const row = (name: string) => published.row(name);
  await client.askBlob(0, row("small3"));
  await node.settled();
  const brought = SMALL - 10_003;
  t.match(await figures(node), { prefetchedBytes: brought, usedBytes: 0, touches: 0 });
  client.tell([0, row("small3"), 0, 0, 1], [LOCAL_TOUCH, row("small4"), 0, 0, 2]);
  client.tell([LOCAL_TOUCH, row("small4"), 0, 0, 3]);
  t.ok(await until(async () => (await figures(node)).touches === 3));
  const inAll = { prefetchedBytes: brought, usedBytes: 10_004, touches: 3, localTouches: 2 };
  t.match(await figures(node), inAll, "what was asked for is no prefetch, and each is used once");
  const status = (await node.status()) as unknown as { views: Record<string, object> };
  t.match(status.views[mountId], inAll, "the view's own are the same");

  await client.askBlocks(0, row("large"), 0, 1);
  await node.settled();
  const read = (await figures(node)).prefetchedBytes - brought;
  t.equal(read, BLOCK_BYTES, "a request for one block brings the one behind it");
  client.tell([LOCAL_TOUCH, row("large"), 1, 1, 4]);
  t.ok(await until(async () => (await figures(node)).usedBytes === 10_004 + BLOCK_BYTES));
  await client.askBlocks(0, row("large"), 8, 1);
  client.tell([LOCAL_TOUCH, row("large"), 0, 0, 5]);
  t.ok(
    await until(async () => {
      const { prefetchedBytes, usedBytes } = await figures(node);
      return usedBytes === 10_004 + prefetchedBytes - brought;
    }),
    "one that is mapped is used as a whole",
  );
});

test("a gofer tells of each file and range once, in a quiet moment or at its end", async (t) => {
  const { node, published } = await start(t);
  // The client blocks this thread, on which the scene's origin lives.
  const { client } = await serveMount(t, node, node.mount(node.store, published.digest));
  for (let again = 0; again < 3; again++) {
    for (const name of ["small0", "small1", "small2"]) {
      const { fd, hostFd } = open(client, walkTo(client, name));
      t.ok(contentOf(hostFd).equals(FILES[name]!));
      client.takeBack([hostFd]);
      close(client, fd);
      await node.settled();
    }
  }
  t.ok(await until(async () => (await figures(node)).touches === 3), "it is idle");
  t.match(await figures(node), { localTouches: 2, usedBytes: 20_003 });
  const { fd } = open(client, walkTo(client, "large"));
  for (const block of [0, 0, 1, 5]) read(client, fd, block * BLOCK_BYTES, BLOCK_BYTES);
  read(client, fd, 0, 2 * BLOCK_BYTES);
  close(client, fd);
  client.close();
  t.ok(await until(async () => (await figures(node)).touches === 6), "it has ended");
});

test("a gofer that misses nothing tells, too, also when it ends at once", async (t) => {
  const { node, published } = await start(t);
  const mountId = node.mount(node.store, published.digest);
  const client = await node.connect(mountId);
  await client.askBlob(0, published.row("small0"));
  await node.settled();
  client.close();
  const warm = await serveMount(t, node, mountId);
  for (const name of ["small1", "small2"]) open(warm.client, walkTo(warm.client, name));
  warm.client.close();
  t.ok(await until(async () => (await figures(node)).localTouches === 2));
});

test("a gofer tells nothing where nobody wants to know", async (t) => {
  const { node, mountId, published } = await start(t, { profiles: false });
  const { client } = await serveMount(t, node, node.mount(node.store, published.digest));
  open(client, walkTo(client, "small0"));
  t.equal(((await node.status()) as unknown as { prefetch?: object }).prefetch, undefined);
  const told = await node.connect(mountId);
  told.tell([0, published.row("small0"), 0, 0, 1]);
  t.ok(await until(() => told.isClosed), "who tells unasked is disconnected");
  client.close();
});

test("a mount that teaches nothing, and frames that can't be, are refused", async (t) => {
  const { node, mountId, published } = await start(t);
  const description = `${node.state}/mounts/${mountId}/mount.json`;
  const mount = JSON.parse(fs.readFileSync(description, "utf8")) as object;
  const off = node.mount(node.store, published.digest);
  fs.writeFileSync(
    `${node.state}/mounts/${off}/mount.json`,
    JSON.stringify({ ...mount, profile: "off" }),
  );
  const good = [0, published.row("small0"), 0, 0, 1];
  const silent = await node.connect(off);
  silent.tell(good);
  t.ok(await until(() => silent.isClosed), "of a mount with profiles off");
  const odd = Buffer.alloc(12 + 20 + 4);
  encodeTouches(odd, Uint32Array.from(good), 1);
  odd.writeUInt32LE(odd.length - 4, 0);
  const empty = Buffer.alloc(12);
  encodeTouches(empty, new Uint32Array(0), 0);
  const long = Buffer.alloc(TOUCHES_MAX_BYTES + 4);
  long.writeUInt32LE(long.length - 4, 0);
  long.writeUInt16LE(12, 4);
  for (const bytes of [odd, empty, long]) {
    const client = await node.connect(mountId);
    client.send(bytes);
    t.ok(await until(() => client.isClosed));
  }
  const other = await node.connect(mountId);
  other.tell([1, 0, 0, 0, 0]);
  t.ok(await until(() => other.isClosed), "of a snapshot that the view hasn't");
  const far = await node.connect(mountId);
  far.tell([0, 0x7fff_ffff, 0xffff_ffff, 0xffff_ffff, 0], [0, published.row("large"), 23, 9, 0]);
  t.ok(
    await until(async () => (await figures(node)).touches === 2),
    "rows past the end are nothing",
  );
  const flood = await node.connect(mountId);
  const frame = Array.from({ length: TOUCHES_PER_FRAME }, () => good);
  for (let sent = 0; sent <= TOUCHES_MAX; sent += TOUCHES_PER_FRAME) flood.tell(...frame);
  t.ok(await until(() => flood.isClosed), "more than a gofer tells");
  t.equal((await figures(node)).usedBytes, 0);
});
