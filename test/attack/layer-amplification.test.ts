// Owns: proof that few bytes can't stand for very many entries: each dirent is one directory's, and one layer many times over is
// counted as often. Plane: control.

import { test } from "tap";
import { entriesOf } from "../../lib/layer/entries.ts";
import { Inode } from "../../lib/layer/format.ts";
import { Index } from "../../lib/layer/index.ts";
import { mergeIndexes } from "../../lib/layer/merge.ts";
import { writeIndex } from "../../lib/layer/writer.ts";

test("directories that share one range of dirents are no tree", (t) => {
  const plain = { mode: 0o755, uid: 0, gid: 0, mtimeSec: 0, mtimeNs: 0 };
  const directories = Array.from({ length: 200 }, (_, i) => `d${i}`);
  const files = Array.from({ length: 500 }, (_, i) => `z/f${i}`);
  const bytes = writeIndex(2, [
    ...directories.map((path) => ({ ...plain, type: "directory", path }) as const),
    ...files.map((path) => ({ ...plain, type: "fifo", path }) as const),
  ]);
  const index = new Index(bytes);
  const rowOf = (name: string) => index.row(index.lookup(index.row(1), name));
  for (const name of directories) {
    for (const field of [Inode.a, Inode.b]) {
      index.words[(rowOf(name) + (field >> 2)) | 0] = index.field(rowOf("z"), field);
    }
  }
  t.throws(() => [...entriesOf(index)], { code: "BURROW_BAD_INDEX" });
  t.throws(() => mergeIndexes([index]), { code: "BURROW_BAD_INDEX" });
  t.end();
});

test("one layer a thousand times is refused before there are tables for it", (t) => {
  const plain = { mode: 0o755, uid: 0, gid: 0, mtimeSec: 0, mtimeNs: 0 };
  const files = Array.from({ length: 40_000 }, (_, i) => `f${i}`);
  const entries = files.map((path) => ({ ...plain, type: "fifo", path }) as const);
  const index = new Index(writeIndex(1, entries));
  t.throws(() => mergeIndexes(Array(1_000).fill(index)), {
    code: "BURROW_BAD_INDEX",
    message: /40000000 entries in 1000 layers, over 32000000/,
  });
  t.end();
});
