// A hostile sandbox over an overlay, and servers that are killed between two steps: no bytes of another file, nothing that comes back,
// an upper that the next server can open. The sandbox holds inodes of what it has removed, and makes more than a server can hold.

import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "tap";
import { Errno } from "../../lib/base/errno.ts";
import type { Name } from "../../lib/base/name.ts";
import { KeptWalk } from "../../lib/cli/kept-walk.ts";
import type { BlobSink } from "../../lib/store/blob-sink.ts";
import { HostFd } from "../../lib/sys/host-fd.ts";
import { native } from "../../lib/sys/native.ts";
import { HostTree } from "../../lib/tree/host.ts";
import { OverlayTree } from "../../lib/tree/overlay.ts";
import { type Ino, O_RDWR, OpenResult, SetAttr, SetAttrRequest } from "../../lib/tree/tree.ts";
import { createUpper, createUpperFd, openUpper, type Upper } from "../../lib/tree/upper.ts";
import { snapshotOf } from "../suite/snapshot-fixture.ts";
import {
  attrOf,
  contents,
  createRequest,
  type FixtureEntry,
  finish,
  list,
  must,
  setattr,
  walk,
} from "../suite/tree-fixture.ts";

const O_PATH_DIRECTORY = 0o10200000;
const FIXTURE: readonly FixtureEntry[] = [
  { path: "secret", type: "file", content: "what lies below\n" },
  { path: "dir", type: "directory" },
  { path: "dir/one", type: "file", content: "1" },
  { path: "dir/two", type: "file", content: "2" },
];
const skip = process.getuid!() !== 0 ? "whiteouts need root on old kernels" : false;

/** An overlay whose upper is a folder of the host's, as `--upper` has it. */
function scene(t: { teardown(done: () => void): void }) {
  const lower = snapshotOf(FIXTURE);
  const folder = mkdtempSync(join(tmpdir(), "burrow-upper-"));
  t.teardown(() => {
    lower.dispose();
    rmSync(folder, { recursive: true, force: true });
  });
  return {
    folder,
    lower,
    open(limit = Number.POSITIVE_INFINITY) {
      const upper = HostTree.open(folder, { isReadOnly: false }) as HostTree;
      upper.limitFds(limit);
      const tree = OverlayTree.open(lower.tree, upper as Upper, {
        inodes: Number.POSITIVE_INFINITY,
      });
      if (typeof tree === "number") throw new Error(`overlay: errno ${-tree}`);
      return tree;
    },
    records: () => readdirSync(join(folder, "meta")),
  };
}

test("a removed file that is changed leaves no record for whom its inode is next", {
  skip,
}, (t) => {
  const { open, records } = scene(t);
  const tree = open();
  const root = tree.rootIno;
  const ino = must(walk(tree, "secret"), "secret");
  t.equal(tree.unlink(root, "secret" as Name, false), 0);
  setattr(tree, ino, SetAttr.mode, { mode: 0o600 });
  t.equal(attrOf(tree, ino).mode, 0o100600);
  t.equal(attrOf(tree, ino).nlink, 0);
  t.equal(contents(tree, ino).read.toString(), "what lies below\n", "it is read still");
  tree.release(ino);
  t.strictSame(
    records().filter((name) => name !== ""),
    [],
  );
  for (let i = 0; i < 50; i++) {
    const made = new OpenResult();
    const file = must(
      tree.create(root, `f${i}` as Name, createRequest(0o644), O_RDWR, made),
      "create",
    );
    finish(tree, file, made);
    tree.release(file);
    const again = must(walk(tree, `f${i}`), "walk");
    if (contents(tree, again).read.length > 0) t.fail(`f${i} has bytes of another file`);
    tree.release(again);
  }
  tree.dispose();
  t.end();
});

test("a directory that was removed shows nothing to who holds it", { skip }, (t) => {
  const tree = scene(t).open();
  const root = tree.rootIno;
  for (const prepare of [false, true]) {
    const name = prepare ? "made" : "dir";
    if (prepare) break;
    const dir = must(walk(tree, name), name);
    const handle = must(tree.opendir(dir), "opendir");
    for (const file of ["one", "two"]) t.equal(tree.unlink(dir, file as Name, false), 0);
    t.equal(tree.unlink(root, name as Name, true), 0);
    const seen: string[] = [];
    tree.readdir(dir, handle, 0, (_ino, _dev, _type, file) => seen.push(file) > 0);
    t.strictSame(seen, []);
    t.ok(tree.lookup(dir, "one" as Name) < 0);
    t.equal(attrOf(tree, dir).nlink, 0);
    tree.closedir(dir, handle);
    tree.release(dir);
  }
  tree.dispose();
  t.end();
});

test("an upper with more directories than a server has FDs is opened again", { skip }, (t) => {
  const { open, folder } = scene(t);
  const tree = open();
  const root = tree.rootIno;
  for (let i = 0; i < 100; i++)
    tree.release(must(tree.mkdir(root, `d${i}` as Name, createRequest(0o755)), "mkdir"));
  const ino = must(walk(tree, "dir"), "dir");
  setattr(tree, ino, SetAttr.mode, { mode: 0o700 });
  tree.release(ino);
  tree.dispose();
  const again = open(40);
  t.equal(list(again, again.rootIno).size, 102);
  again.dispose();
  t.ok(readdirSync(folder).length === 4);
  t.end();
});

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

