// Linker: the entries of one package as they come, turned into those of its layer. Holds two trees: of the archive, where every
// entry must have its place, and of the prefix, where only what the package lists is linked. Control plane.

import type { BlobRef } from "../../base/blob.ts";
import { BurrowError } from "../../base/error.ts";
import { SYMLINK_MAX_BYTES } from "../../base/limits.ts";
import { showName } from "../../base/name.ts";
import type { LayerEntry } from "../../layer/entry.ts";
import type { BlobSink } from "../../store/blob-sink.ts";
import { digestOf } from "../../store/hash.ts";
import { EntryTree, plainPath, Refusal } from "../entry-tree.ts";
import { addContent, discardingSink } from "../sink.ts";
import type { ArchiveEntry } from "./archive.ts";
import { wholeMetadata, wholePatched } from "./content.ts";
import { badArchive, badPackage } from "./errors.ts";
import {
  type IndexJson,
  isComplete,
  type ListedPath,
  METADATA_FILES,
  type PackageMetadata,
  readMetadata,
} from "./metadata.ts";
import { entryPoint, noarchPath, type PythonTarget } from "./noarch.ts";
import { replacePlaceholder } from "./prefix.ts";
import {
  type ArchiveFacts,
  makeRecord,
  type PackageRecord,
  type RecordPath,
  recordPathOf,
} from "./record.ts";

export interface LinkOptions {
  readonly name: string;
  readonly prefix: string;
  readonly sink: BlobSink;
  readonly subdirs?: readonly string[];
  readonly python?: PythonTarget;
}

/** What a linked path turned out to be. */
type Found =
  | { readonly type: "symlink" }
  | {
      readonly type: "file";
      /** Of the content as archived. */
      readonly sha256: string;
      readonly size: number;
      readonly sha256InPrefix: string;
    };

interface Plan {
  readonly metadata: PackageMetadata;
  readonly listed: ReadonlyMap<string, ListedPath>;
}

/** conda makes directories as they are needed, with the mode of its user's umask: the usual one here. */
const DIRECTORY_MODE = 0o755;
const PROGRAM_MODE = 0o755;
const LINK_MODE = 0o777;
/** Set-id and sticky bits are not a package's to give. */
const MODE_MASK = 0o777;
const SCRIPT = /^bin\/\.[^/]+-(pre-link|post-link|pre-unlink)\.sh$/;
const discarding = discardingSink();

export class Linker {
  readonly #options: LinkOptions;
  readonly #archived = new EntryTree();
  readonly #linked = new EntryTree();
  readonly #metadata: Map<string, Buffer>;
  readonly #found = new Map<string, Found>();
  #plan: Plan | undefined;
  #unlistedCount = 0;
  #scripts: string[] = [];

  /** `metadata`: the files of METADATA_FILES, when they were read before. */
  constructor(options: LinkOptions, metadata?: ReadonlyMap<string, Buffer>) {
    this.#options = options;
    this.#metadata = new Map(metadata ?? []);
    if (metadata !== undefined) this.#plan = this.#makePlan();
  }

  get hasMetadata(): boolean {
    return this.#plan !== undefined || isComplete(this.#metadata);
  }

  get index(): IndexJson {
    return this.#made().metadata.index;
  }

  get warnings(): string[] {
    const warnings = this.#scripts.map((path) => `${showName(path)} is not run`);
    if (this.#unlistedCount > 0) {
      warnings.push(`files in the archive that are not in its list: ${this.#unlistedCount}`);
    }
    return warnings;
  }

