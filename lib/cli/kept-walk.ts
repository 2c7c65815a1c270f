// KeptWalk: what an overlay shows below a path, as entries of a layer. Control plane.

import type { BlobRef } from "../base/blob.ts";
import type { Digest } from "../base/digest.ts";
import { errnoName } from "../base/errno.ts";
import { BurrowError } from "../base/error.ts";
import { S_IFDIR, S_IFLNK, S_IFMT, S_IFREG } from "../base/file-types.ts";
import { PATH_MAX_BYTES, TREE_DEPTH_MAX } from "../base/limits.ts";
import { type Name, nameOf, showName } from "../base/name.ts";
import { addContent } from "../ingest/sink.ts";
import { blobOf } from "../layer/entries.ts";
import type { LayerEntry } from "../layer/entry.ts";
import type { Index } from "../layer/index.ts";
import type { BlobSink } from "../store/blob-sink.ts";
import type { OverlayTree } from "../tree/overlay.ts";
import { SNAPSHOT_INO_STEP } from "../tree/snapshot.ts";
import { Attr, type Ino, OpenResult } from "../tree/tree.ts";

export function walkFailure(directory: string, path: string, errno: number): BurrowError {
  const what = `can't read ${showName(path) || "/"} of the upper ${directory}`;
  return new BurrowError("BURROW_IO", `${what}: ${errnoName(errno)}`);
}

const PIECE_BYTES = 1024 * 1024;
/** st_blocks counts these. man stat(2). */
const BLOCK_BYTES = 512;
/** Bytes of holes that are read as zeros: a sandbox makes a file of 10^12 bytes with one call. Compressing file systems have "holes", too. */
const HOLES_MAX_BYTES = 64 * 1024 ** 3;
/** Of a path that is too long, what is shown. */
const SHOWN_MAX = 80;

/** What an overlay shows below a path, as entries: files that are below by their blobs, others by their content. */
export class KeptWalk {
  readonly #tree: OverlayTree;
  readonly #indexes: readonly Index[];
  readonly #sink: BlobSink;
  readonly #directory: string;
  /** Absolute paths of other snapshots of the view, which are no part of this one. */
  readonly #mounts: ReadonlySet<string>;
  /** Paths of the snapshot itself. */
  readonly #old: ReadonlySet<string>;
  readonly #linked = new Map<number, BlobRef>();
  /** Of which of the view's snapshots content comes that isn't the upper's. */
  readonly #foreign = new Map<Digest, number>();
  readonly #attr = new Attr();
  #holeBytes = 0;

  constructor(
    tree: OverlayTree,
    indexes: readonly Index[],
    sink: BlobSink,
    directory: string,
    mounts: ReadonlySet<string>,
    old: ReadonlySet<string>,
  ) {
    this.#tree = tree;
    this.#indexes = indexes;
    this.#sink = sink;
    this.#directory = directory;
    this.#mounts = mounts;
    this.#old = old;
  }

  /** Whether a path below `at` is where another snapshot is seen, or on the way to it: that one hides it. */
  isMount(at: string, path: string): boolean {
    return this.#mounts.has(absolute(at, path));
  }

  /** The number of the snapshot whose content an entry has; undefined for content of the upper's, and what has none. */
  originOf(entry: LayerEntry): number | undefined {
    return entry.type === "file" ? this.#foreign.get(entry.blob.digest) : undefined;
  }

  async *entries(at: string): AsyncIterable<LayerEntry> {
    let ino: number = this.#tree.rootIno;
    for (const name of at.split("/").filter((each) => each !== "")) {
      ino = this.#tree.lookup(ino as Ino, nameOf(name));
      if (ino < 0) throw walkFailure(this.#directory, at, ino);
    }
    yield* this.#below(ino as Ino, "", at);
  }

  async *#below(ino: Ino, path: string, at: string, depth = 0): AsyncIterable<LayerEntry> {
    if (depth > TREE_DEPTH_MAX || path.length > PATH_MAX_BYTES)
      throw unfit(path, "too deep or long");
    const entry = await this.#entry(ino, path);
    if (entry === undefined) return;
    if (!this.#isSynthetic(at, path)) yield entry;
    if (entry.type !== "directory") return;
    for (const name of this.#names(ino, path)) {
      const below = path === "" ? name : `${path}/${name}`;
      if (this.isMount(at, below)) continue;
      const child = this.#tree.lookup(ino, name);
      if (child < 0) throw walkFailure(this.#directory, below, child);
      yield* this.#below(child as Ino, below, at, depth + 1);
      this.#tree.release(child as Ino);
    }
  }

  /** Whether a directory is there for what is mounted below it alone, as far as its snapshot knows. */
  #isSynthetic(at: string, path: string): boolean {
    const above = `${absolute(at, path)}/`;
    return !this.#old.has(path) && [...this.#mounts].some((mount) => mount.startsWith(above));
  }

  #names(ino: Ino, path: string): Name[] {
    const names: Name[] = [];
    const handle = this.#tree.opendir(ino);
    const end =
      handle < 0
        ? handle
        : this.#tree.readdir(
            ino,
            handle,
            0,
            (_ino, _dev, _type, name) => names.push(name as Name) > 0,
          );
    if (handle >= 0) this.#tree.closedir(ino, handle);
    if (end < 0) throw walkFailure(this.#directory, path, end);
    return names.sort();
  }

