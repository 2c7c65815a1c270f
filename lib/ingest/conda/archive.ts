// Conda archives: .conda (a zip of two tars: info and pkg) and .tar.bz2 (one tar with info/ in it). Judged as any tar is, by
// importTar; what a caller sees is entries and the content that it asks for. Control plane.

import type { Readable } from "node:stream";
import yauzl from "yauzl";
import { BurrowError } from "../../base/error.ts";
import { METADATA_MAX_BYTES } from "../../base/limits.ts";
import type { LayerEntry } from "../../layer/entry.ts";
import type { BlobSink } from "../../store/blob-sink.ts";
import { decompressed } from "../decompress.ts";
import { discardingSink } from "../sink.ts";
import { importTar, type TarOptions } from "../tar.ts";

const METADATA = /^info\//;

/** What may be asked of the tars of an archive: importTar's options without its name. */
export type ArchiveOptions = Omit<TarOptions, "name" | "whiteouts">;

function bad(archive: string, why: string, cause?: unknown): BurrowError {
  return new BurrowError("BURROW_BAD_ARCHIVE", why, { cause, context: { archive } });
}

/** Members of the zip whose base name starts with `kind`: "info-" or "pkg-". */
async function openMember(
  path: string,
  name: string,
  kind: string,
): Promise<{ zip: yauzl.ZipFile; stream: Readable }> {
  const zip = await new Promise<yauzl.ZipFile>((resolve, reject) => {
    yauzl.open(path, { lazyEntries: true, autoClose: false }, (error, opened) => {
      if (error) reject(zipError(name, error));
      else resolve(opened);
    });
  });
  try {
    const entry = await findMember(zip, name, kind);
    const stream = await new Promise<Readable>((resolve, reject) => {
      zip.openReadStream(entry, (error, opened) => {
        if (error) reject(zipError(name, error));
        else resolve(opened);
      });
    });
    return { zip, stream };
  } catch (error) {
    zip.close();
    throw error;
  }
}

function zipError(name: string, cause: Error): BurrowError {
  const isSystem = "syscall" in cause;
  if (!isSystem) return bad(name, `it is no good zip: ${cause.message}`, cause);
  const isMissing = "code" in cause && cause.code === "ENOENT";
  return new BurrowError(isMissing ? "BURROW_NOT_FOUND" : "BURROW_IO", "can't read the archive", {
    cause,
    context: { archive: name },
  });
}

function findMember(zip: yauzl.ZipFile, name: string, kind: string): Promise<yauzl.Entry> {
  return new Promise((resolve, reject) => {
    zip.on("error", (error: Error) => reject(zipError(name, error)));
    zip.on("entry", (entry: yauzl.Entry) => {
      const base = entry.fileName.slice(entry.fileName.lastIndexOf("/") + 1);
      if (base.startsWith(kind) && base.endsWith(".tar.zst")) resolve(entry);
      else zip.readEntry();
    });
    zip.on("end", () => reject(bad(name, `it has no ${kind}*.tar.zst`)));
    zip.readEntry();
  });
}

async function* readMember(
  path: string,
  name: string,
  kind: string,
  options: ArchiveOptions,
): AsyncIterable<LayerEntry> {
  const { zip, stream } = await openMember(path, name, kind);
  try {
    // What the zip's own checks find (sizes, deflate) is an error of the archive.
    stream.on("error", () => {});
    yield* importTar(decompressed(stream, "zst", name), { ...options, name });
  } catch (error) {
    throw error instanceof BurrowError ? error : bad(name, "it is no good zip", error);
  } finally {
    zip.close();
  }
}

/** The package's own files, without info/. `name` is what errors call the archive. */
export async function* readPackageFiles(
  path: string,
  name: string,
  options: ArchiveOptions,
): AsyncIterable<LayerEntry> {
  if (path.endsWith(".conda")) {
    yield* readMember(path, name, "pkg-", options);
    return;
  }
  const { mapPath } = options;
  yield* importTar(path, {
    ...options,
    name,
    mapPath: (entry, type) => {
      if (entry === "info" || METADATA.test(entry)) return undefined;
      return mapPath === undefined ? entry : mapPath(entry, type);
    },
  });
}

/** The files below info/, by their path with "info/" and in memory. */
export async function readMetadata(path: string, name: string): Promise<Map<string, Buffer>> {
  const files = new Map<string, Buffer>();
  let current = "";
  let total = 0;
  const take = (bytes: Buffer) => {
    total += bytes.length;
    if (total > METADATA_MAX_BYTES)
      throw bad(name, `its info/ is over ${METADATA_MAX_BYTES} bytes`);
    files.set(current, bytes);
  };
  const rest = discardingSink();
  const sink: BlobSink = {
    addBytes: async (bytes) => {
      take(Buffer.from(bytes));
      return await rest.addBytes(bytes);
    },
    addStream: async (chunks) => {
      const parts: Uint8Array[] = [];
      let length = 0;
      for await (const chunk of chunks) {
        length += chunk.length;
        if (length + total > METADATA_MAX_BYTES) throw bad(name, "its info/ is too large");
        parts.push(chunk);
      }
      const bytes = Buffer.concat(parts);
      take(bytes);
      return await rest.addBytes(bytes);
    },
  };
  const mapPath = (entry: string) => {
    current = entry;
    return METADATA.test(entry) ? entry : undefined;
  };
  const entries = path.endsWith(".conda")
    ? readMember(path, name, "info-", { sink, mapPath })
    : importTar(path, { sink, mapPath, name });
  for await (const _ of entries);
  return files;
}
