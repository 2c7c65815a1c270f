// Owns: proof that long commands killed at any moment can be begun again, with the same result and nothing left; a few moments of each.
// kill-compile.long.test.ts has env compile. Plane: control.

import { test } from "tap";
import { newNode } from "./cli.ts";
import { emptied, imageIn, killAndRepeat, packagesNode } from "./kill-node.ts";

const KILLS = 1;

test("env create", { timeout: 120_000 }, async (t) => {
  const { node, lock } = await packagesNode(t);
  await killAndRepeat(t, node, ["env", "create", "--quiet", lock], KILLS, emptied(node));
});

test("layer import", { timeout: 120_000 }, async (t) => {
  const node = newNode(t);
  const words = ["layer", "import", "--snapshot", "--quiet", imageIn(node)];
  await killAndRepeat(t, node, words, KILLS, emptied(node));
});
