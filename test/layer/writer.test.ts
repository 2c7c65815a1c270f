// The writer of indexes: what it refuses, that the same tree gives the same bytes, and that it bears large trees.

import { test } from "tap";
import { BurrowError } from "../../lib/base/error.ts";
import { entriesOf } from "../../lib/layer/entries.ts";
import type { LayerEntry } from "../../lib/layer/entry.ts";
import { IndexKind, Inode } from "../../lib/layer/format.ts";
import { faultOf, Index } from "../../lib/layer/index.ts";
import { indexDigest, writeIndex } from "../../lib/layer/writer.ts";
import { blobOf, directory, file, normal, symlink, whiteout } from "./trees.ts";

const layer = (entries: LayerEntry[]) => writeIndex(IndexKind.layer, entries);

/** What the index of one entry's wrong sort is refused with. */
const REFUSALS: [string, LayerEntry[], RegExp][] = [
  ["a path twice", [file("a"), file("a")], /same path twice: a/],
  ["a directory twice", [directory("a"), directory("a")], /same path twice: a/],
  ["the root twice", [directory(""), directory("")], /same path twice: \//],
  ["a file that replaces a directory made for what is below", [file("a/b"), file("a")], /twice: a/],
  ["a file as a parent", [file("a"), file("a/b")], /a file is its parent: a\/b/],
  ["a symlink as a parent", [symlink("a", "b"), file("a/b")], /a file is its parent/],
  ["a file as the root", [file("")], /the root is no directory/],
  ["..", [file("a/../b")], /not allowed \(EINVAL\)/],
  [".", [file("./b")], /not allowed \(EINVAL\)/],
  ["an absolute path", [file("/b")], /not allowed \(EINVAL\)/],
  ["a slash at the end", [file("b/")], /not allowed \(EINVAL\)/],
  ["NUL in a name", [file("b\0c")], /not allowed \(EINVAL\)/],
  ["a name that is not latin1", [file("\u0100")], /no string of bytes/],
  ["a name of 256 bytes", [file("n".repeat(256))], /not allowed \(ENAMETOOLONG\)/],
  ["257 directories deep", [file(`${"d/".repeat(256)}f`)], /too deep/],
  ["an empty target", [symlink("a", "")], /target of 0 bytes/],
  ["a target of 4096 bytes", [symlink("a", "t".repeat(4096))], /target of 4096 bytes/],
  ["NUL in a target", [symlink("a", "b\0")], /target that is not allowed/],
  ["a target that is not latin1", [symlink("a", "\u2192")], /target that is not allowed/],
  ["a mode with a type", [{ ...file("a"), mode: 0o100644 }], /a mode of/],
  ["a negative owner", [{ ...file("a"), uid: -1 }], /an owner of -1:0/],
  ["an owner of 2^32", [{ ...file("a"), gid: 2 ** 32 }], /an owner of 0:4294967296/],
  ["a time that is no number", [{ ...file("a"), mtimeSec: Number.NaN }], /a time of NaN s/],
  ["a second of nanoseconds", [{ ...file("a"), mtimeNs: 1e9 }], /1000000000 ns/],
  ["an xattr without name", [{ ...file("a"), xattrs: new Map([["", "v"]]) }], /extended attribute/],
  [
    "an xattr over 64 KiB",
    [{ ...file("a"), xattrs: new Map([["user.a", "v".repeat(65_537)]]) }],
    /extended attribute/,
  ],
  [
    "more xattrs than can be listed",
    [{ ...file("a"), xattrs: new Map(Array.from({ length: 9_000 }, (_, i) => [`user.${i}`, ""])) }],
    /too many extended attributes/,
  ],
  [
    "hard links of different content",
    [
      { ...file("a"), linkGroup: "1" } as LayerEntry,
      { ...file("b"), linkGroup: "1" } as LayerEntry,
    ],
    /hard link to a with other content: b/,
  ],
  [
    "a large blob without block digests",
    [{ ...file("a"), blob: { ...blobOf("a", 2 ** 20 + 1), blocks: [] } } as LayerEntry],
    /0 block digests for 1048577 bytes, not 5/,
  ],
  [
    "one digest for two sizes",
    [file("a", "x", 1), { ...file("b"), blob: { ...blobOf("x", 1), size: 2 } } as LayerEntry],
    /one digest for 1 and 2 bytes/,
  ],
  [
    "a digest that is none",
    [{ ...file("a"), blob: { ...blobOf("a", 1), digest: "abc" as never } } as LayerEntry],
    /"abc" for a digest/,
  ],
];

test("the writer refuses what no tree has", (t) => {
  for (const [what, entries, why] of REFUSALS) {
    t.throws(() => layer(entries), { code: "BURROW_BAD_INDEX", message: why }, what);
  }
  const snapshot = (entry: LayerEntry) => () => writeIndex(IndexKind.snapshot, [entry]);
  t.throws(snapshot(whiteout("a")), { message: /a whiteout in a snapshot: a/ });
  t.throws(snapshot(directory("a", true)), { message: /a whiteout in a snapshot: a/ });
  t.end();
});

const GOLDEN: LayerEntry[] = [
  directory(""),
  { ...directory("bin"), mode: 0o1777, uid: 7, gid: 9, mtimeSec: -2, mtimeNs: 999_999_999 },
  { ...file("bin/tool", "tool"), mode: 0o4755, linkGroup: "t" } as LayerEntry,
  { ...file("bin/same", "tool"), mode: 0o4755, linkGroup: "t" } as LayerEntry,
  directory("lib"),
  file("lib/large", "large", 1_500_000),
  symlink("lib/link", "../bin/tool"),
  directory("run"),
  { type: "fifo", path: "run/pipe", mode: 0o600, uid: 0, gid: 0, mtimeSec: 1e10, mtimeNs: 1 },
  {
    ...file("e\xff"),
    xattrs: new Map([
      ["user.b", "\0\xff"],
      ["user.a", ""],
    ]),
  } as LayerEntry,
  whiteout("gone"),
  directory("opaque", true),
];

test("a known tree has a known digest", (t) => {
  // Changes with the format's version alone: docs/format/layer-index.md.
  t.equal(
    indexDigest(layer(GOLDEN)),
    "ab94cb11cfbd1b485effa52d756a6a6dab59366c1785745208e513e483131a91",
  );
  t.end();
});

test("the same tree gives the same bytes in any order of its entries", (t) => {
  const bytes = layer(GOLDEN);
  t.same(layer([...GOLDEN].reverse()), bytes);
  t.same(layer([...GOLDEN].sort((left, right) => (left.mode < right.mode ? -1 : 1))), bytes);
  const swapped = GOLDEN.map((entry) =>
    entry.xattrs === undefined ? entry : { ...entry, xattrs: new Map([...entry.xattrs].reverse()) },
  );
  t.same(layer(swapped), bytes, "nor does the order of attributes matter");
  t.same(layer([...entriesOf(new Index(bytes))]), bytes, "and what is read back gives it again");
  t.end();
});

test("missing directories are made, and given attributes when they come late", (t) => {
  const bytes = layer([file("a/b/c")]);
  t.equal(
    indexDigest(bytes),
    "6e6d237c33b4aa5307f7b453fb2343c4a0588a9def421b4504d0dd37fc8ed383",
    "marked in a known way",
  );
  const made = [...entriesOf(new Index(bytes))];
  t.same(layer(made), bytes, "and marked again");
  t.notSame(layer([directory("a"), file("a/b/c")]), bytes, "unlike one that is given");
  const snapshot = writeIndex(IndexKind.snapshot, [file("a/b/c")]);
  t.notOk(Buffer.from(snapshot).includes("trusted."), "but not in a snapshot");
  t.match(
    made.map(({ path, type, mode }) => `${type} ${path} ${mode.toString(8)}`),
    ["directory  755", "directory a 755", "directory a/b 755", "file a/b/c 644"],
  );
  const late = layer([file("a/b"), { ...directory("a"), mode: 0o700 }]);
  t.match([...entriesOf(new Index(late))][1], { path: "a", mode: 0o700 });
  t.end();
});

test("only hard links share an inode, whatever else is equal", (t) => {
  // A sandbox takes (device, inode) for the identity of a file: two names with one would be merged.
  const twin = { ...file("", "twin"), linkGroup: "pair" } as LayerEntry;
  const names = ["one", "two", "linked-1", "linked-2"];
  const entries = names.map((path) => {
    return path.startsWith("linked") ? { ...twin, path } : file(path, "twin");
  });
  const index = new Index(layer([...entries, symlink("s1", "t"), symlink("s2", "t")]));
  const root = index.row(1);
  const ino = (name: string) => index.lookup(root, name);
  t.equal(new Set(["one", "two", "linked-1", "s1", "s2"].map(ino)).size, 5, "inodes are apart");
  t.equal(ino("linked-1"), ino("linked-2"));
  t.equal(index.blobCount, 1, "and content is stored once");
  t.equal(index.field(index.row(ino("linked-1")), Inode.nlink), 2);
  t.equal(index.field(index.row(ino("one")), Inode.nlink), 1);
  t.end();
});

test("the same layer's entries twice in one index are refused, not merged", (t) => {
  t.throws(() => layer([...GOLDEN, ...GOLDEN]), BurrowError);
  t.end();
});

test("200,000 entries, some 256 deep and most in one directory", { timeout: 120_000 }, (t) => {
  const entries: LayerEntry[] = [];
  const deep = Array.from({ length: 255 }, (_, i) => `d${i}`).join("/");
  for (let i = 0; i < 150_000; i++)
    entries.push(file(`flat/file-${i}`, `content ${i % 50_000}`, 10));
  for (let i = 0; i < 50_000; i++) entries.push(file(`tree/${i % 100}/${i % 7}/${i}`, "same", 4));
  entries.push(file(`${deep}/bottom`));
  const before = process.memoryUsage().rss;
  const start = process.hrtime.bigint();
  const bytes = layer(entries);
  const ms = Number(process.hrtime.bigint() - start) / 1e6;
  const grown = (process.memoryUsage().rss - before) / 2 ** 20;
  t.comment(`${bytes.length} bytes in ${ms.toFixed()} ms, ${grown.toFixed()} MiB more of memory`);
  t.equal(faultOf(bytes), undefined);
  t.ok(ms < 30_000, "in reasonable time");
  t.ok(grown < 600, "and memory");
  const index = new Index(bytes);
  t.ok(index.lookup(index.row(index.lookup(index.row(1), "flat")), "file-149999") > 0);
  t.equal(normal(entriesOf(index)).length, 200_001 + 255 + 1 + 1 + 1 + 100 + 700);
  t.end();
});
