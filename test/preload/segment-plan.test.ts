// Segment plans: every ask's bytes lie in its segments, which are the same whoever asks; ranges are of whole segments, none over another.

import fs from "node:fs";
import { type Test, test } from "tap";
import { STRETCH_BYTES } from "../../lib/preload/plan.ts";
import {
  rangesOf,
  type Segment,
  type SegmentRange,
  SegmentRuns,
  segmentKey,
  segmentsOf,
} from "../../lib/preload/segment-plan.ts";
import { objectPath } from "../../lib/store/layout.ts";
import { Locator } from "../../lib/store/locator.ts";
import { BLOB_ROW, CHUNK_ROW, HEADER } from "../../lib/store/locator-format.ts";
import { type Files, noise, publish } from "../suite/daemon-node.ts";

const SEGMENT_BYTES = 128 * 1024;
const FILES: Files = {
  ...Object.fromEntries(
    Array.from({ length: 60 }, (_, i) => [`f${i}`, noise(5_000 + 3_919 * ((i * 37) % 60), i + 1)]),
  ),
  large: noise(3 << 20, 99),
};

function whole(row: number) {
  return { row, first: 0, count: 0 };
}

function windowOf({ offset }: Segment): number {
  return Math.floor(offset / SEGMENT_BYTES);
}

async function packed(t: Test) {
  const root = t.testdir({});
  const { digest, index, row } = await publish(root, FILES);
  const locator = new Locator(fs.readFileSync(`${root}/${objectPath("locators", digest)}`));
  const table = {
    count: index.blobCount,
    digestAt: (blob: number) => index.blobDigest(blob),
    sizeOf: (blob: number) => index.blobSize(blob),
  };
  return { row, locator, table };
}

test("asks lie in their segments, and ranges are made of these", async (t) => {
  const { row, locator, table } = await packed(t);
  const names = Object.keys(FILES);
  const all = new Map<string, ReturnType<typeof segmentsOf>[number]>();
  for (const name of names) {
    const ask = {
      row: row(name),
      first: name === "large" ? 2 : 0,
      count: name === "large" ? 3 : 0,
    };
    const segments = segmentsOf(ask, table, locator, SEGMENT_BYTES);
    t.ok(segments.length > 0, name);
    const at = locator.find(table.digestAt(ask.row));
    for (let k = ask.first; k < ask.first + Math.max(1, ask.count); k++) {
      const { path, offset, stored } = locator.chunkAt(at, k);
      const holds = (each: (typeof segments)[number]) =>
        each.path === path && each.offset <= offset && offset + stored <= each.offset + each.length;
      t.ok(segments.some(holds), `${name} ${k}`);
    }
    for (const each of segments) {
      const known = all.get(segmentKey(each)) ?? each;
      t.same(known, each, "cut at the same places for all");
      all.set(segmentKey(each), each);
    }
  }
  const segments = [...all.values()].reverse();
  const ranges = rangesOf(segments);
  t.same(new Set(ranges.flatMap((each) => each.segments)), new Set(segments));
  t.ok(ranges[0]!.segments.includes(segments[0]!), "wanted first, fetched first");
  const sorted = [...ranges].sort((a, b) => a.offset - b.offset);
  for (const [i, { path, offset, length }] of sorted.entries()) {
    const before = sorted[i - 1];
    if (before?.path === path) t.ok(before.offset + before.length <= offset, "none over another");
    t.ok(length <= STRETCH_BYTES);
  }
  t.ok(ranges.length < segments.length / 4, `${ranges.length} of ${segments.length}`);
});

test("what can't be said to lie in a pack has no segments", async (t) => {
  const { locator, table } = await packed(t);
  const none = { row: table.count, first: 0, count: 0 };
  t.same(segmentsOf(none, table, locator, SEGMENT_BYTES), []);
  const other = { ...table, digestAt: () => "0".repeat(64) as ReturnType<typeof table.digestAt> };
  t.same(segmentsOf({ ...none, row: 0 }, other, locator, SEGMENT_BYTES), []);
  const sizes = { ...table, sizeOf: () => 9 << 20 };
  t.same(
    segmentsOf({ ...none, row: 0 }, sizes, locator, SEGMENT_BYTES),
    [],
    "nor one of another size",
  );
});

test("who reads on has more and more brought at once; what comes is asked for once", async (t) => {
  const { locator, table } = await packed(t);
  const large = { row: 0, first: 0, count: 1 };
  while (table.sizeOf(large.row) !== 3 << 20) large.row++;
  const runs = new SegmentRuns();
  const seen = new Set<string>();
  const lengths: number[] = [];
  // Block after block of one large file, as a start reads on.
  for (let first = 0; first < 12; first++) {
    for (const range of rangesOf(segmentsOf({ ...large, first }, table, locator, SEGMENT_BYTES))) {
      const asked = runs.readOn(range);
      if (asked === undefined) continue;
      for (const each of asked.segments) {
        t.notOk(seen.has(segmentKey(each)), "once");
        seen.add(segmentKey(each));
      }
      t.ok(asked.length <= STRETCH_BYTES);
      t.equal(
        asked.length,
        asked.segments.reduce((sum, { length }) => sum + length, 0),
      );
      runs.add(asked, Promise.resolve(true));
      lengths.push(asked.length);
    }
  }
  t.ok(lengths.length <= 5, `${lengths}`);
  t.ok(lengths[1]! > lengths[0]! || lengths.length < 3, `${lengths}`);
});

