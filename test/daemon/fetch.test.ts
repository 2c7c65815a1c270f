// What a gofer gets from the daemon: blobs and blocks of them, verified, each fetched once.

import fs from "node:fs";
import { test } from "tap";
import { Errno } from "../../lib/base/errno.ts";
import { BLOCK_BYTES } from "../../lib/base/limits.ts";
import { AnswerState } from "../../lib/cache/mailbox-wire.ts";
import { digestOf } from "../../lib/store/hash.ts";
import { native } from "../../lib/sys/native.ts";
import { noise, publish, TestNode } from "../suite/daemon-node.ts";

const SMALL = Object.fromEntries(
  Array.from({ length: 40 }, (_, i) => [`file${i}`, noise(2000 + i, i + 1)]),
);

test("a mount that is not described is refused, and a bad ask answered", async (t) => {
  const node = new TestNode();
  t.teardown(() => node.close());
  const { digest } = await publish(node.store, SMALL);
  await node.start();
  await t.rejects(node.connect("nothing"), { message: `welcomed with errno ${Errno.ENOENT}` });
  await t.rejects(node.connect("../state"), { message: `welcomed with errno ${Errno.EINVAL}` });
  const client = await node.connect(node.mount(node.store, digest));
  t.match(await client.askBlob(1, 0), { errno: Errno.EINVAL }, "no such snapshot");
  t.match(await client.askBlob(0, 1000), { errno: Errno.EINVAL }, "no such row");
});

test("a small blob comes with its neighbours in one request", async (t) => {
  const node = new TestNode();
  t.teardown(() => node.close());
  const published = await publish(node.store, { ...SMALL, empty: Buffer.alloc(0) });
  await node.start();
  const client = await node.connect(node.mount(node.store, published.digest));
  const answer = await client.askBlob(0, published.row("file7"));
  t.same(answer, { errno: 0, state: AnswerState.complete, name: "" });
  const digest = published.refs.get("file7")!.digest;
  t.same(fs.readFileSync(node.blobPath(digest)), SMALL["file7"]);
  const { size } = published.refs.get("file7")!;
  const folder = fs.openSync(`${node.cache}/blobs`, "r");
  const opened = native.openBlob(folder, Buffer.from(digest, "hex"), 0, size);
  t.ok(opened >= 0, "the gofer's open takes it");
  native.closeFd(opened);
  fs.closeSync(folder);
  const { fetch, origins } = await node.settled();
  t.equal(fetch["blobs"], 40, "all neighbours are here");
  t.equal(fetch["neighbours"], 39);
  // The index, its locator, one range.
  t.equal(
    Object.values(origins)[0]?.requests,
    3,
    "one range request; the locator came with the index",
  );
  const empty = await client.askBlob(0, published.row("empty"));
  t.equal(empty.errno, 0);
  t.equal(fs.statSync(node.blobPath(published.refs.get("empty")!.digest)).size, 0);
});

test("neighbours that are asked for at once come in one request too", async (t) => {
  const node = new TestNode();
  t.teardown(() => node.close());
  const published = await publish(node.store, SMALL);
  await node.start();
  const client = await node.connect(node.mount(node.store, published.digest));
  const asks = Object.keys(SMALL).map((name) => client.askBlob(0, published.row(name)));
  for (const answer of await Promise.all(asks)) t.equal(answer.errno, 0);
  const { origins } = await node.settled();
  t.equal(Object.values(origins)[0]?.requests, 3, "the index, its locator, one range");
});

test("blocks of a large blob are present when answered, and the rest follows", async (t) => {
  const node = new TestNode();
  t.teardown(() => node.close());
  const large = noise(5 * 1024 * 1024 + 77, 3);
  const published = await publish(node.store, { ...SMALL, large });
  await node.start();
  const client = await node.connect(node.mount(node.store, published.digest));
  const row = published.row("large");
  const answer = await client.askBlocks(0, row, 3, 2);
  t.equal(answer.errno, 0);
  t.equal(answer.state, AnswerState.partial);
  const digest = published.refs.get("large")!.digest;
  const path = fs.existsSync(node.blobPath(digest))
    ? node.blobPath(digest)
    : `${node.cache}/partial/${answer.name}`;
  const blocks = Buffer.alloc(2 * BLOCK_BYTES);
  const fd = fs.openSync(path, "r");
  fs.readSync(fd, blocks, 0, blocks.length, 3 * BLOCK_BYTES);
  fs.closeSync(fd);
  t.same(blocks, large.subarray(3 * BLOCK_BYTES, 5 * BLOCK_BYTES));
  const { fetch } = await node.settled();
  t.equal(fetch["blocks"], 21, "each block once");
  t.equal(digestOf(fs.readFileSync(node.blobPath(digest))), digest);
  t.same(node.names("partial"), []);
  t.match(await client.askBlocks(0, row, 20, 1), { errno: 0, state: AnswerState.complete });
  t.match(await client.askBlob(0, row), { errno: 0, state: AnswerState.complete });
});
