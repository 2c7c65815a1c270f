// Random trees as layer entries, and the normal form in which two lists of entries are the same tree.

import fc from "fast-check";
import type { BlobRef } from "../../lib/base/blob.ts";
import { BLOCK_BYTES, BLOCK_DIGESTS_OVER_BYTES } from "../../lib/base/limits.ts";
import { entriesOf } from "../../lib/layer/entries.ts";
import type { LayerEntry } from "../../lib/layer/entry.ts";
import { Index } from "../../lib/layer/index.ts";
import { layerOf, mergeIndexes, pathIn } from "../../lib/layer/merge.ts";
import { digestOf } from "../../lib/store/hash.ts";
import { isLong } from "../suite/long.ts";

/** Seed of this run's properties: BURROW_SEED, or a new one. Tests print it. */
export const SEED = Number(process.env["BURROW_SEED"] ?? Date.now() % 0x7fff_ffff);
export const RUNS = isLong ? 5_000 : 120;

/** A blob that nobody has: its digest is that of a word, its size what is asked for. */
export function blobOf(word: string, size: number): BlobRef {
  const count = size > BLOCK_DIGESTS_OVER_BYTES ? Math.ceil(size / BLOCK_BYTES) : 0;
  const blocks = Array.from({ length: count }, (_, i) => digestOf(Buffer.from(`${word} ${i}`)));
  return { digest: digestOf(Buffer.from(`${word} of ${size}`)), size, blocks };
}

const PLAIN = { mode: 0o644, uid: 0, gid: 0, mtimeSec: 0, mtimeNs: 0 };

export function file(path: string, word = path, size = word.length): LayerEntry {
  return { type: "file", path, ...PLAIN, blob: blobOf(word, size) };
}

export function directory(path: string, opaque = false): LayerEntry {
  return { type: "directory", path, ...PLAIN, mode: 0o755, ...(opaque ? { opaque } : {}) };
}

export function symlink(path: string, target: string): LayerEntry {
  return { type: "symlink", path, ...PLAIN, mode: 0o777, target };
}

export function whiteout(path: string): LayerEntry {
  return { type: "whiteout", path, ...PLAIN, mode: 0 };
}

export interface StackedLayer {
  readonly entries: Iterable<LayerEntry>;
  /** Where its root lies in the snapshot: a latin1 path without slashes at its ends; "" for the root. */
  readonly at: string;
}

/** mergeIndexes for layers that are entries, in any order: those of the merged tree. */
export function mergeLayers(layers: readonly StackedLayer[]): Iterable<LayerEntry> {
  const indexes = layers.map(({ entries, at }) => {
    return layerOf(Array.from(entries, (entry) => ({ ...entry, path: pathIn(at, entry.path) })));
  });
  return entriesOf(new Index(mergeIndexes(indexes)));
}

const bytes = (min: number, max: number, noSlash: boolean) =>
  fc
    .uint8Array({ minLength: min, maxLength: max })
    .map((array) =>
      Buffer.from(array.map((byte) => (byte === 0 || (noSlash && byte === 47) ? 95 : byte))),
    )
    .map((buffer) => buffer.toString("latin1"));

/** Few names, so that paths meet; some at the edges of what is allowed. */
const name = fc.oneof(
  { weight: 6, arbitrary: fc.constantFrom("a", "b", "c", "ab", "a.b", "a-b", "abcd", "abcde") },
  { weight: 1, arbitrary: fc.constantFrom("...", " ", "\xff\xfe", "\xc3\xa9", "x".repeat(255)) },
  {
    weight: 2,
    arbitrary: bytes(1, 6, true).map((text) => (text === "." || text === ".." ? "dots" : text)),
  },
);

const attributes = fc.record({
  mode: fc.integer({ min: 0, max: 0o7777 }),
  uid: fc.constantFrom(0, 1000, 0xffff_ffff),
  gid: fc.constantFrom(0, 50, 0xffff_ffff),
  mtimeSec: fc.oneof(fc.integer(), fc.constantFrom(-1, 0, 2 ** 33, -(2 ** 40))),
  mtimeNs: fc.integer({ min: 0, max: 999_999_999 }),
  xattrs: fc.option(
    fc.dictionary(fc.constantFrom("user.a", "user.b", "security.capability"), bytes(0, 40, false)),
    { nil: undefined, freq: 4 },
  ),
});

