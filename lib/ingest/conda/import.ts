// One conda package to the entries of its layer, linked at a prefix: what `conda install` would have made there. The archive's
// hash is checked before anything of it is believed; every file is held against paths.json as it streams by. Files without the
// placeholder go straight to the sink; memory is bounded by the largest file with it. docs/conda.md. Control plane.

import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { basename } from "node:path";
import type { BlobRef } from "../../base/blob.ts";
import { BurrowError } from "../../base/error.ts";
import { nameOf, showName } from "../../base/name.ts";
import type { LayerEntry } from "../../layer/entry.ts";
import type { BlobSink } from "../../store/blob-sink.ts";
import { readMetadata, readPackageFiles } from "./archive.ts";
import { type CondaMetadata, type PathRecord, readCondaMetadata } from "./metadata.ts";
import { entryPointScript, noarchPath } from "./noarch.ts";
import { rewritePrefix } from "./prefix.ts";

/** Largest file with a placeholder: it is rewritten in memory. */
const REWRITTEN_MAX_BYTES = 512 * 1024 * 1024;

export interface CondaImportOptions {
  /** Absolute path at which the environment will be seen. */
  readonly prefix: string;
  /** "3.11": where noarch: python packages go; without it they are refused. */
  readonly pythonVersion?: string;
  readonly sink: BlobSink;
  /** Where the package came from, for its record; its path when missing. */
  readonly url?: string;
  readonly sha256?: string;
  readonly md5?: string;
  readonly onEntry?: (path: string) => void;
}

export interface ImportedPackage {
  /** Below the prefix. */
  readonly entries: LayerEntry[];
  readonly metadata: CondaMetadata;
  readonly sha256: string;
}

/** Hashes of a package's archive, held against what a lock says. BURROW_DIGEST_MISMATCH, BURROW_NOT_FOUND. */
export async function checkArchive(
  path: string,
  expected: { readonly sha256?: string; readonly md5?: string },
): Promise<{ sha256: string; md5: string; size: number }> {
  const archive = basename(path);
  const sha256 = createHash("sha256");
  const md5 = createHash("md5");
  let size = 0;
  try {
    for await (const chunk of createReadStream(path, { highWaterMark: 1 << 20 })) {
      const bytes = chunk as Buffer;
      sha256.update(bytes);
      md5.update(bytes);
      size += bytes.length;
    }
  } catch (cause) {
    throw new BurrowError("BURROW_NOT_FOUND", `can't read the package ${archive}`, {
      cause,
      context: { path },
    });
  }
  const actual = { sha256: sha256.digest("hex"), md5: md5.digest("hex"), size };
  for (const kind of ["sha256", "md5"] as const) {
    const wanted = expected[kind];
    if (wanted === undefined || wanted.toLowerCase() === actual[kind]) continue;
    throw new BurrowError("BURROW_DIGEST_MISMATCH", `the package is not what its lock says`, {
      context: { package: archive, expected: `${kind}:${wanted}`, got: `${kind}:${actual[kind]}` },
    });
  }
  return actual;
}

/** Imports one package. Nothing of it is believed when it throws; what went to the sink is unused content. */
export async function importCondaPackage(
  path: string,
  options: CondaImportOptions,
): Promise<ImportedPackage> {
  const { sha256, md5, size } = await checkArchive(path, options);
  const archive = basename(path);
  const metadata = readCondaMetadata(archive, await readMetadata(path, archive));
  const linker = new Linker(archive, metadata, options);
  const entries = await linker.link(path);
  const facts = { sha256, md5, size, url: options.url ?? path, fn: archive };
  entries.push(await linker.record(facts));
  return { entries, metadata, sha256 };
}

interface Linked {
  /** In the archive and below the prefix. */
  readonly record: PathRecord;
  readonly target: string;
  sha256: string;
  sha256InPrefix: string;
  size: number;
}

