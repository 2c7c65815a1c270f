// Owns: proof that a full disk under the store or TMPDIR ends a long command with a named error that says where and what to do, that
// nothing half is believed of it, and that with space the same command goes on. Needs root to mount a tmpfs; skipped with the reason
// otherwise. full-node.long.test.ts has the cache and the state, full-compile.long.test.ts env compile. Plane: control.

import { test } from "tap";
import { newNode } from "./cli.ts";
import { fillEach, noDisk as skip } from "./disk-node.ts";
import { emptied, imageIn, packagesNode } from "./kill-node.ts";

test("env create", { skip, timeout: 120_000 }, async (t) => {
  const { node, lock } = await packagesNode(t);
  await fillEach(t, node, ["env", "create", "--quiet", lock], emptied(node), [
    { place: "store", size: "7m" },
    { place: "TMPDIR", size: "4k" },
    { place: "TMPDIR", size: "2m" },
  ]);
});

test("layer import", { skip, timeout: 120_000 }, async (t) => {
  const node = newNode(t);
  const words = ["layer", "import", "--snapshot", "--quiet", imageIn(node)];
  await fillEach(t, node, words, emptied(node), [{ place: "store", size: "6m" }]);
});
