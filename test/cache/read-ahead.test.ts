// What is fetched ahead of who reads a file in order, in blocks.

import { test } from "tap";
import { ReadAhead } from "../../lib/cache/read-ahead.ts";

test("who turns elsewhere, or has read one block at the start, has nothing fetched ahead", (t) => {
  const ahead = new ReadAhead(1000);
  for (const first of [0, 500, 7, 900, 300]) t.equal(ahead.next(first, first + 1), undefined);
  t.end();
});

test("who reads in order has more and more fetched ahead, up to 32 blocks, and never past the end", (t) => {
  const ahead = new ReadAhead(100);
  const wanted = Array.from({ length: 25 }, (_, i) => ahead.next(4 * i, 4 * i + 4));
  t.same(wanted.slice(0, 4), [
    { from: 4, to: 12 },
    { from: 12, to: 24 },
    undefined,
    { from: 24, to: 48 },
  ]);
  const runs = wanted.filter((run) => run !== undefined);
  t.equal(runs.at(-1)!.to, 100);
  for (const [i, { from, to }] of runs.entries()) {
    t.equal(from, i === 0 ? 4 : runs[i - 1]!.to, "no block twice, and none left out");
    t.ok(to > from && to - from <= 32);
  }
  t.end();
});

test("who comes back after having turned elsewhere begins anew", (t) => {
  const ahead = new ReadAhead(1000);
  t.same(ahead.next(0, 4), { from: 4, to: 12 });
  t.equal(ahead.next(600, 601), undefined);
  t.equal(ahead.next(4, 8), undefined);
  t.same(ahead.next(8, 12), { from: 12, to: 20 });
  t.end();
});