/** One package being linked. */
class Linker {
  readonly #archive: string;
  readonly #metadata: CondaMetadata;
  readonly #options: CondaImportOptions;
  readonly #linked = new Map<string, Linked>();
  #current: Linked | undefined;

  constructor(archive: string, metadata: CondaMetadata, options: CondaImportOptions) {
    this.#archive = archive;
    this.#metadata = metadata;
    this.#options = options;
    if (metadata.noarch === "python" && options.pythonVersion === undefined) {
      throw new BurrowError(
        "BURROW_BAD_LOCK",
        "a noarch: python package in an environment without Python",
        {
          context: { package: archive },
        },
      );
    }
  }

  async link(path: string): Promise<LayerEntry[]> {
    const entries: LayerEntry[] = [];
    const files = readPackageFiles(path, this.#archive, {
      sink: {
        addBytes: (bytes) => this.#add(bytes),
        addStream: (chunks, size) => this.#addStream(chunks, size),
      },
      mapPath: (name, type) => this.#place(name, type),
    });
    for await (const entry of files) {
      this.#options.onEntry?.(entry.path);
      entries.push(plain(entry));
    }
    this.#checkAllThere(entries);
    for (const point of this.#metadata.entryPoints) entries.push(await this.#script(point));
    return entries;
  }

