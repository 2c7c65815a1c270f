// The merge of layers against a model: each layer a tree of Maps, laid over the one below as overlayfs.rst says. The model goes
// by trees where the program goes by paths, so they share no idea of how.

import { deepStrictEqual } from "node:assert";
import fc from "fast-check";
import { test } from "tap";
import { entriesOf } from "../../lib/layer/entries.ts";
import type { LayerEntry } from "../../lib/layer/entry.ts";
import { IndexKind } from "../../lib/layer/format.ts";
import { Index } from "../../lib/layer/index.ts";
import { mergeIndexes } from "../../lib/layer/merge.ts";
import { indexDigest, writeIndex } from "../../lib/layer/writer.ts";
import {
  directory,
  file,
  mergeLayers,
  normal,
  RUNS,
  SEED,
  symlink,
  treeArbitrary,
  whiteout,
} from "./trees.ts";

interface Model {
  entry: LayerEntry;
  /** A directory without an entry of its own. */
  isImplied: boolean;
  children: Map<string, Model>;
}

/** A layer as a tree of Maps; its hard links are its own. */
function modelOf(entries: readonly LayerEntry[], layer: number): Model {
  const implied = (path: string): Model => {
    return { entry: directory(path), isImplied: true, children: new Map() };
  };
  const root = implied("");
  for (const entry of [...entries].sort((left, right) => left.path.length - right.path.length)) {
    const isLinked = entry.type === "file" && entry.linkGroup !== undefined;
    const own = isLinked ? { ...entry, linkGroup: `${layer} ${entry.linkGroup}` } : entry;
    if (entry.path === "") {
      Object.assign(root, { entry: own, isImplied: false });
      continue;
    }
    const names = entry.path.split("/");
    let parent = root;
    for (const [i, name] of names.slice(0, -1).entries()) {
      const next = parent.children.get(name) ?? implied(names.slice(0, i + 1).join("/"));
      parent.children.set(name, next);
      parent = next;
    }
    parent.children.set(names.at(-1)!, { entry: own, isImplied: false, children: new Map() });
  }
  return root;
}

/** What one sees of `upper` over `lower`. */
function overlay(lower: Model | undefined, upper: Model): Model {
  const { entry } = upper;
  if (entry.type !== "directory") return upper;
  const isMerged = lower?.entry.type === "directory" && entry.opaque !== true;
  const children = new Map(isMerged ? lower.children : []);
  for (const [name, child] of upper.children) {
    if (child.entry.type === "whiteout") children.delete(name);
    else children.set(name, overlay(children.get(name), child));
  }
  const isKept = isMerged && upper.isImplied;
  const isImplied = upper.isImplied && (!isMerged || lower.isImplied);
  return { entry: isKept ? lower.entry : { ...entry, opaque: false }, isImplied, children };
}

function* flat(model: Model): Iterable<LayerEntry> {
  yield model.entry;
  for (const child of model.children.values()) yield* flat(child);
}

function indexesOf(layers: readonly LayerEntry[][]): Index[] {
  return layers.map((entries) => new Index(writeIndex(IndexKind.layer, entries)));
}

/** Layers through their index files and the merge, and out of the snapshot's again. */
function merged(layers: readonly LayerEntry[][]): LayerEntry[] {
  return [...entriesOf(new Index(mergeIndexes(indexesOf(layers))))];
}

/** Without entries of many directories, as some archives are. */
function sparse(tree: fc.Arbitrary<LayerEntry[]>): fc.Arbitrary<LayerEntry[]> {
  return fc.tuple(tree, fc.infiniteStream(fc.boolean())).map(([entries, isLeftOut]) => {
    return entries.filter(({ type }) => type !== "directory" || isLeftOut.next().value === false);
  });
}

