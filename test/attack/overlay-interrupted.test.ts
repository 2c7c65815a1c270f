// A change of an overlay that is cut off at each of its steps: by a kill of the server, or by a step that fails. It is made or not made for
// who looks next, and can be made then. Control plane.

import { test } from "tap";
import { Errno } from "../../lib/base/errno.ts";
import type { Name } from "../../lib/base/name.ts";
import { OverlayTree } from "../../lib/tree/overlay.ts";
import { type Ino, O_RDWR, OpenResult, SetAttr, SetAttrRequest } from "../../lib/tree/tree.ts";
import { createUpper, type Upper } from "../../lib/tree/upper.ts";
import { PrivateTmpfs } from "../suite/private-tmpfs.ts";
import { snapshotOf } from "../suite/snapshot-fixture.ts";
import {
  createRequest,
  dumpOf,
  type FixtureEntry,
  finish,
  LOWER,
  list,
  must,
  walk,
} from "../suite/tree-fixture.ts";

const FIXTURE: readonly FixtureEntry[] = [
  ...LOWER,
  { path: "dir/link", type: "link", target: "dir/one" },
  { path: "other", type: "directory" },
  { path: "other/kept", type: "file", content: "kept" },
];
const SIZES = { sizeBytes: 1 << 24, inodes: 5_000, mode: 0o700 };
const skip = process.getuid!() !== 0 ? "whiteouts need root on old kernels" : false;

/** What of an upper changes something. */
const CHANGES = new Set(
  "mkdir symlink mknod create link unlink rename whiteout renameLeavingWhiteout setattr write setxattr".split(
    " ",
  ),
);

/** An upper whose server is killed in place of the change after so many; or that one fails with `errno`, and those after it don't. */
function mortal(upper: Upper, life: { left: number; errno?: number }): Upper {
  return new Proxy(upper, {
    get(target, key) {
      const value: unknown = Reflect.get(target, key, target);
      if (typeof value !== "function") return value;
      return (...args: unknown[]) => {
        if (CHANGES.has(String(key)) && life.left-- <= 0) {
          if (life.errno === undefined) throw new Error("killed");
          if (life.left === -1) return -life.errno;
        }
        return Reflect.apply(value, target, args);
      };
    },
  });
}

type Change = (tree: OverlayTree, inoOf: (path: string) => Ino) => number;

/** What is done before, then the change that is interrupted. */
const INTERRUPTED: readonly [name: string, before: Change, change: Change][] = [
  ["unlink below", () => 0, (tree, ino) => tree.unlink(ino("dir"), "one" as Name, false)],
  ["rmdir below", empty, (tree) => tree.unlink(tree.rootIno, "dir" as Name, true)],
  [
    "rmdir of a directory that was moved",
    (tree, ino) =>
      empty(tree, ino) ||
      tree.rename(tree.rootIno, "dir" as Name, tree.rootIno, "moved" as Name, 0),
    (tree) => tree.unlink(tree.rootIno, "moved" as Name, true),
  ],
  [
    "rename of a directory",
    () => 0,
    (tree, ino) => tree.rename(tree.rootIno, "dir" as Name, ino("other"), "d" as Name, 0),
  ],
  [
    "rename of a directory over one that was emptied",
    empty,
    (tree) => tree.rename(tree.rootIno, "other" as Name, tree.rootIno, "dir" as Name, 0),
  ],
  [
    "rename of a new directory over one that was emptied",
    (tree, ino) =>
      empty(tree, ino) || void tree.mkdir(ino("other"), "new" as Name, createRequest(0o755)) || 0,
    (tree, ino) => tree.rename(ino("other"), "new" as Name, tree.rootIno, "dir" as Name, 0),
  ],
  [
    "rename of a directory back over its whiteout",
    (tree, ino) => tree.rename(tree.rootIno, "dir" as Name, ino("other"), "d" as Name, 0),
    (tree, ino) => tree.rename(ino("other"), "d" as Name, tree.rootIno, "dir" as Name, 0),
  ],
  [
    "rename of a file over one",
    () => 0,
    (tree, ino) => tree.rename(ino("dir"), "one" as Name, tree.rootIno, "secret" as Name, 0),
  ],
  [
    "rename of a link",
    () => 0,
    (tree, ino) => tree.rename(ino("dir"), "link" as Name, tree.rootIno, "elsewhere" as Name, 0),
  ],
  ["unlink of a link", () => 0, (tree, ino) => tree.unlink(ino("dir"), "link" as Name, false)],
  [
    "rename over a link",
    () => 0,
    (tree, ino) => tree.rename(tree.rootIno, "secret" as Name, ino("dir"), "link" as Name, 0),
  ],
  [
    "a new link",
    () => 0,
    (tree, ino) => Math.min(0, tree.link(ino("other"), "new" as Name, ino("dir/one"))),
  ],
  [
    "mkdir over a whiteout",
    (tree, ino) => empty(tree, ino) || tree.unlink(tree.rootIno, "dir" as Name, true),
    (tree) => Math.min(0, tree.mkdir(tree.rootIno, "dir" as Name, createRequest(0o711))),
  ],
  [
    "exchange",
    () => 0,
    (tree, ino) => tree.rename(tree.rootIno, "other" as Name, ino("dir"), "one" as Name, 2),
  ],
  ["truncation", () => 0, (tree, ino) => change(tree, ino("dir/one"), SetAttr.size, { size: 0 })],
  ["chmod", () => 0, (tree, ino) => change(tree, ino("dir/one"), SetAttr.mode, { mode: 0o600 })],
  [
    "open to write",
    () => 0,
    (tree, ino) => {
      const out = new OpenResult();
      const file = ino("dir/one");
      const failed = tree.open(file, O_RDWR, out);
      if (failed === 0) finish(tree, file, out);
      return failed;
    },
  ],
];