  /** Where an archived path is linked, or undefined when it is not; remembers it for the content that follows. */
  #place(path: string, type: LayerEntry["type"]): string | undefined {
    const { paths, noarch } = this.#metadata;
    const record = paths === undefined ? { path, type: "hardlink" as const } : paths.get(path);
    this.#current = undefined;
    // Directories come with what is in them; only those that paths.json names are made empty.
    if (record === undefined || (type === "directory" && record.type !== "directory"))
      return undefined;
    const target = noarch === "python" ? noarchPath(path, this.#options.pythonVersion!) : path;
    // A hard link asks for its target's place again: what is known of that stays.
    this.#current = this.#linked.get(target) ?? {
      record,
      target,
      sha256: "",
      sha256InPrefix: "",
      size: 0,
    };
    this.#linked.set(target, this.#current);
    return target;
  }

  async #add(bytes: Uint8Array): Promise<BlobRef> {
    const current = this.#current!;
    const { placeholder } = current.record;
    if (placeholder === undefined) {
      const blob = await this.#options.sink.addBytes(bytes);
      this.#note(current, blob.digest, bytes.length, blob);
      return blob;
    }
    const digest = createHash("sha256").update(bytes).digest("hex");
    const content = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
    const rewrite = { placeholder, mode: current.record.mode! };
    const context = { package: this.#archive, file: showName(current.record.path) };
    const rewritten = rewritePrefix(content, rewrite, this.#options.prefix, context);
    const blob = await this.#options.sink.addBytes(rewritten);
    this.#note(current, digest, bytes.length, blob);
    return blob;
  }

  async #addStream(chunks: AsyncIterable<Uint8Array>, size: number): Promise<BlobRef> {
    const current = this.#current!;
    if (current.record.placeholder === undefined) {
      const blob = await this.#options.sink.addStream(chunks, size);
      this.#note(current, blob.digest, blob.size, blob);
      return blob;
    }
    if (size > REWRITTEN_MAX_BYTES)
      throw this.#bad(
        current.record.path,
        `with a placeholder it may have ${REWRITTEN_MAX_BYTES} bytes`,
      );
    const parts: Uint8Array[] = [];
    for await (const chunk of chunks) parts.push(chunk);
    return await this.#add(Buffer.concat(parts));
  }

  /** Holds a file against paths.json. */
  #note(current: Linked, sha256: string, size: number, blob: BlobRef): void {
    const { record } = current;
    if (record.sha256 !== undefined && record.sha256 !== sha256) {
      throw this.#bad(
        record.path,
        `paths.json says sha256 ${record.sha256}, the file has ${sha256}`,
      );
    }
    if (record.size !== undefined && record.size !== size) {
      throw this.#bad(record.path, `paths.json says ${record.size} bytes, the file has ${size}`);
    }
    current.sha256 = sha256;
    current.sha256InPrefix = blob.digest;
    current.size = blob.size;
  }

  #bad(file: string, why: string): BurrowError {
    return new BurrowError("BURROW_BAD_PACKAGE", why, {
      context: { package: this.#archive, file: showName(file) },
    });
  }

  /** Every path of paths.json must have come, and as what it says. */
  #checkAllThere(entries: readonly LayerEntry[]): void {
    const came = new Map(entries.map((entry) => [entry.path, entry.type]));
    for (const record of this.#metadata.paths?.values() ?? []) {
      const { noarch } = this.#metadata;
      const target =
        noarch === "python" ? noarchPath(record.path, this.#options.pythonVersion!) : record.path;
      const type = came.get(target);
      if (type === undefined)
        throw this.#bad(record.path, "it is listed, and missing in the archive");
      if (record.type === "softlink" && type === "directory")
        throw this.#bad(record.path, "it is listed as a softlink");
    }
  }

  async #script(point: CondaMetadata["entryPoints"][number]): Promise<LayerEntry> {
    const script = entryPointScript(point, this.#options.prefix, this.#options.pythonVersion!);
    const blob = await this.#options.sink.addBytes(script);
    const path = nameOf(`bin/${point.command}`);
    return { type: "file", path, mode: 0o755, uid: 0, gid: 0, mtimeSec: 0, mtimeNs: 0, blob };
  }

  /** conda-meta/NAME-VERSION-BUILD.json: what conda and pip tools read. Without times, so that equal input gives equal bytes. */
  async record(facts: {
    sha256: string;
    md5: string;
    size: number;
    url: string;
    fn: string;
  }): Promise<LayerEntry> {
    const { name, version, build, buildNumber, entryPoints } = this.#metadata;
    const scripts = entryPoints.map((point) => `bin/${point.command}`);
    const linked = [...this.#linked.values()].sort((a, b) => (a.target < b.target ? -1 : 1));
    const record = {
      ...this.#metadata.index,
      name,
      version,
      build,
      build_number: buildNumber,
      ...facts,
      channel: facts.url.slice(0, Math.max(0, facts.url.lastIndexOf("/"))).replace(/\/[^/]+$/, ""),
      files: [...linked.map(({ target }) => showName(target)), ...scripts],
      paths_data: {
        paths_version: 1,
        paths: [
          ...linked.map(pathData),
          ...scripts.map((path) => ({ _path: path, path_type: "unix_python_entry_point" })),
        ],
      },
      link: { source: "", type: 1 },
      requested_spec: "None",
    };
    const blob = await this.#options.sink.addBytes(
      Buffer.from(`${JSON.stringify(record, null, 2)}\n`),
    );
    const path = nameOf(`conda-meta/${name}-${version}-${build}.json`);
    return { type: "file", path, mode: 0o644, uid: 0, gid: 0, mtimeSec: 0, mtimeNs: 0, blob };
  }
}

function pathData({
  record,
  target,
  sha256,
  sha256InPrefix,
  size,
}: Linked): Record<string, unknown> {
  return {
    _path: showName(target),
    path_type: record.type,
    ...(sha256 === ""
      ? {}
      : { sha256, sha256_in_prefix: sha256InPrefix, size_in_bytes: record.size ?? size }),
    ...(record.placeholder === undefined
      ? {}
      : { prefix_placeholder: record.placeholder, file_mode: record.mode }),
  };
}

/** As conda leaves it: the installer's owner, plain permissions; a package can't bring setuid files. */
function plain(entry: LayerEntry): LayerEntry {
  const { xattrs: _, ...rest } = entry;
  return { ...rest, mode: entry.mode & 0o777, uid: 0, gid: 0 } as LayerEntry;
}
