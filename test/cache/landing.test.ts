// What has come and is verified is given out from memory until the disk has it: nobody who waits for bytes waits for an fsync. It has its
// name no sooner than before, and whatever the disk does then, what was given out stays right.

import fs from "node:fs";
import { type Test, test } from "tap";
import { Errno } from "../../lib/base/errno.ts";
import { openCache } from "../../lib/cache/cache.ts";
import { type FetchAnswer, Fetcher, type FetcherOptions } from "../../lib/cache/fetcher.ts";
import { AnswerState } from "../../lib/cache/mailbox-wire.ts";
import { Sources } from "../../lib/daemon/sources.ts";
import { noise, publish, TestNode } from "../suite/daemon-node.ts";
import { until } from "../suite/wait.ts";

const MIB = 1024 * 1024;
const COUNT = 6;
const FILES = Object.fromEntries(
  Array.from({ length: COUNT }, (_, i) => [`f${i}`, noise(30_000 + i, i + 1)]),
);

/** A fetcher over a disk that begins to write nothing before it is released. */
async function scene(t: Test, { memoryBytes = 64 * MIB, landingBytes = 16 * MIB }: FetcherOptions) {
  const node = new TestNode();
  t.teardown(() => node.close());
  const published = await publish(node.store, FILES);
  const cache = openCache(node.cache);
  cache.startUp(false);
  const fetcher = new Fetcher(cache, { memoryBytes, landingBytes });
  t.teardown(() => fetcher.close());
  const sources = new Sources(cache, node.state, (origin) => fetcher.origins.get(origin).reader);
  const from = { snapshot: published.digest, origin: node.store };
  const source = await sources.open(from, AbortSignal.timeout(20_000));
  cache.disk.stallMs = Number.POSITIVE_INFINITY;
  let release: () => void = () => undefined;
  const held = new Promise<void>((resolve) => {
    release = resolve;
  });
  t.teardown(() => release());
  const { disk } = cache;
  const run = disk.run.bind(disk);
  const writes = { begun: 0 };
  disk.run = async (lane, work, options, late) => {
    if (lane !== "write") return await run(lane, work, options, late);
    const later = () => {
      writes.begun++;
      return held.then(() => work());
    };
    return await run(lane, later, options, late);
  };
  // One at a time, and none along with it.
  const ask = (name: string) => fetcher.ask(source, published.row(name), 0, 0);
  const prefetch = (name: string) => fetcher.prefetch(source, published.row(name), 0, 0);
  const path = (name: string) => node.blobPath(published.refs.get(name)!.digest);
  return { node, fetcher, source, ask, prefetch, path, release, published, writes };
}

/** The bytes that came along with an answer, whose FD is closed. */
function bytesOf({ hostFd }: FetchAnswer): Buffer {
  try {
    return fs.readFileSync(hostFd);
  } finally {
    fs.closeSync(hostFd);
  }
}

test("a blob is given out before the disk has it, and has its name when that has", async (t) => {
  const { fetcher, ask, path, release } = await scene(t, {});
  const answer = await ask("f0");
  t.match(answer, { errno: 0, state: AnswerState.completeHere });
  t.throws(() => fs.writeSync(answer.hostFd, "x"), { code: "EBADF" }, "for reading alone");
  t.same(bytesOf(answer), FILES["f0"]);
  t.notOk(fs.existsSync(path("f0")), "no name before the disk has it");
  const again = await ask("f0");
  t.same(bytesOf(again), FILES["f0"]);
  t.ok(await until(() => fetcher.shelf.facts.landing.blobs === COUNT), "its neighbours, too");
  t.equal(fetcher.counters.blobs, COUNT, "all came once: what is asked for again is here");
  release();
  await fetcher.shelf.landed();
  t.same(fs.readFileSync(path("f0")), FILES["f0"]);
  t.same(fetcher.shelf.facts.landing, { blobs: 0, bytes: 0 });
  t.equal(fetcher.shelf.memory.facts.blobs, 0, "memory has none of it any more");
  t.match(await ask("f0"), { errno: 0, state: AnswerState.complete, hostFd: -1 });
});

test("who fetches ahead waits for the disk, and who demands meanwhile doesn't", async (t) => {
  const { fetcher, ask, prefetch, release } = await scene(t, {});
  let isThere = false;
  const ahead = prefetch("f1").then((isHere) => {
    isThere = true;
    return isHere;
  });
  t.same(bytesOf(await ask("f1")), FILES["f1"]);
  t.notOk(isThere);
  release();
  t.ok(await ahead);
  t.equal(fetcher.shelf.facts.landing.blobs, 0);
});

test("an index that lies about a blob's size is told so of one that lands, too", async (t) => {
  const { fetcher, source, ask, published } = await scene(t, {});
  fs.closeSync((await ask("f2")).hostFd);
  const { table } = source;
  const lies = { ...source, table: Object.create(table, { sizeOf: { value: () => 5 } }) };
  t.match(await fetcher.ask(lies, published.row("f2"), 0, 0), { errno: Errno.EIO });
});

test("what the disk doesn't take after all stays in memory", async (t) => {
  const { node, fetcher, ask, release } = await scene(t, {});
  const answer = await ask("f3");
  fs.rmSync(`${node.cache}/tmp`, { recursive: true });
  fs.writeFileSync(`${node.cache}/tmp`, "");
  release();
  await fetcher.shelf.landed();
  t.ok(fetcher.shelf.facts.isDiskDemoted);
  t.same(bytesOf(answer), FILES["f3"]);
  const again = await ask("f3");
  t.equal(again.state, AnswerState.completeHere);
  t.same(bytesOf(again), FILES["f3"]);
});

for (const [what, bounds] of [
  ["nothing lands without leave", { landingBytes: 0 }],
  ["nothing lands past its bound", { landingBytes: 100 }],
  ["nothing lands without memory", { memoryBytes: 0 }],
] as const)
  test(`${what}: who asks waits for the disk`, async (t) => {
    const { ask, path, release, writes } = await scene(t, bounds);
    let isAnswered = false;
    const asked = ask("f4").then((answer) => {
      isAnswered = true;
      return answer;
    });
    t.ok(await until(() => writes.begun > 0), "its write waits");
    t.notOk(isAnswered);
    release();
    t.match(await asked, { errno: 0, state: AnswerState.complete, hostFd: -1 });
    t.same(fs.readFileSync(path("f4")), FILES["f4"]);
  });

test("memory that is half full is lent to nobody: who asks waits for the disk", async (t) => {
  const { fetcher, ask, release } = await scene(t, { memoryBytes: MIB });
  const { room } = fetcher.shelf.memory;
  room.add("memory", MIB / 2);
  const asked = ask("f5");
  t.ok(await until(() => fetcher.shelf.facts.landing.blobs > 0), "it has come");
  t.equal(fetcher.shelf.memory.facts.blobs, 0);
  release();
  t.match(await asked, { errno: 0, state: AnswerState.complete });
});
