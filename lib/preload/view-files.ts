// View files: what a sandbox finds at a path, by the indexes of its view alone: base and grafts, symlinks followed. For looking ahead;
// the gofer has trees of its own. Indexes of anybody: one that lies makes this find too little. Control plane.

import { S_IFDIR, S_IFLNK, S_IFMT, S_IFREG } from "../base/file-types.ts";
import {
  FORESEEN_ALL_NAMES_MAX,
  FORESEEN_DIRECTORY_MAX_NAMES,
  FORESEEN_LOOKS_MAX,
  SYMLINK_MAX_BYTES,
} from "../base/limits.ts";
import { Inode } from "../layer/format.ts";
import type { Index } from "../layer/index.ts";

/** A snapshot of a view, in its order: the base first, at "/". */
export interface Attached {
  /** Absolute; as bytes in latin1, as names are. */
  readonly at: string;
  readonly index: Index;
}

/** A regular file. */
export interface ViewFile {
  /** Without symlinks. */
  readonly path: string;
  /** The number of its snapshot in the view, and its blob's row there. */
  readonly snapshot: number;
  readonly row: number;
  readonly size: number;
}

interface Place {
  readonly path: string;
  /** -1: a directory on the way to a graft, which no index has. */
  readonly snapshot: number;
  readonly ino: number;
  /** Undefined of the root. */
  readonly parent: Place | undefined;
}

/** As many symlinks on one way as Linux follows: path_resolution(7). */
const SYMLINKS_MAX = 40;
/** Names on one way, through all its symlinks: no installed file needs so many, and an index may have circles. */
const STEPS_MAX = 512;
/** As Linux takes: PATH_MAX. */
const PATH_MAX_CHARS = 4_096;

export class ViewFiles {
  readonly #attached: readonly Attached[];
  readonly #directories = new Map<string, Place | undefined>();
  readonly #listed = new Map<string, readonly string[]>();
  readonly #target = Buffer.alloc(SYMLINK_MAX_BYTES);
  /** Symlinks that the way which is gone may yet lead over: of all of it, or few of them could stand for a way without end. */
  #linksLeft = 0;
  #stepsLeft = 0;
  #looksLeft = FORESEEN_LOOKS_MAX;
  #namesLeft = FORESEEN_ALL_NAMES_MAX;

  constructor(attached: readonly Attached[]) {
    this.#attached = attached;
  }

  /** The regular file at an absolute path. */
  file(path: string): ViewFile | undefined {
    const place = this.#resolve(path);
    if (place === undefined || place.snapshot < 0) return undefined;
    const { index } = this.#attached[place.snapshot]!;
    const row = index.row(place.ino);
    if (row < 0 || (index.field(row, Inode.mode) & S_IFMT) !== S_IFREG) return undefined;
    const blob = index.field(row, Inode.a);
    if (blob >= index.blobCount) return undefined;
    return { path: place.path, snapshot: place.snapshot, row: blob, size: index.blobSize(blob) };
  }

  /** Names in the directory at an absolute path; none where there is none. */
  names(path: string): readonly string[] {
    const known = this.#listed.get(path);
    if (known !== undefined) return known;
    if (this.#looksLeft <= 0) return [];
    const names = this.#list(this.#resolve(path));
    this.#listed.set(path, names);
    return names;
  }

  #list(place: Place | undefined): readonly string[] {
    if (place === undefined || place.snapshot < 0) return [];
    const { index } = this.#attached[place.snapshot]!;
    const row = index.row(place.ino);
    const first = row < 0 ? row : index.firstDirent(row);
    if (first < 0) return [];
    const most = Math.min(FORESEEN_DIRECTORY_MAX_NAMES, this.#namesLeft);
    const count = Math.min(most, index.field(row, Inode.b));
    this.#namesLeft -= count;
    return Array.from({ length: count }, (_, i) => index.direntName(first + i));
  }

  #resolve(path: string): Place | undefined {
    if (path.length > PATH_MAX_CHARS || --this.#looksLeft < 0) return undefined;
    this.#linksLeft = SYMLINKS_MAX;
    this.#stepsLeft = STEPS_MAX;
    const slash = path.lastIndexOf("/");
    const directory = path.slice(0, slash);
    // Many files are looked for in few directories.
    let parent = this.#directories.get(directory);
    if (!this.#directories.has(directory)) {
      parent = this.#walk(this.#root(), directory);
      this.#directories.set(directory, parent);
    }
    return parent && this.#walk(parent, path.slice(slash + 1));
  }

  #root(): Place {
    return this.#graftAt("/", undefined) ?? { path: "", snapshot: 0, ino: 1, parent: undefined };
  }

  #walk(from: Place, path: string): Place | undefined {
    let place: Place | undefined = from;
    for (const name of path.split("/")) {
      if (place === undefined) return undefined;
      if (name === "" || name === ".") continue;
      if (--this.#stepsLeft < 0) return undefined;
      place = name === ".." ? (place.parent ?? place) : this.#step(place, name);
    }
    return place;
  }

  #step(parent: Place, name: string): Place | undefined {
    const path = `${parent.path}/${name}`;
    const graft = this.#graftAt(path, parent);
    if (graft !== undefined) return graft;
    const found = parent.snapshot < 0 ? undefined : this.#lookup(parent, name);
    const isOnWay = this.#attached.some(({ at }) => at.startsWith(`${path}/`));
    if (found === undefined) return isOnWay ? { path, snapshot: -1, ino: 0, parent } : undefined;
    const { index } = this.#attached[parent.snapshot]!;
    const row = index.row(found);
    if ((index.field(row, Inode.mode) & S_IFMT) !== S_IFLNK)
      return { path, snapshot: parent.snapshot, ino: found, parent };
    if (this.#linksLeft-- <= 0) return undefined;
    const length = index.readlink(row, this.#target);
    const target = this.#target.toString("latin1", 0, Math.max(0, length));
    return this.#walk(target.startsWith("/") ? this.#root() : parent, target);
  }

  #lookup({ snapshot, ino }: Place, name: string): number | undefined {
    const { index } = this.#attached[snapshot]!;
    const row = index.row(ino);
    if (row < 0 || (index.field(row, Inode.mode) & S_IFMT) !== S_IFDIR) return undefined;
    const found = index.lookup(row, name);
    return found > 0 ? found : undefined;
  }

  /** What is attached at a path: the last one, which lies over those before. */
  #graftAt(path: string, parent: Place | undefined): Place | undefined {
    const snapshot = this.#attached.findLastIndex(({ at }) => at === path);
    const isGraft = snapshot > 0;
    return isGraft ? { path: path === "/" ? "" : path, snapshot, ino: 1, parent } : undefined;
  }
}
