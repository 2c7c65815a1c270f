// Owns: the part of full-disk.test.ts that is about a node's own disks: cache and state, under preload and env compile, which needs a
// runsc and this machine's Python, too. Skipped with the reason otherwise. Plane: control.

import { test } from "tap";
import { fillEach, noDisk as skip } from "./disk-node.ts";
import { compileScene, emptied, packagesNode } from "./kill-node.ts";
import { skip as noCompile } from "./python-node.ts";

test("preload", { skip, timeout: 120_000 }, async (t) => {
  const { node, lock } = await packagesNode(t);
  await fillEach(t, node, ["preload", "--quiet", lock], emptied(node), [
    { place: "cache", size: "14m" },
    { place: "state", size: "4k" },
  ]);
});

test("env compile", { skip: skip || noCompile, timeout: 120_000 }, async (t) => {
  const { node, words, reset } = await compileScene(t);
  await fillEach(t, node, words, reset, [{ place: "state", size: "128k" }]);
});