test("a single part between two that are wanted comes along", async (t) => {
  const { locator, table } = await packed(t);
  let row = 0;
  while (table.sizeOf(row) !== 3 << 20) row++;
  const rangeOf = (first: number) =>
    rangesOf(segmentsOf({ row, first, count: 1 }, table, locator, SEGMENT_BYTES))[0]!;
  const runs = new SegmentRuns();
  const one = runs.readOn(rangeOf(4))!;
  runs.add(one, Promise.resolve(true));
  const behind = one.segments.at(-1)!.after?.(1);
  const next = behind?.after === undefined ? one.segments.at(-1)!.after?.(2) : undefined;
  t.ok(behind && next, "there are two more");
  const far = {
    ...next!,
    segments: [{ ...next!, after: (n: number) => one.segments.at(-1)!.after?.(2 + n) }],
  };
  const two = runs.readOn(far)!;
  t.equal(two.offset, behind!.offset, "the one between is there");
  t.equal(two.segments[0]!.length, behind!.length);
});

/** Segments of a pack of which starts read [0, startEnd). */
function segmentsOfPack(startEnd: number, count: number, bytes = SEGMENT_BYTES): Segment[] {
  const all: Segment[] = [];
  for (let i = 0; i < count; i++) {
    const after = (n: number) => all[i + n];
    all.push({ path: "p", offset: i * SEGMENT_BYTES, length: bytes, startEnd, after });
  }
  return all;
}

test("an order that isn't one leads to no segment, or to such as go on", async (t) => {
  const { row, locator, table } = await packed(t);
  const chunks = locator.bytes.readUInt32LE(HEADER.chunkCount);
  const order = HEADER.bytes + locator.blobCount * BLOB_ROW.bytes + chunks * CHUNK_ROW.bytes;
  const orders = [(i: number) => chunks - 1 - i, (i: number) => (i * 37) % chunks, () => 0];
  for (const [k, numberAt] of orders.entries()) {
    const bytes = Buffer.from(locator.bytes);
    for (let i = 0; i < chunks; i++) bytes.writeUInt32LE(numberAt(i), order + 4 * i);
    const lying = new Locator(bytes);
    for (const name of Object.keys(FILES))
      for (const segment of segmentsOf(whole(row(name)), table, lying, SEGMENT_BYTES)) {
        let before = segment;
        for (let n = 0; n < 100; n++) {
          const next = segment.after?.(n);
          if (next === undefined) break;
          const isOn = n === 0 || windowOf(next) > windowOf(before);
          if (!isOn || next.length <= 0) t.fail(`${k} ${name} ${n}: ${next.offset} ${next.length}`);
          before = next;
        }
      }
  }
  t.pass();
});

test("what starts read of a pack comes in long parts, whoever wants some of it", (t) => {
  for (const megabytes of [0.3, 3, 5.9, 6.1, 17]) {
    const startEnd = Math.round(megabytes * (1 << 20));
    const all = segmentsOfPack(startEnd, Math.ceil(startEnd / SEGMENT_BYTES) + 40);
    const inStart = all.filter(({ offset }) => offset < startEnd);
    const runs = new SegmentRuns();
    const asked: SegmentRange[] = [];
    // From its end, its middle and so on, two at a time.
    for (let i = 0; i < 7 * inStart.length; i += 7)
      for (const wished of rangesOf([0, 3].map((n) => inStart[(i + n) % inStart.length]!)))
        for (let range = runs.readOn(wished); range; range = runs.readOn(wished)) {
          runs.add(range, Promise.resolve(true));
          asked.push(range);
        }
    const segments = asked.flatMap((each) => each.segments);
    t.same(new Set(segments), new Set(inStart), "all of it, once, and nothing else");
    t.equal(segments.length, inStart.length);
    t.equal(asked.length, Math.max(1, Math.round(startEnd / STRETCH_BYTES)));
    t.ok(asked.every(({ length }) => length <= 1.5 * STRETCH_BYTES + SEGMENT_BYTES));
    const behind = runs.readOn(rangesOf([all[inStart.length]!])[0]!)!;
    t.ok(behind.length <= SEGMENT_BYTES, "who goes on behind it begins with little");
  }
  t.end();
});

test("a part that is said to be huge is no longer than others", (t) => {
  const huge = segmentsOfPack(0xffff_ffff, 40, SEGMENT_BYTES);
  const lying = huge.map((each, i) => (i === 3 ? { ...each, length: 0xffff_ffff } : each));
  const after = (n: number) => lying[2 + n];
  const range = new SegmentRuns().readOn(rangesOf([{ ...lying[2]!, after }])[0]!)!;
  t.ok(range.length <= 2 * STRETCH_BYTES, `${range.length}`);
  t.end();
});
