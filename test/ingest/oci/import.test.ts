// Owns: proof that images become the trees that their layers describe, in every form that they come in, and that what images have in
// common is read and kept once. Plane: control.
import fs from "node:fs";
import path from "node:path";
import { test } from "tap";
import { showDigest } from "../../../lib/base/digest.ts";
import { readFacts } from "../../../lib/cli/image-facts.ts";
import { readIndex, readStack } from "../../../lib/cli/read-index.ts";
import { entry, type RawHeader, tar } from "../archives.ts";
import {
  AMD64,
  addBlob,
  addImage,
  Bench,
  dockerOf,
  type Files,
  type ImageSpec,
  layer,
  layoutOf,
  seal,
  sha256,
  TYPES,
  tarOf,
} from "./images.ts";

const dir = (name: string, more: Partial<RawHeader> = {}): RawHeader => ({
  name: `${name}/`,
  type: "5",
  mode: 0o755,
  ...more,
});

const LOWER = layer(
  dir(".", { mode: 0o750 }),
  dir("etc", { mode: 0o711, uid: 7 }),
  { name: "etc/old", content: "old\n" },
  { name: "etc/kept", content: "kept\n" },
  { name: "etc/passwd", content: "root:x:0:0::/:/bin/sh\napp:x:1000:1001::/app:/bin/sh\n" },
  dir("var", { mode: 0o700 }),
  { name: "var/a", content: "a" },
  dir("var/sub", { mode: 0o705 }),
  { name: "var/sub/b", content: "b" },
  { name: "lib", type: "2", linkname: "usr/lib" },
);
const UPPER = layer(
  { name: "etc/.wh.old" },
  { name: "etc/new", content: "new\n" },
  { name: "etc/also", type: "1", linkname: "/etc/new" },
  { name: "var/sub/.wh..wh..opq" },
  { name: "var/sub/c", content: "c" },
  { name: "/opt/tool", content: "tool\n", mode: 0o755 },
);
const IMAGE: ImageSpec = {
  layers: [LOWER, UPPER],
  config: {
    Env: ["PATH=/opt:/bin", "A=b=c"],
    WorkingDir: "/opt/../etc",
    Entrypoint: ["/opt/tool"],
    Cmd: ["--all"],
    User: "app",
  },
};
const PATHS =
  ",etc,etc/also,etc/kept,etc/new,etc/passwd,lib,opt,opt/tool,var,var/a,var/sub,var/sub/c";

/** The same image with its layers packed in some way. */
const packedBy = (compression: "none" | "gz" | "zst"): ImageSpec => ({
  ...IMAGE,
  layers: IMAGE.layers.map((one) => ({ ...one, compression })),
});

test("an image is the same snapshot in every form", async (t) => {
  const bench = new Bench(t);
  const { digest, tree, imported } = await bench.snapshot(
    bench.archive(layoutOf({ one: IMAGE }), "gz.tar"),
  );
  t.equal([...tree.keys()].sort().join(","), PATHS);
  t.match(tree.get(""), { mode: 0o750 }, "an upper layer that doesn't list a directory leaves it");
  t.match(tree.get("etc"), { mode: 0o711, uid: 7 });
  t.match(tree.get("var"), { mode: 0o700 });
  t.match(tree.get("var/sub"), { mode: 0o705 }, "an opaque mark hides, and changes nothing else");
  t.match(tree.get("lib"), { type: "symlink", target: "usr/lib" });
  const [also, made] = [tree.get("etc/also"), tree.get("etc/new")];
  t.ok(also?.type === "file" && made?.type === "file" && also.linkGroup === made.linkGroup);
  t.ok(also?.type === "file" && also.linkGroup, "hard links are");
  t.equal(imported.layers.length, 2);
  const forms: [string, string][] = [
    ["a directory", bench.folder(layoutOf({ one: IMAGE }), "folder")],
    ["zstd", bench.archive(layoutOf({ one: packedBy("zst") }), "zst.tar")],
    ["plain", bench.archive(layoutOf({ one: packedBy("none") }), "plain.tar")],
    ["docker save", bench.archive(dockerOf({ "x/y:1": IMAGE }), "docker.tar")],
    ["docker save, gzip within", bench.archive(dockerOf({ "": packedBy("gz") }), "docker-gz.tar")],
    ["docker save unpacked", bench.folder(dockerOf({ "": IMAGE }), "docker")],
  ];
  for (const [what, source] of forms) {
    const other = new Bench(t); // so that all is read again
    t.equal((await other.snapshot(source)).digest, digest, what);
  }
});

