// Profiles: what of a snapshot a node is to have ahead of its use. A text file of paths, one a line, as the sandbox sees them or
// below the snapshot's root; a directory stands for all below it. docs/preload.md. Control plane.

import { BurrowError } from "../base/error.ts";
import { S_IFLNK, S_IFMT, S_IFREG } from "../base/file-types.ts";
import { PROFILE_MAX_BYTES, SYMLINK_MAX_BYTES } from "../base/limits.ts";
import { showName } from "../base/name.ts";
import { rootEntry } from "../layer/entries.ts";
import { Inode } from "../layer/format.ts";
import type { Index } from "../layer/index.ts";
import { errnoOf } from "../store/node-error.ts";
import { PREFIX_XATTR } from "./env-root.ts";
import { readBounded } from "./text-file.ts";

/** As many symlinks on one way as Linux follows: path_resolution(7). */
const SYMLINKS_MAX = 40;
const text = Buffer.alloc(SYMLINK_MAX_BYTES);

/** What a profile names in one snapshot. */
export interface Named {
  /** Rows of blobs. */
  readonly rows: ReadonlySet<number>;
  /** Paths that the snapshot does not have. */
  readonly missing: readonly string[];
}

/** The paths of a profile, latin1. BURROW_USAGE with the line, for what can't be a path; BURROW_NOT_FOUND. */
export async function readProfile(file: string): Promise<string[]> {
  let bytes: Buffer | undefined;
  try {
    bytes = await readBounded(file, PROFILE_MAX_BYTES);
  } catch (cause) {
    if (errnoOf(cause).code === "EISDIR")
      throw new BurrowError("BURROW_USAGE", `--profile: ${file} is a directory: give a file`);
    throw new BurrowError("BURROW_NOT_FOUND", `can't read the profile ${file}`, { cause });
  }
  if (bytes === undefined) {
    const what = `${file}: a profile has at most ${PROFILE_MAX_BYTES} bytes`;
    throw new BurrowError("BURROW_USAGE", what);
  }
  const paths: string[] = [];
  for (const [i, line] of bytes.toString("latin1").split("\n").entries()) {
    const path = line.replace(/\r$/, "");
    if (path.trim() === "" || path.startsWith("#")) continue;
    if (path.includes("\0")) {
      const what = `${file}:${i + 1}: "${showName(path.slice(0, 200))}" is no path`;
      throw new BurrowError("BURROW_USAGE", what);
    }
    paths.push(path);
  }
  return paths;
}

/**
 * What paths name in a snapshot. An absolute one is as seen where the snapshot is mounted: an environment at its prefix, all else at
 * the root; any other is below the snapshot's own root. Symlinks are followed. An index that lies makes it name too little, never go
 * on for ever.
 */
export function named(index: Index, paths: readonly string[]): Named {
  const rows = new Set<number>();
  const seen = new Uint8Array(index.inodeCount + 1);
  const missing: string[] = [];
  const prefix = prefixOf(index);
  for (const path of paths) {
    const ino = resolve(index, path, prefix);
    if (ino < 0) missing.push(path);
    else addBelow(index, ino, seen, rows);
  }
  return { rows, missing };
}

/** Names of the directories that an environment is mounted below; none for all else. */
function prefixOf(index: Index): string[] {
  return componentsOf(rootEntry(index).xattrs?.get(PREFIX_XATTR) ?? "");
}

/**
 * A path, latin1, as one below the root of a layer or snapshot, "" for all: of an environment it may be absolute, as the sandbox sees
 * it. Symlinks are not followed.
 */
export function pathBelow(index: Index, path: string): string {
  const names = componentsOf(path);
  const prefix = path.startsWith("/") ? prefixOf(index) : [];
  const shared = Math.min(names.length, prefix.length);
  const isSeenThere = names.slice(0, shared).every((name, i) => name === prefix[i]);
  return names.slice(isSeenThere ? shared : 0).join("/");
}

/** The inode at a path, or a negative number. */
function resolve(index: Index, path: string, prefix: readonly string[]): number {
  // The root of the snapshot lies below the directories of the prefix, which have no inodes: 0.
  const way = [prefix.length === 0 ? 1 : 0];
  const names = componentsOf(path);
  const left = (path.startsWith("/") ? names : [...prefix, ...names]).reverse(); // the next one last
  for (let links = 0; left.length > 0; ) {
    const name = left.pop()!;
    if (name === "..") {
      if (way.length > 1) way.pop();
      continue;
    }
    if (way.length <= prefix.length) {
      if (name !== prefix[way.length - 1]) return -1;
      way.push(way.length === prefix.length ? 1 : 0);
      continue;
    }
    const ino = index.lookup(index.row(way[way.length - 1]!), name);
    if (ino < 0) return ino;
    const target = targetOf(index, ino);
    if (target === undefined) {
      way.push(ino);
      continue;
    }
    if (++links > SYMLINKS_MAX) return -1;
    if (target.startsWith("/")) way.length = 1;
    left.push(...componentsOf(target).reverse());
  }
  return way[way.length - 1] || 1; // all of it is below a directory of the prefix
}

function componentsOf(path: string): string[] {
  return path.split("/").filter((name) => name !== "" && name !== ".");
}

/** A symlink's target, latin1; undefined for anything else. */
function targetOf(index: Index, ino: number): string | undefined {
  const row = index.row(ino);
  if ((index.field(row, Inode.mode) & S_IFMT) !== S_IFLNK) return undefined;
  return text.toString("latin1", 0, Math.max(0, index.readlink(row, text)));
}

/** Adds the blobs of a file, or of all files below a directory. */
function addBelow(index: Index, start: number, seen: Uint8Array, rows: Set<number>): void {
  const inodes = [start];
  let left = index.direntCount; // each is one directory's
  for (const ino of inodes) {
    if (ino <= 0 || seen[ino] !== 0) continue;
    seen[ino] = 1;
    const row = index.row(ino);
    const first = index.firstDirent(row);
    if ((index.field(row, Inode.mode) & S_IFMT) === S_IFREG) rows.add(index.field(row, Inode.a));
    if (first < 0) continue;
    const end = first + index.field(row, Inode.b);
    left -= end - first;
    if (left < 0) return;
    for (let dirent = first; dirent < end; dirent++) inodes.push(index.direntIno(dirent));
  }
}
