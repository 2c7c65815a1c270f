// One round of the merge bench: `node merge-once.js DIR COUNT` merges DIR/0.layer to DIR/COUNT-1.layer in their order, opens what
// came of it as a gofer does, and prints what each step took.

import { closeSync, openSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { assert } from "../../lib/base/assert.ts";
import { Inode } from "../../lib/layer/format.ts";
import { faultOf, Index } from "../../lib/layer/index.ts";
import { mergeIndexes } from "../../lib/layer/merge.ts";
import { indexDigest } from "../../lib/layer/writer.ts";
import { native } from "../../lib/sys/native.ts";
import type { MergeRound } from "./merge.ts";

function timed<T>(run: () => T): [T, number] {
  const startedMs = performance.now();
  const result = run();
  return [result, performance.now() - startedMs];
}

function openIndex(path: string, bytes: number): Index {
  const fd = openSync(path, "r");
  const mapped = native.map(fd, 0, bytes, false);
  closeSync(fd);
  assert(typeof mapped !== "number", "the index is mapped");
  const view = new Uint8Array(mapped);
  assert(faultOf(view) === undefined, "the index is one");
  return new Index(view);
}

/** Looks every name of the tree up once: how many there are. */
function lookUpAll(index: Index): number {
  let found = 0;
  const directories = [1];
  for (const ino of directories) {
    const row = index.row(ino);
    const first = index.firstDirent(row);
    for (let i = first; i < first + index.field(row, Inode.b); i++) {
      const child = index.lookup(row, index.direntName(i));
      assert(child === index.direntIno(i), "a name leads to its inode");
      if (index.firstDirent(index.row(child)) >= 0) directories.push(child);
      found++;
    }
  }
  return found;
}

const [work, count] = [process.argv[2]!, Number(process.argv[3])];
const [layers, readMs] = timed(() =>
  Array.from({ length: count }, (_, i) => new Index(readFileSync(join(work, `${i}.layer`)))),
);
const [bytes, mergeMs] = timed(() => mergeIndexes(layers));
const [, digestMs] = timed(() => indexDigest(bytes));
const path = join(work, "snapshot");
writeFileSync(path, bytes);
const [index, openMs] = timed(() => openIndex(path, bytes.length));
const [lookups, lookupsMs] = timed(() => lookUpAll(index));
// Entries as the layers count them: a directory of several is one of each.
const entries = layers.reduce((sum, layer) => sum + layer.inodeCount, 0);
const indexBytes = bytes.length;
const round: MergeRound = {
  readMs,
  mergeMs,
  digestMs,
  openMs,
  lookups,
  lookupsMs,
  entries,
  indexBytes,
};
process.stdout.write(JSON.stringify(round));
