// Owns: proof that long commands killed at any moment can be begun again, with the same result and nothing left; a few moments of each.
// env compile needs root, a runsc and this machine's Python; skipped with the reason otherwise. Plane: control.

import { test } from "tap";
import { newNode } from "./cli.ts";
import { compileScene, emptied, imageIn, killAndRepeat, packagesNode } from "./kill-node.ts";
import { skip } from "./python-node.ts";

const KILLS = 2;

test("env create", { timeout: 120_000 }, async (t) => {
  const { node, lock } = await packagesNode(t);
  await killAndRepeat(t, node, ["env", "create", "--quiet", lock], KILLS, emptied(node));
});

test("preload", { timeout: 120_000 }, async (t) => {
  const { node, lock } = await packagesNode(t);
  const words = ["preload", "--quiet", "--jobs", "2", lock];
  await killAndRepeat(t, node, words, KILLS, emptied(node));
});

test("layer import", { timeout: 120_000 }, async (t) => {
  const node = newNode(t);
  const words = ["layer", "import", "--snapshot", "--quiet", imageIn(node)];
  await killAndRepeat(t, node, words, KILLS, emptied(node));
});

test("env compile", { skip, timeout: 240_000 }, async (t) => {
  const { node, words, reset } = await compileScene(t);
  await killAndRepeat(t, node, words, 1, reset);
});
