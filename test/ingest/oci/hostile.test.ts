// Owns: proof that an image that lies, is cut, leads astray or would not end is refused by name, and that nothing of it is believed in
// afterwards. Plane: control.
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { gzipSync } from "node:zlib";
import { type Test, test } from "tap";
import type { BurrowError } from "../../../lib/base/error.ts";
import type { ImageChoice } from "../../../lib/cli/image.ts";
import { type ImageLayerOptions, importImageLayer } from "../../../lib/ingest/oci/layer.ts";
import { openImage, readImage } from "../../../lib/ingest/oci/open.ts";
import { discardingSink } from "../../../lib/ingest/sink.ts";
import { END, entry, header, pax, type RawHeader, tar } from "../archives.ts";
import {
  AMD64,
  addBlob,
  addImage,
  Bench,
  type Descriptor,
  dockerOf,
  type Files,
  type ImageSpec,
  json,
  layer,
  layoutOf,
  seal,
  sha256,
  TYPES,
  tarOf,
} from "./images.ts";

const ONE = layer({ name: "f", content: "content\n" });
const ZEROS = "0".repeat(64);
const LONG_MS = 20_000;
const BAD = "BURROW_BAD_ARCHIVE";
const NOT = "BURROW_UNSUPPORTED";

/** What an import of it is refused with. Nothing of it may be believed in. */
async function refusal(
  t: Test,
  what: string,
  archive: Buffer | Files,
  choice: ImageChoice = {},
): Promise<BurrowError> {
  const bench = new Bench(t);
  const source = bench.path("image.tar");
  fs.writeFileSync(source, Buffer.isBuffer(archive) ? archive : tarOf(archive));
  const startedMs = performance.now();
  const error = await bench.snapshot(source, choice).then(
    () => t.fail(`${what}: it was taken`),
    (reason: BurrowError) => reason,
  );
  t.ok(performance.now() - startedMs < LONG_MS, `${what}: soon`);
  t.same(bench.believed(), [], `${what}: nothing is kept`);
  return error as BurrowError;
}

type Row = [what: string, files: Files, code: string, message: RegExp];

async function refuseAll(t: Test, rows: readonly Row[]): Promise<void> {
  for (const [what, files, code, message] of rows) {
    const error = await refusal(t, what, files);
    t.match(error, { code, message, context: { archive: /^image\.tar/ } }, what);
  }
}

/** A layout of one layer with something changed in its manifest's descriptor of it. */
function claiming(claims: Record<string, unknown>): Files {
  return layoutOf({ "": { layers: [{ ...ONE, claims }] } });
}

/** A layout whose index has these manifests over the blobs of a sound image. */
function indexed(change: (image: Descriptor, files: Files) => unknown[]): Files {
  const files: Files = new Map();
  const image = addImage(files, { layers: [ONE] });
  return seal(files, change(image, files));
}

/** A layout with a config of its own. */
function configured(config: unknown): Files {
  return indexed((_, files) => {
    const descriptor = addBlob(files, json(config), TYPES.config);
    const manifest = { schemaVersion: 2, config: descriptor, layers: [] };
    return [addBlob(files, json(manifest), TYPES.manifest)];
  });
}

const without = (files: Files, pattern: RegExp): Files =>
  new Map([...files].filter(([name]) => !pattern.test(name)));
const sound = () => layoutOf({ "": { layers: [ONE] } });
const packed = gzipSync(ONE.tar);
const layerBlob = `blobs/sha256/${sha256(packed)}`;

