// Reads through a network that spoils answers in every way, in random order: bytes that are right or an error in time, whatever comes
// (pitfalls B4 to B7, D11). 400 reads in the gate, 10,000 in the long run, each with a mirror and without. $BURROW_SEED makes a run
// again, as far as the order of events is the same.

import fs from "node:fs";
import { tmpdir } from "node:os";
import { type Test, test } from "tap";
import { BLOCK_BYTES } from "../../lib/base/limits.ts";
import { openCache } from "../../lib/cache/cache.ts";
import type { CacheDirectory } from "../../lib/cache/directory.ts";
import { type FetchAnswer, Fetcher, type FetcherOptions } from "../../lib/cache/fetcher.ts";
import type { Source } from "../../lib/cache/pieces.ts";
import { digestOf } from "../../lib/store/hash.ts";
import { parseOrigins } from "../../lib/store/origins-file.ts";
import { noise, type Published, publish } from "../suite/daemon-node.ts";
import { FaultProxy, generator, KINDS } from "../suite/fault-proxy.ts";
import { isLong } from "../suite/long.ts";
import { OriginServer } from "../suite/origin-server.ts";
import { LATE_MS, until } from "../suite/wait.ts";

const READS = isLong ? 10_000 : 200;
const SEED = Number(process.env["BURROW_SEED"] ?? Date.now() % 2 ** 31);
const PARALLEL = 12;
const DEADLINE_MS = 3_000;
const QUICK = { deadlineMs: DEADLINE_MS, headerMs: 250, stallMs: 250, graceMs: 100 };

const FILES = Object.fromEntries([
  ...Array.from({ length: 60 }, (_, i) => [`small${i}`, noise(3_000 + 700 * i, i + 1)] as const),
  ...Array.from(
    { length: 3 },
    (_, i) => [`large${i}`, noise(7 * BLOCK_BYTES + i, 99 + i)] as const,
  ),
]);
const NAMES = Object.keys(FILES);

/** Whether the file of the cache that an answer is about is right: the whole, or the blocks. */
function isRight(
  cache: CacheDirectory,
  digest: string,
  name: string,
  content: Buffer,
  blocks: number[],
) {
  const partial = `${cache.root}/partial/${name}`;
  const whole = `${cache.root}/blobs/${digest.slice(0, 2)}/${digest}`;
  if (fs.existsSync(whole)) return fs.readFileSync(whole).equals(content);
  const got = fs.readFileSync(partial);
  return blocks.every((block) => {
    const [from, to] = [block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES];
    return got.subarray(from, to).equals(content.subarray(from, to));
  });
}

async function node(t: Test, server: OriginServer, published: Published, options: FetcherOptions) {
  const root = fs.mkdtempSync(`${tmpdir()}/burrow-faults-`);
  const cache = openCache(root);
  const fetcher = new Fetcher(cache, { ...QUICK, background: false, ...options });
  t.teardown(() => {
    fetcher.close();
    fs.rmSync(root, { recursive: true, force: true });
  });
  const { index } = published;
  const table = {
    count: index.blobCount,
    digestAt: (row: number) => index.blobDigest(row),
    sizeOf: (row: number) => index.blobSize(row),
    blockCount: (row: number) => index.blockCount(row),
    blockDigest: (row: number, block: number) => index.blockDigest(row, block),
    blocksDigest: (row: number) => digestOf(index.blockDigests(row)),
  };
  const source: Source = { snapshot: published.digest, origin: server.url, table };
  return { cache, fetcher, source };
}

for (const isMirrored of [true, false]) {
  const places = isMirrored ? "two places" : "one place";
  test(`${READS / 2} reads from ${places}, seed ${SEED}`, { timeout: 3_600_000 }, (t) =>
    read(t, isMirrored),
  );
}

