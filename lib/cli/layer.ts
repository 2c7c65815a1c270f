// burrow layer import | show | ls: directories, tars and Debian packages into layers of a store. Control plane.

import { createHash } from "node:crypto";
import { createReadStream, statSync } from "node:fs";
import { basename, resolve } from "node:path";
import { type Command, Option } from "commander";
import { type Digest, parseDigest, showDigest } from "../base/digest.ts";
import { BurrowError } from "../base/error.ts";
import { showName } from "../base/name.ts";
import { importDeb } from "../ingest/deb.ts";
import { importDirectory } from "../ingest/dir.ts";
import { importTar } from "../ingest/tar.ts";
import { entriesOf, rootEntry } from "../layer/entries.ts";
import type { LayerEntry } from "../layer/entry.ts";
import { IndexKind } from "../layer/format.ts";
import { Index } from "../layer/index.ts";
import { mergeIndexes } from "../layer/merge.ts";
import { finishLayer } from "../preload/start-order.ts";
import type { DeltaStore } from "../store/deltas.ts";
import { KnownBlobs } from "../store/known.ts";
import { openOrigin, writingStore } from "../store/open.ts";
import { openPackWriter, type PackWriter } from "../store/pack-writer.ts";
import type { WritableBackend } from "../store/store.ts";
import { addCommonOptions, addListedOptions, type Context, contextOf } from "./context.ts";
import { findDigest, listedStore } from "./digests.ts";
import { PREFIX_XATTR } from "./env-root.ts";
import { findImport, namesOfLayers, noteImport } from "./environment.ts";
import { type ImageChoice, type ImportedSource, importImage, publishImage } from "./image.ts";
import { counted, Progress, print, showBytes, table } from "./output.ts";
import { pathBelow } from "./profile-paths.ts";
import { readIndex, readStack } from "./read-index.ts";
import { findDamage, REPAIR } from "./store-verify.ts";
import { type WheelTarget, wheelEntries, wheelKey } from "./wheel.ts";

interface ImportOptions {
  snapshot?: boolean;
  from?: NonNullable<ImageChoice["from"]>;
  image?: string;
  whiteouts?: Whiteouts;
  quiet?: boolean;
  python?: string;
  prefix?: string;
  repair?: boolean;
}

/** How a tar says what it hides of the layers below: as images do, or not at all. */
type Whiteouts = "oci" | "none";

/** OCI image-spec layer.md "whiteouts". */
const WHITEOUT_NAME = /(^|\/)\.wh\.[^/]+$/;

const IMPORT_HELP = `
Devices and sockets are left out, and counted: a sandbox has a /dev of its own. The layers of an
image are stacked with --whiteouts oci --snapshot, lowest first: what an upper one hides by .wh.
names is gone. A whole image, as an OCI layout (a directory or a tar) or as docker save writes it,
is known by its content, and its layers are read as such.

Examples:
  burrow layer import rootfs.tar.zst
  burrow layer import --snapshot base.tar libfoo_1.0_amd64.deb
  burrow layer import --snapshot --python 3.11 base.tar demo-1.0-py3-none-any.whl
  burrow layer import --snapshot image.tar
  burrow layer import --snapshot --from oci --image v2 layout
  burrow layer import --snapshot --whiteouts oci layer-1.tar.gz layer-2.tar.gz`;

