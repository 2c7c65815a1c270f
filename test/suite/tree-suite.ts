// treeSuite: the behaviours that every Tree owes, as one table which each implementation runs with its own way to
// make a tree from a fixture. `can` says what it is capable of; a behaviour that needs more is left out. Control plane.

import t from "tap";
import { Errno, errnoName } from "../../lib/base/errno.ts";
import type { Name } from "../../lib/base/name.ts";
import { native } from "../../lib/sys/native.ts";
import {
  type Ino,
  isWritable,
  O_RDONLY,
  O_RDWR,
  O_TRUNC,
  O_WRONLY,
  OpenResult,
  StatFs,
  type Tree,
  type WritableTree,
} from "../../lib/tree/tree.ts";
import { attrBehaviours } from "./tree-attr-suite.ts";
import { type Behaviour, refused, type TreeCan } from "./tree-behaviour.ts";
import {
  attrAt,
  attrOf,
  contentOf,
  contents,
  type FixtureEntry,
  finish,
  list,
  modeOf,
  must,
  openFds,
  walk,
} from "./tree-fixture.ts";
import { writeBehaviours } from "./tree-write-suite.ts";

export interface MadeTree {
  readonly tree: Tree;
  /** Removes what the tree stood on, after tree.dispose(). */
  dispose?(): void;
}

export type MakeTree = (fixture: readonly FixtureEntry[]) => MadeTree | Promise<MadeTree>;

const BIG = Buffer.from(Array.from({ length: 100_000 }, (_, i) => (i * 7) & 0xff));
const MANY = 700;

/** Hard links are made only where the tree can hold them. */
export function suiteFixture(can: TreeCan): FixtureEntry[] {
  const fixture: FixtureEntry[] = [
    { path: "file", type: "file", content: "hello\n" },
    { path: "big", type: "file", content: BIG, mode: 0o600 },
    { path: "empty", type: "file", mode: 0o444 },
    { path: "script", type: "file", content: "#!/bin/sh\n", mode: 0o4755 },
    { path: "link", type: "symlink", target: "dir/inner" },
    { path: "absolute", type: "symlink", target: "/etc/passwd" },
    { path: "dangling", type: "symlink", target: "no where" },
    { path: "dir", type: "directory", mode: 0o1777 },
    { path: "dir/inner", type: "file", content: "inner" },
    { path: "dir/sub", type: "directory", mode: 0o700 },
    { path: "dir/sub/deep", type: "file", content: "deep" },
    { path: "void", type: "directory" },
    { path: "odd", type: "directory" },
    { path: "odd/\xc3\xa9 \n\xff\x01", type: "file", content: "odd" },
    { path: `odd/${"n".repeat(255)}`, type: "file" },
    { path: "odd/...", type: "file" },
    { path: "many", type: "directory" },
  ];
  for (let i = 0; i < MANY; i++)
    fixture.push({ path: `many/${i}-${"x".repeat(60)}`, type: "file" });
  if (can.hardLinks) fixture.push({ path: "dir/hard", type: "link", target: "file" });
  return fixture;
}

/** Runs every behaviour that `can` allows, each on a tree of its own. */
export function treeSuite(label: string, make: MakeTree, can: TreeCan): void {
  for (const { name, needs = [], run } of BEHAVIOURS) {
    if (!needs.every((need) => can[need] === true)) continue;
    void t.test(`${label}: ${name}`, async (t) => {
      const fds = openFds();
      const made = await make(suiteFixture(can));
      run(t, made.tree, made.tree as WritableTree);
      made.tree.dispose();
      const others = Array.from({ length: 16 }, () => native.dupFd(0));
      made.tree.dispose();
      t.same(others.map(native.closeFd), Array(16).fill(0), "the second time nobody else's FDs go");
      made.dispose?.();
      t.equal(openFds(), fds, "no FD is left");
    });
  }
}

