// Directories of this machine to layer entries. Nothing is followed: each step goes through the open directory above it
// (/proc/self/fd), so a path swapped for a symlink under way is an error or not there, never a way out. What changes while it is
// read is an error. Control plane.

import fs, { type BigIntStats, constants } from "node:fs";
import { setImmediate as turn } from "node:timers/promises";
import type { BlobRef } from "../base/blob.ts";
import { BurrowError } from "../base/error.ts";
import { PATH_MAX_BYTES, SYMLINK_MAX_BYTES, TREE_DEPTH_MAX } from "../base/limits.ts";
import { compareNames, showName } from "../base/name.ts";
import type { LayerEntry } from "../layer/entry.ts";
import type { BlobSink } from "../store/blob-sink.ts";
import { addContent, type Content, WHOLE_MAX_BYTES } from "./sink.ts";

export interface DirectoryOptions {
  readonly sink: BlobSink;
  /** Told of what no layer can hold (sockets, devices); left out. */
  readonly onSkip?: (path: string, why: string) => void;
  readonly onEntry?: (entry: LayerEntry) => void;
}

const NANO = 1_000_000_000n;
/** Read at once: a file that is kept whole, and one byte more, which shows its end or its growth. */
const READ_BYTES = WHOLE_MAX_BYTES + 1;
/** Calls are made at once, each being shorter than its way through a thread would be; signals and uploads get a turn this often. */
const TURN_MS = 20;
/** O_NONBLOCK: a file that became a FIFO would block the open for ever. */
const OPEN_FILE = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;
const OPEN_ROOT = constants.O_RDONLY | constants.O_DIRECTORY;
const OPEN_DIRECTORY = constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW;

/**
 * The entries of a directory tree, the root first, each directory's names in byte order. Content goes to the sink as it is read.
 * Names that are one file (by device and inode) are hard links and are read once. Extended attributes are not read.
 */
export async function* importDirectory(
  path: string,
  options: DirectoryOptions,
): AsyncIterable<LayerEntry> {
  yield* new DirectoryWalk(path, options).entries();
}

/** A file as the walk met it: where to find it, and what it was then. */
interface Found {
  readonly path: string;
  /** Through the open directory above it; bytes, for names that are no UTF-8. */
  readonly host: Buffer;
  readonly stats: BigIntStats;
}

/** An open directory that the walk is in. */
interface Frame {
  readonly fd: number;
  readonly path: string;
  /** What is left of its names, the next one last. */
  readonly names: string[];
}

class DirectoryWalk {
  readonly #source: string;
  readonly #options: DirectoryOptions;
  /** Content of files with several names, by device and inode. */
  readonly #linked = new Map<string, BlobRef>();
  readonly #frames: Frame[] = [];
  readonly #buffer = Buffer.allocUnsafeSlow(READ_BYTES);

  constructor(source: string, options: DirectoryOptions) {
    this.#source = source;
    this.#options = options;
  }

  async *entries(): AsyncIterable<LayerEntry> {
    let path = "";
    let turnedMs = performance.now();
    try {
      yield this.#noted(this.#enter("", fs.openSync(this.#source, OPEN_ROOT)));
      for (let frame = this.#frames.at(-1); frame !== undefined; frame = this.#frames.at(-1)) {
        path = frame.path;
        const name = frame.names.pop();
        if (name === undefined) {
          this.#leave();
          continue;
        }
        path = frame.path === "" ? name : `${frame.path}/${name}`;
        const entry = await this.#child(path, Buffer.from(`${below(frame.fd)}/${name}`, "latin1"));
        if (entry !== undefined) yield this.#noted(entry);
        if (performance.now() - turnedMs < TURN_MS) continue;
        await turn();
        turnedMs = performance.now();
      }
    } catch (cause) {
      throw this.#failed(path, cause);
    } finally {
      while (this.#frames.length > 0) this.#leave();
    }
  }

  /** Goes into an open directory, which it owns. */
  #enter(path: string, fd: number): LayerEntry {
    const names: string[] = [];
    this.#frames.push({ fd, path, names });
    const stats = fs.fstatSync(fd, { bigint: true });
    if (path !== "" && path.split("/").length >= TREE_DEPTH_MAX) throw this.#bad(path, "too deep");
    // "latin1" isn't lossless here: libuv would decode. Buffers are the bytes.
    for (const name of fs.readdirSync(below(fd), { encoding: "buffer" })) {
      names.push(name.toString("latin1"));
    }
    names.sort(compareNames).reverse();
    return { type: "directory", ...common(path, stats) };
  }

  #leave(): void {
    fs.closeSync(this.#frames.pop()!.fd);
  }

  async #child(path: string, host: Buffer): Promise<LayerEntry | undefined> {
    if (path.length > PATH_MAX_BYTES) throw this.#bad(path, "its path is too long");
    const stats = fs.lstatSync(host, { bigint: true });
    if (stats.isDirectory()) return this.#enter(path, fs.openSync(host, OPEN_DIRECTORY));
    return await this.#leaf({ path, host, stats });
  }

  async #leaf(found: Found): Promise<LayerEntry | undefined> {
    const { path, host, stats } = found;
    if (stats.isFile()) return await this.#file(found);
    if (stats.isFIFO()) return { type: "fifo", ...common(path, stats) };
    if (!stats.isSymbolicLink()) {
      this.#options.onSkip?.(path, stats.isSocket() ? "it is a socket" : "it is a device");
      return undefined;
    }
    const target = fs.readlinkSync(host, { encoding: "buffer" }).toString("latin1");
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
    const fd = fs.openSync(host, OPEN_FILE);
    try {
      const before = fs.fstatSync(fd, { bigint: true });
      const changed = () => this.#bad(path, "it changed while it was read");
      if (!before.isFile() || before.ino !== stats.ino || before.dev !== stats.dev) throw changed();
      const size = Number(before.size);
      const content = new FileContent(fd, this.#buffer);
      const blob = await addContent(this.#options.sink, content, size, changed);
      const after = fs.fstatSync(fd, { bigint: true });
      if (after.size !== before.size || after.mtimeNs !== before.mtimeNs) throw changed();
      return blob;
    } finally {
      fs.closeSync(fd);
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
  #failed(path: string, cause: unknown): unknown {
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

/** The path of an open directory, whatever was put in its place. */
function below(fd: number): string {
  return `/proc/self/fd/${fd}`;
}

/** The content of an open file, in a buffer that is used again for each piece. */
class FileContent implements Content {
  readonly #fd: number;
  readonly #buffer: Buffer;

  constructor(fd: number, buffer: Buffer) {
    this.#fd = fd;
    this.#buffer = buffer;
  }

  /** Of a larger file than the buffer, its start. */
  async whole(): Promise<Uint8Array> {
    return this.#read(this.#buffer.length);
  }

  async *[Symbol.asyncIterator](): AsyncIterator<Uint8Array> {
    for (;;) {
      const piece = this.#read(WHOLE_MAX_BYTES);
      if (piece.length > 0) yield piece;
      if (piece.length < WHOLE_MAX_BYTES) return;
      await turn();
    }
  }

  /** What comes next: less than `length` bytes at the end alone. */
  #read(length: number): Uint8Array {
    const buffer = this.#buffer;
    let filled = 0;
    while (filled < length) {
      const count = fs.readSync(this.#fd, buffer, filled, length - filled, null);
      if (count === 0) break;
      filled += count;
    }
    return buffer.subarray(0, filled);
  }
}
