// Conda archives as a stream of entries: .conda (a zip with two zstd tars) and .tar.bz2. Says what is in an archive, judges
// nothing but whether it can be read whole; import.ts judges. Told apart by their first bytes. Control plane.

import { open } from "node:fs/promises";
import { basename } from "node:path";
import { BurrowError } from "../../base/error.ts";
import { ARCHIVE_BYTES_MAX, ARCHIVE_ENTRIES_MAX } from "../../base/limits.ts";
import { type ByteSource, FileBytes } from "../byte-source.ts";
import { decompressedBytes, kindOf, MAGIC_BYTES } from "../decompress.ts";
import type { Content } from "../sink.ts";
import { readHeader, type TarHeader } from "../tar-header.ts";
import { type TarEntry, TarReader } from "../tar-reader.ts";
import { badArchive, readError } from "./errors.ts";
import { openCondaZip } from "./zip.ts";

export interface ArchiveEntry {
  /** Latin1, as archived but for "./" at its start: neither normal nor safe. */
  readonly name: string;
  /** What the tar says: "file", "directory", "symlink", "hardlink", or a type that no package should have. */
  readonly type: Exclude<TarHeader["type"], "link"> | "hardlink";
  readonly mode: number;
  readonly size: number;
  readonly mtimeSec: number;
  readonly mtimeNs: number;
  /** Of symlinks and hard links; latin1. */
  readonly target?: string;
  /** Of files: read it before asking for the next entry, or not at all. */
  readonly content?: Content;
}

export interface ReadOptions {
  /** What errors call the archive; the file's name when missing. */
  readonly name?: string;
  /** Lower bounds than limits.ts has: entries, and bytes of the archive after decompression. */
  readonly maxEntries?: number;
  readonly maxBytes?: number;
}

const ZIP_MAGIC = "504b";

/**
 * The entries of a conda archive, those of its info part first for a .conda. BURROW_BAD_ARCHIVE when it is cut, corrupt, no such
 * archive, or past the limits; BURROW_NOT_FOUND and BURROW_IO when it can't be read.
 */
export async function* readCondaArchive(
  path: string,
  options: ReadOptions = {},
): AsyncIterable<ArchiveEntry> {
  const archive = options.name ?? basename(path);
  const budget = new Budget(archive, options);
  const start = await firstBytes(path, archive);
  if (start.toString("hex").startsWith(ZIP_MAGIC)) {
    const zip = await openCondaZip(path, archive);
    try {
      for (const part of zip.parts) {
        const bytes = await zip.open(part);
        yield* tarEntries(decompressedBytes(bytes, "zst", archive), archive, budget);
      }
    } finally {
      zip.close();
    }
  } else if (kindOf(start) === "bz2") {
    const bytes = decompressedBytes(new FileBytes(path), "bz2", archive);
    yield* tarEntries(bytes, archive, budget);
  } else {
    throw badArchive(archive, "it is neither a .conda (zip) nor a .tar.bz2 archive");
  }
}

/** What is left of the limits of one archive. */
class Budget {
  readonly #archive: string;
  readonly #maxEntries: number;
  readonly #maxBytes: number;
  #entries = 0;
  #bytes = 0;

  constructor(archive: string, { maxEntries, maxBytes }: ReadOptions) {
    this.#archive = archive;
    this.#maxEntries = maxEntries ?? ARCHIVE_ENTRIES_MAX;
    this.#maxBytes = maxBytes ?? ARCHIVE_BYTES_MAX;
  }

  takeEntry(name: string, size: number): void {
    if (++this.#entries > this.#maxEntries) {
      throw badArchive(this.#archive, `it has over ${this.#maxEntries} entries`, name);
    }
    if (size > this.#maxBytes) throw badArchive(this.#archive, `it claims ${size} bytes`, name);
  }

  /** Takes bytes of a tar: an error once there are too many. */
  takeBytes(count: number): BurrowError | undefined {
    this.#bytes += count;
    if (this.#bytes <= this.#maxBytes) return undefined;
    return badArchive(this.#archive, `it is over ${this.#maxBytes} bytes when decompressed`);
  }
}

async function firstBytes(path: string, archive: string): Promise<Buffer> {
  const start = Buffer.alloc(MAGIC_BYTES);
  try {
    await using file = await open(path, "r");
    const { bytesRead } = await file.read(start, 0, MAGIC_BYTES, 0);
    return start.subarray(0, bytesRead);
  } catch (cause) {
    throw readError(cause, archive);
  }
}

async function* tarEntries(
  source: ByteSource,
  archive: string,
  budget: Budget,
): AsyncIterable<ArchiveEntry> {
  const tar = new TarReader(source, {
    onBytes: (count) => budget.takeBytes(count),
    explain: (cause) => explained(cause, archive),
  });
  try {
    for (let entry = await tar.next(); entry !== undefined; entry = await tar.next()) {
      yield entryOf(entry, archive, budget);
    }
    if (!tar.isWhole) throw badArchive(archive, "its tar is cut: its end mark is missing");
  } finally {
    tar.close();
  }
}

/** An error of the source or of the tar, as ours. */
function explained(cause: unknown, archive: string): unknown {
  if (cause instanceof BurrowError) return cause;
  if (cause instanceof Error && "syscall" in cause) return readError(cause, archive);
  const text = cause instanceof Error ? cause.message : String(cause);
  return badArchive(archive, `its tar is cut or corrupt: ${text}`, undefined, cause);
}

function entryOf(entry: TarEntry, archive: string, budget: Budget): ArchiveEntry {
  const header = readHeader(entry);
  if (typeof header === "string") throw badArchive(archive, header, entry.name);
  const name = withoutDots(header.name);
  const { type, size } = header;
  budget.takeEntry(name, size);
  const { mode, mtimeSec, mtimeNs } = header.attributes;
  const common = { name, mode, size, mtimeSec, mtimeNs };
  const isFile = type === "file" || type === "contiguous-file";
  if (!isFile && size !== 0) {
    // Readers differ in whether such content is there: what one skips, another takes for the next header.
    throw badArchive(archive, `it is a ${type} and claims ${size} bytes of content`, name);
  }
  switch (type) {
    case "file":
    case "contiguous-file": {
      // Before ustar a directory was an empty file with a slash at its end; PAX names may still be.
      const isOldDirectory = type === "file" && size === 0 && name.endsWith("/");
      const { content } = entry;
      return isOldDirectory
        ? { ...common, type: "directory" }
        : { ...common, type: "file", content };
    }
    case "link":
      return { ...common, type: "hardlink", target: withoutDots(header.linkname) };
    case "symlink":
      return { ...common, type, target: header.linkname };
    default:
      return { ...common, type };
  }
}

function withoutDots(name: string): string {
  return name.startsWith("./") ? name.replace(/^(\.\/+)+/, "") : name;
}