const DT: Record<FixtureEntry["type"], number> = { file: 8, link: 8, directory: 4, symlink: 10 };
const S_IFMT: Record<FixtureEntry["type"], number> = {
  file: 0o100000,
  link: 0o100000,
  directory: 0o040000,
  symlink: 0o120000,
};
const BAD_INO = (2 ** 50 + 12345) as Ino;

const readBehaviours: readonly Behaviour[] = [
  {
    name: "an unknown Ino is EBADF, never another file",
    run(t, tree) {
      for (const ino of [BAD_INO, 0 as Ino, -1 as Ino]) {
        refused(t, tree.getattr(ino, attrAt(tree, "")), Errno.EBADF, `getattr ${ino}`);
        refused(t, tree.lookup(ino, "file" as Name), Errno.EBADF, `lookup ${ino}`);
        refused(t, tree.opendir(ino), Errno.EBADF, `opendir ${ino}`);
        refused(t, tree.open(ino, O_RDONLY, new OpenResult()), Errno.EBADF, `open ${ino}`);
        refused(t, tree.readlink(ino, Buffer.alloc(9)), Errno.EBADF, `readlink ${ino}`);
        refused(t, tree.getxattr(ino, "user.a", Buffer.alloc(9)), Errno.EBADF, `getxattr ${ino}`);
        refused(t, tree.acquire(ino), Errno.EBADF, `acquire ${ino}`);
      }
    },
  },
  {
    name: "lookup of a missing name, below a file and below a symlink",
    run(t, tree) {
      refused(t, walk(tree, "nope"), Errno.ENOENT, "missing");
      refused(t, walk(tree, "void/nope"), Errno.ENOENT, "missing in an empty directory");
      refused(t, walk(tree, "file/x"), Errno.ENOTDIR, "below a file");
      refused(t, walk(tree, "link/x"), Errno.ENOTDIR, "below a symlink to a file");
      refused(t, walk(tree, "FILE"), Errno.ENOENT, "names are compared byte for byte");
    },
  },
  {
    name: "attributes are those of the fixture, and each inode's key is its own",
    run(t, tree) {
      const keys = new Set<string>();
      const fixture = suiteFixture({});
      for (const entry of fixture) {
        const attr = attrAt(tree, entry.path);
        keys.add(`${attr.devMajor}:${attr.devMinor}:${attr.ino}`);
        if (entry.path.startsWith("many/")) continue;
        t.equal(attr.mode & 0o170000, S_IFMT[entry.type], `type of ${entry.path}`);
        if (entry.type !== "symlink") {
          t.equal(attr.mode & 0o7777, modeOf(entry), `mode of ${entry.path}`);
        }
        if (entry.type === "file") t.equal(attr.size, contentOf(entry).length, "size");
        if (entry.type === "symlink") t.equal(attr.size, entry.target!.length, "target's length");
        t.ok(attr.nlink >= 1 && attr.blockSize > 0, "nlink and block size");
      }
      t.equal(keys.size, fixture.length, "no two files share (ino, dev)");
      t.equal(attrAt(tree, "").mode & 0o170000, 0o040000, "the root is a directory");
    },
  },
  {
    name: "one file is one Ino while it lives",
    run(t, tree) {
      const first = must(walk(tree, "dir/inner"), "first");
      const second = must(walk(tree, "dir/inner"), "second");
      t.equal(second, first);
      tree.release(second);
      t.equal(attrOf(tree, first).size, 5, "the other reference still counts");
      t.equal(tree.acquire(first), 0);
      tree.release(first);
      tree.release(first);
      const root = attrOf(tree, tree.rootIno);
      for (let i = 0; i < 3; i++) tree.release(tree.rootIno);
      t.equal(attrOf(tree, tree.rootIno).ino, root.ino, "the root outlives its references");
    },
  },
  {
    name: "hard links are one inode",
    needs: ["hardLinks"],
    run(t, tree) {
      const first = must(walk(tree, "file"), "file");
      const second = must(walk(tree, "dir/hard"), "hard");
      t.equal(second, first);
      t.equal(attrOf(tree, first).nlink, 2);
      tree.release(first);
      tree.release(second);
    },
  },
  {
    name: "readlink gives the text, ERANGE when it does not fit, EINVAL for the rest",
    run(t, tree) {
      const out = Buffer.alloc(64);
      for (const entry of suiteFixture({}).filter((entry) => entry.type === "symlink")) {
        const ino = must(walk(tree, entry.path), entry.path);
        const length = tree.readlink(ino, out);
        t.equal(out.toString("latin1", 0, length), entry.target);
        t.equal(tree.readlink(ino, out.subarray(0, length)), length, "an exact fit");
        refused(t, tree.readlink(ino, out.subarray(0, length - 1)), Errno.ERANGE, "one short");
        tree.release(ino);
      }
      for (const path of ["file", "dir"]) {
        const ino = must(walk(tree, path), path);
        refused(t, tree.readlink(ino, out), Errno.EINVAL, path);
        tree.release(ino);
      }
    },
  },
  {
    name: "a symlink is never followed",
    run(t, tree) {
      for (const path of ["link", "absolute", "dangling"]) {
        const ino = must(walk(tree, path), path);
        t.ok(tree.open(ino, O_RDONLY, new OpenResult()) < 0, `open ${path}`);
        refused(t, tree.opendir(ino), Errno.ENOTDIR, `opendir ${path}`);
        refused(t, tree.lookup(ino, "x" as Name), Errno.ENOTDIR, `lookup in ${path}`);
        tree.release(ino);
      }
    },
  },
  {
    name: "readdir gives each name once with the type and identity that lookup gives",
    run(t, tree) {
      const paths = ["", "dir", "odd", "void", "many"];
      for (const path of paths) {
        const dir = must(walk(tree, path), path);
        const found = list(tree, dir);
        const prefix = path === "" ? "" : `${path}/`;
        const inside = suiteFixture({}).filter(
          (entry) =>
            entry.path.startsWith(prefix) && !entry.path.slice(prefix.length).includes("/"),
        );
        found.delete("hard");
        t.same([...found.keys()].sort(), inside.map((e) => e.path.slice(prefix.length)).sort());
        for (const entry of inside) {
          const listed = found.get(entry.path.slice(prefix.length))!;
          const attr = attrAt(tree, entry.path);
          const isSame = listed.ino === attr.ino && listed.devMinor === attr.devMinor;
          if (listed.type !== DT[entry.type] || !isSame) t.fail(`dentry of ${entry.path}`);
        }
        tree.release(dir);
      }
    },
  },
  {
    name: "readdir in any steps gives the same, and starts again at cookie 0",
    run(t, tree) {
      const dir = must(walk(tree, "many"), "many");
      const all = [...list(tree, dir).keys()];
      t.equal(all.length, MANY);
      for (const atOnce of [1, 2, 7, MANY - 1, MANY]) {
        t.same([...list(tree, dir, atOnce).keys()].sort(), [...all].sort(), `${atOnce} a call`);
      }
      const handle = must(tree.opendir(dir), "opendir");
      const names: string[] = [];
      const take = (limit: number) => (_ino: number, _dev: number, _type: number, name: string) =>
        names.length < limit && names.push(name) > 0;
      const middle = tree.readdir(dir, handle, 0, take(300));
      const end = tree.readdir(dir, handle, middle, take(MANY));
      t.equal(names.length, MANY);
      t.equal(tree.readdir(dir, handle, end, take(2 * MANY)), end, "the end stays the end");
      const first = names.splice(0);
      tree.readdir(dir, handle, middle, take(MANY));
      t.same(names.sort(), first.slice(300).sort(), "an older cookie goes back to its place");
      names.length = 0;
      tree.readdir(dir, handle, 0, take(MANY));
      t.same([...names].sort(), [...first].sort(), "cookie 0 is the start");
      names.length = 0;
      t.ok(tree.readdir(dir, handle, 123_456, take(MANY)) >= 0, "a forged cookie");
      t.same(names, [], "gives nothing");
      tree.closedir(dir, handle);
      tree.release(dir);
    },
  },
  {
    name: "opendir of what is no directory is ENOTDIR, open of a directory EISDIR",
    run(t, tree) {
      const file = must(walk(tree, "file"), "file");
      const dir = must(walk(tree, "dir"), "dir");
      refused(t, tree.opendir(file), Errno.ENOTDIR, "opendir");
      refused(t, tree.open(dir, O_RDONLY, new OpenResult()), Errno.EISDIR, "open");
      tree.release(file);
      tree.release(dir);
    },
  },
  {
    name: "a file's bytes are the fixture's, through the tree and through a donated FD",
    run(t, tree) {
      for (const entry of suiteFixture({}).slice(0, 16)) {
        if (entry.type !== "file") continue;
        const ino = must(walk(tree, entry.path), entry.path);
        const { read, donated } = contents(tree, ino);
        t.ok(read.equals(contentOf(entry)), `read of ${entry.path}`);
        if (donated !== undefined) t.ok(donated.equals(contentOf(entry)), "the donated FD");
        tree.release(ino);
      }
    },
  },
  {
    name: "a read is short at the end of the file alone",
    run(t, tree) {
      const ino = must(walk(tree, "big"), "big");
      const opened = new OpenResult();
      must(tree.open(ino, O_RDONLY, opened), "open");
      const out = Buffer.alloc(4096);
      const read = (offset: number, bytes: Uint8Array) =>
        tree.read(ino, opened.handle, offset, bytes);
      t.equal(read(1000, out), 4096);
      t.ok(out.equals(BIG.subarray(1000, 5096)));
      t.equal(read(BIG.length - 10, out), 10);
      t.equal(read(BIG.length, out), 0);
      t.equal(read(2 ** 40, out), 0);
      t.equal(read(0, out.subarray(0, 0)), 0);
      t.equal(tree.fgetattr(ino, opened.handle, attrOf(tree, ino)), 0);
      finish(tree, ino, opened);
      tree.release(ino);
    },
  },
  {
    name: "a read-only tree refuses every open that could write",
    run(t, tree) {
      if (isWritable(tree)) return;
      const ino = must(walk(tree, "file"), "file");
      for (const flags of [O_WRONLY, O_RDWR, O_RDONLY | O_TRUNC, O_RDWR | O_TRUNC]) {
        refused(t, tree.open(ino, flags, new OpenResult()), Errno.EROFS, `flags ${flags}`);
      }
      t.equal(contents(tree, ino).read.toString(), "hello\n", "the content is as it was");
      tree.release(ino);
    },
  },
  {
    name: "statfs is plausible",
    run(t, tree) {
      const space = new StatFs();
      t.equal(tree.statfs(tree.rootIno, space), 0);
      t.ok(space.blockSize > 0 && space.blocksFree <= space.blocks && space.files > 0);
      t.ok(space.blocksAvailable <= space.blocksFree && space.filesFree <= space.files);
      t.equal(space.nameLength, 255);
    },
  },
  {
    name: "a file without xattrs has none",
    run(t, tree) {
      const ino = must(walk(tree, "file"), "file");
      const result = tree.getxattr(ino, "user.none", Buffer.alloc(16));
      t.ok(result === -Errno.ENODATA || result === -Errno.EOPNOTSUPP, errnoName(result));
      t.equal(tree.listxattr(ino, Buffer.alloc(16)), 0);
      refused(t, tree.getxattr(ino, "security.capability", Buffer.alloc(64)), Errno.ENODATA, "cap");
      tree.release(ino);
    },
  },
];

const BEHAVIOURS = [...readBehaviours, ...writeBehaviours, ...attrBehaviours];
