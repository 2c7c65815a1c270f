// The overlay's upper under another server: after one that was killed, and beside one that still serves. Control plane.

import { test } from "tap";
import { Errno } from "../../lib/base/errno.ts";
import type { Name } from "../../lib/base/name.ts";
import { type Ino, O_RDONLY, O_RDWR, OpenResult, SetAttr } from "../../lib/tree/tree.ts";
import { BIG, FIXTURE, over, SIZES } from "../suite/overlay-fixture.ts";
import { noTmpfs, PrivateTmpfs } from "../suite/private-tmpfs.ts";
import { snapshotOf } from "../suite/snapshot-fixture.ts";
import { refused } from "../suite/tree-behaviour.ts";
import {
  at,
  attrAt,
  attrOf,
  contents,
  createRequest,
  dumpOf,
  must,
  setattr,
  walk,
} from "../suite/tree-fixture.ts";

const skip = noTmpfs() ?? false;

test("another server goes on with what one that was killed left", { skip }, (t) => {
  const lower = snapshotOf(FIXTURE);
  const tmpfs = new PrivateTmpfs(SIZES);
  const { tree } = over(lower.tree, tmpfs.open());
  at(tree, ["dir", "other", "one", "file", "big"], (dir, other, one, file, big) => {
    const root = tree.rootIno;
    tree.rename(root, "dir" as Name, other, "moved" as Name, 0);
    tree.unlink(dir, "inner" as Name, false);
    setattr(tree, one, SetAttr.mode, { mode: 0o600 });
    tree.link(root, "three" as Name, one);
    setattr(tree, big, SetAttr.mode, { mode: 0o400 });
    setattr(tree, file, SetAttr.size, { size: 3 });
    tree.unlink(root, "void" as Name, true);
    tree.release(must(tree.mkdir(root, "void" as Name, createRequest(0o700)), "mkdir"));
  });
  const links = attrAt(tree, "three").nlink;
  const before = dumpOf(tree, true);
  // What a kill between two steps leaves.
  const upper = tmpfs.open();
  const work = must(upper.lookup(upper.rootIno, "work" as Name), "work");
  upper.release(must(upper.mknod(work, "99" as Name, createRequest(0o600)), "mknod"));
  upper.dispose();
  const other = over(lower.tree, tmpfs.open());
  t.same(dumpOf(other.tree, true), before);
  t.equal(attrAt(other.tree, "three").nlink, links);
  other.tree.dispose();
  tree.dispose();
  tmpfs.dispose();
  lower.dispose();
  t.end();
});

test("a successor knows each inode by its number, with its side, place and open files", {
  skip,
}, (t) => {
  const lower = snapshotOf(FIXTURE);
  const tmpfs = new PrivateTmpfs(SIZES);
  const first = over(lower.tree, tmpfs.open()).tree;
  const memory = new Uint8Array(first.journalBytes);
  first.takeJournal(memory, false);
  const root = first.rootIno;
  const paths = ["dir", "dir/sub/deep", "file", "big", "one", "other", "dir/inner"];
  const inos = paths.map((path) => must(walk(first, path), path));
  const [dir, deep, file, big, one, other, inner] = inos as [Ino, Ino, Ino, Ino, Ino, Ino, Ino];
  first.rename(root, "dir" as Name, other, "moved" as Name, 0);
  const out = new OpenResult();
  must(first.open(file, O_RDWR, out), "open");
  first.write(file, out.handle, 0, Buffer.from("J"));
  setattr(first, one, SetAttr.mode, { mode: 0o600 });
  first.unlink(dir, "inner" as Name, false);
  const gone = must(walk(first, "void"), "void");
  first.release(gone);
  const before = dumpOf(first, true);

  const second = over(lower.tree, tmpfs.open()).tree;
  second.takeJournal(memory, true);
  for (const [i, ino] of inos.entries()) t.equal(second.acquire(ino), 0, paths[i]!);
  refused(t, second.acquire(gone), Errno.EBADF, "released before");
  const handle = must(second.reopen(file, false, O_RDWR), "reopen");
  const reader = must(second.reopen(big, false, O_RDONLY), "reopen below");
  second.settle();
  t.same(dumpOf(second, true), before);
  t.equal(second.write(file, handle, 1, Buffer.from("u")), 1);
  const bytes = Buffer.alloc(6);
  second.read(big, reader, 100, bytes);
  t.ok(bytes.equals(BIG.subarray(100, 106)));
  t.equal(contents(second, file).read.toString(), "Jullo\n");
  setattr(second, deep, SetAttr.mode, { mode: 0o400 });
  t.equal(attrAt(second, "other/moved/sub/deep").mode, 0o100400, "copied up to its place");
  t.equal(attrOf(second, inner).nlink, 0, "nameless still");
  at(second, ["dir/two", "one"].slice(1), (again) => t.equal(again, one));
  second.close(file, handle);
  second.close(big, reader);
  for (const ino of inos) second.release(ino);
  t.equal(second.inodeCount, 1, "the root alone is held");
  const next = must(second.mkdir(root, "next" as Name, createRequest(0o700)), "mkdir");
  t.ok(next > Math.max(...inos), "no number is given twice");
  second.dispose();
  first.dispose();
  tmpfs.dispose();
  lower.dispose();
  t.end();
});