test("a merged stack is what the model says", (t) => {
  t.comment(`seed ${SEED}`);
  const layer = fc.oneof(treeArbitrary("layer"), sparse(treeArbitrary("layer")));
  const stacks = fc.array(layer, { minLength: 1, maxLength: 4 });
  const property = fc.property(stacks, (layers) => {
    let model: Model | undefined;
    for (const [i, layer] of layers.entries()) model = overlay(model, modelOf(layer, i));
    deepStrictEqual(normal(merged(layers)), normal(flat(model!)));
    const bytes = mergeIndexes(indexesOf(layers));
    deepStrictEqual(Buffer.compare(bytes, writeIndex(IndexKind.snapshot, flat(model!))), 0);
  });
  t.doesNotThrow(() => fc.assert(property, { numRuns: RUNS, seed: SEED }));
  t.end();
});

test("the order of a layer's entries means nothing", (t) => {
  t.comment(`seed ${SEED}`);
  const stacks = fc.array(treeArbitrary("layer"), { minLength: 2, maxLength: 3 });
  const property = fc.property(stacks, (layers) => {
    const forward = mergeLayers(layers.map((entries) => ({ entries, at: "" })));
    const backward = mergeLayers(
      layers.map((entries) => ({ entries: [...entries].reverse(), at: "" })),
    );
    deepStrictEqual(normal(forward), normal(backward));
  });
  t.doesNotThrow(() => fc.assert(property, { numRuns: RUNS, seed: SEED }));
  t.end();
});

const paths = (entries: Iterable<LayerEntry>) =>
  normal(entries).map((each) => (each as LayerEntry).path);

test("whiteouts, opaque directories and files in the place of directories", (t) => {
  const base = [file("a/one"), file("a/two"), file("b/three"), symlink("l", "a"), file("f")];
  t.same(paths(merged([base, [whiteout("a/one")]])), ["", "a", "a/two", "b", "b/three", "f", "l"]);
  t.same(paths(merged([base, [whiteout("a"), whiteout("l")]])), ["", "b", "b/three", "f"]);
  t.same(paths(merged([base, [whiteout("none")]])), paths(merged([base])), "of what isn't there");
  const opaque = [directory("a", true), file("a/new")];
  t.same(paths(merged([base, opaque])), ["", "a", "a/new", "b", "b/three", "f", "l"]);
  t.same(paths(merged([base, [directory("", true), file("new")]])), ["", "new"], "an opaque root");
  t.same(paths(merged([base, [file("a")]])), ["", "a", "b", "b/three", "f", "l"]);
  t.same(paths(merged([base, [file("f/in")]])), [
    "",
    "a",
    "a/one",
    "a/two",
    "b",
    "b/three",
    "f",
    "f/in",
    "l",
  ]);
  t.same(
    paths(merged([base, [file("l/in")]])).slice(-2),
    ["l", "l/in"],
    "a symlink is not followed",
  );
  t.same(paths(merged([base, [whiteout("a")], [file("a/late")]])).slice(0, 3), ["", "a", "a/late"]);
  t.end();
});

test("directories that a layer has no entry for are as lower layers say", (t) => {
  const sticky = { ...directory("tmp"), mode: 0o1777, uid: 7, gid: 9, mtimeSec: 5, mtimeNs: 6 };
  const root = { ...directory(""), mode: 0o700 };
  const known = (layers: LayerEntry[][], path = "tmp") =>
    merged(layers).find((entry) => entry.path === path);
  t.same(known([[root, sticky], [file("tmp/x")]]), sticky);
  t.same(known([[root, sticky], [file("tmp/x")], [file("tmp/y")]]), sticky);
  t.same(known([[root, sticky], [file("tmp/x")]], ""), root, "the root too");
  t.same(
    known([
      [root, sticky],
      [directory("tmp"), file("tmp/x")],
    ]),
    directory("tmp"),
    "an entry",
  );
  t.same(known([[file("tmp/x")], [sticky]]), sticky, "an entry above");
  const plain = [directory("tmp")];
  t.same(plain, [known([[sticky], [whiteout("tmp")], [file("tmp/x")]])], "below a whiteout");
  t.same(plain, [known([[{ ...file("tmp"), uid: 7 }], [file("tmp/x")]])], "over a file");
  t.same(plain, [known([[file("tmp/x")], [file("tmp/y")]])], "nowhere an entry");
  t.same(
    known([[sticky], [{ ...sticky, gid: 1, opaque: true } as LayerEntry], [file("tmp/x")]]),
    { ...sticky, gid: 1 },
    "over an opaque one",
  );
  const emptied = { ...directory("tmp", true), implied: true } as LayerEntry;
  t.same(merged([[root, sticky, file("tmp/x")], [emptied]]), [root, sticky], "made empty");
  const at = mergeLayers([
    { entries: [sticky], at: "" },
    { entries: [file("y")], at: "tmp" },
  ]);
  t.same([...at][1], sticky, "and on the way to where a layer lies");
  t.end();
});

