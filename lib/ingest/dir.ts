// Directories of this machine to layer entries. Nothing is followed: each step goes through the open directory above it
// (/proc/self/fd), so a path swapped for a symlink under way is an error or not there, never a way out. What changes while it is
// read is an error. Control plane.

import { type BigIntStats, constants } from "node:fs";
import { type FileHandle, lstat, open, readdir, readlink } from "node:fs/promises";
import type { BlobRef } from "../base/blob.ts";
import { BurrowError } from "../base/error.ts";
import { PATH_MAX_BYTES, SYMLINK_MAX_BYTES, TREE_DEPTH_MAX } from "../base/limits.ts";
import { compareNames, showName } from "../base/name.ts";
import type { LayerEntry } from "../layer/entry.ts";
import type { BlobSink } from "../store/blob-sink.ts";
import { addContent } from "./sink.ts";

export interface DirectoryOptions {
  readonly sink: BlobSink;
  /** Told of what no layer can hold (sockets, devices); left out. */
  readonly onSkip?: (path: string, why: string) => void;
  readonly onEntry?: (entry: LayerEntry) => void;
}

const NANO = 1_000_000_000n;
const READ_BYTES = 1 << 20;
/** O_NONBLOCK: a file that became a FIFO would block the open for ever. */
const OPEN_FILE = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;
const OPEN_DIRECTORY = constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW;

/**
 * The entries of a directory tree, the root first, each directory's names in byte order. Content goes to the sink as it is read.
 * Names that are one file (by device and inode) are hard links and are read once. Extended attributes are not read.
 */
export async function* importDirectory(
  path: string,
  options: DirectoryOptions,
): AsyncIterable<LayerEntry> {
  const walk = new DirectoryWalk(path, options);
  let root: FileHandle;
  try {
    root = await open(path, constants.O_RDONLY | constants.O_DIRECTORY);
  } catch (cause) {
    throw walk.failed("", cause);
  }
  yield* walk.directory(root, "");
}

/** A file as the walk met it: where to find it, and what it was then. */
interface Found {
  readonly path: string;
  /** Through the open directory above it; bytes, for names that are no UTF-8. */
  readonly host: Buffer;
  readonly stats: BigIntStats;
}

class DirectoryWalk {
  readonly #source: string;
  readonly #options: DirectoryOptions;
  /** Content of files with several names, by device and inode. */
  readonly #linked = new Map<string, BlobRef>();

  constructor(source: string, options: DirectoryOptions) {
    this.#source = source;
    this.#options = options;
  }

  /** The entries of an open directory and below; closes it. */
  async *directory(handle: FileHandle, path: string): AsyncIterable<LayerEntry> {
    try {
      const stats = await handle.stat({ bigint: true });
      yield this.#noted({ type: "directory", ...common(path, stats) });
      if (path !== "" && path.split("/").length >= TREE_DEPTH_MAX)
        throw this.#bad(path, "too deep");
      const below = `/proc/self/fd/${handle.fd}`;
      // "latin1" isn't lossless here: libuv would decode. Buffers are the bytes.
      const names = (await readdir(below, { encoding: "buffer" })).map((name) =>
        name.toString("latin1"),
      );
      for (const name of names.sort(compareNames)) {
        const host = Buffer.from(`${below}/${name}`, "latin1");
        yield* this.#child(path === "" ? name : `${path}/${name}`, host);
      }
    } catch (cause) {
      throw this.failed(path, cause);
    } finally {
      await handle.close();
    }
  }

  async *#child(path: string, host: Buffer): AsyncIterable<LayerEntry> {
    if (path.length > PATH_MAX_BYTES) throw this.#bad(path, "its path is too long");
    let stats: BigIntStats;
    try {
      stats = await lstat(host, { bigint: true });
      if (stats.isDirectory()) {
        yield* this.directory(await open(host, OPEN_DIRECTORY), path);
        return;
      }
      const entry = await this.#leaf({ path, host, stats });
      if (entry !== undefined) yield this.#noted(entry);
    } catch (cause) {
      throw this.failed(path, cause);
    }
  }

  async #leaf(found: Found): Promise<LayerEntry | undefined> {
    const { path, host, stats } = found;
    if (stats.isFile()) return await this.#file(found);
    if (stats.isFIFO()) return { type: "fifo", ...common(path, stats) };
    if (!stats.isSymbolicLink()) {
      this.#options.onSkip?.(path, stats.isSocket() ? "it is a socket" : "it is a device");
      return undefined;
    }
    const target = (await readlink(host, { encoding: "buffer" })).toString("latin1");
    if (target.length > SYMLINK_MAX_BYTES) throw this.#bad(path, "its target is too long");
    return { type: "symlink", ...common(path, stats), target };
  }

  async #file(found: Found): Promise<LayerEntry> {
    const { path, stats } = found;
    if (stats.nlink === 1n)
      return { type: "file", ...common(path, stats), blob: await this.#content(found) };
    const linkGroup = `${stats.dev}:${stats.ino}`;
    const blob = this.#linked.get(linkGroup) ?? (await this.#content(found));
    this.#linked.set(linkGroup, blob);
    return { type: "file", ...common(path, stats), blob, linkGroup };
  }

  async #content({ path, host, stats }: Found): Promise<BlobRef> {
    const handle = await open(host, OPEN_FILE);
    try {
      const before = await handle.stat({ bigint: true });
      const changed = () => this.#bad(path, "it changed while it was read");
      if (!before.isFile() || before.ino !== stats.ino || before.dev !== stats.dev) throw changed();
      const blob = await addContent(
        this.#options.sink,
        pieces(handle, Number(before.size)),
        Number(before.size),
        changed,
      );
      const after = await handle.stat({ bigint: true });
      if (after.size !== before.size || after.mtimeNs !== before.mtimeNs) throw changed();
      return blob;
    } finally {
      await handle.close();
    }
  }

  #noted(entry: LayerEntry): LayerEntry {
    this.#options.onEntry?.(entry);
    return entry;
  }

  #bad(path: string, why: string): BurrowError {
    const context = { source: this.#source, entry: showName(path) };
    return new BurrowError("BURROW_IO", why, { context });
  }

  /** A failed call as an error of ours; what is one already passes. */
  failed(path: string, cause: unknown): unknown {
    if (!(cause instanceof Error) || !("syscall" in cause)) return cause;
    const context = { source: this.#source, entry: showName(path) };
    const code =
      path === "" && "code" in cause && cause.code === "ENOENT" ? "BURROW_NOT_FOUND" : "BURROW_IO";
    return new BurrowError(code, "can't read the directory tree", { cause, context });
  }
}

function common(path: string, stats: BigIntStats) {
  // BigInt division truncates towards zero; seconds go down and nanoseconds up from there.
  const ns = ((stats.mtimeNs % NANO) + NANO) % NANO;
  return {
    path,
    mode: Number(stats.mode & 0o7777n),
    uid: Number(stats.uid),
    gid: Number(stats.gid),
    mtimeSec: Number((stats.mtimeNs - ns) / NANO),
    mtimeNs: Number(ns),
  };
}

/** The content of an open file, in pieces that are the caller's to keep. */
async function* pieces(handle: FileHandle, size: number): AsyncIterable<Uint8Array> {
  // One byte more than expected shows the end, or the growth, in the first read.
  const length = Math.min(size + 1, READ_BYTES);
  for (;;) {
    const piece = Buffer.allocUnsafe(length);
    const { bytesRead } = await handle.read(piece, 0, length, null);
    if (bytesRead > 0) yield piece.subarray(0, bytesRead);
    if (bytesRead < length) return;
  }
}
