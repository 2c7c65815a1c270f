// burrow layer import | show | ls: directories, tars and Debian packages into layers of a store. Control plane.

import { createHash } from "node:crypto";
import { createReadStream, statSync } from "node:fs";
import { basename, resolve } from "node:path";
import type { Command } from "commander";
import { type Digest, parseDigest, showDigest } from "../base/digest.ts";
import { BurrowError } from "../base/error.ts";
import { showName } from "../base/name.ts";
import { importDeb } from "../ingest/deb.ts";
import { importDirectory } from "../ingest/dir.ts";
import { importTar } from "../ingest/tar.ts";
import type { LayerEntry } from "../layer/entry.ts";
import { IndexKind } from "../layer/format.ts";
import { faultOf, Index } from "../layer/index.ts";
import { entriesOf, mergeLayers } from "../layer/merge.ts";
import { writeIndex } from "../layer/writer.ts";
import { KnownBlobs } from "../store/known.ts";
import { objectPath } from "../store/layout.ts";
import { openOrigin, openStore } from "../store/open.ts";
import { openPackWriter, type PackWriter } from "../store/pack-writer.ts";
import { type Backend, classOf, type WritableBackend } from "../store/store.ts";
import { addCommonOptions, type Context, contextOf } from "./context.ts";
import { findDigest, listedStore } from "./digests.ts";
import { findImport, noteImport } from "./environment.ts";
import { Progress, print, showBytes, table } from "./output.ts";
import { type WheelTarget, wheelEntries, wheelKey } from "./wheel.ts";

interface ImportOptions {
  snapshot?: boolean;
  mergedUsr?: boolean;
  quiet?: boolean;
  python?: string;
  prefix?: string;
}

export function addLayer(program: Command): void {
  const layer = program.command("layer").description("make and inspect layers");
  addCommonOptions(layer.command("import"))
    .argument(
      "<source...>",
      "directories, .tar[.gz|.zst|.bz2|.xz] archives, .deb packages or wheels (.whl), lowest first",
    )
    .description("turn file trees into layers of the store; print a digest for each")
    .option(
      "--snapshot",
      "merge them into one snapshot (a base for burrow run) and print its digest",
    )
    .option("--python <VERSION|PATH>", "the Python of wheels: 3.11, or its path in the sandbox")
    .option("--prefix <DIR>", "where wheels are installed", "/usr/local")
    .option("--quiet", "no progress")
    .addHelpText(
      "after",
      "\nExamples:\n  burrow layer import rootfs.tar.zst\n  burrow layer import --snapshot base.tar libfoo_1.0_amd64.deb\n  burrow layer import --snapshot --python 3.11 base.tar demo-1.0-py3-none-any.whl",
    )
    .action(async (sources: string[], options: ImportOptions & { json?: boolean }) => {
      await importLayers(contextOf(options), sources, options);
    });
  addCommonOptions(layer.command("show"))
    .argument("<digest>", "a layer or snapshot, or the first digits of its digest")
    .argument("[path]", "only what lies below this path")
    .description("list what is in a layer or snapshot")
    .addHelpText("after", "\nExample:\n  burrow layer show sha256:… usr/bin")
    .action(async (digest: string, path: string | undefined, options) => {
      await showLayer(contextOf(options), digest, path ?? "");
    });
  addCommonOptions(layer.command("ls"))
    .description("list the layers and snapshots of the store")
    .addHelpText("after", "\nExample:\n  burrow layer ls --store /srv/store")
    .action(async (options) => {
      await listLayers(contextOf(options));
    });
}

/** What an import depends on besides its entries: the source's own digest for a file, nothing for a directory. */
async function sourceKey(source: string): Promise<string[] | undefined> {
  if (statSync(source).isDirectory()) return undefined;
  const hash = createHash("sha256");
  for await (const bytes of createReadStream(source, { highWaterMark: 1 << 20 }))
    hash.update(bytes as Buffer);
  const kind = /\.(deb|whl)$/.exec(source)?.[1] ?? "tar";
  return [kind, hash.digest("hex")];
}

async function collect(
  source: string,
  sink: PackWriter,
  progress: Progress,
  wheels: WheelTarget,
): Promise<LayerEntry[]> {
  const entries: LayerEntry[] = [];
  const name = basename(resolve(source));
  for await (const entry of entriesIn(source, sink, wheels)) {
    entries.push(entry);
    const { blobs, contentBytes } = sink.counts;
    progress.update(
      `${name}: ${entries.length} entries, ${blobs} files, ${showBytes(contentBytes)}`,
    );
  }
  return entries;
}

function entriesIn(source: string, sink: PackWriter, wheels: WheelTarget) {
  if (statSync(source).isDirectory()) return importDirectory(source, { sink });
  if (source.endsWith(".deb")) return importDeb(source, { sink });
  if (source.endsWith(".whl")) return wheelEntries(source, sink, wheels);
  return importTar(source, { sink, name: basename(resolve(source)) });
}

