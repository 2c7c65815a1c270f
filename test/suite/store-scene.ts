// Owns: what tests of a store's collection share: a store in memory whose clock is the test's, as each of several actors sees it;
// environments written into it as the commands do; and a reader who finds whatever is missing. Plane: control.

import type { BlobRef } from "../../lib/base/blob.ts";
import { type Digest, parseDigest, showDigest } from "../../lib/base/digest.ts";
import { openPiece, pieceAt, pieceCount, type StoredPiece } from "../../lib/cache/pieces.ts";
import { PREFIX_XATTR } from "../../lib/cli/env-root.ts";
import { findImport, noteImport, writeEnvironment } from "../../lib/cli/environment.ts";
import { surveyPorts } from "../../lib/cli/store-roots.ts";
import { noteMade, openNear } from "../../lib/ingest/near-index.ts";
import type { LayerEntry } from "../../lib/layer/entry.ts";
import { IndexKind } from "../../lib/layer/format.ts";
import { Index } from "../../lib/layer/index.ts";
import { layerOf, mergeIndexes } from "../../lib/layer/merge.ts";
import { writeIndex } from "../../lib/layer/writer.ts";
import { baseOfChunk } from "../../lib/store/codec.ts";
import { type DeltaStore, resolvingStore } from "../../lib/store/deltas.ts";
import { withLease } from "../../lib/store/garbage.ts";
import { type Collected, type CollectOptions, collect } from "../../lib/store/gc.ts";
import { readLocator } from "../../lib/store/known.ts";
import { digestOfPath, objectPath } from "../../lib/store/layout.ts";
import type { Clock } from "../../lib/store/lease.ts";
import { memoryBackend } from "../../lib/store/memory.ts";
import { openPackWriter } from "../../lib/store/pack-writer.ts";
import type { SizedObject, WritableBackend } from "../../lib/store/store.ts";
import { verified } from "../../lib/store/verify.ts";
import { entriesOf, noise } from "./daemon-node.ts";

/** Nothing but the store: no mounts. */
export const PORTS = surveyPorts({ state: "/nonexistent", cache: "", store: "", isJson: false });

/** Called before each call of an actor; what it throws is the call's failure, and the call is not made. */
export type Hook = (call: string, path: string) => Promise<void> | void;

/**
 * Of an actor that is killed before its change number `at`, from 0: from there on none is made, as of a process that is gone; between two,
 * calls leave the store as it is. `isReached`: whether there was such a change.
 */
export function dyingAt(at: number): { hook: Hook; isReached(): boolean } {
  let calls = 0;
  return {
    hook: (call) => {
      const isChange = call === "put" || call === "remove";
      if ((isChange && calls++ >= at) || calls > at) throw new Error("killed");
    },
    isReached: () => calls > at,
  };
}

/** One store, its time, and who uses it. */
export class Scene {
  /** The store's time: a tick for each put. */
  nowMs = 1_000_000_000_000;
  readonly #inner = memoryBackend();
  readonly #times = new Map<string, number>();

  /** Another store with the same objects and time. */
  async copy(): Promise<Scene> {
    const made = new Scene();
    made.nowMs = this.nowMs;
    for (const path of await this.paths()) {
      await made.#inner.put(path, await this.#inner.get(path));
      made.#times.set(path, this.#times.get(path)!);
    }
    return made;
  }

  /** The store as one actor sees it. */
  backend(hook: Hook = () => undefined): WritableBackend {
    const inner = this.#inner;
    const bare: WritableBackend = {
      origin: "memory:",
      get: async (path, options) => {
        await hook("get", path);
        return await inner.get(path, options);
      },
      has: async (path) => {
        await hook("has", path);
        return await inner.has(path);
      },
      put: async (path, bytes) => {
        await hook("put", path);
        this.#times.set(path, this.nowMs++);
        await inner.put(path, bytes);
      },
      remove: async (path) => {
        await hook("remove", path);
        await inner.remove(path);
      },
      list: (folder) => this.#list(folder, hook),
      sizes: (folder) => this.#sizes(folder, hook),
      close() {},
    };
    return { ...bare, ...verified(bare) };
  }

  store(hook?: Hook): DeltaStore {
    return resolvingStore(this.backend(hook));
  }

  clock(sleep: () => Promise<void> = async () => {}): Clock {
    const pause = async (ms: number) => {
      this.nowMs += ms;
      await sleep();
    };
    return { now: () => this.nowMs, sleep: pause };
  }

  /** A writer's work, under its lease. */
  write<T>(
    work: (store: DeltaStore) => Promise<T>,
    hook?: Hook,
    sleep?: () => Promise<void>,
  ): Promise<T> {
    return withLease(this.backend(hook), "a writer", work, this.clock(sleep));
  }

  collect(options: Partial<CollectOptions> = {}, hook?: Hook): Promise<Collected> {
    const all = { keepMs: 0, isAll: false, isRepacking: false, clock: this.clock() };
    return collect(this.store(hook), PORTS, { ...all, ...options });
  }

