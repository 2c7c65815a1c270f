// While a start is helped no ask for a part of a large blob streams the rest of it, and little is asked for twice: what comes for one ask
// serves those that follow.

import fs from "node:fs";
import { type Test, test } from "tap";
import { BLOCK_BYTES } from "../../lib/base/limits.ts";
import { openCache } from "../../lib/cache/cache.ts";
import type { CacheDirectory } from "../../lib/cache/directory.ts";
import { Fetcher } from "../../lib/cache/fetcher.ts";
import { AnswerState } from "../../lib/cache/mailbox-wire.ts";
import type { RequestFacts } from "../../lib/cache/origins.ts";
import type { Source } from "../../lib/cache/pieces.ts";
import { Ahead, newAheadFigures } from "../../lib/daemon/ahead.ts";
import { newPrefetchFigures, Prefetched } from "../../lib/daemon/prefetched.ts";
import { Sources } from "../../lib/daemon/sources.ts";
import { objectPath } from "../../lib/store/layout.ts";
import { Locator } from "../../lib/store/locator.ts";
import { type Files, noise, type Published, publish, TestNode } from "../suite/daemon-node.ts";
import { until } from "../suite/wait.ts";

interface Node {
  readonly node: TestNode;
  readonly published: Published;
  readonly fetcher: Fetcher;
  readonly source: Source;
  readonly cache: CacheDirectory;
  /** Bytes of each request, in the order of their ends. */
  readonly requests: number[];
}

async function fetching(t: Test, files: Files): Promise<Node> {
  const node = new TestNode();
  t.teardown(() => node.close());
  const published = await publish(node.store, files);
  const cache = openCache(node.cache);
  cache.startUp(false);
  const requests: number[] = [];
  const onRequest = ({ path, bytes }: RequestFacts) => {
    if (path.startsWith("packs/")) requests.push(bytes);
  };
  const fetcher = new Fetcher(cache, { onRequest });
  t.teardown(async () => {
    // What comes along is still being kept: it would make the folder anew behind the one who removes it.
    await until(() => fetcher.isIdle);
    fetcher.close();
  });
  const sources = new Sources(cache, node.state, (origin) => fetcher.origins.get(origin).reader);
  const from = { snapshot: published.digest, origin: node.store };
  const source = await sources.open(from, AbortSignal.timeout(60_000));
  return { node, published, fetcher, source, cache, requests };
}

const FILES: Files = {
  large: noise(32 * BLOCK_BYTES, 5),
  library: noise(12 * BLOCK_BYTES, 6),
};

test("a start that is helped has large blobs whole itself, and others are streamed", async (t) => {
  const { published, fetcher, source, requests, node } = await fetching(t, FILES);
  const [large, library] = [published.row("large"), published.row("library")];
  const hold = fetcher.holds.begin([source]);
  for (const block of [24, 20, 16, 12, 8])
    t.match(await fetcher.ask(source, large, block, 1), { errno: 0, state: AnswerState.partial });
  t.ok(await until(() => fetcher.isIdle), "nothing streams");
  const blocks = requests.map((bytes) => bytes / BLOCK_BYTES);
  t.same(blocks, [2, 2, 2, 3, 4], "who jumps about brings more each time");
  const whole = await fetcher.ask(source, library, 5, 1);
  t.match(whole, { errno: 0, state: AnswerState.complete }, "a library comes at once");
  t.equal(requests.length, 6, "by one request");
  t.same([...hold.rows(source)], [large, library]);
  hold.due();
  t.notOk(fetcher.isIdle, "what is due is to be waited for");
  hold[Symbol.dispose]();
  t.ok(fetcher.isIdle);
  t.equal((await fetcher.ask(source, large, 0, 1)).errno, 0);
  const path = node.blobPath(published.refs.get("large")!.digest);
  t.ok(await until(() => fs.existsSync(path)), "streamed, when it isn't held");
});