/** What people give in place of a tree, and what to do instead. BURROW_USAGE. */
function refuseOthers(source: string): void {
  const refuse = (advice: string) => new BurrowError("BURROW_USAGE", `${source} ${advice}`);
  if (/^https?:\/\//.test(source)) throw refuse("is no file or directory here: download it first");
  if (/\.conda$/.test(source)) throw refuse("is a conda package: burrow env create takes it");
}

/** Imports one source unless the store has its layer already. */
export async function importSource(
  store: WritableBackend,
  known: KnownBlobs,
  source: string,
  progress: Progress,
  wheels: WheelTarget = {},
): Promise<Digest> {
  refuseOthers(source);
  let key: string[] | undefined;
  try {
    key = await sourceKey(source);
    if (source.endsWith(".whl")) key?.push(...wheelKey(source, wheels));
  } catch (cause) {
    if (cause instanceof BurrowError) throw cause;
    throw new BurrowError("BURROW_NOT_FOUND", `can't read ${source}`, { cause });
  }
  const found = key === undefined ? undefined : await findImport(store, key);
  if (found !== undefined) return found.layer;
  const writer = await openPackWriter(store, { known });
  const entries = await collect(source, writer, progress, wheels);
  const { digest } = await writer.finish(writeIndex(IndexKind.layer, entries));
  if (key !== undefined) await noteImport(store, key, digest, {});
  const { contentBytes, storedBytes, deduped } = writer.counts;
  const kept = `${showBytes(contentBytes)} of content, ${showBytes(storedBytes)} written`;
  const had = deduped === 0 ? "" : `, files known: ${deduped}`;
  progress.line(`${basename(resolve(source))}: ${entries.length} entries, ${kept}${had}`);
  return digest;
}

/** Merges layers, lowest first, into a snapshot of the store. */
export async function makeSnapshot(
  store: WritableBackend,
  known: KnownBlobs,
  layers: readonly Digest[],
): Promise<Digest> {
  const stack = [];
  for (const layer of layers)
    stack.push({ entries: entriesOf(await readIndex(store, layer)), at: "" });
  const writer = await openPackWriter(store, { known });
  const bytes = writeIndex(IndexKind.snapshot, mergeLayers(stack));
  return (await writer.writeSnapshot(bytes, layers)).digest;
}

/** What was not found by its digest, said in the words of who asked; any other error as it is. */
export function noSuchDigest(error: unknown, digest: Digest, store: string): unknown {
  if (classOf(error) !== "notFound") return error;
  const what = `no layer or snapshot ${showDigest(digest)}`;
  return new BurrowError("BURROW_NOT_FOUND", what, { context: { store } });
}

export async function readIndex(store: Backend, digest: Digest): Promise<Index> {
  let bytes: Buffer;
  try {
    bytes = await store.get(objectPath("indexes", digest));
  } catch (error) {
    throw noSuchDigest(error, digest, store.origin);
  }
  const fault = faultOf(bytes);
  if (fault === undefined) return new Index(bytes);
  throw new BurrowError("BURROW_BAD_INDEX", `${showDigest(digest)}: ${fault}`, {
    context: { store: store.origin },
  });
}

async function importLayers(
  context: Context,
  sources: string[],
  options: ImportOptions,
): Promise<void> {
  const store = await openStore(context.store);
  const known = await KnownBlobs.load(store);
  const progress = new Progress(options.quiet === true);
  const layers: Digest[] = [];
  for (const source of sources)
    layers.push(await importSource(store, known, source, progress, options));
  const named = options.snapshot ? [await makeSnapshot(store, known, layers)] : layers;
  progress.end();
  const text = named.map(showDigest);
  print(
    context.isJson,
    options.snapshot ? { snapshot: text[0] } : { layers: text },
    text.join("\n"),
  );
}

const TYPES = { file: "-", directory: "d", symlink: "l", fifo: "p", whiteout: "w" };

function line(entry: LayerEntry): string[] {
  const size = entry.type === "file" ? String(entry.blob.size) : "";
  const target = entry.type === "symlink" ? ` -> ${showName(entry.target)}` : "";
  const mode = `${TYPES[entry.type]}${entry.mode.toString(8).padStart(4, "0")}`;
  return [mode, `${entry.uid}:${entry.gid}`, size, `${showName(entry.path) || "."}${target}`];
}

async function showLayer(context: Context, text: string, below: string): Promise<void> {
  const digest = await findDigest(context, text);
  const index = await readIndex(openOrigin(context.store), digest);
  const path = Buffer.from(below.replace(/^\/+|\/+$/g, "")).toString("latin1");
  const entries = [...entriesOf(index)].filter(
    (entry) => path === "" || entry.path === path || entry.path.startsWith(`${path}/`),
  );
  if (entries.length === 0 && path !== "") {
    throw new BurrowError("BURROW_NOT_FOUND", `${text} has no ${below}`);
  }
  const plain = entries.map((entry) => ({
    path: showName(entry.path),
    type: entry.type,
    mode: entry.mode,
    uid: entry.uid,
    gid: entry.gid,
    ...(entry.type === "file" ? { size: entry.blob.size, sha256: entry.blob.digest } : {}),
    ...(entry.type === "symlink" ? { target: showName(entry.target) } : {}),
  }));
  print(context.isJson, plain, table(entries.map(line)));
}

async function listLayers(context: Context): Promise<void> {
  const store = await listedStore(context);
  const rows: { digest: string; kind: string; inodes: number; bytes: number }[] = [];
  for await (const path of store.list("indexes")) {
    const digest = parseDigest(basename(path));
    if (digest === undefined) continue;
    const index = await readIndex(store, digest);
    let bytes = 0;
    for (let row = 0; row < index.blobCount; row++) bytes += index.blobSize(row);
    const kind = index.kind === IndexKind.snapshot ? "snapshot" : "layer";
    rows.push({ digest: showDigest(digest), kind, inodes: index.inodeCount, bytes });
  }
  const cells = rows.map(({ digest, kind, inodes, bytes }) => [
    digest,
    kind,
    String(inodes),
    showBytes(bytes),
  ]);
  print(context.isJson, rows, table([["digest", "kind", "inodes", "content"], ...cells]));
}
