// Why a command wasn't started, by what the view holds: runsc says 128 for all that goes wrong before the command runs, shells say 127
// for a command that isn't there and 126 for one that can't be run. Looked at only after a 128. Control plane.

import { posix } from "node:path";
import { nameOf } from "../base/name.ts";
import { Inode, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG } from "../layer/format.ts";
import type { Index } from "../layer/index.ts";

export const NOT_FOUND = 127;
export const NOT_EXECUTABLE = 126;

export interface LookedAt {
  /** Snapshots with the path they are seen at: "/" first. */
  readonly grafts: readonly { readonly at: string; readonly index: Index }[];
  /** Paths whose content isn't in any snapshot: /proc, /tmp, binds. */
  readonly unknown: readonly string[];
}

export interface Started {
  readonly command: string;
  readonly cwd: string;
  /** $PATH of the command. */
  readonly path: string;
  readonly uid: number;
  readonly gid: number;
}

/** What stands at a path, every symlink followed; "unknown" where no snapshot says. */
type Found = { readonly mode: number; readonly uid: number; readonly gid: number };
type Outcome = Found | "missing" | "unknown";

/** As Linux: path_resolution(7). */
const SYMLINKS_MAX = 40;
const TARGET_MAX_BYTES = 4096;

const isWithin = (path: string, folder: string) =>
  folder === "/" || path === folder || path.startsWith(`${folder}/`);

/** 127 or 126 when the view says that the command could not be started; undefined when it could, or can't be told. */
export function commandFault(view: LookedAt, started: Started): number | undefined {
  const { command, cwd, path } = started;
  if (command.includes("/")) {
    const found = find(view, posix.resolve(cwd, command));
    if (found === "unknown") return undefined;
    if (found === "missing") return NOT_FOUND;
    return isExecutable(found, started) ? undefined : NOT_EXECUTABLE;
  }
  for (const folder of path.split(":")) {
    const found = find(view, posix.resolve(cwd, folder, command || "."));
    if (found === "unknown" || (found !== "missing" && isExecutable(found, started)))
      return undefined;
  }
  return NOT_FOUND;
}

/** Whether a path is surely none of a directory. */
export function isNoDirectory(view: LookedAt, path: string): boolean {
  const found = find(view, posix.resolve("/", path));
  return found === "missing" || (found !== "unknown" && (found.mode & S_IFMT) !== S_IFDIR);
}

function isExecutable(found: Found, { uid, gid }: Started): boolean {
  const bit = found.uid === uid ? 0o100 : found.gid === gid ? 0o010 : 0o001;
  return (found.mode & S_IFMT) === S_IFREG && (found.mode & bit) !== 0;
}

function find(view: LookedAt, path: string): Outcome {
  let left = path.split("/").filter((name) => name !== "");
  let at = "/";
  for (let links = 0; left.length > 0; ) {
    const name = left.shift()!;
    const next = posix.join(at, name); // ".." of what was resolved is its parent
    const entry = entryAt(view, next);
    if (typeof entry === "string") return entry;
    if (entry.target === undefined) {
      at = next;
      continue;
    }
    if (++links > SYMLINKS_MAX) return "missing";
    left = [...entry.target.split("/").filter((part) => part !== "" && part !== "."), ...left];
    if (entry.target.startsWith("/")) at = "/";
  }
  const entry = entryAt(view, at);
  return typeof entry === "string" ? entry : entry.found;
}

/** One path whose folders hold no symlinks. */
function entryAt(
  { grafts, unknown }: LookedAt,
  path: string,
): { found: Found; target?: string } | "missing" | "unknown" {
  if (unknown.some((folder) => isWithin(path, folder) || isWithin(folder, path))) {
    // A folder on the way to one of them is there, whatever the snapshots say.
    if (unknown.some((folder) => isWithin(path, folder))) return "unknown";
    return { found: { mode: S_IFDIR | 0o755, uid: 0, gid: 0 } };
  }
  const onTheWay = grafts.some(({ at }) => at !== path && isWithin(at, path));
  if (onTheWay) return { found: { mode: S_IFDIR | 0o755, uid: 0, gid: 0 } };
  const { at, index } = grafts.findLast((graft) => isWithin(path, graft.at))!;
  let row = index.row(1);
  for (const name of path.slice(at.length).split("/").filter(Boolean)) {
    const ino = index.lookup(row, nameOf(name));
    if (ino < 0) return "missing";
    row = index.row(ino);
  }
  const mode = index.field(row, Inode.mode);
  const found = { mode, uid: index.field(row, Inode.uid), gid: index.field(row, Inode.gid) };
  if ((mode & S_IFMT) !== S_IFLNK) return { found };
  const target = Buffer.alloc(TARGET_MAX_BYTES);
  const length = index.readlink(row, target);
  return length < 0 ? "unknown" : { found, target: target.toString("utf8", 0, length) };
}