  entries(): LayerEntry[] {
    return [...this.#linked.entries()];
  }

  /** Takes an entry; false when it needs metadata that hasn't come, or is metadata that comes too late. */
  async take(entry: ArchiveEntry): Promise<boolean> {
    const path = plainPath(entry.name);
    if (path instanceof Refusal) throw this.#badArchive(path.why, entry.name);
    if (path === "info" || path.startsWith("info/")) return await this.#takeInfo(path, entry);
    if (entry.type === "directory") {
      // conda links no directories but those that a list names; those are made in finish().
      this.#accept(path, this.#archived.add(directory(path)));
      return true;
    }
    if (this.#plan === undefined) {
      if (!isComplete(this.#metadata)) return false;
      this.#plan = this.#makePlan();
    }
    await this.#takePayload(path, entry, this.#plan.listed.get(path));
    return true;
  }

  async #takeInfo(path: string, entry: ArchiveEntry): Promise<boolean> {
    let isInTime = true;
    if (entry.type === "file" && METADATA_FILES.has(path)) {
      const bytes = await wholeMetadata(entry, this.#options.name);
      const known = this.#metadata.get(path);
      if (this.#plan !== undefined && known === undefined) isInTime = false;
      if (known === undefined) this.#metadata.set(path, bytes);
      else if (!known.equals(bytes)) {
        throw this.#badArchive("it comes twice, with different content", path);
      }
      this.#accept(
        path,
        this.#archived.add(
          file(path, entry, await discarding.addBytes(bytes, path, entry.content?.digest)),
        ),
      );
    } else {
      await this.#takeUnlisted(path, entry);
    }
    return isInTime;
  }

  async #takePayload(path: string, entry: ArchiveEntry, listed: ListedPath | undefined) {
    if (listed === undefined) {
      if (entry.type !== "directory") this.#unlistedCount++;
      return await this.#takeUnlisted(path, entry);
    }
    switch (entry.type) {
      case "file":
        return await this.#takeFile(path, entry, listed);
      case "symlink":
        return this.#takeSymlink(path, entry, listed);
      case "hardlink":
        return this.#takeHardLink(path, entry, listed);
      default:
        throw this.#badArchive(`it is a ${entry.type}`, path);
    }
  }

  /** What isn't linked must still have its place in the archive: a reader that trusts another one's judgement gets no surprise. */
  async #takeUnlisted(path: string, entry: ArchiveEntry): Promise<void> {
    switch (entry.type) {
      case "file":
        this.#accept(path, this.#archived.add(file(path, entry, await this.#stream(path, entry))));
        return;
      case "directory":
        this.#accept(path, this.#archived.add(directory(path)));
        return;
      case "symlink":
        this.#accept(path, this.#archived.add(this.#symlink(path, entry)));
        return;
      case "hardlink":
        this.#archivedLink(path, entry);
        return;
      default:
        throw this.#badArchive(`it is a ${entry.type}`, path);
    }
  }

