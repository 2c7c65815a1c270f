// Segments of packs: what they are made of, that one request brings one, and that a wrong one is given out once at most.

import { randomBytes } from "node:crypto";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { test } from "tap";
import { Segments } from "../../lib/cache/segments.ts";
import { IndexKind } from "../../lib/layer/format.ts";
import { writeIndex } from "../../lib/layer/writer.ts";
import { objectPath } from "../../lib/store/layout.ts";
import { Locator } from "../../lib/store/locator.ts";
import { memoryBackend } from "../../lib/store/memory.ts";
import { openPackWriter } from "../../lib/store/pack-writer.ts";
import type { ByteRange } from "../../lib/store/store.ts";
import { entriesOf, noise } from "../suite/daemon-node.ts";
import { Dice } from "../suite/dice.ts";
import { until } from "../suite/wait.ts";

setFlagsFromString("--expose-gc");
const collect = runInNewContext("gc") as () => void;

const SEGMENT = { offset: 100, length: 1000 };

/** A source of segments that counts, and can be told to fail. */
function source(content = noise(10_000)) {
  const asked: ByteRange[] = [];
  const blamed: string[] = [];
  const from = {
    asked,
    blamed,
    content,
    failures: 0,
    fetch: async (range: ByteRange) => {
      asked.push(range);
      await Promise.resolve();
      if (from.failures-- > 0) throw new Error("down");
      const bytes = Buffer.from(content.subarray(range.offset, range.offset + range.length));
      return { bytes, sender: { name: "it", blame: (why: string) => void blamed.push(why) } };
    },
  };
  return from;
}

test("ranges of a segment come by one request, whoever is first", async (t) => {
  const segments = new Segments();
  const from = source();
  const ranges = Array.from({ length: 10 }, (_, i) => ({ offset: 100 + 90 * i, length: 90 }));
  const take = (range: ByteRange) => segments.take("p", SEGMENT, range, from.fetch);
  for (const [i, { bytes }] of (await Promise.all(ranges.map(take))).entries())
    t.same(bytes, from.content.subarray(100 + 90 * i, 190 + 90 * i));
  t.same((await take({ offset: 1000, length: 100 })).bytes, from.content.subarray(1000, 1100));
  t.same(from.asked, [SEGMENT]);
  await segments.take("q", SEGMENT, SEGMENT, from.fetch);
  t.equal(from.asked.length, 2, "of another pack it is another");
});

test("a segment that failed is asked for again by each who waited, and one that was wrong by the next", async (t) => {
  const segments = new Segments();
  const from = source();
  const take = () => segments.take("p", SEGMENT, { offset: 200, length: 5 }, from.fetch);
  from.failures = 1;
  const [first, second] = [take(), take()];
  await t.rejects(first);
  t.same((await second).bytes, from.content.subarray(200, 205), "in its own name");
  const { sender } = await take();
  t.equal(from.asked.length, 2);
  sender.blame("wrong");
  t.same(from.blamed, ["wrong"], "who sent it hears of it");
  await take();
  t.equal(from.asked.length, 3, "and it is fetched anew");
});

test("what is kept is bounded, and given up when nobody takes", async (t) => {
  const segments = new Segments(2500, 20);
  const from = source();
  for (let i = 0; i < 4; i++) await segments.take(`p${i}`, SEGMENT, SEGMENT, from.fetch);
  t.equal(segments.bytes, 2000);
  t.ok(await until(() => segments.bytes === 0));
});

test("segments of a pack: each chunk lies in one, and they don't overlap", async (t) => {
  const store = memoryBackend();
  const writer = await openPackWriter(store);
  const refs = new Map();
  for (let i = 0; i < 60; i++)
    refs.set(`f${i}`, await writer.addBytes(noise(30_000 + i, i + 1), `f${i}`));
  refs.set("large", await writer.addBytes(noise(1_500_000, 99), "large"));
  const { digest } = await writer.finish(writeIndex(IndexKind.snapshot, entriesOf(refs)));
  const locator = new Locator(await store.get(objectPath("locators", digest)));
  const found = new Map<string, ByteRange>();
  for (let row = 0; row < locator.blobCount; row++) {
    for (let k = 0; k < locator.chunkCount(row); k++) {
      const { pack, offset, stored } = locator.chunkAt(row, k);
      const segment = locator.segmentAround(row, k, 500_000)!;
      const end = segment.offset + segment.length;
      if (segment.offset > offset || end < offset + stored) t.fail("a chunk lies outside");
      found.set(`${pack} ${segment.offset}`, segment);
    }
  }
  const all = [...found.values()].sort((a, b) => a.offset - b.offset);
  t.ok(all.length >= 6, `${all.length} segments of 3.3 MB`);
  for (const [i, { offset, length }] of all.entries()) {
    t.ok(length <= 500_000 + 262_144, "no longer than one chunk more");
    if (i > 0) t.ok(all[i - 1]!.offset + all[i - 1]!.length <= offset);
  }
});

