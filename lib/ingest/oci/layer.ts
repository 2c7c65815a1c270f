// One layer of an image to layer entries: its bytes checked as they lie there (size, digest) and as the plain tar that they are
// (diff_id), in one reading. Control plane.

import { createHash, type Hash } from "node:crypto";
import { pipeline, type Readable, Transform } from "node:stream";
import type { Digest } from "../../base/digest.ts";
import { BurrowError } from "../../base/error.ts";
import type { LayerEntry } from "../../layer/entry.ts";
import type { BlobSink } from "../../store/blob-sink.ts";
import { badArchive } from "../conda/errors.ts";
import { type Compression, decompressed, kindOf, MAGIC_BYTES } from "../decompress.ts";
import { importTar, type TarOptions } from "../tar.ts";
import { checkSize, wrongDigest } from "./document.ts";
import type { ImageFiles } from "./files.ts";
import type { ImageLayer } from "./image.ts";

export interface ImageLayerOptions
  extends Pick<TarOptions, "onEntry" | "onSkip" | "maxBytes" | "maxEntries"> {
  readonly sink: BlobSink;
}

export interface ImportedLayer {
  readonly entries: readonly LayerEntry[];
  /** Of the plain tar. */
  readonly plainBytes: number;
}

/**
 * Reads a layer. BURROW_DIGEST_MISMATCH for bytes that aren't those that manifest and config name, BURROW_BAD_ARCHIVE for a missing blob,
 * another size and whatever importTar refuses. What went to the sink by then is the caller's to drop.
 */
export async function importImageLayer(
  files: ImageFiles,
  layer: ImageLayer,
  options: ImageLayerOptions,
): Promise<ImportedLayer> {
  const { name: archive } = files;
  const { path, diffId } = layer;
  await using file = await files.find(path);
  if (file === undefined) throw badArchive(archive, "it is missing", path);
  checkSize(archive, path, layer.sizeBytes, file.sizeBytes);
  const kind = kindOf(await file.start(MAGIC_BYTES));
  checkKind(kind, archive, path);
  const name = `${archive}: ${path}`;
  const packed = new Tally();
  const plain = new Tally();
  // The digest of what lies there is worth its time only where something says what it must be.
  const raw = layer.digest === undefined ? file.stream() : packed.over(file.stream());
  const bytes = plain.over(decompressed(raw, kind, name));
  const entries: LayerEntry[] = [];
  const how = { name, whiteouts: "oci", devices: "skip", absolute: "root" } as const;
  for await (const entry of importTar(bytes, { ...options, ...how })) entries.push(entry);
  const { digest } = layer;
  if (digest !== undefined) {
    // A decompressor that stops early leaves bytes that nothing has looked at.
    checkSize(archive, path, file.sizeBytes, packed.bytes);
    if (packed.digest() !== digest) throw wrongDigest(archive, path, digest);
  }
  if (plain.digest() !== diffId) throw wrongDigest(archive, `${path} decompressed`, diffId);
  return { entries, plainBytes: plain.bytes };
}

/** OCI image-spec layer.md has gzip and zstd; docker save has plain tars. */
function checkKind(kind: Compression, archive: string, entry: string): void {
  if (kind === "none" || kind === "gz" || kind === "zst") return;
  const why = `a layer is compressed by ${kind}, as no image's is`;
  throw new BurrowError("BURROW_UNSUPPORTED", why, { context: { archive, entry } });
}

/** Counts and hashes what passes. */
class Tally {
  bytes = 0;
  readonly #hash: Hash = createHash("sha256");

  /** The bytes of a stream, which it owns from now on. */
  over(source: Readable): Readable {
    const out = new Transform({
      transform: (chunk: Buffer, _encoding, done) => {
        this.bytes += chunk.length;
        this.#hash.update(chunk);
        done(null, chunk);
      },
    });
    return pipeline(source, out, () => {});
  }

  digest(): Digest {
    return this.#hash.digest("hex") as Digest;
  }
}