test("bytes that aren't what they are called are refused", async (t) => {
  const flipped = Buffer.from(packed);
  flipped[9]! ^= 1; // the operating system in gzip's header: the content stays
  const other = layer({ name: "f", content: "another\n" });
  const plain = layoutOf({ "": { layers: [{ ...ONE, compression: "none" }] } });
  const plainBlob = `blobs/sha256/${sha256(ONE.tar)}`;
  const swapped = (name: string, bytes: Buffer) => sound().set(name, bytes);
  const { digest } = claimed(sound());
  await refuseAll(t, [
    ["another byte", swapped(layerBlob, flipped), "BURROW_DIGEST_MISMATCH", /digest/],
    ["another content", plain.set(plainBlob, other.tar), "BURROW_DIGEST_MISMATCH", /digest/],
    ["a layer too long", swapped(layerBlob, Buffer.concat([packed, packed])), BAD, /should have/],
    ["a layer too short", swapped(layerBlob, packed.subarray(0, -1)), BAD, /should have/],
    ["a size that lies", claiming({ size: packed.length + 1 }), BAD, /should have/],
    [
      "another diff_id",
      layoutOf({ "": { layers: [{ ...ONE, diffId: `sha256:${ZEROS}` }] } }),
      "BURROW_DIGEST_MISMATCH",
      /digest/,
    ],
    [
      "another manifest",
      swapped(`blobs/sha256/${digest}`, Buffer.alloc(claimed(sound()).size, "{")),
      "BURROW_DIGEST_MISMATCH",
      /digest/,
    ],
    ["no layer", without(sound(), new RegExp(layerBlob)), BAD, /missing/],
    ["no manifest", without(sound(), new RegExp(digest)), BAD, /missing/],
    ["no index", without(sound(), /index\.json/), BAD, /missing/],
    ["a digest by another hash", claiming({ digest: `sha512:${ZEROS}${ZEROS}` }), NOT, /by sha512/],
    ["a digest that is none", claiming({ digest: "sha256:../../etc/passwd" }), BAD, /is none/],
    ["a digest in capitals", claiming({ digest: `sha256:${"A".repeat(64)}` }), BAD, /is none/],
  ]);
  const config = `${ZEROS}.json`;
  const docker = dockerOf({ "": { layers: [ONE] } });
  const bytes = [...docker].find(([name]) => /^[0-9a-f]{64}\.json$/.test(name))![1];
  const manifest = JSON.parse(docker.get("manifest.json")!.toString());
  const renamed = json([{ ...manifest[0], Config: config }]);
  docker.set(config, bytes).set("manifest.json", renamed);
  t.match(await refusal(t, "docker's config", docker), { code: "BURROW_DIGEST_MISMATCH" });
});

/** The hex and size of the only manifest. */
function claimed(files: Files): { digest: string; size: number } {
  const { manifests } = JSON.parse(files.get("index.json")!.toString());
  return { digest: manifests[0].digest.slice(7), size: manifests[0].size };
}

test("kinds of layers and documents that Burrow doesn't know are named", async (t) => {
  const type = (mediaType: string) => claiming({ mediaType });
  const xz = spawnSync("xz", ["-c"], { input: ONE.tar }).stdout;
  const xzFiles = indexed((_, files) => {
    const diffIds = [`sha256:${sha256(ONE.tar)}`];
    const config = json({ ...AMD64, rootfs: { type: "layers", diff_ids: diffIds } });
    const manifest = {
      schemaVersion: 2,
      config: addBlob(files, config, TYPES.config),
      layers: [addBlob(files, xz, TYPES.layer)],
    };
    return [addBlob(files, json(manifest), TYPES.manifest)];
  });
  await refuseAll(t, [
    ["encrypted", type(`${TYPES.layer}+gzip+encrypted`), NOT, /encrypted/],
    ["foreign", type("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"), NOT, /foreign/],
    [
      "not distributable",
      type("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"),
      NOT,
      /foreign/,
    ],
    ["a chart", type("application/vnd.cncf.helm.chart.content.v1.tar+gzip"), NOT, /unknown type/],
    ["by xz", xzFiles, NOT, /compressed by xz/],
    [
      "a layout of the future",
      sound().set("oci-layout", json({ imageLayoutVersion: "2.0.0" })),
      NOT,
      /version 2\.0\.0/,
    ],
    ["no manifests", indexed(() => []), NOT, /no image/],
    ["an index that is a list", sound().set("index.json", json([])), BAD, /no JSON object/],
    ["an index that is no JSON", sound().set("index.json", Buffer.from("{")), BAD, /no JSON/],
    ["manifests that are text", sound().set("index.json", json({ manifests: "x" })), BAD, /list/],
    ["a descriptor of nothing", indexed(() => [{}]), BAD, /lacks/],
    ["a negative size", indexed((image) => [{ ...image, size: -1 }]), BAD, /lacks/],
    [
      "a manifest of another type",
      indexed((image) => [
        { ...image, mediaType: "application/vnd.docker.distribution.manifest.v2+json" },
      ]),
      BAD,
      /not the manifest/,
    ],
    ["no rootfs", configured({ ...AMD64 }), BAD, /no JSON object/],
    [
      "a diff_id that is none",
      configured({ ...AMD64, rootfs: { type: "layers", diff_ids: ["md5:1"] } }),
      BAD,
      /diff_id/,
    ],
    [
      "more diff_ids than layers",
      configured({ ...AMD64, rootfs: { type: "layers", diff_ids: [`sha256:${ZEROS}`] } }),
      BAD,
      /0 layers, and its config 1/,
    ],
    ...["Env", "Cmd", "Entrypoint"].map((key): Row => {
      const rootfs = { type: "layers", diff_ids: [] };
      return [key, configured({ ...AMD64, rootfs, config: { [key]: [1] } }), BAD, /not a list/];
    }),
  ]);
});

