// What the host mounts on or below a directory after a sandbox has it: never seen there, and what was there stays to be read and
// written. The rule of docs/THREATS.md, "Names and paths"; gVisor issue 14854 has the other wish. Needs root.

import { spawnSync } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "tap";
import type { Name } from "../../lib/base/name.ts";
import { HostTree } from "../../lib/tree/host.ts";
import { O_RDONLY, OpenResult } from "../../lib/tree/tree.ts";
import { temporary } from "../suite/served.ts";
import { contents, createRequest, finish, list, must, walk } from "../suite/tree-fixture.ts";

const skip = process.getuid?.() === 0 ? false : "needs root: mounts";

test("mounts that come later are not seen, nor is what they hide", { skip }, (t) => {
  const folder = temporary(t);
  const [served, other] = [join(folder, "served"), join(folder, "other")];
  for (const path of [served, join(served, "sub"), other]) mkdirSync(path);
  writeFileSync(join(served, "sub/own"), "own");
  writeFileSync(join(other, "secret"), "another's");
  const tree = HostTree.open(served, { isReadOnly: false });
  if (typeof tree === "number") throw new Error(`not opened: ${tree}`);
  const held = must(walk(tree, "sub"), "sub");
  const places = [served, join(served, "sub")];
  t.teardown(() => {
    for (const place of places) spawnSync("umount", ["-lq", place]);
  });
  // Below first: the other hides it.
  for (const place of places.toReversed())
    t.equal(spawnSync("mount", ["--bind", other, place]).status, 0, place);
  for (const ino of [held, must(walk(tree, "sub"), "sub, anew")]) {
    t.same([...list(tree, ino).keys()], ["own"], "the directory that was there");
    tree.release(ino);
  }
  t.same([...list(tree, tree.rootIno).keys()], ["sub"]);
  const own = must(walk(tree, "sub/own"), "sub/own");
  t.equal(contents(tree, own).read.toString(), "own");
  tree.release(own);
  const opened = new OpenResult();
  const made = tree.create(tree.rootIno, "made" as Name, createRequest(0o644), O_RDONLY, opened);
  finish(tree, must(made, "made"), opened);
  for (const place of places) t.equal(spawnSync("umount", [place]).status, 0, place);
  t.equal(readFileSync(join(served, "made"), "utf8"), "", "it was made below what hid it");
  t.equal(readFileSync(join(other, "secret"), "utf8"), "another's");
  tree.dispose();
  t.end();
});