test("what is planned is found, and nothing twice, however it was planned", async (t) => {
  const segments = new Segments();
  const seed = randomBytes(4).readUInt32LE();
  t.comment(`seed ${seed}`);
  const dice = new Dice(seed);
  const random = (n: number) => dice.pick(n);
  /** Of each byte the plan that has it: the first that named it. */
  const plans = new Int32Array(32_000);
  for (let step = 1; step <= 20; step++) {
    // As plans are: none over another, in any order.
    const plan = Array.from({ length: 30 }, (_, i) => {
      return { offset: 1000 * i + random(500), length: 1 + random(500) };
    }).sort(() => random(2) - 0.5);
    segments.plan("p", plan);
    for (const { offset, length } of plan)
      for (let byte = offset; byte < offset + length; byte++) plans[byte] ||= step;
    for (const each of plan) {
      const covering = segments.covering("p", each);
      const end = each.offset + each.length;
      let at = covering[0]!.offset;
      if (at > each.offset) t.fail("its begin is planned");
      for (const { offset, length } of covering) {
        if (offset !== at) t.fail("all of it is");
        at = offset + length;
      }
      if (at < end || covering.at(-1)!.offset >= end) t.fail("to its end, and no further");
    }
  }
  for (const [byte, plan] of plans.entries()) {
    const found = segments.planned("p", { offset: byte, length: 1 });
    if ((found !== undefined) !== plan > 0) t.fail(`byte ${byte} of plan ${plan}`);
    if (found === undefined) continue;
    const theirs = plans.subarray(found.offset, found.offset + found.length);
    if (theirs.some((each) => each !== plan)) t.fail(`${byte} is of one plan`);
    if (segments.planned("p", { ...found, length: found.length + 1 })) t.fail("it is the longest");
  }
  t.equal(segments.planned("p", { offset: 31_000, length: 1 }), undefined);
  t.equal(segments.planned("q", { offset: 1, length: 1 }), undefined);
});

test("who has a part of a segment, and who sent it, doesn't hold the rest", async (t) => {
  const segments = new Segments(1);
  let whole: WeakRef<ArrayBufferLike> | undefined;
  const fetch = async () => {
    const bytes = Buffer.alloc(SEGMENT.length);
    whole = new WeakRef(bytes.buffer);
    return { bytes, sender: { name: "it", blame: () => undefined } };
  };
  // Too long to be kept: the part is all that is left of it.
  const part = await segments.take("p", SEGMENT, { offset: 200, length: 5 }, fetch);
  const isGone = () => {
    collect();
    return whole?.deref() === undefined;
  };
  t.ok(await until(isGone), "4 MiB for each block that waits for the disk");
  t.equal(part.bytes.length, 5);
  part.sender.blame("wrong");
});

test("a crowd fetches what nobody has planned, and nothing of it is fetched again when it is gone", (t) => {
  const segments = new Segments();
  const segment = { offset: 1000, length: 1000 };
  segments.plan("p", [
    { offset: 900, length: 200 },
    { offset: 1500, length: 100 },
  ]);
  const claimed = segments.claim("p", segment, { offset: 1200, length: 50 });
  t.same(claimed, { offset: 1100, length: 400 }, "up to what others fetch");
  t.same(segments.planned("p", { offset: 1300, length: 200 }), claimed, "whoever asks");
  const last = segments.claim("p", segment, { offset: 1600, length: 50 });
  t.same(last, { offset: 1600, length: 400 });
  t.equal(segments.claim("p", segment, { offset: 1450, length: 100 }), undefined, "it is planned");
  t.same(segments.claim("q", segment, { offset: 1200, length: 50 }), segment, "another pack");
  t.end();
});

test("no byte is fetched twice, whatever is fetched apart, by a crowd and ahead at a time", async (t) => {
  const chunks = 200;
  const chunk = 50;
  const seed = randomBytes(4).readUInt32LE();
  t.comment(`seed ${seed}`);
  const dice = new Dice(seed);
  // Nothing is given up while this runs.
  const segments = new Segments(undefined, 600_000);
  const from = source();
  const rangeOf = (first: number, count: number) => {
    return { offset: first * chunk, length: count * chunk };
  };
  /** Chunks that somebody has put away, or is about to. */
  const here = new Set<number>();
  const isFree = (at: number) =>
    at < chunks && !here.has(at) && segments.planned("p", rangeOf(at, 1)) === undefined;
  const demand = (at: number, isCrowded: boolean) => {
    const around = rangeOf(at - (at % 20), 20);
    const segment =
      segments.planned("p", rangeOf(at, 1)) ??
      (isCrowded ? segments.claim("p", around, rangeOf(at, 1)) : undefined);
    let end = at + 1;
    if (segment === undefined) while (end < at + 10 && isFree(end)) end++;
    for (let each = at; each < end; each++) here.add(each);
    const range = rangeOf(at, end - at);
    if (segment === undefined) return segments.apart("p", range, from.fetch);
    return segments.take("p", segment, range, from.fetch);
  };
  const bring = (range: ByteRange) => {
    segments.plan("p", [range]);
    const planned = segments.covering("p", range);
    return Promise.all(planned.map((each) => segments.take("p", each, each, from.fetch)));
  };
  const work: Promise<unknown>[] = [];
  for (let step = 0; step < 300; step++) {
    const at = dice.pick(chunks);
    if (dice.pick(4) === 0) work.push(bring(rangeOf(at, Math.min(15, chunks - at))));
    else if (!here.has(at)) work.push(demand(at, dice.pick(2) === 0));
    if (dice.pick(3) === 0) await Promise.all(work.splice(0));
  }
  await Promise.all(work);
  const times = new Uint8Array(chunks * chunk);
  for (const { offset, length } of from.asked)
    for (let byte = offset; byte < offset + length; byte++) times[byte]!++;
  t.equal(Math.max(...times), 1);
  t.ok(
    [...here].every((at) => times[at * chunk] === 1),
    `what was asked for came, by ${from.asked.length} requests`,
  );
});

test("what is fetched apart and fails is anybody's to plan", async (t) => {
  const segments = new Segments();
  const from = source();
  const range = { offset: 300, length: 100 };
  from.failures = 1;
  await t.rejects(segments.apart("p", range, from.fetch));
  segments.plan("p", [SEGMENT]);
  t.same(segments.planned("p", range), SEGMENT);
});