function change(
  tree: OverlayTree,
  ino: Ino,
  mask: number,
  fields: Partial<SetAttrRequest>,
): number {
  const request = Object.assign(new SetAttrRequest(), { ...fields, mask });
  return tree.setattr(ino, -1, request) || -request.failureErrno;
}

function empty(tree: OverlayTree, ino: (path: string) => Ino): number {
  for (const name of [...list(tree, ino("dir")).keys()]) {
    const failed = tree.unlink(ino("dir"), name as Name, false);
    if (failed < 0) return failed;
  }
  return 0;
}

test("a change that a kill interrupts is made, or not, and can be made then", { skip }, (t) => {
  const lower = snapshotOf(FIXTURE);
  lower.tree.isShared = true;
  for (const [name, before, change] of INTERRUPTED) {
    let first: string[] = [];
    let last: string[] = [];
    for (let steps = Number.POSITIVE_INFINITY, isOver = false; !isOver; ) {
      const tmpfs = new PrivateTmpfs(SIZES);
      const life = { left: Number.POSITIVE_INFINITY };
      const open = (upper: Upper) =>
        OverlayTree.open(lower.tree, upper, { inodes: 2_000 }) as OverlayTree;
      const run = (tree: OverlayTree, action: Change) =>
        action(tree, (path) => must(walk(tree, path), path));
      const tree = open(mortal(tmpfs.open(), life));
      t.equal(run(tree, before), 0, name);
      if (first.length === 0) first = dumpOf(tree, false);
      life.left = steps;
      let outcome: number | "killed" = "killed";
      try {
        outcome = run(tree, change);
      } catch (error) {
        if ((error as Error).message !== "killed") throw error;
      }
      const next = open(tmpfs.open());
      if (steps === Number.POSITIVE_INFINITY) {
        t.equal(outcome, 0, name);
        last = dumpOf(next, false);
        steps = 0;
      } else {
        isOver = outcome !== "killed";
        const found = dumpOf(next, false).join("\n");
        const isMade = found === last.join("\n");
        // An empty directory in the way of another may be gone before that has its name.
        const half = first.filter((line) => !line.startsWith("dir ")).join("\n");
        const isFirst = found === first.join("\n") || (name.endsWith("emptied") && found === half);
        if (!isMade && !isFirst)
          t.same(dumpOf(next, false), last, `${name}, killed after ${steps} steps`);
        if (!isMade) t.equal(run(next, change), 0, `${name} again, killed after ${steps} steps`);
        t.same(dumpOf(next, false), last, `${name}, made after ${steps} steps`);
        steps++;
      }
      next.dispose();
      life.left = Number.POSITIVE_INFINITY;
      tree.dispose();
      tmpfs.dispose();
    }
  }
  lower.dispose();
  t.end();
});

test("a change of which one step fails is made, or not, and can be made then", { skip }, (t) => {
  const lower = snapshotOf(FIXTURE);
  lower.tree.isShared = true;
  const run = (tree: OverlayTree, action: Change) =>
    action(tree, (path) => must(walk(tree, path), path));
  for (const [name, before, change] of INTERRUPTED) {
    for (let steps = 0, isOver = false; !isOver; steps++) {
      const life = { left: Number.POSITIVE_INFINITY, errno: Errno.ENOSPC };
      const own = createUpper(SIZES) as Upper;
      const upper = mortal(own, life);
      const tree = OverlayTree.open(lower.tree, upper, { inodes: 2_000 }) as OverlayTree;
      t.equal(run(tree, before), 0, name);
      const first = dumpOf(tree, false).join("\n");
      life.left = steps;
      const outcome = run(tree, change);
      isOver = life.left >= 0;
      life.left = Number.POSITIVE_INFINITY;
      const found = dumpOf(tree, false).join("\n");
      const half = first.replace(/^dir .*\n/m, "");
      const isFirst = found === first || (name.endsWith("emptied") && found === half);
      if (outcome !== 0) t.equal(run(tree, change), 0, `${name} again, after step ${steps} failed`);
      const made = dumpOf(tree, false).join("\n");
      t.ok(isFirst || found === made, `${name}, step ${steps}: ${found}`);
      t.ok(made !== first || name.startsWith("open"), `${name} is made, step ${steps}`);
      tree.dispose();
    }
  }
  lower.dispose();
  t.end();
});