test("absurd documents end at a bound", async (t) => {
  const filler = (count: number, item: unknown) => Array.from({ length: count }, () => item);
  const descriptor = { mediaType: TYPES.manifest, digest: `sha256:${ZEROS}`, size: 1 };
  const nest = (depth: number) =>
    indexed((image, files) => {
      let inner: Descriptor = image;
      for (let i = 0; i < depth; i++) {
        inner = addBlob(files, json({ schemaVersion: 2, manifests: [inner] }), TYPES.index);
      }
      return [inner];
    });
  // Each index names the next one many times: without a bound 64^4 documents.
  const fan = indexed((_, files) => {
    let inner = addBlob(files, json({ schemaVersion: 2, manifests: [] }), TYPES.index);
    for (let i = 0; i < 3; i++) {
      const manifests = filler(64, inner);
      inner = addBlob(files, json({ schemaVersion: 2, manifests }), TYPES.index);
    }
    return filler(64, inner);
  });
  const loop = indexed((_, files) => {
    // No index can name itself by its digest; one that claims to is told by its bytes.
    const self = { mediaType: TYPES.index, digest: `sha256:${ZEROS}`, size: 0 };
    let bytes = json({ schemaVersion: 2, manifests: [self] });
    bytes = json({ schemaVersion: 2, manifests: [{ ...self, size: bytes.length }] });
    files.set(`blobs/sha256/${ZEROS}`, bytes);
    return [{ ...self, size: bytes.length }];
  });
  const manyLayers = indexed((_, files) => {
    const diffIds = filler(600, `sha256:${ZEROS}`);
    const config = json({ ...AMD64, rootfs: { type: "layers", diff_ids: diffIds } });
    const layers = filler(600, { ...descriptor, mediaType: TYPES.layer });
    const manifest = { schemaVersion: 2, config: addBlob(files, config, TYPES.config), layers };
    return [addBlob(files, json(manifest), TYPES.manifest)];
  });
  await refuseAll(t, [
    ["indexes in indexes", nest(6), BAD, /over 4 deep/],
    ["indexes without end", fan, BAD, /over 512 documents/],
    ["an index that names itself", loop, "BURROW_DIGEST_MISMATCH", /digest/],
    ["2,000 manifests", indexed(() => filler(2_000, descriptor)), BAD, /over 1024 members/],
    ["600 layers", manyLayers, BAD, /over 512 members/],
    [
      "a document of 5 MiB",
      sound().set("index.json", Buffer.alloc(5 << 20, " ")),
      BAD,
      /over 4194304/,
    ],
    ["brackets without end", sound().set("index.json", Buffer.alloc(4 << 20, "[")), BAD, /no JSON/],
  ]);
  t.match(await refusal(t, "three are fine", nest(3), { image: "none" }), {
    code: "BURROW_NOT_FOUND",
  });
});

