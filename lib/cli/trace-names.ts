// What the numbers of a trace stand for: files by inode, by row of the table of blobs and by digest, and the packages that they are of.
// Only files that the trace speaks of are kept, and all are counted. Control plane.

import { posix } from "node:path";
import type { Digest } from "../base/digest.ts";
import { S_IFDIR, S_IFMT, S_IFREG } from "../base/file-types.ts";
import { showName } from "../base/name.ts";
import { Inode } from "../layer/format.ts";
import { SNAPSHOT_INO_STEP } from "../tree/snapshot.ts";
import { namesIn } from "./explain-mount.ts";
import type { ExplainedPlace, ExplainedView } from "./explain-view.ts";
import { shown } from "./output.ts";
import type { Owners } from "./owners.ts";
import type { TraceFile, TracePackage } from "./trace-file.ts";

/** As the mailbox numbers what is waited for: Mailbox.lastPlace. */
const ROWS = 2 ** 24;
const BLOCKS = 2 ** 20;

interface Named {
  readonly path: string;
  readonly isDirectory: boolean;
  readonly bytes: number;
  readonly package: number;
}

/** One snapshot's. */
interface Names {
  readonly byIno: ReadonlyMap<number, Named>;
  readonly byRow: ReadonlyMap<number, Named>;
}

export class TraceNames {
  /** All of the view, in the order of its places, with what there is of each. */
  readonly packages: TracePackage[] = [];
  /** Those that were asked for, by their numbers. */
  readonly files: TraceFile[] = [];
  readonly #places: readonly ExplainedPlace[];
  readonly #names: Names[] = [];
  readonly #numbers = new Map<Named, number>();
  #rows: Map<Digest, Named> | undefined;

  private constructor(view: ExplainedView) {
    this.#places = view.places;
  }

  /** Reads a view's indexes, and its environments' layers from their stores: seconds, where those are far. */
  static async of(view: ExplainedView): Promise<TraceNames> {
    const names = new TraceNames(view);
    for (const place of view.places) names.#add(place, await view.owners(place));
    return names;
  }

  /** The file of an inode number of the view; -1 where there is none. */
  byIno(ino: number): number {
    const number = Math.floor(ino / SNAPSHOT_INO_STEP);
    return this.#number(this.#names[number]?.byIno.get(ino % SNAPSHOT_INO_STEP));
  }

  /** The file that a request waited for, and its first block; -1 for the whole. */
  byPlace(place: number): { file: number; block: number } {
    const row = Math.floor(place / BLOCKS);
    const file = this.#number(this.#names[Math.floor(row / ROWS)]?.byRow.get(row % ROWS));
    return { file, block: (place % BLOCKS) - 1 };
  }

  /** The first file of a content. */
  byDigest(digest: Digest): number {
    this.#rows ??= this.#digests();
    return this.#number(this.#rows.get(digest));
  }

  #digests(): Map<Digest, Named> {
    const rows = new Map<Digest, Named>();
    for (const [i, { index }] of this.#places.entries())
      for (const [row, named] of this.#names[i]!.byRow) rows.set(index.blobDigest(row), named);
    return rows;
  }

  #number(named: Named | undefined): number {
    if (named === undefined) return -1;
    const known = this.#numbers.get(named);
    if (known !== undefined) return known;
    const id = this.files.length;
    this.files.push({ kind: "file", id, ...named });
    this.#numbers.set(named, id);
    return id;
  }

  #add({ at, index }: ExplainedPlace, owners: Owners | undefined): void {
    const byIno = new Map<number, Named>();
    const byRow = new Map<number, Named>();
    const counts = new Map<string, { id: number; files: number; bytes: number }>();
    const countOf = (title: string) => {
      const known = counts.get(title);
      if (known !== undefined) return known;
      const fresh = { id: this.packages.length + counts.size, files: 0, bytes: 0 };
      counts.set(title, fresh);
      return fresh;
    };
    // Packages of which nothing is in the snapshot are packages, too.
    for (const { title } of owners?.all ?? []) countOf(title);
    for (const { path, ino } of namesIn(index)) {
      if (byIno.has(ino)) continue; // a hard link's second name
      const row = index.row(ino);
      const type = index.field(row, Inode.mode) & S_IFMT;
      const isDirectory = type === S_IFDIR;
      const bytes = type === S_IFREG ? index.sizeAt(row) : 0;
      const title = owners?.claimsOf(path).at(-1)?.title ?? placeTitle(at, owners);
      const owner = isDirectory ? undefined : countOf(title);
      if (owner !== undefined) {
        owner.files++;
        owner.bytes += bytes;
      }
      const full = shown(showName(posix.join(at, path)));
      const named = { path: full, isDirectory, bytes, package: owner?.id ?? -1 };
      byIno.set(ino, named);
      const blob = index.field(row, Inode.a);
      if (type === S_IFREG && bytes > 0 && !byRow.has(blob)) byRow.set(blob, named);
    }
    byIno.set(1, { path: at, isDirectory: true, bytes: 0, package: -1 });
    for (const [title, { id, files, bytes }] of counts)
      this.packages.push({ kind: "package", id, title: shown(title), files, bytes });
    this.#names.push({ byIno, byRow });
  }
}

/** What is of no package, by its place. */
function placeTitle(at: string, owners: Owners | undefined): string {
  if (at === "/") return "(base)";
  return owners === undefined ? `(${at})` : `(others in ${at})`;
}
