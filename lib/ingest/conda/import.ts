// One conda package to the entries of its layer, below the prefix it is for: linked as conda links it, placeholders replaced,
// noarch laid out, every file held against paths.json. A package is hostile until shown otherwise. Control plane.

import { pathToFileURL } from "node:url";
import type { BlobRef } from "../../base/blob.ts";
import { BurrowError } from "../../base/error.ts";
import type { LayerEntry } from "../../layer/entry.ts";
import type { BlobSink } from "../../store/blob-sink.ts";
import { plainPath, Refusal } from "../entry-tree.ts";
import { type ArchiveEntry, type ReadOptions, readCondaArchive } from "./archive.ts";
import { wholeMetadata } from "./content.ts";
import { nameOfArchive } from "./dist.ts";
import { Linker } from "./linker.ts";
import { type IndexJson, METADATA_FILES } from "./metadata.ts";
import { pythonTarget } from "./noarch.ts";
import { type PackageRecord, recordBytes, recordPath } from "./record.ts";
import { type ArchiveHashes, type Expected, hashArchive, openArchive } from "./verify.ts";

export interface ImportOptions {
  /** Absolute path of the environment, as programs in a sandbox see it. */
  readonly prefix: string;
  readonly sink: BlobSink;
  /** The environment's Python, "3.11" or longer: noarch: python packages need it. */
  readonly pythonVersion?: string;
  /** Latin1 path below the prefix where that Python looks for packages, when it isn't the usual. */
  readonly sitePackages?: string;
  /** Those that the package may be for; any when missing. */
  readonly subdirs?: readonly string[];
  /** Where the package is from, for its record; a file: URL of `path` when missing. */
  readonly url?: string;
  /** Checked before anything of the archive is believed. */
  readonly expected?: Expected;
  /** The same as a lock's item has it. */
  readonly sha256?: string;
  readonly md5?: string;
  /** Called with the path of each entry as it is taken, for progress. */
  readonly onEntry?: (path: string) => void;
  /** Lower bounds than limits.ts has. */
  readonly limits?: Pick<ReadOptions, "maxEntries" | "maxBytes">;
}

export interface ImportedPackage {
  /** Entries of the layer, relative to the prefix; its root has none. */
  readonly entries: LayerEntry[];
  readonly record: PackageRecord;
  readonly metadata: IndexJson;
  /** What was not done as the package may expect, for people: scripts that were not run, files that it doesn't list. */
  readonly warnings: readonly string[];
}

/**
 * Imports the package in the file `path`. Throws BURROW_DIGEST_MISMATCH (not the archive that was expected), BURROW_BAD_ARCHIVE
 * (cut, corrupt, or no plain tree), BURROW_BAD_PACKAGE (not what its metadata says), BURROW_PREFIX_TOO_LONG, BURROW_USAGE (prefix
 * or Python version) and what the sink throws. What it put into the sink before is harmless there.
 */
export async function importCondaPackage(
  path: string,
  options: ImportOptions,
): Promise<ImportedPackage> {
  const name = nameOfArchive(options.url ?? path);
  checkPrefix(options.prefix);
  await using file = await openArchive(path, name);
  const hashes = await hashArchive(file, name, expectedOf(options));
  // All reads are of the file that was hashed, whatever its name means by now.
  const source = `/proc/self/fd/${file.fd}`;
  const read = { name, ...options.limits };
  const url = options.url ?? pathToFileURL(path).href;
  const importer = new Importer(name, { ...options, url }, hashes);
  if (await importer.take(readCondaArchive(source, read))) return await importer.finish();
  // Old archives may have metadata behind the files that it is about: read that first, then all again.
  const metadata = await collectMetadata(source, name, read);
  const again = new Importer(name, { ...options, url }, hashes, metadata);
  await again.take(readCondaArchive(source, read));
  return await again.finish();
}

function expectedOf({ expected = {}, sha256, md5 }: ImportOptions): Expected {
  return {
    ...(sha256 === undefined ? {} : { sha256 }),
    ...(md5 === undefined ? {} : { md5 }),
    ...expected,
  };
}

function checkPrefix(prefix: string): void {
  const plain = plainPath(Buffer.from(prefix).toString("latin1").slice(1));
  const isPlain = prefix.startsWith("/") && typeof plain === "string" && plain !== "";
  const isNormal = Buffer.from(prefix).toString("latin1") === `/${plain}`;
  if (isPlain && isNormal && !/[\0-\x1f\x7f]/.test(prefix)) return;
  throw new BurrowError("BURROW_USAGE", `"${prefix}" is no prefix: say an absolute path`);
}

class Importer {
  readonly #name: string;
  readonly #options: ImportOptions & { readonly url: string };
  readonly #hashes: ArchiveHashes;
  readonly #linker: Linker;
  /** Whether the metadata was read before: then nothing can come late. */
  readonly #isSecond: boolean;

  constructor(
    name: string,
    options: ImportOptions & { readonly url: string },
    hashes: ArchiveHashes,
    metadata?: ReadonlyMap<string, Buffer>,
  ) {
    const { prefix, sink, subdirs, pythonVersion, sitePackages } = options;
    const python =
      pythonVersion === undefined ? undefined : pythonTarget(pythonVersion, sitePackages);
    this.#name = name;
    this.#options = options;
    this.#hashes = hashes;
    this.#isSecond = metadata !== undefined;
    const link = { name, prefix, sink, ...(python ? { python } : {}) };
    this.#linker = new Linker({ ...link, ...(subdirs ? { subdirs } : {}) }, metadata);
  }

  /** Takes all entries; false when metadata came too late to have been heeded. */
  async take(entries: AsyncIterable<ArchiveEntry>): Promise<boolean> {
    for await (const entry of entries) {
      const isInTime = await this.#linker.take(entry);
      this.#options.onEntry?.(entry.name);
      if (!isInTime && !this.#isSecond) return false;
    }
    return this.#isSecond || this.#linker.hasMetadata;
  }

  async finish(): Promise<ImportedPackage> {
    const { url, sink } = this.#options;
    const record = await this.#linker.finish({ url, fileName: this.#name, ...this.#hashes });
    const { index } = this.#linker;
    const path = recordPath(index);
    const blob: BlobRef = await sink.addBytes(recordBytes(record), path);
    this.#linker.addGenerated(path, 0o644, blob);
    const { warnings } = this.#linker;
    return { entries: this.#linker.entries(), record, metadata: index, warnings };
  }
}

/** The metadata of an archive, read before and apart from its files. */
async function collectMetadata(
  source: string,
  name: string,
  options: ReadOptions = {},
): Promise<Map<string, Buffer>> {
  const files = new Map<string, Buffer>();
  for await (const entry of readCondaArchive(source, { ...options, name })) {
    const path = plainPath(entry.name);
    if (path instanceof Refusal || entry.content === undefined) continue;
    if (METADATA_FILES.has(path)) files.set(path, await wholeMetadata(entry, name));
  }
  return files;
}
