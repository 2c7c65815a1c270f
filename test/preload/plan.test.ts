// Plans: every ask is in one, in the order of use, none of their ranges lies over another, and what is asked for lies in them.

import fs from "node:fs";
import { type Test, test } from "tap";
import { BLOCK_BYTES, FETCH_RUN_BYTES } from "../../lib/base/limits.ts";
import { planOf, STRETCH_BYTES } from "../../lib/preload/plan.ts";
import type { ProfileAsk } from "../../lib/preload/profile.ts";
import { objectPath } from "../../lib/store/layout.ts";
import { Locator } from "../../lib/store/locator.ts";
import { BLOB_ROW, HEADER } from "../../lib/store/locator-format.ts";
import { type Files, noise, type Published, publish } from "../suite/daemon-node.ts";

async function packed(t: Test, files: Files) {
  const root = t.testdir({});
  const published = await publish(root, files);
  const path = `${root}/${objectPath("locators", published.digest)}`;
  return { published, locator: new Locator(fs.readFileSync(path)), table: tableOf(published) };
}

function tableOf({ index }: Published) {
  return {
    count: index.blobCount,
    digestAt: (row: number) => index.blobDigest(row),
    sizeOf: (row: number) => index.blobSize(row),
  };
}

const SIZES = Array.from({ length: 60 }, (_, i) => 20_000 + 7_919 * ((i * 37) % 60));
const FILES: Files = Object.fromEntries(SIZES.map((size, i) => [`f${i}`, noise(size, i + 1)]));

test("each ask stands in the stretch that its bytes lie in, first used first", async (t) => {
  const { published, locator, table } = await packed(t, FILES);
  const order = [41, 3, 59, 0, 17, 18, 19, 20, 21, 55];
  const asks = order.map((i) => ({ row: published.row(`f${i}`), first: 0, count: 0 }));
  const { stretches, loose } = await planOf(asks, table, locator);
  t.same(loose, []);
  t.same(new Set(stretches.flatMap(({ asks }) => asks)), new Set(asks));
  const placeOf = ({ row }: ProfileAsk) => locator.chunkAt(locator.find(table.digestAt(row)), 0);
  for (const { path, offset, length, asks } of stretches) {
    t.ok(length > 0 && length <= STRETCH_BYTES);
    for (const ask of asks) {
      const place = placeOf(ask);
      t.equal(place.path, path);
      t.ok(place.offset >= offset && place.offset + place.stored <= offset + length);
    }
  }
  const sorted = [...stretches].sort((a, b) => a.offset - b.offset);
  for (const [i, { path, offset }] of sorted.entries()) {
    const before = sorted[i - 1];
    if (before?.path === path) t.ok(before.offset + before.length <= offset, "none over another");
  }
  const firsts = stretches.map((each) => Math.min(...each.asks.map((ask) => asks.indexOf(ask))));
  t.same(
    firsts,
    [...firsts].sort((a, b) => a - b),
  );
});

test("all of a pack comes in few stretches, and little beside", async (t) => {
  const { published, locator, table } = await packed(t, FILES);
  const asks = SIZES.map((_, i) => ({ row: published.row(`f${i}`), first: 0, count: 0 }));
  const { stretches } = await planOf(asks, table, locator);
  const bytes = SIZES.reduce((sum, size) => sum + size, 0);
  const fetched = stretches.reduce((sum, { length }) => sum + length, 0);
  t.ok(stretches.length <= Math.ceil(bytes / (STRETCH_BYTES - FETCH_RUN_BYTES)) + 1);
  t.ok(fetched <= 1.01 * bytes, `${fetched} of ${bytes}`);
});

test("rows and blobs that aren't there are loose or left out; blocks past the end, too", async (t) => {
  const { published, locator, table } = await packed(t, {
    large: noise(9 << 20, 5),
    small: noise(9),
  });
  const large = published.row("large");
  const asks = [
    { row: 4_000_000_000, first: 0, count: 0 },
    { row: large, first: 5, count: 3 },
    { row: large, first: 4_000_000_000, count: 2 },
    { row: large, first: 30, count: 4_000_000_000 },
  ];
  const { stretches, loose } = await planOf(asks, table, locator);
  t.same(loose, [asks[0], asks[2]]);
  t.same(
    stretches.flatMap(({ asks }) => asks),
    [asks[1], asks[3]],
  );
  const other = await packed(t, { another: noise(5_000, 77) });
  t.same(await planOf(asks.slice(1, 2), table, other.locator), {
    stretches: [],
    loose: [asks[1]],
    rest: [],
  });
});