/** The command "layer", for others to add theirs to. */
export function addLayer(program: Command): Command {
  const layer = program.command("layer").description("make and inspect layers");
  addListedOptions(layer.command("import"))
    .argument(
      "<source...>",
      "directories, .tar[.gz|.zst|.bz2|.xz] archives, .deb packages, wheels (.whl) or images, lowest first",
    )
    .description("turn file trees into layers of the store; print a digest for each")
    .option(
      "--snapshot",
      "merge them into one snapshot (a base for burrow run) and print its digest",
    )
    .addOption(
      new Option("--whiteouts <FORMAT>", "what .wh. names of a tar mean: files, or what to hide")
        .choices(["none", "oci"])
        .default("none"),
    )
    .addOption(
      new Option(
        "--from <KIND>",
        "what archives and directories are (default: by their content)",
      ).choices(["tree", "oci", "docker-archive"]),
    )
    .option("--image <NAME>", "which image, by its name or digest, where a source has several")
    .option("--python <VERSION|PATH>", "the Python of wheels: 3.11, or its path in the sandbox")
    .option("--prefix <DIR>", "where wheels are installed", "/usr/local")
    .option("--repair", REPAIR)
    .option("--quiet", "no progress")
    .addHelpText("after", IMPORT_HELP)
    .action(async (sources: string[], options: ImportOptions & { json?: boolean }) => {
      await importLayers(contextOf(options), sources, options);
    });
  addCommonOptions(layer.command("show"))
    .argument("<digest>", "a layer or snapshot, or the first digits of its digest")
    .argument(
      "[path]",
      "only what lies below this path of it; of an environment, of the sandbox, too",
    )
    .description("list what is in a layer or snapshot")
    .addHelpText(
      "after",
      "\nExamples:\n  burrow layer show sha256:… usr/bin\n  burrow layer show sha256:… /opt/env/bin",
    )
    .action(async (digest: string, path: string | undefined, options) => {
      await showLayer(contextOf(options), digest, path ?? "");
    });
  addListedOptions(layer.command("ls"))
    .description("list the layers and snapshots of the store")
    .addHelpText("after", "\nExample:\n  burrow layer ls --store /srv/store")
    .action(async (options) => {
      await listLayers(contextOf(options));
    });
  return layer;
}

type SourceKind = "directory" | "deb" | "whl" | "tar";

/** What is said of how sources are read. */
interface HowRead extends WheelTarget, ImageChoice {
  readonly whiteouts?: Whiteouts;
}

/** As kindOfSource; BURROW_NOT_FOUND for what isn't there. */
function statOf(source: string): SourceKind {
  try {
    return kindOfSource(source);
  } catch (cause) {
    if (cause instanceof BurrowError) throw cause;
    throw new BurrowError("BURROW_NOT_FOUND", `can't read ${source}`, { cause });
  }
}

/** BURROW_USAGE for what has no end or waits for a writer: a device, a FIFO. */
function kindOfSource(source: string): SourceKind {
  const stat = statSync(source);
  if (stat.isDirectory()) return "directory";
  if (!stat.isFile()) {
    throw new BurrowError("BURROW_USAGE", `${source} is neither a directory nor a plain file`);
  }
  if (source.endsWith(".deb")) return "deb";
  return source.endsWith(".whl") ? "whl" : "tar";
}

/** Part of every key: change it when the same source becomes another layer. */
const LAYER_VERSION = "2";

/** All that a layer depends on: kind and digest of its source and how it is read; nothing is known of a directory. */
async function sourceKey(source: string, how: HowRead): Promise<string[] | undefined> {
  const kind = kindOfSource(source);
  if (kind === "directory") return undefined;
  const hash = createHash("sha256");
  for await (const bytes of createReadStream(source, { highWaterMark: 1 << 20 }))
    hash.update(bytes as Buffer);
  const key = [kind, LAYER_VERSION, hash.digest("hex")];
  if (kind === "whl") return [...key, ...wheelKey(source, how)];
  return kind === "tar" && how.whiteouts === "oci" ? [...key, how.whiteouts] : key;
}

