// What a gofer gets of files that a store keeps as deltas: the same bytes as of others, small and by block, verified.

import fs from "node:fs";
import { test } from "tap";
import { Errno } from "../../lib/base/errno.ts";
import { BLOCK_BYTES } from "../../lib/base/limits.ts";
import { AnswerState } from "../../lib/cache/mailbox-wire.ts";
import { nearOf, noise, publish, TestNode } from "../suite/daemon-node.ts";
import { OriginServer } from "../suite/origin-server.ts";

const LARGE = noise(20 * BLOCK_BYTES + 77, 3);
const FILES = { text: noise(30_000, 1), other: noise(5_000, 2), large: LARGE };

/** The same, but for a byte here and there. */
function patched(bytes: Buffer, every: number): Buffer {
  const out = Buffer.from(bytes);
  for (let at = 1_000; at < out.length; at += every) out[at] = out[at]! ^ 0xff;
  return out;
}

test("files that are deltas come whole, in few requests", async (t) => {
  const node = new TestNode();
  t.teardown(() => node.close());
  const base = await publish(node.store, FILES);
  const files = { text: patched(FILES.text, 9_000), large: patched(LARGE, 3 * BLOCK_BYTES) };
  const made = await publish(node.store, files, { near: nearOf(base) });
  const packs = fs.readdirSync(`${node.store}/packs`, { recursive: true }) as string[];
  const sizes = packs.map((name) => fs.statSync(`${node.store}/packs/${name}`));
  const smallest = Math.min(...sizes.filter((stat) => stat.isFile()).map(({ size }) => size));
  t.ok(smallest < 6_000, `${smallest} bytes for ${files.large.length}`);
  const server = await OriginServer.start(node.store);
  t.teardown(() => server.close());
  await node.start();
  const client = await node.connect(node.mount(server.url, made.digest));
  server.requests.length = 0;
  t.match(await client.askBlob(0, made.row("text")), { state: AnswerState.complete });
  t.equal(server.count("packs"), 2, "the delta and its base");
  t.same(fs.readFileSync(node.blobPath(made.refs.get("text")!.digest)), files.text);
  const partial = await client.askBlocks(0, made.row("large"), 3, 2);
  t.match(partial, { errno: 0, state: AnswerState.partial });
  const bytes = fs.readFileSync(`${node.cache}/partial/${partial.name}`);
  t.same(
    bytes.subarray(3 * BLOCK_BYTES, 5 * BLOCK_BYTES),
    files.large.subarray(3 * BLOCK_BYTES, 5 * BLOCK_BYTES),
  );
  t.match(await client.askBlob(0, made.row("large")), { state: AnswerState.complete });
  t.same(fs.readFileSync(node.blobPath(made.refs.get("large")!.digest)), files.large);
  t.ok(server.count("packs") < 12, `${server.count("packs")} requests`);
  const { fetch } = await node.settled();
  t.equal(fetch["mismatches"], 0);
});

test("a base that is damaged on the way is fetched again, one that stays so is EIO", async (t) => {
  const node = new TestNode();
  t.teardown(() => node.close());
  const base = await publish(node.store, FILES);
  const files = { text: patched(FILES.text, 9_000), other: patched(FILES.other, 3_000) };
  const made = await publish(node.store, files, { near: nearOf(base) });
  const server = await OriginServer.start(node.store);
  t.teardown(() => server.close());
  await node.start();
  const client = await node.connect(node.mount(server.url, made.digest));
  let seen = 0;
  server.fault = (path) => (path.startsWith("packs/") && seen++ === 1 ? "flip" : "none");
  t.match(await client.askBlob(0, made.row("text")), { state: AnswerState.complete });
  t.same(fs.readFileSync(node.blobPath(made.refs.get("text")!.digest)), files.text);
  const { fetch } = await node.settled();
  t.equal(fetch["mismatches"], 1);
  server.fault = (path) => (path.startsWith("packs/") ? "flip" : "none");
  t.match(await client.askBlob(0, made.row("other")), { errno: Errno.EIO });
  t.notOk(fs.existsSync(node.blobPath(made.refs.get("other")!.digest)));
});
