// Indexes that contradict themselves: faultOf refuses them, or every read of Index answers with a number or -EIO. Index is the
// gofer's own reader: a throw, an undefined or a NaN out of it is a failure, and so is a walk that never ends.

import fc from "fast-check";
import { test } from "tap";
import { BurrowError } from "../../lib/base/error.ts";
import { SYMLINK_MAX_BYTES } from "../../lib/base/limits.ts";
import { entriesOf } from "../../lib/layer/entries.ts";
import type { LayerEntry } from "../../lib/layer/entry.ts";
import {
  DIRENT_BYTES,
  Dirent,
  Header,
  INODE_BYTES,
  IndexKind,
  Inode,
  Table,
} from "../../lib/layer/format.ts";
import { faultOf, Index } from "../../lib/layer/index.ts";
import { mergeIndexes } from "../../lib/layer/merge.ts";
import { writeIndex } from "../../lib/layer/writer.ts";
import { directory, file, RUNS, SEED, symlink, whiteout } from "./trees.ts";

const SOUND: readonly LayerEntry[] = [
  {
    ...directory("etc"),
    xattrs: new Map([
      ["user.a", "value"],
      ["user.b", ""],
    ]),
  },
  { ...file("etc/passwd", "p"), xattrs: new Map([["user.c", "long value"]]) } as LayerEntry,
  file("lib/large", "large", 3_000_000),
  { ...file("lib/one", "linked"), linkGroup: "1" } as LayerEntry,
  { ...file("lib/two", "linked"), linkGroup: "1" } as LayerEntry,
  ...Array.from({ length: 40 }, (_, i) => file(`lib/python/module-${i}.py`)),
  symlink("bin", "usr/bin"),
  symlink("usr/bin/sh", "../lib/sh"),
  whiteout("usr/gone"),
  directory("usr/opaque", true),
];
const BYTES = writeIndex(IndexKind.layer, SOUND);
const SOUND_INDEX = new Index(BYTES);
const out = new Uint8Array(SYMLINK_MAX_BYTES);

function number(value: number, what: string): number {
  if (typeof value !== "number" || Number.isNaN(value)) throw new Error(`${what} is ${value}`);
  return value;
}

/** Every read that a tree makes of an index, guarded as trees guard it. */
function readAll(index: Index): void {
  for (let ino = 0; ino <= index.inodeCount + 1; ino++) {
    const row = number(index.row(ino), "row");
    if (row < 0) continue;
    number(index.sizeAt(row), "sizeAt");
    number(index.mtimeAt(row), "mtimeAt");
    number(index.readlink(row, out), "readlink");
    for (const field of Object.values(Inode)) number(index.field(row, field), "field");
    for (const name of ["etc", "module-7.py", "", "\xff\xff\xff\xff", "zzzzzz"]) {
      const child = number(index.lookup(row, name), "lookup");
      if (child > index.inodeCount) throw new Error("lookup gave a number of no inode");
    }
    readDirents(index, row);
    readXattrs(index, row);
    const blob = index.field(row, Inode.a);
    if (number(index.blobRow(blob), "blobRow") >= 0) readBlob(index, blob);
  }
}

function readDirents(index: Index, row: number): void {
  const first = number(index.firstDirent(row), "firstDirent");
  if (first < 0) return;
  for (let i = 0; i < index.field(row, Inode.b); i++) {
    const child = number(index.direntIno(first + i), "direntIno");
    if (child > index.inodeCount) throw new Error("direntIno gave a number of no inode");
    number(index.direntType(first + i), "direntType");
    if (typeof index.direntName(first + i) !== "string") throw new Error("direntName");
  }
}

function readXattrs(index: Index, row: number): void {
  for (
    let at = index.nextXattr(row, -1);
    number(at, "nextXattr") >= 0;
    at = index.nextXattr(row, at)
  ) {
    if (typeof index.xattrName(at) !== "string") throw new Error("xattrName");
    number(index.xattrValue(at, out), "xattrValue");
  }
}

function readBlob(index: Index, blob: number): void {
  if (!/^[0-9a-f]{64}$/.test(index.blobDigest(blob))) throw new Error("blobDigest");
  number(index.blobSize(blob), "blobSize");
  const count = number(index.blockCount(blob), "blockCount");
  for (let block = 0; block < count; block++) {
    if (!/^[0-9a-f]{64}$/.test(index.blockDigest(blob, block))) throw new Error("blockDigest");
  }
}

/** Reads what faultOf lets through, as trees do and as the merge does. */
function check(bytes: Uint8Array): void {
  if (faultOf(bytes) !== undefined) return;
  const index = new Index(bytes);
  readAll(index);
  // A copy of what still reads as a tree is written again, or refused.
  madeOf(() => writeIndex(index.kind, entriesOf(index)));
  // Alone, and with names that others have, too.
  for (const stack of [[index], [index, SOUND_INDEX, index]]) {
    const merged = madeOf(() => mergeIndexes(stack));
    if (merged === undefined) continue;
    // What is merged is as good as if its entries had been written.
    const made = writeIndex(IndexKind.snapshot, entriesOf(new Index(merged)));
    if (!merged.equals(made)) throw new Error("the merge wrote what is no sound index");
  }
}

