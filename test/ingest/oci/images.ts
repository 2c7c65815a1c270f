// Images made in memory, sound or not, as layouts and as docker save writes them; and what they import to.

import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { gzipSync } from "node:zlib";
import type { Test } from "tap";
import type { Digest } from "../../../lib/base/digest.ts";
import type { ImageChoice, ImportedSource } from "../../../lib/cli/image.ts";
import { importSource, makeSnapshot } from "../../../lib/cli/layer.ts";
import { Progress } from "../../../lib/cli/output.ts";
import { readIndex } from "../../../lib/cli/read-index.ts";
import { entriesOf } from "../../../lib/layer/entries.ts";
import type { LayerEntry } from "../../../lib/layer/entry.ts";
import { KnownBlobs } from "../../../lib/store/known.ts";
import { openStore } from "../../../lib/store/open.ts";
import type { WritableBackend } from "../../../lib/store/store.ts";
import { type RawHeader, tar } from "../archives.ts";

export const TYPES = {
  index: "application/vnd.oci.image.index.v1+json",
  manifest: "application/vnd.oci.image.manifest.v1+json",
  config: "application/vnd.oci.image.config.v1+json",
  layer: "application/vnd.oci.image.layer.v1.tar",
};
export const AMD64 = { os: "linux", architecture: "amd64" };

export type Files = Map<string, Buffer>;
export type Descriptor = Record<string, unknown> & { digest: string; size: number };
type Compression = "none" | "gz" | "zst";

export interface LayerSpec {
  readonly tar: Buffer;
  readonly compression?: Compression;
  /** What the manifest says of it in place of the truth. */
  readonly claims?: Record<string, unknown>;
  /** What the config says of its plain tar. */
  readonly diffId?: string;
}

export interface ImageSpec {
  readonly layers: readonly LayerSpec[];
  /** Env and its like. */
  readonly config?: Record<string, unknown>;
  readonly platform?: Record<string, unknown>;
}

export function sha256(bytes: Buffer): string {
  return createHash("sha256").update(bytes).digest("hex");
}

export function json(value: unknown): Buffer {
  return Buffer.from(JSON.stringify(value));
}

/** A layer of entries. */
export function layer(...parts: (Buffer | RawHeader)[]): LayerSpec {
  return { tar: tar(...parts) };
}

/** Adds a blob under its name. */
export function addBlob(files: Files, bytes: Buffer, mediaType: string): Descriptor {
  files.set(`blobs/sha256/${sha256(bytes)}`, bytes);
  return { mediaType, digest: `sha256:${sha256(bytes)}`, size: bytes.length };
}

function packed(bytes: Buffer, compression: Compression): [Buffer, string] {
  if (compression === "none") return [bytes, TYPES.layer];
  if (compression === "gz") return [gzipSync(bytes), `${TYPES.layer}+gzip`];
  const { stdout, status } = spawnSync("zstd", ["-cq"], { input: bytes, maxBuffer: 1 << 28 });
  if (status !== 0) throw new Error("no zstd");
  return [stdout, `${TYPES.layer}+zstd`];
}

function configOf({ layers, config, platform = AMD64 }: ImageSpec): Buffer {
  const diffIds = layers.map(({ tar: bytes, diffId }) => diffId ?? `sha256:${sha256(bytes)}`);
  return json({ ...platform, config: config ?? {}, rootfs: { type: "layers", diff_ids: diffIds } });
}

/** Adds an image's blobs: the descriptor of its manifest. */
export function addImage(files: Files, image: ImageSpec): Descriptor {
  const layers = image.layers.map(({ tar: bytes, compression = "gz", claims }) => {
    return { ...addBlob(files, ...packed(bytes, compression)), ...claims };
  });
  const config = addBlob(files, configOf(image), TYPES.config);
  const manifest = { schemaVersion: 2, mediaType: TYPES.manifest, config, layers };
  return addBlob(files, json(manifest), TYPES.manifest);
}