test("names and links lead nowhere but into the image", async (t) => {
  const secret = new Bench(t);
  fs.writeFileSync(secret.path("secret"), ONE.tar);
  const image = { layers: [ONE] };
  const docker = dockerOf({ "": image });
  const place = [...docker.keys()].find((name) => name.endsWith("/layer.tar"))!;
  const naming = (layers: string) => {
    const manifest = JSON.parse(docker.get("manifest.json")!.toString());
    return new Map(docker).set("manifest.json", json([{ ...manifest[0], Layers: [layers] }]));
  };
  await refuseAll(t, [
    ["..", naming(`../${path.basename(secret.dir)}/secret`), BAD, /has "\.\."/],
    ["absolute", naming(secret.path("secret")), BAD, /absolute/],
    ["not plain", naming(`./${place}`), BAD, /not plain/],
    ["nothing", naming(""), BAD, /not plain/],
  ]);
  const linking = (raw: Partial<RawHeader>) => {
    const parts = [...docker].map(([name, content]) =>
      entry(name === place ? { name, ...raw } : { name, content }),
    );
    return tar(...parts);
  };
  const explicit = { from: "docker-archive" } as const;
  for (const [what, raw, message] of [
    ["out by a symlink", { type: "2", linkname: "../../secret" }, /leads out/],
    ["out by an absolute one", { type: "2", linkname: secret.path("secret") }, /leads out/],
    ["out by a hard link", { type: "1", linkname: "../secret" }, /leads out/],
    ["in a circle", { type: "2", linkname: "layer.tar" }, /circles/],
    ["to nothing", { type: "2", linkname: "../gone" }, /missing/],
    ["a device", { type: "3" }, /of a type/],
  ] as [string, Partial<RawHeader>, RegExp][]) {
    t.match(await refusal(t, what, linking(raw), explicit), { code: BAD, message }, what);
  }
  const bench = new Bench(t);
  const folder = bench.folder(docker);
  const file = path.join(folder, place);
  for (const [what, make, message] of [
    ["a symlink", () => fs.symlinkSync(secret.path("secret"), file), /lead out/],
    ["a circle", () => fs.symlinkSync("layer.tar", file), /circles/],
    ["a FIFO", () => spawnSync("mkfifo", [file]), /no plain file/],
    ["a directory", () => fs.mkdirSync(file), /no plain file/],
  ] as [string, () => void, RegExp][]) {
    fs.rmSync(file, { recursive: true, force: true });
    make();
    await t.rejects(bench.import(folder), { code: BAD, message }, `in a directory: ${what}`);
  }
  t.same(bench.believed(), []);
});

test("the outer tar is judged, too", async (t) => {
  const files = [...sound()].map(([name, content]) => entry({ name, content }));
  const whole = Buffer.concat([...files, END]);
  const oci = { from: "oci" } as const;
  const cases: [string, Buffer, RegExp][] = [
    ["a member twice", Buffer.concat([files[0]!, ...files, END]), /twice/],
    ["no end", Buffer.concat(files), /end mark/],
    ["cut in a member", whole.subarray(0, 700), /cut/],
    ["cut in a header", whole.subarray(0, 300), /cut/],
    ["no tar", Buffer.alloc(2_048, "x"), /checksum/],
    ["..", Buffer.concat([entry({ name: "../x" }), ...files, END]), /has "\.\."/],
    ["a PAX path", Buffer.concat([pax({ path: "/x" }), ...files, END]), /absolute/],
    ["a PAX size", Buffer.concat([pax({ size: "9e9" }), ...files, END]), /no number/],
    ["a PAX header for all", Buffer.concat([pax({ path: "x" }, "g"), ...files, END]), /kind/],
    ["sparse", Buffer.concat([pax({ "GNU.sparse.major": "1" }), ...files, END]), /kind/],
    ["past the end", Buffer.concat([header({ name: "x", size: 1 << 30 }), END]), /cut/],
    [
      "a size of 2^60",
      Buffer.concat([header({ name: "x", size: "\x80\0\0\0\x10\0\0\0\0\0\0\0" }), END]),
      /no number/,
    ],
    [
      "a long name without end",
      Buffer.concat([header({ name: "x", type: "L", size: 5_000 }), Buffer.alloc(8_192), END]),
      /extended header/,
    ],
    ["damaged PAX", Buffer.concat([entry({ name: "p", type: "x", content: "9 x" }), END]), /PAX/],
  ];
  for (const [what, bytes, message] of cases) {
    t.match(await refusal(t, what, bytes, oci), { code: BAD, message }, what);
  }
  for (const choice of [oci, {}]) {
    const error = await refusal(t, "compressed", gzipSync(whole), choice);
    t.match(error, { code: NOT, message: /decompress the archive first/ });
  }
  // Cut anywhere it is refused, whether it is still known for an image or taken for a tree.
  for (let length = 0; length < whole.length - END.length; length += 509) {
    t.equal((await refusal(t, `cut at ${length}`, whole.subarray(0, length))).code, BAD);
  }
});

