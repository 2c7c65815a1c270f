// Owns: the long run of kill-repeat.test.ts: many moments of each command. Plane: control.

import { t as file, test } from "tap";
import { newNode } from "./cli.ts";
import { compileScene, emptied, imageIn, killAndRepeat, packagesNode } from "./kill-node.ts";
import { skip } from "./python-node.ts";

file.setTimeout(3_600_000); // of the file; each test has its own

const KILLS = 20;

test("env create", { timeout: 900_000 }, async (t) => {
  const { node, lock } = await packagesNode(t);
  await killAndRepeat(t, node, ["env", "create", "--quiet", lock], KILLS, emptied(node));
});

test("preload", { timeout: 900_000 }, async (t) => {
  const { node, lock } = await packagesNode(t);
  const words = ["preload", "--quiet", "--jobs", "2", lock];
  await killAndRepeat(t, node, words, KILLS, emptied(node));
});

test("layer import", { timeout: 900_000 }, async (t) => {
  const node = newNode(t);
  const words = ["layer", "import", "--snapshot", "--quiet", imageIn(node)];
  await killAndRepeat(t, node, words, KILLS, emptied(node));
});

test("env compile", { skip, timeout: 900_000 }, async (t) => {
  const { node, words, reset } = await compileScene(t);
  await killAndRepeat(t, node, words, KILLS, reset);
});
