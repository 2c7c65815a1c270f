// An overlay over a snapshot as the tests of overlays have it, and what is in that snapshot. Tests only.

import { OverlayTree, upperInodes } from "../../lib/tree/overlay.ts";
import type { Tree } from "../../lib/tree/tree.ts";
import { createUpper, type Upper } from "../../lib/tree/upper.ts";
import { snapshotOf } from "./snapshot-fixture.ts";
import type { FixtureEntry } from "./tree-fixture.ts";

export const MIB = 1024 * 1024;
export const INODES = 2_000;

/** An overlay of an upper of its own over a fixture. */
export function overlayOf(fixture: readonly FixtureEntry[], sizeBytes = 64 * MIB, inodes = INODES) {
  const lower = snapshotOf(fixture);
  const upper = createUpper({ sizeBytes, inodes: upperInodes(inodes), mode: 0o700 });
  return { lower, ...over(lower.tree, upper, inodes), dispose: () => lower.dispose() };
}

/** The overlay of an upper, or the errno of one that was not made, which is thrown. */
export function over(lower: Tree, upper: Upper | number, inodes = INODES) {
  const tree = typeof upper === "number" ? upper : OverlayTree.open(lower, upper, { inodes });
  if (typeof tree === "number") throw new Error(`overlay: errno ${-tree}`);
  return { tree };
}

export const SIZES = { sizeBytes: 64 * MIB, inodes: upperInodes(INODES), mode: 0o700 };

/** Over one MiB, so that it is copied in pieces. */
export const BIG = Buffer.from(Array.from({ length: 3 * MIB }, (_, i) => (i * 11) & 0xff));
export const FIXTURE: readonly FixtureEntry[] = [
  { path: "file", type: "file", content: "hello\n" },
  { path: "big", type: "file", content: BIG, mode: 0o640 },
  { path: "dir", type: "directory" },
  { path: "dir/inner", type: "file", content: "inner" },
  { path: "dir/sub", type: "directory" },
  { path: "dir/sub/deep", type: "file", content: "deep" },
  { path: "one", type: "file", content: "linked" },
  { path: "dir/two", type: "link", target: "one" },
  { path: "other", type: "directory" },
  { path: "void", type: "directory" },
];