test("layers are judged as tars are", async (t) => {
  const of = (...parts: (Buffer | RawHeader)[]): ImageSpec => ({ layers: [layer(...parts)] });
  const cases: [string, ImageSpec, RegExp][] = [
    ["..", of({ name: "a/../../x" }), /has "\.\."/],
    ["a hard link out", of({ name: "h", type: "1", linkname: "../x" }), /has "\.\."/],
    ["through a symlink", of({ name: "l", type: "2", linkname: "/" }, { name: "l/x" }), /symlink/],
    ["twice", of({ name: "f", content: "a" }, { name: "/f", content: "b" }), /twice/],
    ["a whiteout of ..", of({ name: "a/.wh..." }), /whiteout of a name/],
    ["cut", { layers: [{ tar: entry({ name: "f", content: "x" }) }] }, /cut/],
    ["no tar", { layers: [{ tar: Buffer.alloc(2_048, "x") }] }, /no good tar/],
  ];
  for (const [what, image, message] of cases) {
    t.match(await refusal(t, what, layoutOf({ "": image })), { code: BAD, message }, what);
  }
  const trailing = Buffer.concat([packed, Buffer.from("trailing")]);
  const files = indexed((_, all) => {
    const diffIds = [`sha256:${sha256(ONE.tar)}`];
    const config = json({ ...AMD64, rootfs: { type: "layers", diff_ids: diffIds } });
    const layers = [addBlob(all, trailing, `${TYPES.layer}+gzip`)];
    const manifest = { schemaVersion: 2, config: addBlob(all, config, TYPES.config), layers };
    return [addBlob(all, json(manifest), TYPES.manifest)];
  });
  t.match(await refusal(t, "bytes after the gzip", files), { code: BAD });
  // The first layer is sound and stays, as a layer; nothing says that the image was imported.
  const half = new Bench(t);
  const second = layoutOf({ "": { layers: [ONE, of({ name: "../x" }).layers[0]!] } });
  await t.rejects(half.snapshot(half.archive(second)), { code: BAD });
  t.same(
    half
      .believed()
      .map((name) => name.split("/")[0])
      .sort(),
    ["imports", "locators"],
  );
});

test("bombs end at the bound, in gzip and in zstd", async (t) => {
  const zeros = Buffer.alloc(128 << 20);
  const bomb = Buffer.concat([header({ name: "zeros", size: zeros.length }), zeros, END]);
  for (const compression of ["gz", "zst"] as const) {
    const bench = new Bench(t);
    const source = bench.archive(layoutOf({ "": { layers: [{ tar: bomb, compression }] } }));
    const opened = await openImage(source, "bomb");
    await using files = opened!.files;
    const image = await readImage(files, "oci");
    let taken = 0;
    const inner = discardingSink();
    const sink: ImageLayerOptions["sink"] = {
      ...inner,
      addStream: (chunks, size) => inner.addStream(counted(chunks), size),
    };
    async function* counted(chunks: AsyncIterable<Uint8Array>) {
      for await (const chunk of chunks) {
        taken += chunk.length;
        yield chunk;
      }
    }
    const options = { sink, maxBytes: 16 << 20 };
    await t.rejects(importImageLayer(files, image.layers[0]!, options), { code: BAD }, compression);
    t.ok(taken <= 16 << 20, "no more than the bound was read");
  }
});
