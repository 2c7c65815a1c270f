// A client that holds on to all it can get: the process's FDs run out. It gets EMFILE, nothing half-made is left
// behind, and with its FDs given back all is as before. Control plane.

import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import t from "tap";
import { Errno } from "../../lib/base/errno.ts";
import type { Name } from "../../lib/base/name.ts";
import { native } from "../../lib/sys/native.ts";
import { HostTree } from "../../lib/tree/host.ts";
import { type Ino, O_RDONLY, O_RDWR, OpenResult } from "../../lib/tree/tree.ts";
import { refused } from "../suite/tree-behaviour.ts";
import { contents, createRequest, list, must, openFds, walk } from "../suite/tree-fixture.ts";

const LIMIT = 256;

t.test("EMFILE of the process passes through every call, and nothing is left behind", (t) => {
  const path = mkdtempSync(join(tmpdir(), "burrow-emfile-"));
  for (let i = 0; i < 2 * LIMIT; i++) writeFileSync(join(path, `f${i}`), "x");
  mkdirSync(join(path, "d"));
  const tree = HostTree.open(path, { isReadOnly: false });
  if (typeof tree === "number") throw new Error(`open: ${tree}`);
  const root = tree.rootIno;
  const before = openFds();
  const file = must(walk(tree, "f0"), "f0");
  const dir = must(walk(tree, "d"), "d");
  t.equal(native.setNoFile(LIMIT), LIMIT);
  const held: Ino[] = [];
  let last = 0;
  for (let i = 1; i < 2 * LIMIT; i++) {
    last = tree.lookup(root, `f${i}` as Name);
    if (last < 0) break;
    held.push(last as Ino);
  }
  const { EMFILE } = Errno;
  refused(t, last, EMFILE, "lookup");
  const request = createRequest(0o600);
  const x = "x" as Name;
  const none = new OpenResult();
  // With 0 FDs to spare, then 1, then 2: each step of a call that takes several fails once.
  for (let spare = 0; spare < 3; spare++) {
    if (spare > 0) tree.release(held.pop()!);
    const results = [
      tree.create(root, x, request, O_RDWR, none),
      tree.mkdir(root, x, request),
      tree.mknod(root, x, request),
      tree.symlink(root, x, "y", request),
      tree.open(file, O_RDONLY, none),
      tree.opendir(dir),
      tree.getxattr(file, "user.a", Buffer.alloc(9)),
    ];
    for (const [i, result] of results.entries()) {
      if (spare === 0) refused(t, result, EMFILE, `call ${i} without an FD`);
    }
    if (results[0]! > 0) {
      t.equal(spare, 2, "create takes two");
      tree.close(results[0] as Ino, none.handle);
    }
    for (const result of results.slice(0, 4)) if (result > 0) tree.release(result as Ino);
    if (results[4] === 0) tree.close(file, none.handle);
    if (results[5]! >= 0) tree.closedir(dir, results[5]!);
    tree.unlink(root, x, false);
    tree.unlink(root, x, true);
  }
  for (const ino of held.splice(0)) tree.release(ino);
  native.setNoFile(before + 2 * LIMIT + 64);
  t.notOk(readdirSync(path).includes("x"), "no half-made file");
  tree.release(file);
  tree.release(dir);
  t.equal(openFds(), before, "every FD was given back");
  t.equal(list(tree, root).size, 2 * LIMIT + 1, "and all works as before");
  const again = must(walk(tree, "f7"), "f7");
  t.equal(contents(tree, again).read.toString(), "x");
  tree.release(again);
  tree.dispose();
  rmSync(path, { recursive: true });
  t.end();
});
