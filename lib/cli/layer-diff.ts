// burrow layer diff: what two layers or snapshots have in common, by path and by content. Control plane.

import type { Command } from "commander";
import { type Digest, showDigest } from "../base/digest.ts";
import { showName } from "../base/name.ts";
import { entriesOf } from "../layer/entries.ts";
import type { LayerEntry } from "../layer/entry.ts";
import type { Index } from "../layer/index.ts";
import { readLocator } from "../store/known.ts";
import { openOrigin } from "../store/open.ts";
import type { Backend } from "../store/store.ts";
import { type Bytes, blobsOf, type StoredBlob, totalOf } from "./content.ts";
import { addCommonOptions, type Context, contextOf } from "./context.ts";
import { findDigest } from "./digests.ts";
import { print, showBytes, table } from "./output.ts";
import { readIndex } from "./read-index.ts";

const EXAMPLES = `
Paths are all but directories: added, removed, changed (type, content or target), attributes (mode,
owner or extended attributes alone), same. A time alone is no difference. Content counts each
distinct file once; "equal blocks" is what files that only B has share with files of A in blocks of
256 KiB: the store keeps those twice. "as deltas" is what of B is stored as what differs from other
files.

Examples:
  burrow layer diff sha256:1f0c9a sha256:77e2b4
  burrow layer diff --paths sha256:1f0c9a sha256:77e2b4`;

type Change = "added" | "removed" | "changed" | "attributes" | "same";

export function addLayerDiff(layer: Command): void {
  addCommonOptions(layer.command("diff"))
    .argument("<a>", "a layer or snapshot, or the first digits of its digest")
    .argument("<b>", "what to compare it with")
    .description("show what two layers have in common, by path and by content")
    .option("--paths", "name the paths that differ, too")
    .addHelpText("after", EXAMPLES)
    .action(async (a: string, b: string, options: { paths?: boolean; json?: boolean }) => {
      await diffLayers(contextOf(options), [a, b], options.paths === true);
    });
}

interface Side {
  readonly digest: Digest;
  readonly index: Index;
  readonly blobs: ReadonlyMap<Digest, StoredBlob>;
}

async function diffLayers(
  context: Context,
  texts: readonly [string, string],
  withPaths: boolean,
): Promise<void> {
  const a = await findDigest(context, texts[0]);
  const b = await findDigest(context, texts[1]);
  const store = openOrigin(context.store);
  try {
    const sides = [await sideOf(store, a), await sideOf(store, b)] as const;
    const changes = changesOf(...sides);
    const content = compareContent(...sides);
    const paths = countsOf(changes);
    const named = changes.flatMap(({ change, path }) =>
      change === "same" ? [] : [{ change, path: showName(path) }],
    );
    const value = { a: showDigest(a), b: showDigest(b), paths, content };
    const lines = [
      ...(withPaths ? named.map(({ change, path }) => `${MARKS[change]} ${path}`) : []),
      Object.entries(paths)
        .map(([change, count]) => `${change} ${count}`)
        .join(", "),
      contentTable(content),
    ];
    print(context.isJson, withPaths ? { ...value, differences: named } : value, lines.join("\n"));
  } finally {
    store.close();
  }
}

const MARKS = { added: "+", removed: "-", changed: "~", attributes: "a" } as const;

async function sideOf(store: Backend, digest: Digest): Promise<Side> {
  const index = await readIndex(store, digest);
  const locator = await readLocator(store, digest);
  const blobs = new Map<Digest, StoredBlob>();
  for (const blob of blobsOf(index, locator)) blobs.set(blob.digest, blob);
  return { digest, index, blobs };
}

function filesOf(index: Index): Map<string, LayerEntry> {
  const files = new Map<string, LayerEntry>();
  for (const entry of entriesOf(index))
    if (entry.type !== "directory") files.set(entry.path, entry);
  return files;
}

/** Every path of either but directories, those of B in its order, then what was removed. */
function changesOf(a: Side, b: Side): { change: Change; path: string }[] {
  const before = filesOf(a.index);
  const after = filesOf(b.index);
  const changes: { change: Change; path: string }[] = [];
  for (const [path, entry] of after) {
    const old = before.get(path);
    changes.push({ path, change: old === undefined ? "added" : changeOf(old, entry) });
  }
  for (const path of before.keys()) if (!after.has(path)) changes.push({ path, change: "removed" });
  return changes;
}

function changeOf(old: LayerEntry, entry: LayerEntry): Change {
  if (old.type !== entry.type || contentKey(old) !== contentKey(entry)) return "changed";
  const isSame =
    old.mode === entry.mode &&
    old.uid === entry.uid &&
    old.gid === entry.gid &&
    xattrKey(old) === xattrKey(entry);
  return isSame ? "same" : "attributes";
}

function contentKey(entry: LayerEntry): string {
  if (entry.type === "file") return entry.blob.digest;
  return entry.type === "symlink" ? entry.target : "";
}

function xattrKey({ xattrs }: LayerEntry): string {
  return JSON.stringify([...(xattrs ?? [])].sort(([x], [y]) => (x < y ? -1 : 1)));
}

function countsOf(changes: readonly { change: Change }[]): Record<Change, number> {
  const counts = { added: 0, removed: 0, changed: 0, attributes: 0, same: 0 };
  for (const { change } of changes) counts[change]++;
  return counts;
}

interface Part extends Bytes {
  /** Distinct files; of equal blocks, blocks. */
  readonly count: number;
}

interface Content {
  readonly a: Part;
  readonly b: Part;
  readonly inBoth: Part;
  readonly onlyA: Part;
  readonly onlyB: Part;
  /** Of onlyB: blocks that files of A have too. */
  readonly equalBlocks: Part;
  /** Of onlyB: chunks that are stored as deltas. */
  readonly deltaChunks: Part;
}

function compareContent(a: Side, b: Side): Content {
  const part = (items: readonly Bytes[]) => ({ count: items.length, ...totalOf(items) });
  const ofA = [...a.blobs.values()];
  const ofB = [...b.blobs.values()];
  const onlyB = ofB.filter(({ digest }) => !a.blobs.has(digest));
  const chunksOfA = new Set(ofA.flatMap(({ chunks }) => chunks.map(({ digest }) => digest)));
  const equal = onlyB.flatMap(({ chunks }) => chunks.filter(({ digest }) => chunksOfA.has(digest)));
  const deltas = onlyB.flatMap(({ chunks }) => chunks.filter(({ isDelta }) => isDelta));
  return {
    a: part(ofA),
    b: part(ofB),
    inBoth: part(ofB.filter(({ digest }) => a.blobs.has(digest))),
    onlyA: part(ofA.filter(({ digest }) => !b.blobs.has(digest))),
    onlyB: part(onlyB),
    equalBlocks: part(equal),
    deltaChunks: part(deltas),
  };
}

function contentTable(content: Content): string {
  const row = (name: string, { count, rawBytes, storedBytes }: Part) => [
    name,
    String(count),
    showBytes(rawBytes),
    showBytes(storedBytes),
  ];
  return table([
    ["", "files", "content", "stored"],
    row("A", content.a),
    row("B", content.b),
    row("in both", content.inBoth),
    row("only in A", content.onlyA),
    row("only in B", content.onlyB),
    row("  of it equal blocks", content.equalBlocks),
    ...(content.deltaChunks.count > 0 ? [row("  of it as deltas", content.deltaChunks)] : []),
  ]);
}
