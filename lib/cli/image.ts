// Images as sources of layers: one layer of the store for each of the image's, found again by its diff_id whatever image it comes in.
// Control plane.

import { type Digest, showDigest } from "../base/digest.ts";
import { BurrowError } from "../base/error.ts";
import { ARCHIVE_BYTES_MAX, ARCHIVE_ENTRIES_MAX } from "../base/limits.ts";
import type { ImageFiles } from "../ingest/oci/files.ts";
import type { Image, ImageLayer } from "../ingest/oci/image.ts";
import { importImageLayer } from "../ingest/oci/layer.ts";
import { type ImageForm, openImage, readImage } from "../ingest/oci/open.ts";
import { rootEntry } from "../layer/entries.ts";
import { IndexKind, Inode, S_IFMT, S_IFREG } from "../layer/format.ts";
import type { Index } from "../layer/index.ts";
import { layerOf, mergeIndexes } from "../layer/merge.ts";
import { writeIndex } from "../layer/writer.ts";
import { expandChunk } from "../store/codec.ts";
import { digestOf } from "../store/hash.ts";
import type { KnownBlobs } from "../store/known.ts";
import { objectPath } from "../store/layout.ts";
import { openPackWriter } from "../store/pack-writer.ts";
import type { WritableBackend } from "../store/store.ts";
import { findImport, noteImport } from "./environment.ts";
import { encodeFacts, FACTS_FORMAT, markRoot, userIds, writeFacts } from "./image-facts.ts";
import { counted, type Progress, showBytes } from "./output.ts";

/** What a source became: the layers of an image, or one. */
export interface ImportedSource {
  readonly layers: readonly Digest[];
  readonly image?: Image;
}

/** How an image is to be found in what a user names. */
export interface ImageChoice {
  /** What the source is; told by its content when missing. "tree": a file tree, whatever is in it. */
  readonly from?: ImageForm | "tree";
  /** Name or digest, where a source has several. */
  readonly image?: string;
}

/** How this Burrow reads a layer: changes with every change of what comes out of one. */
const LAYER_READING = "oci-layer-2";
/** Of /etc/passwd and /etc/group. */
const ACCOUNTS_MAX_BYTES = 1 << 20;

/** Imports the image at a path, but for what the store has; undefined when there is none. */
export async function importImage(
  store: WritableBackend,
  known: KnownBlobs,
  source: string,
  name: string,
  choice: ImageChoice,
  progress: Progress,
): Promise<(ImportedSource & { readonly image: Image }) | undefined> {
  const { from, image: wanted } = choice;
  if (from === "tree") return undefined;
  const opened = await openImage(source, name, from);
  if (opened === undefined) return undefined;
  await using files = opened.files;
  const image = await readImage(files, opened.form, wanted);
  const layers: Digest[] = [];
  const budget = { bytes: ARCHIVE_BYTES_MAX, entries: ARCHIVE_ENTRIES_MAX };
  for (const [i, layer] of image.layers.entries()) {
    const label = `${name}: layer ${i + 1}/${image.layers.length}`;
    const key = [LAYER_READING, layer.diffId];
    const found = await findImport(store, key);
    if (found !== undefined) progress.line(`${label}: known`);
    const made =
      found?.layer ?? (await importOne(store, known, files, layer, { label, budget, progress }));
    if (found === undefined) await noteImport(store, key, made, {});
    layers.push(made);
  }
  return { layers, image };
}

interface Reading {
  readonly label: string;
  /** What the image may still hold. */
  readonly budget: { bytes: number; entries: number };
  readonly progress: Progress;
}

async function importOne(
  store: WritableBackend,
  known: KnownBlobs,
  files: ImageFiles,
  layer: ImageLayer,
  { label, budget, progress }: Reading,
): Promise<Digest> {
  const writer = await openPackWriter(store, { known });
  const { counts } = writer;
  let count = 0;
  let leftOut = 0;
  const { entries, plainBytes } = await importImageLayer(files, layer, {
    sink: writer,
    maxBytes: budget.bytes,
    maxEntries: budget.entries,
    onEntry: () => {
      progress.update(
        `${label}: ${counted(++count, "entry", "entries")}, ${showBytes(counts.contentBytes)}`,
      );
    },
    onSkip: () => leftOut++,
  });
  budget.bytes -= plainBytes;
  budget.entries -= count + leftOut;
  const { digest } = await writer.finish(writeIndex(IndexKind.layer, entries));
  const had = counts.deduped === 0 ? "" : `, files known: ${counts.deduped}`;
  const left = leftOut === 0 ? "" : `, left out (devices): ${leftOut}`;
  const written = `${showBytes(counts.contentBytes)} of content, ${showBytes(counts.storedBytes)} written`;
  const all = counted(entries.length, "entry", "entries");
  progress.line(`${label}: ${all}, ${written}${had}${left}`);
  return digest;
}

/** Publishes a merged snapshot, and what the image says of commands beside it. */
export async function publishImage(
  store: WritableBackend,
  known: KnownBlobs,
  merged: Index,
  layers: readonly Digest[],
  image: Image,
): Promise<Digest> {
  const { defaults } = image.config;
  const passwd = await accountsIn(store, known, merged, "passwd");
  const group = await accountsIn(store, known, merged, "group");
  const facts = encodeFacts({
    format: FACTS_FORMAT,
    config: showDigest(image.configDigest),
    ...defaults,
    ids: userIds(defaults.user, passwd, group),
  });
  const bytes = mergeIndexes([merged, layerOf([markRoot(rootEntry(merged), facts)])]);
  const writer = await openPackWriter(store, { known });
  // Before the snapshot: what names them is never there without them.
  await writeFacts(store, digestOf(bytes), facts);
  return (await writer.writeSnapshot(bytes, layers)).digest;
}

/** The text of a small file in /etc; "" when there is none. */
async function accountsIn(
  store: WritableBackend,
  known: KnownBlobs,
  merged: Index,
  name: string,
): Promise<string> {
  const etc = merged.lookup(merged.row(1), "etc");
  const ino = etc < 0 ? etc : merged.lookup(merged.row(etc), name);
  if (ino < 0 || (merged.field(merged.row(ino), Inode.mode) & S_IFMT) !== S_IFREG) return "";
  const blob = merged.field(merged.row(ino), Inode.a);
  if (merged.blobSize(blob) > ACCOUNTS_MAX_BYTES) return "";
  const digest = merged.blobDigest(blob);
  const place = known.place(digest);
  const parts: Uint8Array[] = [];
  for (const { pack, offset, stored, length, codec } of place?.chunks ?? []) {
    const range = { offset, length: stored };
    const bytes = await store.get(objectPath("packs", pack), { range });
    parts.push(expandChunk(codec, bytes, length));
  }
  const content = Buffer.concat(parts);
  if (digestOf(content) === digest) return content.toString("utf8");
  const context = { blob: showDigest(digest), store: store.origin };
  throw new BurrowError("BURROW_CORRUPT", `the store has other bytes for /etc/${name}`, {
    context,
  });
}
