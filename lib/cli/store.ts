// burrow store stats: what a store holds, and by which means it takes less than the content of its layers. Control plane.

import type { Command } from "commander";
import type { Digest } from "../base/digest.ts";
import { S_IFMT, S_IFREG } from "../base/file-types.ts";
import { IndexKind, Inode } from "../layer/format.ts";
import type { Index } from "../layer/index.ts";
import { DELTA_FOLDERS, type DeltaStore, deltaOf, deltaPath } from "../store/deltas.ts";
import { readLocator } from "../store/known.ts";
import { digestOfPath, type Folder } from "../store/layout.ts";
import type { Locator } from "../store/locator.ts";
import type { WritableBackend } from "../store/store.ts";
import { type Bytes, blobsOf, type StoredBlob, type StoredChunk, totalOf } from "./content.ts";
import { addListedOptions, type Context, contextOf } from "./context.ts";
import { listedStore } from "./digests.ts";
import { counted, Progress, type ProgressLine, print, showBytes, table } from "./output.ts";
import { readIndex } from "./read-index.ts";
import { addStoreCheck } from "./store-check.ts";
import { addStoreGc } from "./store-gc.ts";
import { addStorePins } from "./store-pins.ts";
import { addStoreRepack } from "./store-repack.ts";
import { addStoreVerify } from "./store-verify.ts";

const EXAMPLES = `
Of an environment under another prefix, what differs from the first one alone is kept: "indexes and
locators made of deltas" and "chunks of files" say what these would take whole (chunks: as content).
"content of layers" counts every file of every layer, and of a snapshot what no layer has. "equal
blocks" are blocks of 256 KiB in distinct files over 1 MiB that are there more than once: the store
keeps each of them.

Examples:
  burrow store stats --store /srv/store
  burrow store stats --json`;

export function addStore(program: Command): void {
  const store = program.command("store").description("inspect, check and collect stores");
  addListedOptions(store.command("stats"))
    .description("show what a store holds, and what was saved by which means")
    .addHelpText("after", EXAMPLES)
    .action(async (options) => {
      await showStats(contextOf(options));
    });
  addStoreCheck(store);
  addStoreVerify(store);
  addStoreGc(store);
  addStoreRepack(store);
  addStorePins(store);
}

/** An index and the locator that makes it believed; an import that was cut short left none. */
interface Published {
  readonly index: Index;
  readonly locator: Locator;
}

async function publishedOf(store: WritableBackend, progress: ProgressLine): Promise<Published[]> {
  const published: Published[] = [];
  for await (const path of store.list("locators")) {
    const digest = digestOfPath(path);
    if (digest === undefined) continue;
    const locator = await readLocator(store, digest);
    published.push({ index: await readIndex(store, digest), locator });
    progress.update(`read ${counted(published.length, "index", "indexes")}`);
  }
  return published;
}

interface OnDisk {
  readonly count: number;
  readonly bytes: number;
}

/** Objects in a folder of the store, by path, with the bytes they take there. */
async function objectsOf(store: WritableBackend, folder: string): Promise<Map<string, number>> {
  const objects = new Map<string, number>();
  for await (const { path, bytes } of store.sizes(folder)) objects.set(path, bytes);
  return objects;
}

function onDisk(objects: ReadonlyMap<string, number>): OnDisk {
  let bytes = 0;
  for (const each of objects.values()) bytes += each;
  return { count: objects.size, bytes };
}

interface Deltas extends OnDisk {
  /** Bytes of what they make. */
  readonly madeBytes: number;
}

/** Deltas that are what readers get: of an object that is there whole, too, the delta is only left over. */
async function deltasOf({ whole }: DeltaStore): Promise<Deltas> {
  let madeBytes = 0;
  let objects = new Map<string, number>();
  for (const folder of DELTA_FOLDERS) {
    const there = await objectsOf(whole, deltaPath(folder));
    for (const path of there.keys()) {
      const made = path.slice(deltaPath("").length);
      if (!(await whole.has(made))) madeBytes += (await deltaOf(whole, made))?.madeBytes ?? 0;
    }
    objects = new Map([...objects, ...there]);
  }
  return { ...onDisk(objects), madeBytes };
}

/** Bytes of an index's regular files, hard links once. */
function fileBytes(index: Index): number {
  let bytes = 0;
  for (let ino = 1; ino <= index.inodeCount; ino++) {
    const row = index.row(ino);
    if ((index.field(row, Inode.mode) & S_IFMT) === S_IFREG) bytes += index.sizeAt(row);
  }
  return bytes;
}

/** What all indexes hold together. */
interface Holdings {
  layers: number;
  snapshots: number;
  contentBytes: number;
  /** Each in the first place that is found. */
  readonly blobs: Map<Digest, StoredBlob>;
  /** Packs that hold any of it. */
  readonly packs: Set<string>;
}

function addBlob({ blobs, packs }: Holdings, blob: StoredBlob): void {
  if (!blobs.has(blob.digest)) blobs.set(blob.digest, blob);
  for (const { pack } of blob.chunks) packs.add(pack);
}

function holdingsOf(published: readonly Published[]): Holdings {
  const holdings: Holdings = {
    layers: 0,
    snapshots: 0,
    contentBytes: 0,
    blobs: new Map(),
    packs: new Set(),
  };
  for (const { index, locator } of published) {
    if (index.kind !== IndexKind.layer) continue;
    holdings.layers++;
    holdings.contentBytes += fileBytes(index);
    for (const blob of blobsOf(index, locator)) addBlob(holdings, blob);
  }
  const inLayers = new Set(holdings.blobs.keys());
  for (const { index, locator } of published) {
    if (index.kind !== IndexKind.snapshot) continue;
    holdings.snapshots++;
    for (const blob of blobsOf(index, locator)) {
      addBlob(holdings, blob);
      if (!inLayers.has(blob.digest)) holdings.contentBytes += blob.rawBytes;
    }
  }
  return holdings;
}

