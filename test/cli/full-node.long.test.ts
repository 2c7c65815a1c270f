// Owns: the part of full-disk.test.ts that is about a node's own disks: cache and state, under preload. Skipped with the reason where there
// can be none. Plane: control.

import { test } from "tap";
import { fillEach, noDisk as skip } from "./disk-node.ts";
import { emptied, packagesNode } from "./kill-node.ts";

test("preload", { skip, timeout: 400_000 }, async (t) => {
  const { node, lock } = await packagesNode(t);
  await fillEach(t, node, ["preload", "--quiet", lock], emptied(node), [
    { place: "cache", size: "14m" },
    { place: "state", size: "4k" },
  ]);
});
