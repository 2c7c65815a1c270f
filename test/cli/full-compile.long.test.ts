// Owns: env compile on a full disk, which needs a runsc and this machine's Python. Skipped with the reason otherwise. Plane: control.

import { test } from "tap";
import { fillEach, noDisk } from "./disk-node.ts";
import { compileScene } from "./kill-node.ts";
import { skip as noCompile } from "./python-node.ts";

test("env compile", { skip: noDisk || noCompile, timeout: 120_000 }, async (t) => {
  const { node, words, reset } = await compileScene(t);
  await fillEach(t, node, words, reset, [{ place: "state", size: "128k" }]);
});
