// A hostile sandbox over an overlay: no bytes of another file, nothing that comes back, an upper that the next server can open. It holds
// inodes of what it has removed, and makes more than a server can hold. Control plane.

import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "tap";
import type { Name } from "../../lib/base/name.ts";
import { KeptWalk } from "../../lib/cli/kept-walk.ts";
import type { BlobSink } from "../../lib/store/blob-sink.ts";
import { HostTree } from "../../lib/tree/host.ts";
import { OverlayTree } from "../../lib/tree/overlay.ts";
import { type Ino, O_RDWR, OpenResult, SetAttr } from "../../lib/tree/tree.ts";
import type { Upper } from "../../lib/tree/upper.ts";
import { PrivateTmpfs } from "../suite/private-tmpfs.ts";
import { snapshotOf } from "../suite/snapshot-fixture.ts";
import {
  attrOf,
  contents,
  createRequest,
  finish,
  LOWER,
  list,
  must,
  setattr,
  walk,
} from "../suite/tree-fixture.ts";

const skip = process.getuid!() !== 0 ? "whiteouts need root on old kernels" : false;

/** An overlay whose upper is a folder of the host's, as `--upper` has it. */
function scene(t: { teardown(done: () => void): void }) {
  const lower = snapshotOf(LOWER);
  const folder = mkdtempSync(join(tmpdir(), "burrow-upper-"));
  t.teardown(() => {
    lower.dispose();
    rmSync(folder, { recursive: true, force: true });
  });
  return {
    folder,
    lower,
    open(limit = Number.POSITIVE_INFINITY) {
      const upper = HostTree.open(folder, { isReadOnly: false, isUpper: true }) as HostTree;
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
  const dir = must(walk(tree, "dir"), "dir");
  const handle = must(tree.opendir(dir), "opendir");
  for (const file of ["one", "two"]) t.equal(tree.unlink(dir, file as Name, false), 0);
  t.equal(tree.unlink(root, "dir" as Name, true), 0);
  const seen: string[] = [];
  tree.readdir(dir, handle, 0, (_ino, _dev, _type, file) => seen.push(file) > 0);
  t.strictSame(seen, []);
  t.ok(tree.lookup(dir, "one" as Name) < 0);
  t.equal(attrOf(tree, dir).nlink, 0);
  tree.closedir(dir, handle);
  tree.release(dir);
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
  const tmpfs = new PrivateTmpfs({ sizeBytes: 1 << 24, inodes: 5_000, mode: 0o700 });
  const open = () => OverlayTree.open(lower.tree, tmpfs.open(), { inodes: 2_000 }) as OverlayTree;
  return { tmpfs, open };
}

test("a successor knows copies that have lost their names", { skip }, (t) => {
  const lower = snapshotOf(LOWER);
  const { tmpfs, open } = successors(lower);
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
  tmpfs.dispose();
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
  const { tmpfs, open } = successors(lower);
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
  tmpfs.dispose();
  lower.dispose();
  t.end();
});
