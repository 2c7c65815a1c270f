// Copy-up of a file of 5 GiB: its bytes pass through a piece of a megabyte, so the server's own memory stays as it is. 5 GiB of the machine's
// memory are the tmpfs's meanwhile. Control plane.

import { readFileSync } from "node:fs";
import { test } from "tap";
import type { Name } from "../../lib/base/name.ts";
import { OverlayTree, upperInodes } from "../../lib/tree/overlay.ts";
import { O_RDWR, OpenResult } from "../../lib/tree/tree.ts";
import { createUpper, type Upper } from "../../lib/tree/upper.ts";
import { noTmpfs } from "../suite/private-tmpfs.ts";
import { snapshotOf } from "../suite/snapshot-fixture.ts";
import { attrOf, finish, must, walk } from "../suite/tree-fixture.ts";

const GIB = 1024 ** 3;
const SIZE = 5 * GIB;
/** A file's byte is that of its megabyte. */
const PIECE = 1024 * 1024;
const MEMORY_KIB = 64 * 1024;

const available = /^MemAvailable: +(\d+)/m.exec(readFileSync("/proc/meminfo", "utf8"))?.[1] ?? 0;
const skip = noTmpfs() ?? (Number(available) < 12 * 1024 * 1024 && "needs 12 GiB of memory");

test("a copy-up of 5 GiB takes no memory but the tmpfs's", { skip, timeout: 600_000 }, (t) => {
  const lower = snapshotOf([{ path: "big", type: "file", content: "x" }]);
  const { tree: below } = lower;
  const [getattr, read] = [below.getattr.bind(below), below.read.bind(below)];
  const big = must(walk(below, "big"), "big");
  below.getattr = (ino, out) => {
    const failed = getattr(ino, out);
    if (ino === big) out.size = SIZE;
    return failed;
  };
  below.read = (ino, handle, offset, out) => {
    if (ino !== big) return read(ino, handle, offset, out);
    const length = Math.min(out.length, PIECE - (offset % PIECE), SIZE - offset);
    out.fill((offset / PIECE) & 0xff, 0, length);
    return length;
  };
  const quota = { sizeBytes: 6 * GIB, inodes: upperInodes(64), mode: 0o700 };
  const tree = OverlayTree.open(below, createUpper(quota) as Upper, { inodes: 64 });
  if (typeof tree === "number") throw new Error(`overlay: errno ${-tree}`);
  const ino = must(tree.lookup(tree.rootIno, "big" as Name), "big");
  const before = process.resourceUsage().maxRSS;
  const opened = new OpenResult();
  t.equal(tree.open(ino, O_RDWR, opened), 0);
  t.ok(process.resourceUsage().maxRSS - before < MEMORY_KIB, "the server's own memory");
  t.same([attrOf(tree, ino).size, attrOf(tree, ino).blocks * 512], [SIZE, SIZE], "all is copied");
  const byte = Buffer.alloc(1);
  for (const at of [0, PIECE - 1, PIECE, 2.5 * GIB, SIZE - 1]) {
    t.equal(tree.read(ino, opened.handle, at, byte), 1);
    t.equal(byte[0], Math.floor(at / PIECE) & 0xff, `the byte at ${at}`);
  }
  finish(tree, ino, opened);
  tree.release(ino);
  tree.dispose();
  lower.dispose();
  t.end();
});