/** What comes of bytes that may be corrupt: undefined when they are refused. */
function madeOf(make: () => Uint8Array): Buffer | undefined {
  try {
    return Buffer.from(make());
  } catch (error) {
    if (!(error instanceof BurrowError) || error.code !== "BURROW_BAD_INDEX") throw error;
    return undefined;
  }
}

const offset = fc.integer({ min: 0, max: BYTES.length - 1 });
const u32 = fc.oneof(
  fc.integer({ min: 0, max: 60 }),
  fc.integer({ min: 0, max: 0xffff_ffff }),
  fc.constantFrom(0, 0xffff_ffff, 0x7fff_ffff, 0x8000_0000, BYTES.length, BYTES.length - 1),
);

test("the sound index reads well", (t) => {
  t.equal(faultOf(BYTES), undefined);
  t.doesNotThrow(() => check(BYTES));
  t.end();
});

test("flipped bytes", (t) => {
  t.comment(`seed ${SEED}`);
  const flips = fc.array(fc.tuple(offset, fc.integer({ min: 1, max: 255 })), {
    minLength: 1,
    maxLength: 8,
  });
  const property = fc.property(flips, (all) => {
    const bytes = Buffer.from(BYTES);
    for (const [at, mask] of all) bytes[at] = bytes[at]! ^ mask;
    check(bytes);
  });
  t.doesNotThrow(() => fc.assert(property, { numRuns: RUNS * 8, seed: SEED }));
  t.end();
});

test("numbers replaced by other numbers", (t) => {
  t.comment(`seed ${SEED}`);
  const swaps = fc.array(fc.tuple(offset, u32), { minLength: 1, maxLength: 6 });
  const property = fc.property(swaps, (all) => {
    const bytes = Buffer.from(BYTES);
    for (const [at, value] of all)
      bytes.writeUInt32LE(value, Math.min(at - (at % 4), bytes.length - 4));
    check(bytes);
  });
  t.doesNotThrow(() => fc.assert(property, { numRuns: RUNS * 8, seed: SEED }));
  t.end();
});

test("every header field at its extremes", (t) => {
  for (let at = 0; at < 72; at += 4) {
    for (const value of [0, 1, 4, 127, 128, BYTES.length, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff]) {
      const bytes = Buffer.from(BYTES);
      bytes.writeUInt32LE(value, at);
      t.doesNotThrow(() => check(bytes), `${value} at ${at}`);
    }
  }
  t.end();
});

test("cut and lengthened indexes are refused", (t) => {
  const cuts = [0, 1, 7, 8, 127, 128, 129, BYTES.length - 8, BYTES.length - 1];
  for (const length of cuts)
    t.type(faultOf(BYTES.subarray(0, length)), "string", `${length} bytes`);
  t.type(faultOf(Buffer.concat([BYTES, Buffer.alloc(1)])), "string", "a byte more");
  t.end();
});

/** The sound index with one u32 of a table's row replaced. */
function patched(
  table: number,
  rowBytes: number,
  row: number,
  field: number,
  value: number,
): Buffer {
  const bytes = Buffer.from(BYTES);
  bytes.writeUInt32LE(
    value,
    bytes.readUInt32LE(Header.tables + 8 * table + 4) + row * rowBytes + field,
  );
  return bytes;
}

test("the merge refuses an index that goes in circles or branches without end", (t) => {
  const each = [
    (bytes: Uint8Array) => [...entriesOf(new Index(bytes))],
    (bytes: Uint8Array) => mergeIndexes([new Index(bytes)]),
  ];
  const refused = (bytes: Uint8Array, what: string) => {
    for (const walk of each) t.throws(() => walk(bytes), { code: "BURROW_BAD_INDEX" }, what);
  };
  const dirent = (row: number, ino: number) =>
    patched(Table.dirents, DIRENT_BYTES, row, Dirent.ino, ino);
  const names = SOUND.length;
  t.ok(names > 2);
  refused(dirent(1, 1), "a directory within itself");
  const lib = new Index(BYTES).lookup(new Index(BYTES).row(1), "lib");
  refused(dirent(0, lib), "a directory of two names");
  refused(dirent(0, 0), "a name of no inode");
  const target = patched(Table.inodes, INODE_BYTES, 0, Inode.b, 0xffff_ffff);
  refused(target, "more names than there are");
  t.end();
});

test("the merge refuses names that would leave their directory", (t) => {
  const bytes = Buffer.from(BYTES);
  const at = bytes.indexOf("passwd", 0, "latin1");
  bytes.write("../../", at, "latin1");
  const refusal = { code: "BURROW_BAD_INDEX", message: /etc/ };
  t.throws(() => [...entriesOf(new Index(bytes))], refusal);
  t.throws(() => mergeIndexes([new Index(bytes)]), refusal);
  t.end();
});

test("the merge refuses a name whose prefix is another's", (t) => {
  const bytes = patched(Table.dirents, DIRENT_BYTES, 0, Dirent.prefix, 0x41414141);
  t.throws(() => mergeIndexes([new Index(bytes)]), { code: "BURROW_BAD_INDEX" });
  t.throws(() => mergeIndexes([SOUND_INDEX, new Index(bytes)]), { code: "BURROW_BAD_INDEX" });
  t.end();
});
