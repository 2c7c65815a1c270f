// Touches that are made to cost the daemon: what a gofer says it used is looked at within bounds, whatever its indexes say.

import { test } from "tap";
import type { Digest } from "../../lib/base/digest.ts";
import { TOUCH_WORDS, TOUCHES_PER_FRAME } from "../../lib/base/limits.ts";
import { decodeTouches, encodeTouches } from "../../lib/cache/mailbox-wire.ts";
import { newPrefetchFigures, Prefetched } from "../../lib/daemon/prefetched.ts";

test("a touch of a file of petabytes, or from beyond its end", async (t) => {
  const figures = newPrefetchFigures();
  const prefetched = new Prefetched({ figuresOf: () => figures, brought: () => undefined });
  const blob = "a".repeat(64) as Digest;
  for (let piece = 0; piece < 10; piece++) prefetched.brought("view", blob, piece, 1);
  t.equal(prefetched.used(blob, 2 ** 52, 2 ** 31, 2 ** 32 - 1, 5), 5);
  t.equal(prefetched.used(blob, 2 ** 52, 4, 2 ** 32 - 1, 3), 3);
  t.equal(figures.usedBytes, 3);
  t.equal(prefetched.used(blob, 1 << 21, 2 ** 31, 2 ** 32 - 1, 1000), 0);
  t.equal(prefetched.used(blob, 100, 0, 0, 1000), 1);
  t.equal(prefetched.used(blob, 100, 0, 0, 0), 0);
  t.equal(prefetched.used(blob, 2 ** 52, 0, 0, 1000), 1000);
  t.equal(figures.usedBytes, 10);
  t.equal(prefetched.used(blob, 2 ** 52, 0, 0, 1000), 0, "once");
  prefetched.brought("view", blob, 11, 1);
  t.equal(figures.usedBytes, 11);
});

test("all of a file, told once for each of its blocks", async (t) => {
  const out = new Uint8Array(64 + 4 * TOUCH_WORDS * TOUCHES_PER_FRAME);
  const told = (...touch: number[]) => {
    const bytes = encodeTouches(out, Uint32Array.from([0, 7, 0, 0, 1, 0, ...touch]), 2);
    return decodeTouches(out, 0, bytes)?.length;
  };
  t.equal(told(9, 4, 2, 1), 2);
  t.equal(told(7, 0, 0, 1), 2);
  // 8,192 of them beside as many blocks were a lesson of 67 million asks: 1.3 GB, and seconds of the daemon's loop.
  t.equal(told(7, 1, 0, 1), undefined);
});
