// Long work in parts: the loop has its turns between them, in the order of asking.

import { test } from "tap";
import { LoopShare } from "../../lib/store/loop-share.ts";

const SHARE_MS = 1;

/** Keeps the thread longer than a turn's share. */
function work(): void {
  const endMs = performance.now() + 2 * SHARE_MS;
  while (performance.now() < endMs);
}

test("parts that are each too long for a turn have one each, in order", async (t) => {
  const share = new LoopShare(SHARE_MS);
  let turns = 0;
  let isOver = false;
  const count = () => {
    turns++;
    if (!isOver) setImmediate(count);
  };
  setImmediate(count);
  const seen: number[] = [];
  const order: number[] = [];
  const parts = Array.from({ length: 8 }, (_, i) =>
    share.run(() => {
      work();
      order.push(i);
      seen.push(turns);
    }),
  );
  await Promise.all(parts);
  isOver = true;
  t.same(order, [0, 1, 2, 3, 4, 5, 6, 7]);
  t.equal(new Set(seen).size, seen.length, `turns ${seen.join(" ")}`);
});

test("what a part throws is its own", async (t) => {
  const share = new LoopShare(SHARE_MS);
  const parts = [0, 1, 2].map((i) =>
    share.run(() => {
      if (i === 1) throw new Error("bad");
      return i;
    }),
  );
  const outcomes = await Promise.allSettled(parts);
  t.same(
    outcomes.map(({ status }) => status),
    ["fulfilled", "rejected", "fulfilled"],
  );
});
