// Owns: proof that what is said to be shared and saved is what is: layer diff and store stats over content of known bytes.
// Plane: control.
import fs from "node:fs";
import path from "node:path";
import { type Test, test } from "tap";
import { noise } from "../suite/daemon-node.ts";
import { type Node, newNode, ZEROS } from "./cli.ts";

const BLOCK = 256 * 1024;
/** Five blocks of noise, which LZ4 stores as it is. */
const LARGE = noise(5 * BLOCK);
/** The same but for its last block. */
const LARGER = Buffer.concat([LARGE.subarray(0, 4 * BLOCK), Buffer.alloc(BLOCK, 7)]);
const SMALL = noise(3_000);

/** Two versions of a tree as layers of a node's store: their digests. */
async function twoVersions(t: Test): Promise<{ node: Node; a: string; b: string }> {
  const node = newNode(t);
  const files = (tree: string, content: Record<string, string | Uint8Array>) => {
    for (const [name, bytes] of Object.entries(content)) node.file(`${tree}/${name}`, bytes);
  };
  const same = { "lib/same": SMALL, "lib/copy": SMALL, "lib/empty": "" };
  files("a", { ...same, "lib/large": LARGE, "etc/conf": "one\n", "etc/gone": "gone\n" });
  files("b", { ...same, "lib/large": LARGER, "etc/conf": "two!\n", "etc/new": "news\n" });
  files("a", { "bin/tool": "tool\n" });
  files("b", { "bin/tool": "tool\n" });
  fs.chmodSync(node.path("b/bin/tool"), 0o755);
  fs.symlinkSync("same", node.path("a/lib/link"));
  fs.symlinkSync("copy", node.path("b/lib/link"));
  fs.symlinkSync("../etc/conf", node.path("a/lib/kind"));
  files("b", { "lib/kind": "two!\n" });
  const layers: string[] = [];
  for (const tree of ["a", "b"]) {
    const { code, stdout, stderr } = await node.run(["layer", "import", tree]);
    t.equal(code, 0, stderr);
    layers.push(stdout.trim());
  }
  return { node, a: layers[0]!, b: layers[1]! };
}

/** Content that isn't made shorter. */
const part = (count: number, rawBytes: number) => ({ count, rawBytes, storedBytes: rawBytes });

test("layer diff says what two layers share by path, by file and by block", async (t) => {
  const { node, a, b } = await twoVersions(t);
  const run = await node.run(["layer", "diff", "--json", "--paths", a.slice(0, 19), b]);
  t.equal(run.code, 0, run.stderr);
  const value = JSON.parse(run.stdout) as Record<string, unknown>;
  t.same(
    { a: value["a"], b: value["b"], paths: value["paths"] },
    { a, b, paths: { added: 1, removed: 1, changed: 4, attributes: 1, same: 3 } },
  );
  t.same(value["differences"], [
    { change: "attributes", path: "bin/tool" },
    { change: "changed", path: "etc/conf" },
    { change: "added", path: "etc/new" },
    { change: "changed", path: "lib/kind" },
    { change: "changed", path: "lib/large" },
    { change: "changed", path: "lib/link" },
    { change: "removed", path: "etc/gone" },
  ]);
  const content = value["content"] as Record<string, { storedBytes: number }>;
  const { storedBytes: ofB } = content["b"]!;
  const { storedBytes: onlyB } = content["onlyB"]!;
  t.equal(ofB - onlyB, SMALL.length + 5, "what both have is stored once");
  t.ok(onlyB < 4 * BLOCK + 5_000, "a block of one byte is compressed");
  t.ok(onlyB > 4 * BLOCK + 10);
  t.same(content, {
    a: part(6, SMALL.length + LARGE.length + 4 + 5 + 5),
    b: { count: 6, rawBytes: SMALL.length + LARGER.length + 5 + 5 + 5, storedBytes: ofB },
    inBoth: part(3, SMALL.length + 5),
    onlyA: part(3, LARGE.length + 4 + 5),
    onlyB: { count: 3, rawBytes: LARGER.length + 5 + 5, storedBytes: onlyB },
    equalBlocks: part(4, 4 * BLOCK),
    deltaChunks: part(0, 0),
  });
});

