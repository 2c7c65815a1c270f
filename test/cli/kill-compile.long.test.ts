// Owns: the part of kill-repeat.test.ts that needs root, a runsc and this machine's Python: env compile, killed at a random moment.
// Skipped with the reason otherwise. Plane: control.

import { test } from "tap";
import { compileScene, killAndRepeat } from "./kill-node.ts";
import { skip } from "./python-node.ts";

test("env compile", { skip, timeout: 240_000 }, async (t) => {
  const { node, words, reset } = await compileScene(t);
  await killAndRepeat(t, node, words, 1, reset);
});