test("the rest of a large blob lies between what is asked for, in long stretches", async (t) => {
  const { published, locator, table } = await packed(t, { large: noise(20 << 20, 5) });
  const row = published.row("large");
  const asks = [
    { row, first: 30, count: 2 },
    { row, first: 4, count: 1 },
  ];
  const { stretches, rest } = await planOf(asks, table, locator, [{ row, first: 0, count: 0 }]);
  t.same(
    stretches.map(({ asks }) => asks),
    asks.map((ask) => [ask]),
  );
  const all = [...stretches, ...rest].sort((a, b) => a.offset - b.offset);
  for (const [i, { offset }] of all.entries()) {
    const before = all[i - 1];
    if (before !== undefined) t.equal(before.offset + before.length, offset, "none over another");
  }
  const stored = all.reduce((sum, { length }) => sum + length, 0);
  t.ok(stored >= 20 << 20, "all of it");
  t.ok(
    rest.length <= 4 && rest.every(({ length }) => length <= 3 * STRETCH_BYTES),
    `${rest.length}`,
  );
});

test("a long run is cut evenly, and so is what is left of a large blob", async (t) => {
  const { published, locator, table } = await packed(t, { large: noise(35 << 19, 5) });
  const row = published.row("large");
  const { stretches } = await planOf([{ row, first: 0, count: 0 }], table, locator);
  t.equal(stretches.length, 4, "17.5 MiB are no four ranges of 4 and one of 1.5");
  for (const { length } of stretches)
    t.ok(length > 0.66 * STRETCH_BYTES && length < 1.76 * STRETCH_BYTES, `${length}`);
  const last = [
    { row, first: 0, count: 31 },
    { row, first: 33, count: 37 },
  ];
  const { rest } = await planOf([], table, locator, last);
  t.same(
    rest.map(({ length }) => Math.round(length / BLOCK_BYTES)),
    [31, 37],
    "each between what is here, one range",
  );
});

test("what is wanted later and lies between two ranges comes with them", async (t) => {
  const { published, locator, table } = await packed(t, { large: noise(20 << 20, 5) });
  const row = published.row("large");
  const asks = [0, 4, 20].map((first) => ({ row, first, count: 1 }));
  const apart = await planOf(asks, table, locator);
  t.equal(apart.stretches.length, 3, "three quarters of a MiB that nobody wants are left");
  const { stretches, rest } = await planOf(asks, table, locator, [{ row, first: 0, count: 0 }]);
  t.same(
    stretches.map((each) => each.asks.length),
    [2, 1],
    "what is far behind waits",
  );
  const stored = [...stretches, ...rest].reduce((sum, { length }) => sum + length, 0);
  t.ok(stored >= 20 << 20 && stored < 21 << 20, "all of it, once");
});

test("a locator that lies of a blob says nothing of it, and is believed of the others", async (t) => {
  const { published, locator, table } = await packed(t, {
    large: noise(9 << 20, 5),
    other: noise(9 << 20, 6),
    small: noise(9),
  });
  const ask = (name: string) => ({ row: published.row(name), first: 0, count: 0 });
  const asks = ["large", "small", "other"].map(ask);
  for (const lie of [1, 10, 19, 0xffff_ffff]) {
    const bytes = Buffer.from(locator.bytes);
    for (const { row } of asks.slice(0, 2)) {
      const at = HEADER.bytes + BLOB_ROW.bytes * locator.find(table.digestAt(row));
      if (table.sizeOf(row) > 9) bytes.writeUInt32LE(lie, at + BLOB_ROW.count);
      else bytes.writeUInt32LE(0xffff_fff0, at + BLOB_ROW.first);
    }
    const { stretches, loose } = await planOf(asks, table, new Locator(bytes));
    t.same(loose, asks.slice(0, 2), `${lie} chunks`);
    t.same(new Set(stretches.flatMap(({ asks }) => asks)), new Set(asks.slice(2)));
  }
});
