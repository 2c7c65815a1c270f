// Touches that are made to cost the daemon: what a gofer says it used is looked at within bounds, whatever its indexes say.

import { test } from "tap";
import type { Digest } from "../../lib/base/digest.ts";
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