test("what the image says of commands is kept, by numbers, and held against the snapshot", async (t) => {
  const bench = new Bench(t);
  const { digest, imported } = await bench.snapshot(bench.archive(layoutOf({ "": IMAGE })));
  const store = await bench.store();
  const index = await readIndex(store, digest);
  t.match(await readFacts(store, digest, index), {
    config: showDigest(imported.image!.configDigest),
    env: ["PATH=/opt:/bin", "A=b=c"],
    workingDir: "/etc",
    entrypoint: ["/opt/tool"],
    cmd: ["--all"],
    user: "app",
    ids: [1000, 1001],
  });
  const plain = { ...IMAGE, config: { Cmd: ["other"] } };
  const second = await bench.snapshot(bench.archive(layoutOf({ "": plain }), "plain.tar"));
  t.not(second.digest, digest, "another config is another snapshot");
  t.same(second.imported.layers, imported.layers);
  const file = path.join(bench.storeDir, "images", digest.slice(0, 2), digest);
  fs.writeFileSync(file, fs.readFileSync(file, "utf8").replace("A=b=c", "A=b=d"));
  await t.rejects(readFacts(store, digest, index), { code: "BURROW_DIGEST_MISMATCH" });
  fs.rmSync(file);
  await t.rejects(readFacts(store, digest, index), { code: "BURROW_CORRUPT" });
});

test("a layer that is known is not read again, in whatever image it comes", async (t) => {
  const bench = new Bench(t);
  const first = await bench.import(bench.archive(layoutOf({ "": { layers: [LOWER] } }), "a.tar"));
  const files = layoutOf({ "": { layers: [{ ...LOWER, compression: "none" }, UPPER] } });
  const known = `blobs/sha256/${sha256(LOWER.tar)}`;
  t.ok(files.delete(known), "without its bytes");
  const second = await bench.import(bench.archive(files, "b.tar"));
  t.equal(second.layers[0]!, first.layers[0]!);
  t.equal(second.layers.length, 2);
  const again = new Bench(t);
  await t.rejects(again.import(bench.path("b.tar")), {
    code: "BURROW_BAD_ARCHIVE",
    message: "it is missing",
    context: { archive: "b.tar", entry: known },
  });
  t.same(again.believed(), [], "and a store without it keeps nothing");
});

test("the platform is picked, through nested indexes and past what is no image", async (t) => {
  const bench = new Bench(t);
  const files: Files = new Map();
  const arm = addImage(files, { layers: [LOWER], platform: { ...AMD64, architecture: "arm64" } });
  const v3 = addImage(files, { layers: [LOWER], config: { Cmd: ["v3"] } });
  const v1 = addImage(files, { layers: [LOWER], config: { Cmd: ["v1"] } });
  const later = addImage(files, { layers: [LOWER], config: { Cmd: ["later"] } });
  const missing = { ...arm, digest: `sha256:${"0".repeat(64)}` };
  const inner = {
    schemaVersion: 2,
    manifests: [
      { ...missing, platform: { os: "windows", architecture: "amd64" } },
      { ...missing, platform: { os: "unknown", architecture: "unknown" } },
      { ...arm, platform: { os: "linux", architecture: "arm64", variant: "v8" } },
      { ...v3, platform: { ...AMD64, variant: "v3" } },
      { ...v1, platform: AMD64 },
      { ...later, platform: AMD64 },
    ],
  };
  const nested = addBlob(files, Buffer.from(JSON.stringify(inner)), TYPES.index);
  const outer = { schemaVersion: 2, manifests: [nested] };
  const index = addBlob(files, Buffer.from(JSON.stringify(outer)), TYPES.index);
  const signature = addBlob(
    files,
    Buffer.from(
      JSON.stringify({
        schemaVersion: 2,
        config: addBlob(files, Buffer.from("{}"), "application/vnd.oci.empty.v1+json"),
        layers: [],
      }),
    ),
    TYPES.manifest,
  );
  const { image } = await bench.import(bench.archive(seal(files, [signature, index])));
  t.same(image!.config.defaults.cmd, ["v1"], "what runs everywhere, and the first of those");
  const only = bench.archive(seal(files, [arm]), "arm.tar");
  await t.rejects(bench.import(only), {
    code: "BURROW_UNSUPPORTED",
    message: "it has no image for linux/amd64, but for linux/arm64",
  });
  const none = bench.archive(seal(files, [signature]), "none.tar");
  await t.rejects(bench.import(none), { code: "BURROW_UNSUPPORTED", message: "it has no image" });
});