test("layer diff for people: paths only when wanted, and none between equal layers", async (t) => {
  const { node, a, b } = await twoVersions(t);
  const plain = await node.run(["layer", "diff", a, b]);
  t.match(plain.stdout, /^added 1, removed 1, changed 4, attributes 1, same 3\n/);
  t.match(plain.stdout, /\nin both +3 +3\.0\d kB +3\.0\d kB\n/);
  t.match(plain.stdout, / {2}of it equal blocks +4 +1\.05 MB +1\.05 MB\n$/);
  const named = await node.run(["layer", "diff", "--paths", a, b]);
  t.match(named.stdout, /^a bin\/tool\n~ etc\/conf\n\+ etc\/new\n(~ .*\n){3}- etc\/gone\nadded 1/);
  const equal = await node.run(["layer", "diff", "--json", a, a]);
  t.match(JSON.parse(equal.stdout), {
    paths: { added: 0, removed: 0, changed: 0, attributes: 0, same: 9 },
    content: { onlyA: part(0, 0), onlyB: part(0, 0), equalBlocks: part(0, 0) },
  });
  const none = await node.run(["layer", "diff", a, ZEROS]);
  t.match(none, { code: 1, stdout: "", stderr: /no layer or snapshot sha256:0{64}/ });
});

test("store stats adds up, by files, by compression, and what equal blocks take", async (t) => {
  const { node } = await twoVersions(t);
  const snapshot = await node.run(["layer", "import", "--snapshot", "--quiet", "a", "b"]);
  t.equal(snapshot.code, 0, snapshot.stderr);
  const stray = path.join(node.store, "packs/ab", `ab${"0".repeat(62)}`);
  fs.mkdirSync(path.dirname(stray), { recursive: true });
  fs.writeFileSync(stray, "left by an import that was killed");
  const run = await node.run(["store", "stats", "--json"]);
  t.equal(run.code, 0, run.stderr);
  const stats = JSON.parse(run.stdout);
  const ofBoth = 2 * (2 * SMALL.length + LARGE.length + 5) + 4 + 5 + 5 + 5 + 5;
  const distinct = SMALL.length + 2 * LARGE.length + 5 + 4 + 5 + 5 + 5;
  t.match(stats, {
    layers: 2,
    snapshots: 1,
    environments: 0,
    blobs: 9,
    chunks: 1 + 5 + 5 + 5,
    contentBytes: ofBoth,
    distinct: { rawBytes: distinct },
    saved: { byFileBytes: ofBoth - distinct },
    equalBlocks: part(4, 4 * BLOCK),
    unnamedPacks: { count: 1, bytes: fs.statSync(stray).size },
  });
  t.equal(stats.distinct.storedBytes + stats.saved.byCompressionBytes, distinct);
  t.ok(stats.saved.byCompressionBytes > BLOCK - 5_000, "the block of one byte");
  const packs = stats.disk.packs.bytes - stats.unnamedPacks.bytes;
  const table = stats.chunks * 96 + (stats.disk.packs.count - 1) * (16 + 24);
  t.equal(packs, stats.distinct.storedBytes + table, "what is stored is what lies there");
  const text = await node.run(["store", "stats"]);
  t.match(text.stdout, /^layers 2, snapshots 1, environments 0\ndistinct files 9, in 16 chunks/);
  t.match(text.stdout, /\nequal blocks, not shared: 4, 1\.05 MB, stored as 1\.05 MB\n/);
  t.match(text.stdout, /\npacks that no index needs: 1, 33 B\n$/);
});

test("a store that lies is named, one that isn't there or can't be listed too", async (t) => {
  const { node, a, b } = await twoVersions(t);
  const locator = (digest: string) => {
    const hex = digest.slice("sha256:".length);
    return path.join(node.store, "locators", hex.slice(0, 2), hex);
  };
  fs.copyFileSync(locator(a), locator(b));
  for (const words of [
    ["layer", "diff", a, b],
    ["store", "stats"],
  ]) {
    const { code, stdout, stderr } = await node.run(words);
    t.equal(code, 1);
    t.equal(stdout, "");
    t.match(stderr, /a locator does not fit its index.*\(BURROW_CORRUPT\)/);
  }
  const remote = await node.run(["store", "stats", "--store", "http://127.0.0.1:9"]);
  t.match(remote, { code: 1, stderr: /an HTTP store can't be listed/ });
  const none = await node.run(["store", "stats", "--store", "nowhere"]);
  t.match(none, { code: 1, stderr: /there is no store/ });
  t.notOk(fs.existsSync(node.path("nowhere")), "looking makes none");
});