test("a hold is of its snapshots, and who fetches ahead gets what was said and no more", async (t) => {
  const { published, fetcher, source, requests } = await fetching(t, FILES);
  const large = published.row("large");
  using other = fetcher.holds.begin([{ ...source, snapshot: "0".repeat(64) as never }]);
  t.notOk(fetcher.holds.note(source, large));
  other.due();
  t.notOk(fetcher.holds.areDue, "nothing of it was asked for");
  using elsewhere = fetcher.holds.begin([{ ...source, origin: "/elsewhere" }]);
  t.notOk(fetcher.holds.note(source, large), "what one origin is waited for another streams");
  elsewhere.due();
  t.notOk(fetcher.holds.areDue);
  using hold = fetcher.holds.begin([source]);
  t.ok(await fetcher.prefetch({ ...source, isAhead: true }, large, 9, 1));
  t.same(requests, [BLOCK_BYTES]);
  t.ok(hold.rows(source).has(large));
  for (const block of [10, 11, 12])
    t.ok(await fetcher.prefetch({ ...source, isAhead: true }, large, block, 1));
  t.ok(await until(() => fetcher.isIdle));
  t.same(requests, Array(4).fill(BLOCK_BYTES), "blocks in a row are nobody's reading");
});

test("what is wrong in a library that comes as a whole is nothing to who asks for what is right", async (t) => {
  const { node, published, fetcher, source } = await fetching(t, FILES);
  const bytes = fs.readFileSync(`${node.store}/${objectPath("locators", published.digest)}`);
  const locator = new Locator(bytes);
  const { digest } = published.refs.get("library")!;
  const { path, offset } = locator.chunkAt(locator.find(digest), 9);
  const file = fs.openSync(`${node.store}/${path}`, "r+");
  fs.writeSync(file, Buffer.alloc(64), 0, 64, offset + 64);
  fs.closeSync(file);
  using _hold = fetcher.holds.begin([source]);
  const row = published.row("library");
  for (const block of [2, 11])
    t.match(await fetcher.ask(source, row, block, 1), { errno: 0, state: AnswerState.partial });
  t.not((await fetcher.ask(source, row, 9, 1)).errno, 0);
});

test("what a start may not have any more, or hears of too late, is streamed", async (t) => {
  const files: Files = { ...FILES, late: noise(16 * BLOCK_BYTES, 7) };
  const { node, published, fetcher, source, cache } = await fetching(t, files);
  const figures = newPrefetchFigures();
  const prefetched = new Prefetched({ figuresOf: () => figures, brought: () => undefined });
  const ahead = new Ahead({ cache, fetcher, open: async () => source, prefetched });
  const pathOf = (name: string) => node.blobPath(published.refs.get(name)!.digest);
  using hold = ahead.hold([source]);
  const budget = { bytes: files["library"]!.length };
  const job = { mountId: "start", figures: newAheadFigures(), budget, hold };
  // In this order the library comes after what there is no budget for.
  for (const name of ["large", "library"])
    t.ok(await fetcher.prefetch({ ...source, isAhead: true }, published.row(name), 3, 1));
  // A daemon has its sockets: the wait itself keeps no process alive.
  const alive = setInterval(() => undefined, 1_000);
  t.teardown(() => clearInterval(alive));
  await ahead.complete([source], job);
  t.ok(fs.existsSync(pathOf("library")));
  t.notOk(fs.existsSync(pathOf("large")));
  for (const name of ["large", "late"]) {
    t.equal((await fetcher.ask(source, published.row(name), 0, 1)).errno, 0);
    t.ok(await until(() => fs.existsSync(pathOf(name))), name);
  }
});

for (const which of ["a pack that a start reads", "another pack"])
  test(`what a demand brings of ${which} serves those that follow`, async (t) => {
    const names = Array.from({ length: 60 }, (_, i) => `f${i}`);
    const files = Object.fromEntries(names.map((name, i) => [name, noise(61_000, i + 1)]));
    const { published, fetcher, source, requests, node } = await fetching(t, files);
    const bytes = fs.readFileSync(`${node.store}/${objectPath("locators", published.digest)}`);
    const locator = new Locator(bytes);
    const placed = names.map((name) => {
      const at = locator.find(published.refs.get(name)!.digest);
      return { row: published.row(name), ...locator.chunkAt(at, 0) };
    });
    placed.sort((a, b) => a.offset - b.offset);
    const { path, offset, stored } = placed[0]!;
    fetcher.origins
      .get(source.origin)
      .plan(which === "another pack" ? "packs/other" : path, [{ offset, length: stored }]);
    // Of the second MiB of the pack: the last of it, the first, and between.
    const second = placed.filter((each) => each.offset >= 1 << 20 && each.offset < 2 << 20);
    for (const { row } of [second.at(-1)!, second[0]!, second[8]!])
      t.equal((await fetcher.ask(source, row, 0, 0)).errno, 0);
    t.equal(requests.length, 1);
    t.ok(requests[0]! <= 1.1 * (1 << 20), `${requests[0]} bytes`);
  });