test("a known stack has a known digest", (t) => {
  // The same layers give the same snapshot, whatever version of this program merged them.
  const large = (word: string) => file(`lib/${word}`, word, 2_000_000);
  const attributes = { mode: 0o1777, uid: 7, gid: 9, mtimeSec: -2, mtimeNs: 999_999_999 };
  const xattrs = new Map([["user.a", "\0\xff"]]);
  const pair = ["one", "two"].map(
    (path) => ({ ...file(path, "same"), linkGroup: "g" }) as LayerEntry,
  );
  const stack = [
    [directory(""), directory("lib"), large("z"), large("a"), directory("gone"), file("gone/f")],
    [directory(""), { ...directory("lib"), ...attributes, xattrs }, large("m"), whiteout("gone")],
    [directory(""), ...pair, symlink("l", "lib/z"), directory("lib"), directory("lib/z")],
    [directory(""), ...pair.slice(1), file("e\xff"), directory("lib"), file("lib/a", "gone/f")],
  ];
  t.equal(
    indexDigest(mergeIndexes(indexesOf(stack))),
    "05db884ad69c4712f67295a9daf9a225e2eb7b8f287ee55e40be74380321fa6e",
  );
  t.end();
});

test("hard links are those of one layer", (t) => {
  const pair = (group: string) =>
    ["x", "y"].map((path) => ({ ...file(path, "same"), linkGroup: group }) as LayerEntry);
  const renamed = [
    { ...file("z", "same"), linkGroup: "g" } as LayerEntry,
    { ...file("y", "same"), linkGroup: "g" } as LayerEntry,
  ];
  const links = (entries: LayerEntry[]) =>
    normal(entries).map((each) => (each as { linkedTo?: string }).linkedTo);
  t.same(links(merged([pair("g")])), [undefined, "x", "x"]);
  t.same(
    links(merged([pair("g"), renamed])),
    [undefined, undefined, "y", "y"],
    "x stands alone now",
  );
  t.same(links(merged([pair("g"), [file("y", "same")]])), [undefined, undefined, undefined]);
  t.end();
});

test("layers lie where the stack says", (t) => {
  const made = mergeLayers([{ entries: [file("bin/python"), directory("empty")], at: "opt/env" }]);
  t.same(paths(made), ["", "opt", "opt/env", "opt/env/bin", "opt/env/bin/python", "opt/env/empty"]);
  const stack = [
    { entries: [file("opt"), file("keep")], at: "" },
    { entries: [directory("", true), file("new")], at: "opt" },
  ];
  t.same(paths(mergeLayers(stack)), ["", "keep", "opt", "opt/new"]);
  t.end();
});

test("what is no stack of trees is refused", (t) => {
  const refused = (entries: LayerEntry[], message: RegExp) =>
    t.throws(() => [...mergeLayers([{ entries, at: "" }])], { code: "BURROW_BAD_INDEX", message });
  refused([file("a"), file("a/b")], /a file is its parent: a\/b/);
  refused([file("a/b"), symlink("a", "x")], /the same path twice: a/);
  refused([file("a"), whiteout("a")], /the same path twice: a/);
  refused([file("")], /the root is no directory/);
  refused([whiteout("")], /the root is no directory/);
  t.end();
});