async function read(t: Test, isMirrored: boolean): Promise<void> {
  const store = fs.mkdtempSync(`${tmpdir()}/burrow-faults-`);
  t.teardown(() => fs.rmSync(store, { recursive: true, force: true }));
  const published = await publish(store, FILES);
  const server = await OriginServer.start(store);
  t.teardown(() => server.close());
  const [first, second] = [
    await FaultProxy.start(server.url, SEED),
    await FaultProxy.start(server.url, ~SEED),
  ];
  t.teardown(() => first.close());
  t.teardown(() => second.close());
  const origins = parseOrigins({
    format: 1,
    origins: { [first.url]: { mirrors: isMirrored ? [second.url] : [] } },
  });
  const { cache, fetcher, source } = await node(t, server, published, { origins });
  const asked = { ...source, origin: first.url };
  const random = generator(SEED + 1);
  // One place alone is helped by tries, and those have a budget of a tenth.
  first.rate = isMirrored ? 0.3 : 0.12;
  second.rate = 0.15;
  let [left, failed, wrong, late] = [READS / 2, 0, 0, 0];
  // One reader a file, so that each forgets only what it has read.
  const busy = new Set<string>();
  const pick = (): string => {
    const name = NAMES[Math.floor(random() * NAMES.length)]!;
    if (busy.has(name)) return pick();
    busy.add(name);
    return name;
  };
  const isMet = (kind: string) => (first.counts[kind] ?? 0) + (second.counts[kind] ?? 0) > 0;
  const figures = () => fetcher.origins.figures()[first.url]!;
  const isSpoilt = () => figures().places.every(({ transient }) => transient > 0);
  // What comes is dealt by chance: one goes on until each kind came once, and from each place, four times as long at most.
  const isMetAll = () => isSpoilt() && (!isMirrored || KINDS.slice(1).every(isMet));
  const isAll = () => left < -2 * READS || isMetAll();
  const reader = async () => {
    while (left-- > 0 || !isAll()) {
      first.isStorm = left >= 0 && left % 250 < 5;
      const name = pick();
      const { digest } = published.refs.get(name)!;
      const isLarge = name.startsWith("large");
      const from = isLarge ? Math.floor(random() * 7) : 0;
      const startedMs = performance.now();
      const ask = () => fetcher.ask(asked, published.row(name), from, isLarge ? 1 : 0);
      const isGone = ({ errno, name: partial }: FetchAnswer) =>
        errno === 0 && partial === "" && !fs.existsSync(cache.path("blobs", digest));
      let answer = await ask();
      // As a gofer does: what came along with another may be forgotten right before it is told of.
      for (let again = 0; again < 8 && isGone(answer); again++) answer = await ask();
      if (performance.now() - startedMs > DEADLINE_MS + LATE_MS) late++;
      if (answer.errno !== 0) failed++;
      else if (!isRight(cache, digest, answer.name, FILES[name]!, [from])) wrong++;
      busy.delete(name);
      // What was read is forgotten, and what came along: all is fetched again.
      for (const other of NAMES)
        if (!busy.has(other))
          fs.rmSync(cache.path("blobs", published.refs.get(other)!.digest), { force: true });
    }
  };
  await Promise.all(Array.from({ length: PARALLEL }, reader));
  t.equal(wrong, 0, "no wrong byte");
  t.equal(late, 0, "no read past its deadline");
  t.comment(`${failed} reads failed`, JSON.stringify(first.counts), JSON.stringify(second.counts));
  if (isMirrored) for (const kind of KINDS.slice(1)) t.ok(isMet(kind), kind);
  for (const proxy of [first, second]) proxy.rate = 0;
  first.isStorm = false;
  let lost = 0;
  for (const name of NAMES) {
    const ask = async () => (await fetcher.ask(asked, published.row(name), 0, 0)).errno === 0;
    if (!(await until(ask))) lost++;
  }
  t.equal(lost, 0, "when all is well again, all is there");
  const { places, requests, retries } = figures();
  t.comment(JSON.stringify({ requests, retries, places }));
  t.ok(isSpoilt(), "all were spoilt, and it was counted");
  t.ok(requests < (READS - Math.min(left, 0)) * 2, `${requests} requests: tries are bounded`);
}
