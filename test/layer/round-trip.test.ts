// Properties of an index: it gives back the entries it was made of, and a lookup finds every name and no other.

import { deepStrictEqual } from "node:assert";
import fc from "fast-check";
import { test } from "tap";
import { Errno } from "../../lib/base/errno.ts";
import { entriesOf } from "../../lib/layer/entries.ts";
import type { LayerEntry } from "../../lib/layer/entry.ts";
import { direntType, IndexKind, Inode } from "../../lib/layer/format.ts";
import { faultOf, Index } from "../../lib/layer/index.ts";
import { writeIndex } from "../../lib/layer/writer.ts";
import { normal, RUNS, SEED, treeArbitrary } from "./trees.ts";

const OPTIONS = { numRuns: RUNS, seed: SEED };

test("entries of an index are those it was written from", (t) => {
  t.comment(`seed ${SEED}`);
  for (const kind of ["layer", "snapshot"] as const) {
    const property = fc.property(treeArbitrary(kind), (entries) => {
      const bytes = writeIndex(IndexKind[kind], entries);
      if (faultOf(bytes) !== undefined) throw new Error(faultOf(bytes));
      const read = [...entriesOf(new Index(bytes))];
      deepStrictEqual(normal(read), normal(entries));
    });
    t.doesNotThrow(() => fc.assert(property, OPTIONS), kind);
  }
  t.end();
});

/** Names of each directory of a tree, by the directory's path. */
function namesOf(entries: readonly LayerEntry[]): Map<string, Set<string>> {
  const names = new Map<string, Set<string>>();
  for (const { path, type } of entries) {
    if (type === "directory") names.set(path, names.get(path) ?? new Set());
    if (path === "") continue;
    const slash = path.lastIndexOf("/");
    names.get(path.slice(0, Math.max(0, slash)))!.add(path.slice(slash + 1));
  }
  return names;
}

/** Names near those of a directory, and some of everywhere. */
function strangers(names: ReadonlySet<string>): string[] {
  const near = [...names].flatMap((name) => [
    `${name}x`,
    `${name}\0`,
    name.slice(0, -1),
    name.slice(0, 4),
    `${name.slice(0, 3)}\xff`,
  ]);
  return ["", ".", "..", "\0", "\xff\xff\xff\xff\xff", "zz", ...near].filter(
    (name) => !names.has(name),
  );
}

test("a lookup finds every name and no other", (t) => {
  t.comment(`seed ${SEED}`);
  const property = fc.property(treeArbitrary("layer"), (entries) => {
    const index = new Index(writeIndex(IndexKind.layer, entries));
    const inos = new Map([["", 1]]);
    for (const [path, names] of namesOf(entries)) {
      const row = index.row(inos.get(path)!);
      for (const name of names) {
        const ino = index.lookup(row, name);
        if (ino < 1) throw new Error(`${path}/${name} is ${ino}`);
        inos.set(path === "" ? name : `${path}/${name}`, ino);
      }
      for (const name of strangers(names)) {
        if (index.lookup(row, name) !== -Errno.ENOENT) throw new Error(`${path} has ${name}`);
      }
      const first = index.firstDirent(row);
      for (let i = 0; i < names.size; i++) {
        const mode = index.field(index.row(index.direntIno(first + i)), Inode.mode);
        if (index.direntType(first + i) !== direntType(mode))
          throw new Error("a dirent's type is wrong");
      }
    }
    checkInodes(entries, index, inos);
  });
  t.doesNotThrow(() => fc.assert(property, OPTIONS));
  t.end();
});

/** Each inode stands for one path, or for the paths of one group of hard links, and counts them. */
function checkInodes(
  entries: readonly LayerEntry[],
  index: Index,
  inos: ReadonlyMap<string, number>,
): void {
  const owners = new Map<number, string>();
  for (const entry of entries) {
    const ino = inos.get(entry.path)!;
    const group =
      entry.type === "file" && entry.linkGroup ? `group ${entry.linkGroup}` : entry.path;
    if ((owners.get(ino) ?? group) !== group) throw new Error(`${entry.path} shares an inode`);
    owners.set(ino, group);
    if (entry.type !== "file") continue;
    const count = entry.linkGroup
      ? entries.filter((other) => other.type === "file" && other.linkGroup === entry.linkGroup)
          .length
      : 1;
    if (index.field(index.row(ino), Inode.nlink) !== count) throw new Error("a wrong link count");
  }
  if (owners.size !== index.inodeCount) throw new Error("an inode without a name");
}