async function collect(
  source: string,
  sink: PackWriter,
  how: HowRead,
  progress: Progress,
): Promise<LayerEntry[]> {
  const entries: LayerEntry[] = [];
  const name = basename(resolve(source));
  const kind = kindOfSource(source);
  const leftOut = new Map<string, number>();
  let whiteoutNames = 0;
  const onSkip = (_path: string, why: string) => {
    const what = why.replace(/^it is a /, "");
    leftOut.set(what, (leftOut.get(what) ?? 0) + 1);
  };
  for await (const entry of entriesIn(source, kind, sink, how, onSkip)) {
    entries.push(entry);
    if (kind === "tar" && entry.type === "file" && WHITEOUT_NAME.test(entry.path)) whiteoutNames++;
    const { blobs, contentBytes } = sink.counts;
    progress.update(
      `${name}: ${counted(entries.length, "entry", "entries")}, ${counted(blobs, "file")}, ${showBytes(contentBytes)}`,
    );
  }
  const counts = [...leftOut].map(([what, count]) => `${count} (${what})`);
  if (counts.length > 0) progress.line(`${name}: left out ${counts.join(", ")}`);
  if (whiteoutNames > 0)
    progress.line(`${name}: .wh. names kept as files: ${whiteoutNames}; see --whiteouts`);
  return entries;
}

function entriesIn(
  source: string,
  kind: SourceKind,
  sink: PackWriter,
  { whiteouts = "none", ...wheels }: HowRead,
  onSkip: (path: string, why: string) => void,
): AsyncIterable<LayerEntry> {
  if (kind === "directory") return importDirectory(source, { sink, onSkip });
  if (kind === "deb") return importDeb(source, { sink });
  if (kind === "whl") return wheelEntries(source, sink, wheels);
  const name = basename(resolve(source));
  return importTar(source, { sink, name, whiteouts, devices: "skip", onSkip });
}

