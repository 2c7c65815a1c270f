// Paths in a view, as the sandbox sees them: snapshots at their places, symlinks followed over the borders between them. Looks at indexes
// alone. Control plane.

import { posix } from "node:path";
import { S_IFDIR, S_IFLNK, S_IFMT } from "../base/file-types.ts";
import { nameOf } from "../base/name.ts";
import { Inode } from "../layer/format.ts";
import type { Index } from "../layer/index.ts";

/** A snapshot and the path that it is seen at. */
export interface Graft {
  readonly at: string;
  readonly index: Index;
}

export interface LookedAt<G extends Graft = Graft> {
  /** "/" first, where there is one; of two at a path the later counts. */
  readonly grafts: readonly G[];
  /** Paths whose content isn't in any snapshot: /proc, /tmp, binds. */
  readonly unknown: readonly string[];
}

/** A symlink on the way, by its own path. */
export interface FollowedLink {
  readonly path: string;
  readonly target: string;
}

/** What stands at a path once every symlink is followed. */
export interface Found<G extends Graft = Graft> {
  /** Without symlinks. */
  readonly path: string;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly links: readonly FollowedLink[];
  /** Undefined for a directory that is only there since something is mounted below it. */
  readonly inode?: { readonly graft: G; readonly ino: number };
}

/** Nothing there: what is missing, and by which symlinks it was come to. */
export interface Missing {
  readonly missing: string;
  readonly links: readonly FollowedLink[];
}

type Entry<G extends Graft> = Omit<Found<G>, "path" | "links"> & { readonly target?: string };

/** As Linux: path_resolution(7). */
const SYMLINKS_MAX = 40;
const TARGET_MAX_BYTES = 4096;
const SYNTHETIC = { mode: S_IFDIR | 0o755, uid: 0, gid: 0 };

const isWithin = (path: string, folder: string) =>
  folder === "/" || path === folder || path.startsWith(`${folder}/`);

/** What stands at an absolute path; "unknown" where no snapshot says. */
export function findPath<G extends Graft>(
  view: LookedAt<G>,
  path: string,
): Found<G> | Missing | "unknown" {
  let left = path.split("/").filter((name) => name !== "" && name !== ".");
  const links: FollowedLink[] = [];
  let at = "/";
  while (left.length > 0) {
    const next = posix.join(at, left.shift()!); // ".." of what was resolved is its parent
    const entry = entryAt(view, next);
    if (entry === "unknown") return entry;
    if (entry === "missing") return { missing: next, links };
    const { target } = entry;
    if (target === undefined) {
      at = next;
      continue;
    }
    links.push({ path: next, target });
    if (links.length > SYMLINKS_MAX) return { missing: next, links };
    left = [...target.split("/").filter((part) => part !== "" && part !== "."), ...left];
    if (target.startsWith("/")) at = "/";
  }
  const entry = entryAt(view, at);
  if (entry === "unknown") return entry;
  return entry === "missing" ? { missing: at, links } : { ...entry, path: at, links };
}

/** One path whose folders hold no symlinks. */
function entryAt<G extends Graft>(
  { grafts, unknown }: LookedAt<G>,
  path: string,
): Entry<G> | "missing" | "unknown" {
  if (unknown.some((folder) => isWithin(path, folder) || isWithin(folder, path))) {
    // A folder on the way to one of them is there, whatever the snapshots say.
    return unknown.some((folder) => isWithin(path, folder)) ? "unknown" : SYNTHETIC;
  }
  if (grafts.some(({ at }) => at !== path && isWithin(at, path))) return SYNTHETIC;
  const graft = grafts.findLast(({ at }) => isWithin(path, at));
  if (graft === undefined) return "missing";
  const { at, index } = graft;
  let ino = 1;
  for (const name of path.slice(at.length).split("/").filter(Boolean)) {
    ino = index.lookup(index.row(ino), nameOf(name));
    if (ino < 0) return "missing";
  }
  const row = index.row(ino);
  const mode = index.field(row, Inode.mode);
  const owner = { uid: index.field(row, Inode.uid), gid: index.field(row, Inode.gid) };
  const found = { mode, ...owner, inode: { graft, ino } };
  if ((mode & S_IFMT) !== S_IFLNK) return found;
  const target = Buffer.alloc(TARGET_MAX_BYTES);
  const length = index.readlink(row, target);
  return length < 0 ? "unknown" : { ...found, target: target.toString("utf8", 0, length) };
}