  /** undefined for what no layer holds. */
  async #entry(ino: Ino, path: string): Promise<LayerEntry | undefined> {
    const attr = this.#attr;
    const failed = this.#tree.getattr(ino, attr);
    if (failed < 0) throw walkFailure(this.#directory, path, failed);
    const { uid, gid, mtimeSec, mtimeNs, nlink, size, blocks } = attr;
    const type = attr.mode & S_IFMT;
    const xattrs = this.#xattrs(ino);
    const common = {
      path,
      mode: attr.mode & 0o7777,
      uid,
      gid,
      mtimeSec,
      mtimeNs,
      ...(xattrs.size > 0 ? { xattrs } : {}),
    };
    if (type === S_IFDIR) return { ...common, type: "directory" };
    if (type === S_IFLNK) return { ...common, type: "symlink", target: this.#target(ino, path) };
    if (type !== S_IFREG) return undefined;
    const isLinked = nlink > 1;
    const known = isLinked ? this.#linked.get(ino) : undefined;
    const blob = known ?? (await this.#blob(ino, path, size, blocks));
    if (isLinked && known === undefined) {
      this.#linked.set(ino, blob);
      this.#tree.acquire(ino); // its number is its own until the end
    }
    return { ...common, type: "file", blob, ...(isLinked ? { linkGroup: String(ino) } : {}) };
  }

  #xattrs(ino: Ino): Map<string, string> {
    const names = Buffer.alloc(65_536);
    const value = Buffer.alloc(65_536);
    const found = new Map<string, string>();
    const length = this.#tree.listxattr(ino, names);
    for (const name of names.toString("latin1", 0, Math.max(0, length)).split("\0")) {
      if (name === "") continue;
      const bytes = this.#tree.getxattr(ino, name, value);
      if (bytes >= 0) found.set(name, value.toString("latin1", 0, bytes));
    }
    return found;
  }

  #target(ino: Ino, path: string): string {
    const out = Buffer.alloc(4096);
    const length = this.#tree.readlink(ino, out);
    if (length < 0) throw walkFailure(this.#directory, path, length);
    return out.toString("latin1", 0, length);
  }

  async #blob(ino: Ino, path: string, size: number, blocks: number): Promise<BlobRef> {
    const below = this.#tree.dataBelow(ino);
    if (below !== 0) {
      const number = Math.floor(below / SNAPSHOT_INO_STEP);
      const index = this.#indexes[number]!;
      const blob = blobOf(index, index.row(below % SNAPSHOT_INO_STEP), path);
      this.#foreign.set(blob.digest, number);
      return blob;
    }
    this.#holeBytes += Math.max(0, size - blocks * BLOCK_BYTES);
    if (this.#holeBytes > HOLES_MAX_BYTES)
      throw unfit(path, `a file with holes, and with it they are over ${HOLES_MAX_BYTES} bytes`);
    const wrong = () => new BurrowError("BURROW_IO", `${showName(path)} changed while it was read`);
    return await addContent(this.#sink, this.#content(ino, path, size), size, wrong);
  }

  async *#content(ino: Ino, path: string, size: number): AsyncIterable<Uint8Array> {
    const opened = new OpenResult();
    const failed = this.#tree.open(ino, 0, opened);
    if (failed < 0) throw walkFailure(this.#directory, path, failed);
    try {
      for (let offset = 0; offset < size; ) {
        const bytes = new Uint8Array(Math.min(PIECE_BYTES, size - offset));
        const got = this.#tree.read(ino, opened.handle, offset, bytes);
        if (got < 0) throw walkFailure(this.#directory, path, got);
        if (got === 0) return;
        offset += got;
        yield bytes.subarray(0, got);
      }
    } finally {
      this.#tree.close(ino, opened.handle);
    }
  }
}

/** A layer has no place for it. */
function unfit(path: string, why: string): BurrowError {
  const shown = showName(path.length > SHOWN_MAX ? `${path.slice(0, SHOWN_MAX)}…` : path);
  const advice = "remove it in a sandbox, with the same --upper";
  return new BurrowError("BURROW_UNSUPPORTED", `${shown} is ${why}: no layer has it; ${advice}`);
}

function absolute(at: string, path: string): string {
  return `${at === "/" ? "" : at}/${showName(path)}`;
}