/** What people give in place of a tree, and what to do instead. BURROW_USAGE. */
function refuseOthers(source: string): void {
  const refuse = (advice: string) => new BurrowError("BURROW_USAGE", `${source} ${advice}`);
  if (/^(https?|s3):\/\//.test(source))
    throw refuse("is no file or directory here: download it first");
  if (/\.conda$/.test(source)) throw refuse("is a conda package: burrow env create takes it");
}

/** What can be told of a source without reading it. BURROW_USAGE, BURROW_NOT_FOUND. */
function checkSource(source: string, how: HowRead): SourceKind {
  refuseOthers(source);
  const kind = statOf(source);
  if (kind === "whl") wheelKey(source, how);
  return kind;
}

/** Imports a tree unless the store has its layer already. */
async function importTree(
  store: WritableBackend,
  known: KnownBlobs,
  source: string,
  progress: Progress,
  how: HowRead = {},
): Promise<Digest> {
  let key: string[] | undefined;
  try {
    key = await sourceKey(source, how);
  } catch (cause) {
    if (cause instanceof BurrowError) throw cause;
    throw new BurrowError("BURROW_NOT_FOUND", `can't read ${source}`, { cause });
  }
  const found = key === undefined ? undefined : await findImport(store, key);
  if (found !== undefined) return found.layer;
  const writer = await openPackWriter(store, { known });
  const entries = await collect(source, writer, how, progress);
  const { digest } = await finishLayer(writer, entries);
  if (key !== undefined) await noteImport(store, key, digest, {});
  const { contentBytes, storedBytes, deduped } = writer.counts;
  const kept = `${showBytes(contentBytes)} of content, ${showBytes(storedBytes)} written`;
  const had = deduped === 0 ? "" : `, files known: ${deduped}`;
  const count = counted(entries.length, "entry", "entries");
  progress.line(`${basename(resolve(source))}: ${count}, ${kept}${had}`);
  return digest;
}

/** Imports what a path names: an image's layers, or one of its own. */
export async function importSource(
  store: WritableBackend,
  known: KnownBlobs,
  source: string,
  progress: Progress,
  how: HowRead = {},
): Promise<ImportedSource> {
  const kind = checkSource(source, how);
  if (kind === "directory" || kind === "tar") {
    const name = basename(resolve(source));
    const imported = await importImage(store, known, source, name, how, progress);
    if (imported !== undefined) return imported;
  }
  return { layers: [await importTree(store, known, source, progress, how)] };
}

/**
 * Merges sources, lowest first, into a snapshot of the store. What an image says of commands is kept with it: the uppermost's where
 * there are several.
 */
export async function makeSnapshot(
  store: WritableBackend,
  known: KnownBlobs,
  sources: readonly ImportedSource[],
): Promise<Digest> {
  const layers = sources.flatMap((source) => source.layers);
  const merged = mergeIndexes(await readStack(store, layers));
  const image = sources.findLast((source) => source.image !== undefined)?.image;
  if (image !== undefined)
    return await publishImage(store, known, new Index(merged), layers, image);
  const writer = await openPackWriter(store, { known });
  return (await writer.writeSnapshot(merged, layers)).digest;
}

async function importLayers(
  context: Context,
  sources: string[],
  options: ImportOptions,
): Promise<void> {
  for (const source of sources) checkSource(source, options);
  const progress = new Progress(options.quiet === true, context.isJson);
  const damaged = options.repair ? await findDamage(context, progress) : new Set<string>();
  const importAll = async (store: DeltaStore) => {
    const known = await KnownBlobs.load(store);
    const imported: ImportedSource[] = [];
    for (const source of sources)
      imported.push(await importSource(store, known, source, progress, options));
    if (options.snapshot) return [await makeSnapshot(store, known, imported)];
    return imported.flatMap((source) => source.layers);
  };
  const named = await writingStore(context.store, "layer import", importAll, damaged);
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
  const given = Buffer.from(below).toString("latin1");
  const all = [...entriesOf(index)];
  const isAt = (path: string) => all.some((entry) => entry.path === path);
  const own = pathBelow(index, given);
  // As the sandbox sees it, without the slash in front: an environment seldom has such a path of its own.
  const seen = pathBelow(index, `/${given}`);
  const path = own === "" || isAt(own) || !isAt(seen) ? own : seen;
  const entries = all.filter(
    (entry) => path === "" || entry.path === path || entry.path.startsWith(`${path}/`),
  );
  if (entries.length === 0 && path !== "") {
    throw new BurrowError("BURROW_NOT_FOUND", `${text} has no ${below}${adviceOn(index, path)}`);
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

/** Why a path isn't there, as far as it is likely: on its way is a symlink, or it is not as seen in the sandbox. */
function adviceOn(index: Index, path: string): string {
  for (const entry of entriesOf(index))
    if (entry.type === "symlink" && path.startsWith(`${entry.path}/`))
      return `: ${showName(entry.path)} is a symlink to ${showName(entry.target)}`;
  const prefix = rootEntry(index).xattrs?.get(PREFIX_XATTR);
  if (prefix === undefined) return ": paths begin at its root";
  return `: paths are below ${showName(prefix)}, or with it as the sandbox sees them`;
}

async function listLayers(context: Context): Promise<void> {
  const store = await listedStore(context);
  const names = await namesOfLayers(store);
  const rows: { digest: string; kind: string; inodes: number; bytes: number; of: string }[] = [];
  for await (const path of store.list("indexes")) {
    const digest = parseDigest(basename(path));
    if (digest === undefined) continue;
    const index = await readIndex(store, digest);
    let bytes = 0;
    for (let row = 0; row < index.blobCount; row++) bytes += index.blobSize(row);
    const kind = index.kind === IndexKind.snapshot ? "snapshot" : "layer";
    const of = names.get(showDigest(digest)) ?? "";
    rows.push({ digest: showDigest(digest), kind, inodes: index.inodeCount, bytes, of });
  }
  const cells = rows.map(({ digest, kind, inodes, bytes, of }) => [
    digest,
    kind,
    String(inodes),
    showBytes(bytes),
    of,
  ]);
  print(context.isJson, rows, table([["digest", "kind", "inodes", "content", "of"], ...cells]));
}
