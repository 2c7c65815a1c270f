// The manifest of a stage: which files it has, of which size, digest and blocks. It pins a version: its own digest names the
// stage, and a file that changes later is an error for its readers, never other bytes. docs/format/store.md, "Stages".
// Control plane.

import { type Digest, parseDigest, showDigest } from "../../base/digest.ts";
import { BurrowError } from "../../base/error.ts";
import {
  ARCHIVE_ENTRIES_MAX,
  BLOCK_BYTES,
  BLOCK_DIGESTS_OVER_BYTES,
  PATH_MAX_BYTES,
  SYMLINK_MAX_BYTES,
  TREE_DEPTH_MAX,
} from "../../base/limits.ts";
import { checkName, nameOf } from "../../base/name.ts";
import { hasOver } from "../marks.ts";

export const MANIFEST_NAME = "burrow-stage.json";
const MANIFEST_FORMAT = 1;

export interface ManifestFile {
  /** Relative, "/" between parts, UTF-8. */
  readonly path: string;
  readonly size: number;
  readonly sha256: Digest;
  /** Permission bits; 0644 when missing. */
  readonly mode?: number;
  /** Seconds; 0 when missing. */
  readonly mtime?: number;
  /** One digest per BLOCK_BYTES of a file over BLOCK_DIGESTS_OVER_BYTES; found by reading the file when missing. */
  readonly blocks?: readonly Digest[];
}

export interface ManifestSymlink {
  readonly path: string;
  readonly target: string;
}

export interface ManifestDirectory {
  readonly path: string;
  readonly mode?: number;
  readonly mtime?: number;
}

export interface Manifest {
  readonly files: readonly ManifestFile[];
  readonly symlinks: readonly ManifestSymlink[];
  readonly directories: readonly ManifestDirectory[];
}

/** A manifest as bytes: sorted by path, one entry a line, so equal stages have equal digests. */
export function encodeManifest(manifest: Manifest): Buffer {
  const list = (items: readonly object[]) =>
    items.length === 0 ? "[]" : `[\n${items.map((item) => JSON.stringify(item)).join(",\n")}\n]`;
  const files = byPath(manifest.files).map(({ path, size, sha256, mode, mtime, blocks }) => {
    const shown = { path, size, sha256: showDigest(sha256), mode, mtime };
    return blocks === undefined || blocks.length === 0 ? shown : { ...shown, blocks };
  });
  const symlinks = byPath(manifest.symlinks).map(({ path, target }) => ({ path, target }));
  const directories = byPath(manifest.directories).map(({ path, mode, mtime }) => {
    return { path, mode, mtime };
  });
  return Buffer.from(
    `{"format":${MANIFEST_FORMAT},\n"files":${list(files)},\n` +
      `"symlinks":${list(symlinks)},\n"directories":${list(directories)}}\n`,
  );
}

/** Reads and checks a manifest, which anybody may have written. Throws BURROW_BAD_PACKAGE naming the entry. */
export function parseManifest(bytes: Uint8Array, source: string): Manifest {
  try {
    // A file takes an object, perhaps a list of blocks, and up to six fields.
    const isTooMuch =
      hasOver(ARCHIVE_ENTRIES_MAX, bytes, "{", "[") || hasOver(3 * ARCHIVE_ENTRIES_MAX, bytes, ":");
    if (isTooMuch) throw new Error("it has too many values");
    const fields = record(JSON.parse(Buffer.from(bytes).toString("utf8")), "the manifest");
    if (fields["format"] !== MANIFEST_FORMAT) {
      throw new Error(`format is ${String(fields["format"])}, not ${MANIFEST_FORMAT}`);
    }
    return {
      files: list(fields["files"], "files").map(fileOf),
      symlinks: list(fields["symlinks"] ?? [], "symlinks").map(symlinkOf),
      directories: list(fields["directories"] ?? [], "directories").map(directoryOf),
    };
  } catch (cause) {
    throw new BurrowError("BURROW_BAD_PACKAGE", "the stage's manifest can't be used", {
      cause,
      context: { source },
    });
  }
}

/** A path of a stage as latin1 Names; throws for what can't be a path below a root. */
export function checkStagePath(path: string): string {
  const latin1 = nameOf(path);
  const parts = latin1.split("/");
  if (latin1.length > PATH_MAX_BYTES || parts.length > TREE_DEPTH_MAX)
    throw new Error(`too long: ${path}`);
  for (const part of parts)
    if (checkName(part) < 0) throw new Error(`no path below a root: ${path}`);
  return latin1;
}

function fileOf(value: unknown): ManifestFile {
  const fields = record(value, "a file");
  const path = pathOf(fields);
  const size = count(fields["size"], path, "size");
  const sha256 = digest(fields["sha256"], path);
  const file = { path, size, sha256, ...attributes(fields, path) };
  if (fields["blocks"] === undefined) return file;
  const blocks = list(fields["blocks"], `${path}: blocks`).map((block) => digest(block, path));
  const wanted = size > BLOCK_DIGESTS_OVER_BYTES ? Math.ceil(size / BLOCK_BYTES) : 0;
  if (blocks.length !== wanted) throw new Error(`${path}: ${blocks.length} blocks, not ${wanted}`);
  return { ...file, blocks };
}

function symlinkOf(value: unknown): ManifestSymlink {
  const fields = record(value, "a symlink");
  const path = pathOf(fields);
  const target = text(fields["target"], path, "target");
  const isBad = target.includes("\0") || Buffer.byteLength(target) > SYMLINK_MAX_BYTES;
  if (isBad) throw new Error(`${path}: bad target`);
  return { path, target };
}

function directoryOf(value: unknown): ManifestDirectory {
  const fields = record(value, "a directory");
  const path = pathOf(fields);
  return { path, ...attributes(fields, path) };
}

function attributes(
  fields: Record<string, unknown>,
  path: string,
): { mode?: number; mtime?: number } {
  const { mode, mtime } = fields;
  return {
    ...(mode === undefined ? {} : { mode: count(mode, path, "mode") & 0o7777 }),
    ...(mtime === undefined ? {} : { mtime: integer(mtime, path, "mtime") }),
  };
}

function pathOf(fields: Record<string, unknown>): string {
  const path = text(fields["path"], "an entry", "path");
  checkStagePath(path);
  return path;
}

function record(value: unknown, where: string): Record<string, unknown> {
  if (typeof value === "object" && value !== null && !Array.isArray(value)) {
    return value as Record<string, unknown>;
  }
  throw new Error(`${where} is no object`);
}

function list(value: unknown, where: string): unknown[] {
  if (Array.isArray(value) && value.length <= ARCHIVE_ENTRIES_MAX) return value;
  throw new Error(`${where} is no list, or too long`);
}

function text(value: unknown, where: string, field: string): string {
  if (typeof value === "string" && value !== "") return value;
  throw new Error(`${where}: ${field} is no text`);
}

function integer(value: unknown, where: string, field: string): number {
  if (Number.isSafeInteger(value)) return value as number;
  throw new Error(`${where}: ${field} is no whole number`);
}

function count(value: unknown, where: string, field: string): number {
  const number = integer(value, where, field);
  if (number >= 0) return number;
  throw new Error(`${where}: ${field} is negative`);
}

function digest(value: unknown, where: string): Digest {
  const found = typeof value === "string" ? parseDigest(value) : undefined;
  if (found !== undefined) return found;
  throw new Error(`${where}: no sha256`);
}

function byPath<T extends { readonly path: string }>(items: readonly T[]): T[] {
  return [...items].sort((a, b) => (a.path < b.path ? -1 : a.path > b.path ? 1 : 0));
}
