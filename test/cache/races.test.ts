// Everything that touches a cache with a limit, in random order and side by side: asks for blobs and blocks, opens that are held, eviction,
// clearing from outside, pins, looks, damage (pitfall C2). No wrong byte, no failed ask, never over the limit, and sums that are right in
// the end. BURROW_SEED repeats a run, BURROW_LONG=1 makes it long, BURROW_MINUTES=N as long as that.

import fs from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { test } from "tap";
import { BLOCK_BYTES } from "../../lib/base/limits.ts";
import { openCache } from "../../lib/cache/cache.ts";
import { type FetchAnswer, Fetcher } from "../../lib/cache/fetcher.ts";
import { Keeper } from "../../lib/cache/keeper.ts";
import { AnswerState } from "../../lib/cache/mailbox-wire.ts";
import { pin, unpin } from "../../lib/cache/pins.ts";
import { PinnedBlobs } from "../../lib/daemon/pinned.ts";
import { Sources } from "../../lib/daemon/sources.ts";
import { noise, publish, TestNode } from "../suite/daemon-node.ts";
import { diskBytes } from "../suite/disk-bytes.ts";
import { isLong, soakMs } from "../suite/long.ts";

const seed = Number(process.env["BURROW_SEED"] ?? Date.now() % 0x7fff_ffff);
const ACTORS = 6;
const STEPS = isLong ? 4_000 : 60;
const LIMIT = 5 * 1024 * 1024;
/** As often as a gofer would ask again within its deadline, and far more than it should have to. */
const ASKS_MAX = 20;

const FILES = Object.fromEntries([
  ...Array.from({ length: 120 }, (_, i) => [`s${i}`, noise(37_000 + 131 * i, i + 1)]),
  ...[5, 7, 6].map((blocks, i) => [`l${i}`, noise(blocks * BLOCK_BYTES + i, 700 + i)]),
]);

test(`whatever happens side by side, asks are answered right, seed ${seed}`, {
  timeout: 3_600_000 + soakMs,
}, async (t) => {
  const node = new TestNode();
  t.teardown(() => node.close());
  const published = await publish(node.store, FILES);
  const cache = openCache(node.cache);
  cache.startUp(false);
  const fetcher = new Fetcher(cache);
  const keeper = new Keeper(cache, fetcher, new PinnedBlobs(cache), LIMIT);
  t.teardown(() => {
    keeper.stop();
    fetcher.close();
  });
  await keeper.start();
  const sources = new Sources(cache, node.state, (origin) => fetcher.origins.get(origin).reader);
  const from = { snapshot: published.digest, origin: node.store };
  const source = await sources.open(from, AbortSignal.timeout(20_000));
  // A pin of all would leave nothing to evict: of a small one.
  const other = await publish(node.store, { s0: FILES["s0"]!, s1: FILES["s1"]! });
  await sources.open({ snapshot: other.digest, origin: node.store }, AbortSignal.timeout(20_000));

  let state = seed;
  const pick = (count: number) => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
    return Math.floor((state / 2 ** 32) * count);
  };
  const names = Object.keys(FILES);
  const pathOf = (name: string) => node.blobPath(published.refs.get(name)!.digest);
  const counts = { read: 0, again: 0, most: 0, held: 0 };

  /** As a gofer: asks, opens what was answered, asks again when it is gone. */
  const read = async (name: string): Promise<void> => {
    const content = FILES[name]!;
    const isLarge = name.startsWith("l");
    const block = isLarge ? pick(5) : 0;
    for (let i = 0; i < ASKS_MAX; i++) {
      const answer = await fetcher.ask(source, published.row(name), block, isLarge ? 1 : 0);
      if (answer.errno !== 0) {
        t.fail(`${name}: errno ${answer.errno}`);
        return;
      }
      const fd = openAnswered(answer, pathOf(name), node.cache);
      if (fd < 0) {
        counts.again++;
        continue;
      }
      const at = block * BLOCK_BYTES;
      const wanted = isLarge ? content.subarray(at, at + BLOCK_BYTES) : content;
      // Now and then it is held for a while, as a sandbox does.
      if (pick(8) === 0) {
        counts.held++;
        await sleep(pick(30));
      }
      const got = Buffer.alloc(wanted.length);
      fs.readSync(fd, got, 0, got.length, at);
      fs.closeSync(fd);
      counts.read++;
      if (!got.equals(wanted)) t.fail(`${name}: wrong bytes`);
      return;
    }
    t.fail(`${name}: gone ${ASKS_MAX} times`);
  };

  const others: readonly (() => unknown)[] = [
    () => cache.room.makeRoom(pick(LIMIT)),
    () => keeper.tick(),
    () => fs.rmSync(pathOf(names[pick(names.length)]!), { force: true }),
    () => pin(cache, other.digest),
    () => unpin(cache, other.digest),
    () => {
      const path = pathOf(names[pick(names.length)]!);
      if (fs.existsSync(path)) fs.utimesSync(path, 1, 1);
    },
  ];
  const endMs = performance.now() + soakMs;
  const actor = async () => {
    for (let step = 0; step < STEPS || performance.now() < endMs; step++) {
      if (pick(6) === 0) await others[pick(others.length)]!();
      else await read(names[pick(names.length)]!);
      if (step % 8 === 0) counts.most = Math.max(counts.most, diskBytes(node.cache));
    }
  };
  await Promise.all(Array.from({ length: ACTORS }, actor));
  while (!fetcher.isIdle) await sleep(5);
  t.ok(counts.most <= LIMIT, `${counts.most} of ${LIMIT} bytes at most`);
  t.comment(`${counts.read} read, ${counts.again} of them asked for again, ${counts.held} held`);
  t.ok(counts.read > (ACTORS * STEPS) / 2 && counts.held > 0);
  t.ok(counts.again < counts.read / 4, `${counts.again} of ${counts.read} had to ask again`);
  const { evicted, usedBytes, reservedBytes } = keeper.facts;
  t.ok(evicted > 0, `${evicted} evicted`);
  t.equal(reservedBytes, 0, "every reservation was given back");
  t.ok(usedBytes >= diskBytes(`${node.cache}/blobs`) - 4096);
  for (let i = 0; i < 30; i++) await keeper.tick();
  const real = diskBytes(node.cache);
  t.ok(keeper.facts.usedBytes < real * 1.3, `${keeper.facts.usedBytes} counted for ${real}`);
});

/** An FD of what was answered; -1 when it is gone. */
function openAnswered({ state, name, hostFd }: FetchAnswer, path: string, cache: string): number {
  if (hostFd >= 0) return hostFd;
  try {
    return fs.openSync(state === AnswerState.partial ? `${cache}/partial/${name}` : path, "r");
  } catch {
    return -1;
  }
}