/** Chunks by where they are, and those whose content an earlier one has. */
function chunksOf(blobs: Iterable<StoredBlob>): { all: StoredChunk[]; equal: StoredChunk[] } {
  const places = new Map<string, StoredChunk>();
  for (const { chunks } of blobs)
    for (const chunk of chunks) places.set(`${chunk.pack} ${chunk.offset}`, chunk);
  const all = [...places.values()];
  const seen = new Set<Digest>();
  const equal = all.filter(({ digest }) => seen.size === seen.add(digest).size);
  return { all, equal };
}

interface Stats {
  readonly layers: number;
  readonly snapshots: number;
  readonly environments: number;
  readonly blobs: number;
  readonly chunks: number;
  readonly contentBytes: number;
  /** Distinct files: as content, as stored. */
  readonly distinct: Bytes;
  readonly saved: { readonly byFileBytes: number; readonly byCompressionBytes: number };
  /** Not saved: the second and later of equal blocks. */
  readonly equalBlocks: Bytes & { readonly count: number };
  readonly disk: Readonly<Record<Exclude<Folder, "pins">, OnDisk>> & { readonly deltas: Deltas };
  /** Chunks of distinct files that are stored as what differs from others. */
  readonly deltaChunks: Bytes & { readonly count: number };
  /** Packs that no index needs: left by an import that was cut short. */
  readonly unnamedPacks: OnDisk;
}

async function statsOf(store: DeltaStore, progress: ProgressLine): Promise<Stats> {
  const held = holdingsOf(await publishedOf(store, progress));
  const { layers, snapshots, contentBytes, blobs } = held;
  const { all, equal } = chunksOf(blobs.values());
  const deltas = all.filter(({ isDelta }) => isDelta);
  const distinct = totalOf(blobs.values());
  const packs = await objectsOf(store, "packs");
  const unnamed = [...packs].filter(([path]) => !held.packs.has(digestOfPath(path) ?? ""));
  const disk = {
    packs: onDisk(packs),
    indexes: onDisk(await objectsOf(store, "indexes")),
    locators: onDisk(await objectsOf(store, "locators")),
    environments: onDisk(await objectsOf(store, "environments")),
    images: onDisk(await objectsOf(store, "images")),
    profiles: onDisk(await objectsOf(store, "profiles")),
    deltas: await deltasOf(store),
  };
  return {
    layers,
    snapshots,
    environments: disk.environments.count,
    blobs: blobs.size,
    chunks: all.length,
    contentBytes,
    distinct,
    saved: {
      byFileBytes: contentBytes - distinct.rawBytes,
      byCompressionBytes: distinct.rawBytes - distinct.storedBytes,
    },
    equalBlocks: { count: equal.length, ...totalOf(equal) },
    deltaChunks: { count: deltas.length, ...totalOf(deltas) },
    disk,
    unnamedPacks: onDisk(new Map(unnamed)),
  };
}

async function showStats(context: Context): Promise<void> {
  const progress = new Progress(false, context.isJson);
  const stats = await statsOf(await listedStore(context), progress);
  progress.end();
  print(context.isJson, stats, textOf(stats));
}

function textOf(stats: Stats): string {
  const { distinct, saved, equalBlocks, disk, unnamedPacks } = stats;
  const { packs, indexes, locators, deltas } = disk;
  const counts = [
    `layers ${stats.layers}, snapshots ${stats.snapshots}, environments ${stats.environments}`,
    `distinct files ${stats.blobs}, in ${counted(stats.chunks, "chunk")} of ${counted(packs.count, "pack")}`,
  ];
  const rows = [
    ["", "bytes", "saved"],
    ["content of layers", showBytes(stats.contentBytes), ""],
    ["distinct files", showBytes(distinct.rawBytes), showBytes(saved.byFileBytes)],
    ["compressed", showBytes(distinct.storedBytes), showBytes(saved.byCompressionBytes)],
  ];
  const kept = `${equalBlocks.count}, ${showBytes(equalBlocks.rawBytes)}, stored as ${showBytes(equalBlocks.storedBytes)}`;
  const sizes = [packs, indexes, locators].map(({ bytes }) => showBytes(bytes));
  const lines = [
    ...counts,
    table(rows),
    `equal blocks, not shared: ${kept}`,
    `on disk: packs ${sizes[0]}, indexes ${sizes[1]}, locators ${sizes[2]}`,
  ];
  if (deltas.count > 0) {
    const [took, made] = [showBytes(deltas.bytes), showBytes(deltas.madeBytes)];
    lines.push(`indexes and locators made of deltas: ${deltas.count}, ${made}, stored as ${took}`);
  }
  if (stats.deltaChunks.count > 0) {
    const { count, rawBytes, storedBytes } = stats.deltaChunks;
    lines.push(
      `chunks of files made of deltas: ${count}, ${showBytes(rawBytes)}, stored as ${showBytes(storedBytes)}`,
    );
  }
  if (unnamedPacks.count > 0) {
    const bytes = showBytes(unnamedPacks.bytes);
    lines.push(`packs that no index needs: ${unnamedPacks.count}, ${bytes}`);
  }
  return lines.join("\n");
}