  async #takeFile(path: string, entry: ArchiveEntry, listed: ListedPath): Promise<void> {
    if (listed.type !== "hardlink" && listed.type !== "unknown") {
      throw this.#badPackage(`its list has it as a ${listed.type} and the archive as a file`, path);
    }
    const { sink, prefix, name } = this.#options;
    const place = this.#place(path);
    let archived: { digest: string; size: number };
    let blob: BlobRef;
    if (listed.placeholder === undefined) {
      blob = await this.#stream(path, entry, sink);
      archived = blob;
      this.#check(path, listed, archived);
    } else {
      const bytes = await wholePatched(entry, name);
      archived = { digest: entry.content?.digest ?? digestOf(bytes), size: bytes.length };
      this.#check(path, listed, archived);
      const context = { package: name, file: showName(path) };
      const patched = replacePlaceholder(bytes, listed.placeholder, prefix, context);
      blob = await sink.addBytes(patched, place);
    }
    const raw = { ...blob, digest: archived.digest as BlobRef["digest"], size: archived.size };
    this.#accept(path, this.#archived.add(file(path, entry, raw)));
    this.#link(path, file(place, entry, blob));
    if (SCRIPT.test(place)) this.#scripts.push(place);
    const { digest: sha256, size } = archived;
    this.#found.set(path, { type: "file", sha256, size, sha256InPrefix: blob.digest });
  }

  #takeSymlink(path: string, entry: ArchiveEntry, listed: ListedPath): void {
    if (listed.type !== "softlink" && listed.type !== "unknown") {
      throw this.#badPackage(
        `its list has it as a ${listed.type} and the archive as a symlink`,
        path,
      );
    }
    const link = this.#symlink(path, entry);
    this.#accept(path, this.#archived.add(link));
    this.#link(path, { ...link, path: this.#place(path) });
    this.#found.set(path, { type: "symlink" });
  }

  #takeHardLink(path: string, entry: ArchiveEntry, listed: ListedPath): void {
    const target = this.#archivedLink(path, entry);
    const found = this.#found.get(target);
    if (found === undefined) {
      throw this.#badPackage("it is a hard link to a file that its list doesn't have", path);
    }
    const { listed: all } = this.#made();
    if (!isSamePlaceholder(listed, all.get(target)!)) {
      throw this.#badPackage("it is a hard link to a file with another placeholder", path);
    }
    if (found.type === "symlink" && listed.type === "hardlink") {
      throw this.#badPackage("its list has it as a hardlink and the archive as a symlink", path);
    }
    if (found.type === "file") {
      if (listed.type === "softlink" || listed.type === "directory") {
        throw this.#badPackage(
          `its list has it as a ${listed.type} and the archive as a file`,
          path,
        );
      }
      this.#check(path, listed, { digest: found.sha256, size: found.size });
    }
    const linked = this.#linked.link(this.#place(path), this.#place(target));
    if (linked instanceof Refusal) throw this.#badArchive(linked.why, path);
    this.#found.set(path, found);
  }

  /** Puts a hard link into the archive's tree; its target's path. */
  #archivedLink(path: string, entry: ArchiveEntry): string {
    const target = plainPath(entry.target ?? "");
    if (target instanceof Refusal) throw this.#badArchive(`its target: ${target.why}`, path);
    const linked = this.#archived.link(path, target);
    if (linked instanceof Refusal) throw this.#badArchive(linked.why, path);
    return target;
  }

  #symlink(path: string, entry: ArchiveEntry): Extract<LayerEntry, { type: "symlink" }> {
    const target = entry.target ?? "";
    if (target === "" || target.length > SYMLINK_MAX_BYTES || target.includes("\0")) {
      throw this.#badArchive("it is a symlink whose target is not allowed", path);
    }
    return { type: "symlink", path, ...timesOf(entry), mode: LINK_MODE, target };
  }

  async #stream(path: string, entry: ArchiveEntry, sink: BlobSink = discarding): Promise<BlobRef> {
    const { size, content } = entry;
    return await addContent(sink, content!, size, (actual) =>
      this.#badArchive(`its size is ${size} bytes in its header and ${actual} in fact`, path),
    );
  }

  #check(path: string, listed: ListedPath, got: { digest: string; size: number }): void {
    const isSize = listed.size === undefined || listed.size === got.size;
    if (!isSize) {
      throw this.#badPackage(`it has ${got.size} bytes and its list says ${listed.size}`, path);
    }
    if (listed.sha256 === undefined || listed.sha256 === got.digest) return;
    throw new BurrowError("BURROW_BAD_PACKAGE", "its sha256 is not that of its list", {
      context: {
        package: this.#options.name,
        file: showName(path),
        expected: listed.sha256,
        got: got.digest,
      },
    });
  }

  /** Links what is left (listed directories, entry points) and makes the record. All entries must have been taken. */
  async finish(facts: ArchiveFacts): Promise<PackageRecord> {
    this.#plan ??= this.#makePlan();
    const { metadata } = this.#plan;
    const paths: RecordPath[] = metadata.paths.map((listed) => this.#finishPath(listed));
    const { python, prefix, name, sink } = this.#options;
    if (metadata.index.noarch === "python" && python !== undefined) {
      for (const definition of metadata.entryPoints) {
        const { path, content } = entryPoint(definition, prefix, python, name);
        const blob = await sink.addBytes(content, path);
        this.addGenerated(path, PROGRAM_MODE, blob);
        paths.push({
          _path: showName(path),
          path_type: "unix_python_entry_point",
          sha256_in_prefix: blob.digest,
          size_in_bytes: blob.size,
        });
      }
    }
    return makeRecord(metadata.index, facts, paths);
  }

  #finishPath(listed: ListedPath): RecordPath {
    const path = this.#place(listed.path);
    if (listed.type === "directory") {
      this.#link(listed.path, directory(path));
      return recordPathOf(listed, path, "directory");
    }
    const found = this.#found.get(listed.path);
    if (found === undefined) {
      throw this.#badPackage("its list has it and the archive does not", listed.path);
    }
    if (found.type === "symlink") return recordPathOf(listed, path, "softlink");
    return recordPathOf(listed, path, "hardlink", found);
  }

  /** Adds a file that is made here. BURROW_BAD_PACKAGE when the package has one in its place. */
  addGenerated(path: string, mode: number, blob: BlobRef): void {
    this.#inPrefix(path, path);
    this.#link(path, {
      type: "file",
      path,
      mode,
      uid: 0,
      gid: 0,
      mtimeSec: 0,
      mtimeNs: 0,
      blob,
    });
  }

  #makePlan(): Plan {
    const { name, python, subdirs } = this.#options;
    const metadata = readMetadata(this.#metadata, name);
    const { subdir } = metadata.index;
    if (subdirs !== undefined && !subdirs.includes(subdir)) {
      throw new BurrowError("BURROW_BAD_LOCK", `the package is for ${subdir}`, {
        context: { package: name, subdir, expected: subdirs.join(", ") },
      });
    }
    if (metadata.index.noarch === "python" && python === undefined) {
      throw new BurrowError(
        "BURROW_BAD_LOCK",
        "a noarch: python package, and no Python to lay it out for",
        {
          context: { package: name },
        },
      );
    }
    return { metadata, listed: new Map(metadata.paths.map((one) => [one.path, one])) };
  }

  #made(): Plan {
    this.#plan ??= this.#makePlan();
    return this.#plan;
  }

  #place(path: string): string {
    const { python } = this.#options;
    const isPython = this.#made().metadata.index.noarch === "python" && python !== undefined;
    return isPython ? this.#inPrefix(noarchPath(path, python), path) : path;
  }

  /** A path that was made here of a package's: longer than in the archive, it may be over what a layer takes. */
  #inPrefix(made: string, path: string): string {
    const plain = plainPath(made);
    if (plain instanceof Refusal) throw this.#badPackage(`in the prefix ${plain.why}`, path);
    return plain;
  }

  #link(path: string, entry: LayerEntry): void {
    const refusal = this.#linked.add(entry);
    if (refusal !== undefined) throw this.#badPackage(`in the prefix ${refusal.why}`, path);
  }

  #accept(path: string, refusal: Refusal | undefined): void {
    if (refusal !== undefined) throw this.#badArchive(refusal.why, path);
  }

  #badArchive(why: string, path: string): BurrowError {
    return badArchive(this.#options.name, why, path);
  }

  #badPackage(why: string, path: string): BurrowError {
    return badPackage(this.#options.name, why, showName(path));
  }
}

function isSamePlaceholder(one: ListedPath, other: ListedPath): boolean {
  return (
    one.placeholder?.text === other.placeholder?.text &&
    one.placeholder?.mode === other.placeholder?.mode
  );
}

function timesOf({ mtimeSec, mtimeNs }: ArchiveEntry) {
  return { uid: 0, gid: 0, mtimeSec, mtimeNs };
}

function file(path: string, entry: ArchiveEntry, blob: BlobRef): LayerEntry {
  return { type: "file", path, mode: entry.mode & MODE_MASK, ...timesOf(entry), blob };
}

function directory(path: string): LayerEntry {
  return { type: "directory", path, mode: DIRECTORY_MODE, uid: 0, gid: 0, mtimeSec: 0, mtimeNs: 0 };
}