  /** The paths of all objects. */
  async paths(...folders: readonly string[]): Promise<string[]> {
    const found: string[] = [];
    const all = [
      "collectors",
      "deltas",
      "environments",
      "garbage",
      "holds",
      "images",
      "imports",
      "indexes",
      "leases",
      "locators",
      "near",
      "packs",
      "pins",
    ];
    for (const folder of folders.length > 0 ? folders : all)
      for await (const path of this.#inner.list(folder)) found.push(path);
    return found.sort();
  }

  async *#list(folder: string, hook: Hook): AsyncIterable<string> {
    for await (const { path } of this.#sizes(folder, hook)) yield path;
  }

  async *#sizes(folder: string, hook: Hook): AsyncIterable<SizedObject> {
    await hook("list", folder);
    const found: SizedObject[] = [];
    for await (const { path, bytes } of this.#inner.sizes(folder))
      found.push({ path, bytes, modifiedMs: this.#times.get(path) ?? 0 });
    yield* found;
  }
}

/** A package under test: its files by name. */
export type Package = Readonly<Record<string, Buffer>>;

/** Packages share files where their seeds are the same: each has some small files, and one of its own. */
export function packageOf(...seeds: readonly number[]): Package {
  return Object.fromEntries(seeds.map((seed) => [`file${seed}`, noise(3_000 + seed, seed)]));
}

/** Writes an environment as the commands do: a layer a package, with its note, then a snapshot, then its document. */
export async function makeEnvironment(
  store: DeltaStore,
  packages: Readonly<Record<string, Package>>,
  prefix = "/opt/env",
): Promise<Digest> {
  const layers: Digest[] = [];
  for (const [name, files] of Object.entries(packages)) {
    const key = [name, prefix];
    const found = await findImport(store, key);
    layers.push(found?.layer ?? (await makeLayer(store, key, prefix, name, files)));
  }
  const indexes = await Promise.all(
    layers.map(async (layer) => new Index(await store.get(objectPath("indexes", layer)))),
  );
  const nearKey = ["environment", ...Object.keys(packages)];
  const near = await openNear(store, nearKey);
  const writer = await openPackWriter(store, { near });
  const merged = mergeIndexes([...indexes, layerOf([rootOf(prefix)])]);
  const { digest } = await writer.writeSnapshot(merged, layers);
  await noteMade(store, nearKey, near, digest);
  await writeEnvironment(store, digest, {
    format: 1,
    prefix,
    python: null,
    packages: Object.keys(packages).map((name, i) => {
      const plain = { version: "1", build: "0", subdir: "noarch", url: "", sha256: "" };
      return { name, ...plain, layer: showDigest(layers[i]!) };
    }),
    clobbers: [],
  });
  return digest;
}

async function makeLayer(
  store: DeltaStore,
  key: readonly string[],
  prefix: string,
  name: string,
  files: Package,
): Promise<Digest> {
  const near = await openNear(store, [name]);
  const writer = await openPackWriter(store, { near });
  const refs = new Map<string, BlobRef>();
  for (const [file, bytes] of Object.entries(files)) {
    const path = `${name}-${file}`;
    refs.set(path, await writer.addBytes(Buffer.concat([bytes, Buffer.from(prefix)]), path));
  }
  const { digest } = await writer.finish(writeIndex(IndexKind.layer, entriesOf(refs)));
  await noteMade(store, [name], near, digest);
  await noteImport(store, key, digest, { name });
  return digest;
}

function rootOf(prefix: string): LayerEntry {
  const plain = { mode: 0o755, uid: 0, gid: 0, mtimeSec: 0, mtimeNs: 0 };
  return { type: "directory", path: "", ...plain, xattrs: new Map([[PREFIX_XATTR, prefix]]) };
}

/** Takes an environment's name away. */
export async function forget(store: DeltaStore, snapshot: Digest): Promise<void> {
  await store.remove(objectPath("environments", snapshot));
}

/** Reads all that is believed: environments, pins and what notes lead to. What can't be had, with its reason. */
export async function broken(scene: Scene): Promise<string[]> {
  const store = scene.store();
  const wrong: string[] = [];
  const believed = new Set<Digest>();
  for (const folder of ["environments", "pins"])
    for await (const path of store.list(folder)) believed.add(digestOfPath(path)!);
  // Who deduplicates believes whatever has a locator.
  for await (const path of store.list("locators")) believed.add(digestOfPath(path)!);
  for await (const path of store.list("near")) {
    const { near } = JSON.parse((await store.get(path)).toString()) as { near: string };
    const digest = parseDigest(near)!;
    if (await store.whole.has(objectPath("locators", digest))) believed.add(digest);
  }
  for (const digest of believed) {
    try {
      await readAll(store, digest);
    } catch (error) {
      wrong.push(`${digest.slice(0, 8)}: ${String(error)}`);
    }
  }
  return wrong;
}

/** Every file of a layer or snapshot, each chunk verified. Throws what is wrong. */
export async function readAll(store: DeltaStore, digest: Digest): Promise<void> {
  const index = new Index(await store.get(objectPath("indexes", digest)));
  const locator = await readLocator(store, digest);
  const stored = async (path: string, offset: number, length: number) =>
    await store.get(path, { range: { offset, length } });
  for (let row = 0; row < index.blobCount; row++) {
    const size = index.blobSize(row);
    const blob = index.blobDigest(row);
    for (let k = 0; size > 0 && k < pieceCount(size); k++) {
      const piece = pieceAt(locator, blob, size, k);
      const sender = { name: "the store", blame: () => undefined };
      let got: StoredPiece = {
        stored: await stored(piece.path, piece.offset, piece.stored),
        sender,
      };
      const near = baseOfChunk(piece.codec, got.stored);
      if (near !== undefined) {
        const base = locator.chunkAt(locator.find(near), k);
        const basePiece = { ...base, path: objectPath("packs", base.pack) };
        const bytes = await stored(basePiece.path, base.offset, base.stored);
        got = { ...got, base: { piece: basePiece, stored: bytes } };
      }
      openPiece(piece, got, index.blockCount(row) === 0 ? blob : index.blockDigest(row, k));
    }
  }
}