test("of several images one is named, by a name or a digest", async (t) => {
  const bench = new Bench(t);
  const images = {
    "x:1": { layers: [LOWER], config: { Cmd: ["1"] } },
    "x:2": { layers: [LOWER], config: { Cmd: ["2"] } },
  };
  for (const [form, files] of [
    ["oci", layoutOf(images)],
    ["docker", dockerOf(images)],
  ] as const) {
    const source = bench.archive(files, `${form}.tar`);
    await t.rejects(bench.import(source), { code: "BURROW_USAGE", message: /; it has x:1, x:2$/ });
    const { image } = await bench.import(source, { image: "x:2" });
    t.same(image!.config.defaults.cmd, ["2"], form);
    const same = await bench.import(source, { image: showDigest(image!.digest) });
    t.same(same.image!.config.defaults.cmd, ["2"], form);
    await t.rejects(bench.import(source, { image: "x:3" }), {
      code: "BURROW_NOT_FOUND",
      message: /no image x:3; it has x:1, x:2/,
    });
  }
});

test("docker's links between equal layers are followed within the archive", async (t) => {
  const bench = new Bench(t);
  const files = dockerOf({ "": { layers: [LOWER, LOWER] } });
  const places = [...files.keys()].filter((name) => name.endsWith("layer.tar"));
  const linked = [...files].map(([name, content]) => {
    if (name !== places[1]) return entry({ name, content });
    return entry({ name, type: "2", linkname: `../${places[0]}` });
  });
  fs.writeFileSync(bench.path("linked.tar"), tar(...linked));
  const { layers } = await bench.import(bench.path("linked.tar"));
  t.equal(layers.length, 2);
  const folder = bench.folder(files, "folder");
  fs.rmSync(path.join(folder, places[1]!));
  fs.symlinkSync(`../${places[0]}`, path.join(folder, places[1]!));
  t.equal((await new Bench(t).import(folder)).layers.length, 2, "in a directory, too");
});

test("what is no image stays a tree, and what is one can be taken for a tree", async (t) => {
  const bench = new Bench(t);
  const root = tar(dir("."), dir("blobs"), { name: "manifest.json", content: "[]" });
  fs.writeFileSync(bench.path("root.tar"), root);
  t.notOk((await bench.import(bench.path("root.tar"))).image);
  fs.writeFileSync(bench.path("mixed.tar"), tar({ name: "manifest.json", content: "{" }));
  t.notOk((await bench.import(bench.path("mixed.tar"))).image);
  const files = layoutOf({ "": IMAGE });
  const source = bench.archive(files);
  const { image, tree } = await bench.snapshot(source, { from: "tree" }).then((made) => ({
    image: made.imported.image,
    tree: made.tree,
  }));
  t.notOk(image);
  t.ok(tree.has("index.json"));
  const odd = bench.path("odd.tar");
  fs.writeFileSync(odd, tarOf(new Map([["README", Buffer.from("hello")], ...files])));
  t.notOk((await bench.import(odd)).image, "names that no image's tar has");
  t.ok((await bench.import(odd, { from: "oci" })).image, "unless it is said");
  await t.rejects(bench.import(bench.path("root.tar"), { from: "oci" }), {
    code: "BURROW_BAD_ARCHIVE",
    message: "it is missing",
    context: { entry: "oci-layout" },
  });
});

test("layers that the store has are not read past what can be merged", async (t) => {
  const bench = new Bench(t);
  const parts = ["a", "b", "c"].map((name) => layer({ name: `${name}1` }, { name: `${name}2` }));
  const { layers } = await bench.import(bench.archive(layoutOf({ "": { layers: parts } })));
  const store = await bench.store();
  t.equal((await readStack(store, layers, 6)).length, 3);
  const asked: string[] = [];
  const counting = {
    ...store,
    get: (name: string) => {
      asked.push(name);
      return store.get(name);
    },
  };
  const many = [...layers, ...layers, ...layers];
  await t.rejects(readStack(counting, many, 3), {
    code: "BURROW_BAD_INDEX",
    message: "2 of 9 layers have 4 entries, over 3",
  });
  t.equal(asked.length, 2, "the others are not read");
});