/** Makes blobs into a layout by an index of them. */
export function seal(files: Files, manifests: readonly unknown[]): Files {
  files.set("oci-layout", json({ imageLayoutVersion: "1.0.0" }));
  files.set("index.json", json({ schemaVersion: 2, manifests }));
  return files;
}

/** A layout of images by their names; "" has none. */
export function layoutOf(images: Readonly<Record<string, ImageSpec>>): Files {
  const files: Files = new Map();
  const manifests = Object.entries(images).map(([name, image]) => ({
    ...addImage(files, image),
    ...(name === "" ? {} : { annotations: { "org.opencontainers.image.ref.name": name } }),
  }));
  return seal(files, manifests);
}

/** What docker save of old wrote. */
export function dockerOf(images: Readonly<Record<string, ImageSpec>>): Files {
  const files: Files = new Map();
  const manifest = Object.entries(images).map(([name, image], i) => {
    const config = configOf(image);
    files.set(`${sha256(config)}.json`, config);
    const layers = image.layers.map(({ tar: bytes, compression = "none" }, k) => {
      const place = `${sha256(Buffer.from(`${i}/${k}`))}/layer.tar`;
      files.set(place, packed(bytes, compression)[0]);
      return place;
    });
    const tags = name === "" ? null : [name];
    return { Config: `${sha256(config)}.json`, RepoTags: tags, Layers: layers };
  });
  files.set("manifest.json", json(manifest));
  return files;
}

export function tarOf(files: Files): Buffer {
  return tar(...[...files].map(([name, content]) => ({ name, content })));
}

/** A store of its own and a directory to put images in, gone with the test. */
export class Bench {
  readonly dir = fs.mkdtempSync(path.join(os.tmpdir(), "burrow-oci-"));
  #store: WritableBackend | undefined;

  constructor(t: Test) {
    t.teardown(() => fs.rmSync(this.dir, { recursive: true, force: true }));
  }

  path(name: string): string {
    return path.join(this.dir, name);
  }

  get storeDir(): string {
    return this.path("store");
  }

  async store(): Promise<WritableBackend> {
    this.#store ??= await openStore(this.storeDir);
    return this.#store;
  }

  /** Writes an image as a tar. */
  archive(files: Files, name = "image.tar"): string {
    fs.writeFileSync(this.path(name), tarOf(files));
    return this.path(name);
  }

  /** Writes an image as a directory. */
  folder(files: Files, name = "layout"): string {
    for (const [file, content] of files) {
      fs.mkdirSync(path.dirname(path.join(this.path(name), file)), { recursive: true });
      fs.writeFileSync(path.join(this.path(name), file), content);
    }
    return this.path(name);
  }

  async import(source: string, choice: ImageChoice = {}): Promise<ImportedSource> {
    const store = await this.store();
    const known = await KnownBlobs.load(store);
    return await importSource(store, known, source, new Progress(true, false), choice);
  }

  /** The snapshot of a source, and its entries by path. */
  async snapshot(
    source: string,
    choice: ImageChoice = {},
  ): Promise<{ digest: Digest; tree: Map<string, LayerEntry>; imported: ImportedSource }> {
    const imported = await this.import(source, choice);
    const store = await this.store();
    const digest = await makeSnapshot(store, await KnownBlobs.load(store), [imported]);
    const entries = [...entriesOf(await readIndex(store, digest))];
    return { digest, tree: new Map(entries.map((entry) => [entry.path, entry])), imported };
  }

  /** Objects of the store that something believes in. */
  believed(): string[] {
    return ["locators", "images", "imports"].flatMap((folder) => {
      const where = path.join(this.storeDir, folder);
      if (!fs.existsSync(where)) return [];
      return (fs.readdirSync(where, { recursive: true }) as string[])
        .filter((name) => fs.statSync(path.join(where, name)).isFile())
        .map((name) => `${folder}/${name}`);
    });
  }
}
