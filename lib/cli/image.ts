// Images as sources of layers: one layer of the store for each of the image's, found again by its diff_id whatever image it comes in.
// Control plane.

import { type Digest, showDigest } from "../base/digest.ts";
import { BurrowError } from "../base/error.ts";
import { S_IFMT, S_IFREG } from "../base/file-types.ts";
import {
  ARCHIVE_BYTES_MAX,
  ARCHIVE_ENTRIES_MAX,
  BLOCK_DIGESTS_OVER_BYTES,
} from "../base/limits.ts";
import { Origin } from "../cache/origins.ts";
import { getPieces, openPiece, pieceAt } from "../cache/pieces.ts";
import type { ImageFiles } from "../ingest/oci/files.ts";
import type { Image, ImageLayer } from "../ingest/oci/image.ts";
import { importImageLayer } from "../ingest/oci/layer.ts";
import { type ImageForm, openImage, readImage } from "../ingest/oci/open.ts";
import { rootEntry } from "../layer/entries.ts";
import { Inode } from "../layer/format.ts";
import type { Index } from "../layer/index.ts";
import { layerOf, mergeIndexes } from "../layer/merge.ts";
import { finishLayer } from "../preload/start-order.ts";
import { digestOf } from "../store/hash.ts";
import { type KnownBlobs, readLocator } from "../store/known.ts";
import type { Locator } from "../store/locator.ts";
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
const ACCOUNTS_MAX_BYTES = BLOCK_DIGESTS_OVER_BYTES;
/** How long the store may take with one of them. */
const READ_MS = 60_000;

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
  const { digest } = await finishLayer(writer, entries);
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
  const [passwd, group] = await accountsOf(store, merged, layers);
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

/** What an image's /etc says of users and of groups. */
async function accountsOf(
  store: WritableBackend,
  merged: Index,
  layers: readonly Digest[],
): Promise<[passwd: string, group: string]> {
  const locators: Locator[] = [];
  for (const layer of new Set(layers)) locators.push(await readLocator(store, layer));
  const origin = new Origin(store.origin, { tries: 1 }, 1);
  try {
    const passwd = await accountsIn(origin, locators, merged, "passwd");
    return [passwd, await accountsIn(origin, locators, merged, "group")];
  } finally {
    origin.close();
  }
}

/** The text of a small file in /etc, as its layers have it; "" when there is none. BURROW_CORRUPT, BURROW_DIGEST_MISMATCH. */
async function accountsIn(
  origin: Origin,
  locators: readonly Locator[],
  merged: Index,
  name: string,
): Promise<string> {
  const etc = merged.lookup(merged.row(1), "etc");
  const ino = etc < 0 ? etc : merged.lookup(merged.row(etc), name);
  if (ino < 0 || (merged.field(merged.row(ino), Inode.mode) & S_IFMT) !== S_IFREG) return "";
  const blob = merged.field(merged.row(ino), Inode.a);
  const size = merged.blobSize(blob);
  if (size === 0 || size > ACCOUNTS_MAX_BYTES) return "";
  const digest = merged.blobDigest(blob);
  const locator = locators.find((each) => each.find(digest) >= 0);
  if (locator === undefined) {
    const context = { blob: showDigest(digest), store: origin.name };
    throw new BurrowError("BURROW_CORRUPT", `no layer has /etc/${name}`, { context });
  }
  const piece = pieceAt(locator, digest, size, 0);
  const [got] = await getPieces(origin, [piece], true, AbortSignal.timeout(READ_MS));
  return Buffer.from(openPiece(piece, got!, digest)).toString("utf8");
}