const blob = fc
  .tuple(fc.constantFrom("x", "y", "z"), fc.constantFrom(0, 1, 4096, 1 << 20, (1 << 20) + 1, 3e6))
  .map(([word, size]) => blobOf(word, size));

const draft = fc.record({
  names: fc.array(name, { minLength: 1, maxLength: 4 }),
  kind: fc.constantFrom(
    "file",
    "file",
    "link",
    "directory",
    "symlink",
    "fifo",
    "whiteout",
    "opaque",
  ),
  group: fc.integer({ min: 0, max: 2 }),
  target: bytes(1, 60, false),
  blob,
  attributes,
});

type Draft = typeof draft extends fc.Arbitrary<infer T> ? T : never;

/** Entries of a consistent tree with every directory spelled out; whiteouts and opaque directories only for a layer. */
export function treeArbitrary(kind: "layer" | "snapshot"): fc.Arbitrary<LayerEntry[]> {
  return fc.tuple(attributes, fc.array(draft, { maxLength: 40 })).map(([root, drafts]) => {
    const entries = new Map<string, LayerEntry>();
    const groups = new Map<number, Draft>();
    entries.set("", { type: "directory", path: "", ...given(root) });
    for (const each of drafts) {
      const isMark = each.kind === "whiteout" || each.kind === "opaque";
      if (isMark && kind === "snapshot") continue;
      const path = each.names.join("/");
      const parents = each.names.slice(0, -1).map((_, i) => each.names.slice(0, i + 1).join("/"));
      const isFree =
        !entries.has(path) && parents.every((parent) => isDirectory(entries.get(parent)));
      if (!isFree) continue;
      for (const parent of parents) {
        if (!entries.has(parent)) {
          entries.set(parent, { type: "directory", path: parent, ...given(each.attributes) });
        }
      }
      if (each.kind === "link" && !groups.has(each.group)) groups.set(each.group, each);
      entries.set(path, entryOf(path, each, groups.get(each.group)));
    }
    return [...entries.values()];
  });
}

function isDirectory(entry: LayerEntry | undefined): boolean {
  return entry === undefined || entry.type === "directory";
}

function given({ xattrs, ...rest }: Draft["attributes"]) {
  const pairs = Object.entries(xattrs ?? {});
  return pairs.length === 0 ? rest : { ...rest, xattrs: new Map(pairs) };
}

function entryOf(path: string, each: Draft, linked: Draft | undefined): LayerEntry {
  const common = { path, ...given(each.attributes) };
  switch (each.kind) {
    case "directory":
      return { type: "directory", ...common };
    case "opaque":
      return { type: "directory", ...common, opaque: true };
    case "symlink":
      return { type: "symlink", ...common, target: each.target };
    case "fifo":
      return { type: "fifo", ...common };
    case "whiteout":
      return { type: "whiteout", ...common };
    case "link": {
      const { blob, attributes, group } = linked!;
      return { type: "file", path, ...given(attributes), blob, linkGroup: `g${group}` };
    }
    default:
      return { type: "file", ...common, blob: each.blob };
  }
}

/** Sorted, each hard link named by the first path of its group, groups of one and empty things left out. */
export function normal(entries: Iterable<LayerEntry>): unknown[] {
  const sorted = [...entries].sort((left, right) => (left.path < right.path ? -1 : 1));
  const groups = new Map<string, string[]>();
  for (const entry of sorted) {
    if (entry.type !== "file" || !entry.linkGroup) continue;
    const known = groups.get(entry.linkGroup) ?? [];
    groups.set(entry.linkGroup, [...known, entry.path]);
  }
  return sorted.map(({ xattrs, ...entry }) => {
    const plain: Record<string, unknown> = { ...entry };
    delete plain["linkGroup"];
    if (plain["opaque"] !== true) delete plain["opaque"];
    if (xattrs !== undefined && xattrs.size > 0) plain["xattrs"] = [...xattrs].sort();
    const paths = entry.type === "file" && entry.linkGroup ? groups.get(entry.linkGroup)! : [];
    if (paths.length > 1) plain["linkedTo"] = paths[0];
    return plain;
  });
}
