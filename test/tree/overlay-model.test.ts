// The overlay against Linux's tmpfs with a copy of what lies below: test/suite/linux-model.ts. Now and then another server's tree goes on
// with what the one before wrote. Short in the gate; BURROW_LONG=1 has 4,000 runs. Control plane.

import t from "tap";
import { OverlayTree, upperInodes } from "../../lib/tree/overlay.ts";
import { type Modelled, modelSuite, NAMES, noModel } from "../suite/linux-model.ts";
import { isLong } from "../suite/long.ts";
import { noTmpfs, PrivateTmpfs } from "../suite/private-tmpfs.ts";
import { snapshotOf } from "../suite/snapshot-fixture.ts";
import type { FixtureEntry } from "../suite/tree-fixture.ts";

const RUNS = isLong ? 4_000 : 100;
const INODES = 4_096;
const UPPER = { sizeBytes: 16 * 1024 * 1024, inodes: upperInodes(INODES), mode: 0o700 };
const [A, B, E] = NAMES.map((name) => Buffer.from(name).toString("latin1"));
/** Files of a page and less, and of more than one piece of a copy-up; names of one inode in two directories; depth. */
const LOWER: readonly FixtureEntry[] = [
  { path: `${A}`, type: "directory" },
  { path: `${A}/${A}`, type: "file", content: Buffer.alloc(5000, "lower") },
  { path: `${A}/${B}`, type: "directory", mode: 0o700 },
  { path: `${A}/${B}/${A}`, type: "file", content: "deep" },
  { path: `${A}/${B}/${E}`, type: "symlink", target: "../a" },
  { path: `${A}/${E}`, type: "file", content: Buffer.alloc(1_100_000, "large") },
  { path: `${B}`, type: "directory", mode: 0o1777 },
  { path: `${B}/${A}`, type: "file", content: "s", mode: 0o4755 },
  { path: `${B}/${B}`, type: "link", target: `${A}/${A}` },
  { path: `${B}/${E}`, type: "directory" },
  { path: `${E}`, type: "link", target: `${B}/${A}` },
];

const lower = snapshotOf(LOWER);
lower.tree.isShared = true;

function make(): Modelled {
  const tmpfs = new PrivateTmpfs(UPPER);
  const open = () => {
    const tree = OverlayTree.open(lower.tree, tmpfs.open(), { inodes: INODES });
    if (typeof tree === "number") throw new Error(`overlay: errno ${-tree}`);
    return tree;
  };
  return { open, fixture: LOWER, isOverlay: true, dispose: () => tmpfs.dispose() };
}

const skip = noModel() ?? noTmpfs() ?? false;

t.test(
  "any sequence does what Linux's tmpfs does with a copy of what lies below",
  { skip },
  (t) => {
    modelSuite(t, RUNS, make);
    t.end();
  },
);
t.teardown(() => lower.dispose());
