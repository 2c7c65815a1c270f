// Conda archives as a stream of entries: .conda (a zip with two zstd tars) and .tar.bz2. Says what is in an archive, judges
// nothing but whether it can be read whole; import.ts judges. Told apart by their first bytes. Control plane.

import { createReadStream } from "node:fs";
import { open } from "node:fs/promises";
import { basename } from "node:path";
import type { Readable } from "node:stream";
import { extract } from "tar-stream";
import { assert } from "../../base/assert.ts";
import { BurrowError } from "../../base/error.ts";
import { ARCHIVE_BYTES_MAX, ARCHIVE_ENTRIES_MAX } from "../../base/limits.ts";
import { decompressed, kindOf, MAGIC_BYTES } from "../decompress.ts";
import { readHeader, type TarHeader } from "../tar-header.ts";
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
  readonly content?: AsyncIterable<Uint8Array>;
}

export interface ReadOptions {
  /** What errors call the archive; the file's name when missing. */
  readonly name?: string;
  /** Lower bounds than limits.ts has: entries, and bytes of the archive after decompression. */
  readonly maxEntries?: number;
  readonly maxBytes?: number;
}

const ZIP_MAGIC = "504b";
const TAR_BLOCK = 512;
const READ_BYTES = 1 << 20;

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
        yield* tarEntries(decompressed(bytes, "zst", archive), archive, budget);
      }
    } finally {
      zip.close();
    }
  } else if (kindOf(start) === "bz2") {
    const bytes = createReadStream(path, { highWaterMark: READ_BYTES });
    yield* tarEntries(decompressed(bytes, "bz2", archive), archive, budget);
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

/**
 * How a tar ends: cut between two entries it is a tar without its end mark, which tar-stream takes for a whole one. Without the
 * mark, a part of info/ could be missing that no list names.
 */
class TarEnd {
  /** Where the last entry's content ends, padding included. */
  #contentEnd = 0;
  #byteCount = 0;
  #zeros = 0;

  see(chunk: Buffer): void {
    this.#byteCount += chunk.length;
    let at = chunk.length;
    while (at > 0 && chunk.length - at < TAR_BLOCK && chunk[at - 1] === 0) at--;
    const zeros = chunk.length - at;
    this.#zeros = zeros === chunk.length ? this.#zeros + zeros : zeros;
  }

  takeEntry({ contentOffset, size }: TarHeader): void {
    this.#contentEnd = contentOffset + Math.ceil(size / TAR_BLOCK) * TAR_BLOCK;
  }

  /** Once all bytes were seen. */
  get isWhole(): boolean {
    return this.#zeros >= TAR_BLOCK && this.#byteCount >= this.#contentEnd + TAR_BLOCK;
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
  source: Readable,
  archive: string,
  budget: Budget,
): AsyncIterable<ArchiveEntry> {
  // Names as latin1 are names as bytes. The option is not in tar-stream's types.
  const options = { filenameEncoding: "latin1", highWaterMark: 1 << 20 };
  const tar = extract(options);
  let failure: unknown;
  const fail = (error: unknown) => {
    failure ??= error;
    tar.destroy(error instanceof Error ? error : new Error(String(error)));
  };
  tar.on("error", (error: unknown) => {
    failure ??= error;
  });
  source.on("error", fail);
  const end = new TarEnd();
  source.on("data", (chunk: Buffer) => {
    end.see(chunk);
    const error = budget.takeBytes(chunk.length);
    if (error !== undefined) fail(error);
  });
  source.pipe(tar as unknown as NodeJS.WritableStream);
  const explain = (error: unknown) => explained(failure ?? error, error, archive);
  try {
    for await (const entry of tar) {
      yield entryOf(entry.header, bytesOf(entry, explain), archive, budget, end);
      // What was read already has nothing more to say.
      entry.resume();
    }
    if (!end.isWhole) throw badArchive(archive, "its tar is cut: its end mark is missing");
  } catch (error) {
    throw explain(error);
  } finally {
    source.destroy();
    tar.destroy();
  }
}

/** An error of the source, of tar-stream or of our caller, as ours. */
function explained(failure: unknown, error: unknown, archive: string): unknown {
  if (error instanceof BurrowError) return error;
  if (failure instanceof BurrowError) return failure;
  if (failure instanceof Error && "syscall" in failure) return readError(failure, archive);
  const text = failure instanceof Error ? failure.message : String(failure);
  return badArchive(archive, `its tar is cut or corrupt: ${text}`, undefined, failure);
}

type TarEntry = Parameters<typeof readHeader>[0];

function entryOf(
  raw: TarEntry,
  content: AsyncIterable<Uint8Array>,
  archive: string,
  budget: Budget,
  end: TarEnd,
): ArchiveEntry {
  const header = readHeader(raw);
  if (typeof header === "string") throw badArchive(archive, header, raw.name);
  const name = header.name.replace(/^(\.\/+)+/, "");
  budget.takeEntry(name, header.size);
  end.takeEntry(header);
  const { mode, mtimeSec, mtimeNs } = header.attributes;
  // Before ustar a directory was an empty file with a slash at its end; PAX names may still be.
  const isOldDirectory = header.type === "file" && header.size === 0 && name.endsWith("/");
  const common = { name, mode, size: header.size, mtimeSec, mtimeNs };
  const isFile = header.type === "file" || header.type === "contiguous-file";
  if (!isFile && header.size !== 0) {
    // Readers differ in whether such content is there: what one skips, another takes for the next header.
    const why = `it is a ${header.type} and claims ${header.size} bytes of content`;
    throw badArchive(archive, why, name);
  }
  switch (header.type) {
    case "file":
    case "contiguous-file":
      return isOldDirectory
        ? { ...common, type: "directory" }
        : { ...common, type: "file", content };
    case "link":
      return { ...common, type: "hardlink", target: header.linkname.replace(/^(\.\/+)+/, "") };
    case "symlink":
      return { ...common, type: "symlink", target: header.linkname };
    default:
      return { ...common, type: header.type };
  }
}

async function* bytesOf(
  entry: AsyncIterable<unknown>,
  explain: (error: unknown) => unknown,
): AsyncIterable<Uint8Array> {
  try {
    for await (const chunk of entry) {
      assert(chunk instanceof Uint8Array, "tar-stream yields bytes");
      yield chunk;
    }
  } catch (error) {
    throw explain(error);
  }
}