/** Every path with its mode and content, one a line. */
function dump(tree: OverlayTree, path = ""): string[] {
  const dir = must(walk(tree, path), path);
  const lines: string[] = [];
  for (const name of [...list(tree, dir).keys()].sort()) {
    const below = path === "" ? name : `${path}/${name}`;
    const ino = must(walk(tree, below), below);
    const { mode } = attrOf(tree, ino);
    const isDirectory = (mode & 0o170000) === 0o040000;
    const text = isDirectory ? "" : contents(tree, ino).read.toString("latin1");
    tree.release(ino);
    lines.push(`${below} ${mode.toString(8)} ${text}`);
    if (isDirectory) lines.push(...dump(tree, below));
  }
  tree.release(dir);
  return lines;
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

const INTERRUPTED_FIXTURE: readonly FixtureEntry[] = [
  ...FIXTURE,
  { path: "dir/link", type: "link", target: "dir/one" },
  { path: "other", type: "directory" },
  { path: "other/kept", type: "file", content: "kept" },
];

test("a change that a kill interrupts is made, or not, and can be made then", { skip }, (t) => {
  const lower = snapshotOf(INTERRUPTED_FIXTURE);
  lower.tree.isShared = true;
  const size = { sizeBytes: 1 << 24, inodes: 5_000, mode: 0o700 };
  for (const [name, before, change] of INTERRUPTED) {
    let first: string[] = [];
    let last: string[] = [];
    for (let steps = Number.POSITIVE_INFINITY, isOver = false; !isOver; ) {
      const mount = createUpperFd(size) as HostFd;
      const life = { left: Number.POSITIVE_INFINITY };
      const again = () =>
        openUpper(
          new HostFd(
            must(native.openAt(-1, `/proc/self/fd/${mount.borrow()}`, O_PATH_DIRECTORY, 0), "dup"),
          ),
        ) as Upper;
      const open = (upper: Upper) =>
        OverlayTree.open(lower.tree, upper, { inodes: 2_000 }) as OverlayTree;
      const run = (tree: OverlayTree, action: Change) =>
        action(tree, (path) => must(walk(tree, path), path));
      const tree = open(mortal(again(), life));
      t.equal(run(tree, before), 0, name);
      if (first.length === 0) first = dump(tree);
      life.left = steps;
      let outcome: number | "killed" = "killed";
      try {
        outcome = run(tree, change);
      } catch (error) {
        if ((error as Error).message !== "killed") throw error;
      }
      const next = open(again());
      if (steps === Number.POSITIVE_INFINITY) {
        t.equal(outcome, 0, name);
        last = dump(next);
        steps = 0;
      } else {
        isOver = outcome !== "killed";
        const found = dump(next).join("\n");
        const isMade = found === last.join("\n");
        // An empty directory in the way of another may be gone before that has its name.
        const half = first.filter((line) => !line.startsWith("dir ")).join("\n");
        const isFirst = found === first.join("\n") || (name.endsWith("emptied") && found === half);
        if (!isMade && !isFirst) t.same(dump(next), last, `${name}, killed after ${steps} steps`);
        if (!isMade) t.equal(run(next, change), 0, `${name} again, killed after ${steps} steps`);
        t.same(dump(next), last, `${name}, made after ${steps} steps`);
        steps++;
      }
      next.dispose();
      life.left = Number.POSITIVE_INFINITY;
      tree.dispose();
      mount[Symbol.dispose]();
    }
  }
  lower.dispose();
  t.end();
});

test("a change of which one step fails is made, or not, and can be made then", { skip }, (t) => {
  const lower = snapshotOf(INTERRUPTED_FIXTURE);
  lower.tree.isShared = true;
  const run = (tree: OverlayTree, action: Change) =>
    action(tree, (path) => must(walk(tree, path), path));
  for (const [name, before, change] of INTERRUPTED) {
    for (let steps = 0, isOver = false; !isOver; steps++) {
      const life = { left: Number.POSITIVE_INFINITY, errno: Errno.ENOSPC };
      const own = createUpper({ sizeBytes: 1 << 24, inodes: 5_000, mode: 0o700 }) as Upper;
      const upper = mortal(own, life);
      const tree = OverlayTree.open(lower.tree, upper, { inodes: 2_000 }) as OverlayTree;
      t.equal(run(tree, before), 0, name);
      const first = dump(tree).join("\n");
      life.left = steps;
      const outcome = run(tree, change);
      isOver = life.left >= 0;
      life.left = Number.POSITIVE_INFINITY;
      const found = dump(tree).join("\n");
      const half = first.replace(/^dir .*\n/m, "");
      const isFirst = found === first || (name.endsWith("emptied") && found === half);
      if (outcome !== 0) t.equal(run(tree, change), 0, `${name} again, after step ${steps} failed`);
      const made = dump(tree).join("\n");
      t.ok(isFirst || found === made, `${name}, step ${steps}: ${found}`);
      t.ok(made !== first || name.startsWith("open"), `${name} is made, step ${steps}`);
      tree.dispose();
    }
  }
  lower.dispose();
  t.end();
});

test("what no layer can hold is refused before it takes time", { skip }, async (t) => {
  const { open, lower } = scene(t);
  const tree = open();
  const refuse = () => Promise.reject(new Error("content is read"));
  const sink: BlobSink = { addBytes: refuse, addStream: refuse };
  const keep = async () => {
    const walker = new KeptWalk(tree, [lower.index], sink, "", new Set(), new Set());
    for await (const { path } of walker.entries("/")) if (path.length > 9_999) t.fail("too long");
  };
  const out = new OpenResult();
  const file = must(
    tree.create(tree.rootIno, "vast" as Name, createRequest(0o644), O_RDWR, out),
    "create",
  );
  finish(tree, file, out);
  setattr(tree, file, SetAttr.size, { size: 2 ** 41 });
  tree.release(file);
  await t.rejects(keep(), { code: "BURROW_UNSUPPORTED", message: /vast is a file with holes/ });
  tree.unlink(tree.rootIno, "vast" as Name, false);
  let at: Ino = tree.rootIno;
  for (let i = 0; i < 400; i++) {
    const below = must(tree.mkdir(at, "deep" as Name, createRequest(0o755)), "mkdir");
    if (i > 0) tree.release(at);
    at = below;
  }
  tree.release(at);
  await t.rejects(keep(), { code: "BURROW_UNSUPPORTED", message: /deep.* is too deep/ });
  tree.dispose();
});

/** A tmpfs, and overlays over it that follow each other. */
function successors(lower: ReturnType<typeof snapshotOf>) {
  const mount = createUpperFd({ sizeBytes: 1 << 24, inodes: 5_000, mode: 0o700 }) as HostFd;
  const open = () => {
    const copy = native.openAt(-1, `/proc/self/fd/${mount.borrow()}`, O_PATH_DIRECTORY, 0);
    const upper = openUpper(new HostFd(must(copy, "dup"))) as Upper;
    return OverlayTree.open(lower.tree, upper, { inodes: 2_000 }) as OverlayTree;
  };
  return { mount, open };
}

test("a successor knows copies that have lost their names", { skip }, (t) => {
  const lower = snapshotOf(FIXTURE);
  const { mount, open } = successors(lower);
  const first = open();
  const memory = new Uint8Array(first.journalBytes);
  first.takeJournal(memory, false);
  const inos = ["secret", "dir/one", "dir/two", "dir"].map((path) => must(walk(first, path), path));
  const [written, changed, both, dir] = inos as [Ino, Ino, Ino, Ino];
  const out = new OpenResult();
  must(first.open(written, O_RDWR, out), "open");
  first.write(written, out.handle, 0, Buffer.from("W"));
  setattr(first, changed, SetAttr.mode, { mode: 0o600 });
  first.unlink(first.rootIno, "secret" as Name, false);
  for (const name of ["one", "two"]) first.unlink(dir, name as Name, false);
  setattr(first, both, SetAttr.mode, { mode: 0o640 });
  first.unlink(first.rootIno, "dir" as Name, true);

  const second = open();
  second.takeJournal(memory, true);
  for (const [i, ino] of inos.entries()) t.equal(second.acquire(ino), 0, `inode ${i}`);
  second.settle();
  t.equal(contents(second, written).read.toString(), "What lies below\n");
  t.equal(contents(second, changed).read.toString(), "1");
  t.equal(attrOf(second, changed).mode, 0o100600);
  t.equal(contents(second, both).read.toString(), "2");
  for (const ino of inos) t.equal(attrOf(second, ino).nlink, 0);
  t.ok(second.lookup(dir, "one" as Name) < 0);
  for (const ino of inos) second.release(ino);
  t.equal(second.inodeCount, 1);
  second.dispose();
  first.dispose();
  mount[Symbol.dispose]();
  lower.dispose();
  t.end();
});

test("a successor reads a directory once, however much of it is known", { skip }, (t) => {
  const count = 2_000;
  const names = Array.from({ length: count }, (_, i) => `wide/f${i}`);
  const lower = snapshotOf([
    { path: "wide", type: "directory" },
    ...names.map((path) => ({ path, type: "file" as const })),
  ]);
  const { mount, open } = successors(lower);
  const first = open();
  const memory = new Uint8Array(first.journalBytes);
  first.takeJournal(memory, false);
  const inos = names.map((path) => must(walk(first, path), path));
  const { lookups } = lower.tree;
  const second = open();
  second.takeJournal(memory, true);
  t.ok(lower.tree.lookups - lookups < 3 * count, `${lower.tree.lookups - lookups} lookups`);
  t.ok(inos.every((ino) => second.acquire(ino) === 0));
  second.settle();
  second.dispose();
  first.dispose();
  mount[Symbol.dispose]();
  lower.dispose();
  t.end();
});
