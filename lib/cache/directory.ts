// CacheDirectory: the files of a cache: made, written, sealed, checked and dropped. A file gets its name only when it is
// whole, verified by the caller, fsynced and sealed. Removal is by unlink alone: a file may be mapped in a sandbox, and
// truncating it would be a SIGBUS there. docs/format/cache.md. Control plane.

import { createHash, randomBytes } from "node:crypto";
import fs from "node:fs";
import { promisify } from "node:util";
import { type Digest, isDigest } from "../base/digest.ts";
import { Errno } from "../base/errno.ts";
import { BurrowError } from "../base/error.ts";
import { makeFolder, makeOwnFolder } from "../store/folder.ts";
import { errnoOf } from "../store/node-error.ts";
import { flush } from "./flush.ts";
import {
  BOOT_FILE,
  CACHE_FOLDERS,
  CACHE_FORMAT,
  CACHE_MARKER,
  type CacheFolder,
  cachePath,
  shardOf,
} from "./layout.ts";
import { Lingering } from "./lingering.ts";
import { isRegularFile, openRegular, readRegular } from "./regular-file.ts";
import { costOf, expectedCost, groupOf, type Reservation, Room } from "./room.ts";
import { isSealed, setSeal } from "./seal.ts";
import { expectedSum, setSum } from "./sums.ts";
import { suspectShard } from "./suspects.ts";

const readAsync = promisify(fs.read);

/** A gofer in a user namespace must be able to look things up. */
const FOLDER_MODE = 0o755;
const SEALED_MODE = 0o444;
const HASH_PIECE_BYTES = 1024 * 1024;
/** Nothing is written for longer; after that a pid is taken for another process's. */
const WRITING_MAX_MS = 600_000;
const BOOT_ID = "/proc/sys/kernel/random/boot_id";
/** The marker and the boot file have some 40 bytes. */
const NOTE_MAX_BYTES = 4096;

/** What a look at a file of the cache says. */
export type FileState = "sealed" | "broken" | "missing";

export class CacheDirectory {
  readonly root: string;
  /** What its files take; without a limit unless the daemon sets one. */
  readonly room = new Room();
  readonly lingering = new Lingering(this.room);
  /** How long a disk may hang before a write to it fails; only who has another place for files is better off so. */
  stallMs = Number.POSITIVE_INFINITY;
  readonly #unsynced = new Set<string>();
  #isSyncing = false;

  private constructor(root: string) {
    this.root = root;
  }

  /** Opens a cache, making it when `create` and it is missing. Throws for one of another format. */
  static open(root: string, create: boolean): CacheDirectory {
    const cache = new CacheDirectory(root);
    try {
      if (create) cache.#create();
      cache.#checkMarker();
    } catch (error) {
      if (error instanceof BurrowError) throw error;
      throw ioError("can't open the cache directory", root, error);
    }
    return cache;
  }

  path(folder: CacheFolder, digest: Digest): string {
    return cachePath(this.root, folder, digest);
  }

  /** Looks at a file by one open and fstat. size -1: any. */
  check(folder: CacheFolder, digest: Digest, size: number): FileState {
    let fd: number;
    try {
      fd = openRegular(this.path(folder, digest));
    } catch (error) {
      const { code } = errnoOf(error);
      return code === "ENOENT" || code === "ENOTDIR" ? "missing" : "broken";
    }
    try {
      return isSealed(fd, digest, size) ? "sealed" : "broken";
    } finally {
      fs.closeSync(fd);
    }
  }

  /**
   * Writes verified bytes, which come to `sum` where their name isn't that, as a sealed file, with space that was reserved for it or now
   * is. Nothing is left behind when it fails (BURROW_NO_SPACE, BURROW_IO).
   */
  async writeSealed(
    folder: CacheFolder,
    digest: Digest,
    bytes: Uint8Array,
    reserved?: Reservation,
    sum: Digest = digest,
  ): Promise<void> {
    const space = reserved ?? (await this.room.reserve(expectedCost(bytes.length)));
    const aside = this.temporary(digest);
    let fd = -1;
    try {
      fd = fs.openSync(aside, "wx", 0o600);
      writeFully(fd, bytes, 0);
      await this.publish(fd, aside, folder, digest, sum);
      space.keep(groupOf(folder, digest), costOf(fs.fstatSync(fd)));
    } catch (error) {
      dropAside(aside);
      throw error instanceof BurrowError
        ? error
        : ioError("can't write to the cache", aside, error);
    } finally {
      if (reserved === undefined) space.release();
      if (fd >= 0) fs.closeSync(fd);
    }
  }

  /** Writes an unsealed hint (a locator): whole or not at all, verified by its user. Without space for it: BURROW_NO_SPACE. */
  writeHint(folder: CacheFolder, digest: Digest, bytes: Uint8Array): void {
    const aside = this.temporary(digest);
    const space = this.room.tryReserve(expectedCost(bytes.length));
    if (space === undefined) {
      throw new BurrowError("BURROW_NO_SPACE", "no space for a hint", { context: { path: aside } });
    }
    try {
      fs.writeFileSync(aside, bytes, { mode: 0o644, flag: "wx" });
      fs.chmodSync(aside, 0o644);
      this.#rename(aside, folder, digest);
      space.keep(groupOf(folder, digest), expectedCost(bytes.length));
    } catch (error) {
      dropAside(aside);
      throw ioError("can't write to the cache", aside, error);
    } finally {
      space.release();
    }
  }

  /** Fsyncs, seals and names an open, verified file, which comes to `sum` where its name isn't that. The FD stays the caller's. */
  async publish(
    fd: number,
    aside: string,
    folder: CacheFolder,
    digest: Digest,
    sum: Digest = digest,
  ): Promise<void> {
    try {
      if (sum !== digest) setSum(fd, sum);
      // Before the seal: after a power cut a sealed name must not stand before its data.
      await flush(fd, this.stallMs);
      fs.fchmodSync(fd, SEALED_MODE);
      setSeal(fd, digest);
      this.#rename(aside, folder, digest);
    } catch (error) {
      // Named by its path, whatever failed: that is how the disk is known to be at fault.
      throw ioError("can't keep a file", aside, error);
    }
  }

  /** Hashes a file that is broken or suspect; right ones are sealed and end in blobs/, wrong ones are dropped: the size of a right one, or -1. */
  async revive(folder: CacheFolder, digest: Digest): Promise<number> {
    const path = this.path(folder, digest);
    let fd = -1;
    try {
      fd = openRegular(path);
      if ((await hashFile(fd)) === expectedSum(fd, digest)) {
        const target = folder === "suspect" ? "blobs" : folder;
        await this.publish(fd, path, target, digest);
        if (folder !== target) {
          const cost = costOf(fs.fstatSync(fd));
          this.room.subtract(groupOf(folder, digest), cost);
          this.room.add(groupOf(target, digest), cost);
        }
        return fs.fstatSync(fd).size;
      }
    } catch {
      // A file that can't be read is as good as a wrong one.
    } finally {
      if (fd >= 0) fs.closeSync(fd);
    }
    try {
      this.drop(folder, digest);
    } catch {
      // On a disk that takes no writes a wrong file stays, and is never vouched for.
    }
    return -1;
  }

  drop(folder: CacheFolder, digest: Digest): void {
    const path = this.path(folder, digest);
    const cost = costAt(path);
    dropFile(path);
    this.room.subtract(groupOf(folder, digest), cost);
  }

  /** A path in tmp/ that nothing had before. */
  temporary(digest: Digest): string {
    return `${this.root}/tmp/${digest}.${process.pid}.${randomBytes(8).toString("hex")}`;
  }

  /**
   * What the daemon does first, alone in the cache: clears what a killed one left, and, when the kernel was booted
   * since blobs/ was verified (or isSuspect), moves every blob to suspect/. blobs/ itself keeps its inode. Returns
   * whether blobs became suspect.
   */
  startUp(isSuspect: boolean): boolean {
    emptyFolder(`${this.root}/partial`, () => true);
    emptyFolder(`${this.root}/tmp`, (path) => !isBeingWritten(path));
    const boot = fs.readFileSync(BOOT_ID, "utf8").trim();
    const bootPath = `${this.root}/${BOOT_FILE}`;
    const isSameBoot =
      isRegularFile(bootPath) && readRegular(bootPath, NOTE_MAX_BYTES).toString().trim() === boot;
    if (isSameBoot && !isSuspect) return false;
    for (const shard of shardNames(`${this.root}/blobs`)) suspectShard(this.root, shard);
    // Last: killed before this, the next daemon starts over.
    const aside = `${this.root}/tmp/boot`;
    writeNote(aside, `${boot}\n`, bootPath);
    return true;
  }

  /** Digests in a sharded folder, in order. */
  *digests(folder: CacheFolder): Iterable<Digest> {
    for (const shard of shardNames(`${this.root}/${folder}`)) {
      for (const name of fs.readdirSync(`${this.root}/${folder}/${shard}`).sort()) {
        if (isDigest(name)) yield name;
      }
    }
  }

  #create(): void {
    makeOpenFolder(this.root);
    for (const folder of CACHE_FOLDERS) makeOpenFolder(`${this.root}/${folder}`, makeOwnFolder);
    const marker = `${this.root}/${CACHE_MARKER}`;
    // An empty one is no format's: a power cut took its text.
    if (isRegularFile(marker) && fs.statSync(marker).size > 0) return;
    const aside = `${this.root}/tmp/marker.${randomBytes(8).toString("hex")}`;
    writeNote(aside, `${JSON.stringify({ format: CACHE_FORMAT })}\n`, marker);
  }

  #checkMarker(): void {
    const text = readRegular(`${this.root}/${CACHE_MARKER}`, NOTE_MAX_BYTES).toString();
    if (text.includes(`"format":${CACHE_FORMAT}}`)) return;
    throw new BurrowError("BURROW_UNSUPPORTED", "the cache has a format this program can't use", {
      context: { cache: this.root, marker: text.slice(0, 80) },
    });
  }

  #rename(aside: string, folder: CacheFolder, digest: Digest): void {
    const path = this.path(folder, digest);
    const shard = `${this.root}/${folder}/${shardOf(digest)}`;
    if (aside !== path) {
      try {
        replace(aside, path);
      } catch (error) {
        const { code } = errnoOf(error);
        if (code !== "ENOENT" && code !== "ENOTDIR" && code !== "ELOOP") throw error;
        // Something else than a folder may have its name.
        if (fs.lstatSync(shard, { throwIfNoEntry: false })?.isDirectory() !== true) dropFile(shard);
        makeOpenFolder(shard);
        fs.renameSync(aside, path);
      }
    }
    this.#unsynced.add(shard);
    void this.#syncFolders();
  }

  /** Folders are fsynced behind the answers: a name that a power cut takes costs a fetch, not a wrong byte. */
  async #syncFolders(): Promise<void> {
    if (this.#isSyncing) return;
    this.#isSyncing = true;
    while (this.#unsynced.size > 0) {
      const shards = [...this.#unsynced];
      this.#unsynced.clear();
      await Promise.all(shards.map(syncFolder));
    }
    this.#isSyncing = false;
  }
}

/** sha256 of an open file, read by position in pieces. */
export async function hashFile(fd: number): Promise<Digest> {
  const hash = createHash("sha256");
  const piece = Buffer.allocUnsafe(HASH_PIECE_BYTES);
  for (let offset = 0; ; ) {
    const { bytesRead } = await readAsync(fd, piece, 0, piece.length, offset);
    if (bytesRead === 0) return hash.digest("hex") as Digest;
    hash.update(piece.subarray(0, bytesRead));
    offset += bytesRead;
  }
}

/** A failed system call as a BurrowError that keeps its errno and names the path, by which the disk is known: BURROW_NO_SPACE when it is full. */
export function ioError(message: string, path: string, cause: unknown): BurrowError {
  const errno = cause instanceof BurrowError ? (cause.errno ?? Errno.EIO) : errnoOf(cause).errno;
  const isFull = errno === Errno.ENOSPC || errno === Errno.EDQUOT;
  return new BurrowError(isFull ? "BURROW_NO_SPACE" : "BURROW_IO", message, {
    errno,
    cause,
    context: { path },
  });
}

/** Unlinks a file that may be gone, or what stands in its place. */
export function dropFile(path: string): void {
  try {
    fs.unlinkSync(path);
  } catch (error) {
    const { code } = errnoOf(error);
    if (code === "ENOENT" || code === "ENOTDIR") return;
    if (code !== "EISDIR") throw error;
    fs.rmSync(path, { force: true, recursive: true });
  }
}

/** Drops what was being written; where that fails, too, the next daemon does it. The first failure is the one to tell. */
function dropAside(path: string): void {
  try {
    dropFile(path);
  } catch {
    // As above.
  }
}

/** What a file takes; 0 when nothing can be said of it. */
function costAt(path: string): number {
  try {
    return costOf(fs.lstatSync(path));
  } catch {
    return 0;
  }
}

/** Renames a file over another, or over a directory that has its name. */
function replace(aside: string, path: string): void {
  try {
    fs.renameSync(aside, path);
  } catch (error) {
    if (errnoOf(error).code !== "EISDIR") throw error;
    dropFile(path);
    fs.renameSync(aside, path);
  }
}

/** Writes a small file aside and gives it its name, durable before that: a power cut must not leave the name without the text. */
function writeNote(aside: string, text: string, path: string): void {
  fs.writeFileSync(aside, text, { mode: 0o644, flush: true });
  replace(aside, path);
}

export function writeFully(fd: number, bytes: Uint8Array, position: number): void {
  let done = 0;
  while (done < bytes.length) {
    done += fs.writeSync(fd, bytes, done, bytes.length - done, position + done);
  }
}

/** The mode is set apart from mkdir, whose mode the umask cuts. */
function makeOpenFolder(path: string, make = makeFolder): void {
  if (make(path, FOLDER_MODE)) fs.chmodSync(path, FOLDER_MODE);
}

/** Removes what is in a folder of the cache and `goes`: in that folder alone, even if a symlink takes its place meanwhile. */
function emptyFolder(folder: string, goes: (path: string) => boolean): void {
  const { O_RDONLY, O_DIRECTORY, O_NOFOLLOW } = fs.constants;
  const fd = fs.openSync(folder, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
  try {
    const own = `/proc/self/fd/${fd}`;
    for (const name of fs.readdirSync(own)) {
      const path = `${own}/${name}`;
      if (goes(path)) fs.rmSync(path, { force: true, recursive: true });
    }
  } finally {
    fs.closeSync(fd);
  }
}

/** Whether a file of tmp/ may belong to a live process: the CLI writes indexes while daemons come and go. */
function isBeingWritten(path: string): boolean {
  const pid = /\.(\d+)\.[0-9a-f]+$/.exec(path)?.[1];
  const stat = fs.statSync(path, { throwIfNoEntry: false });
  if (pid === undefined || stat === undefined || Number(pid) === process.pid) return false;
  return Date.now() - stat.mtimeMs < WRITING_MAX_MS && fs.existsSync(`/proc/${pid}`);
}

function shardNames(folder: string): string[] {
  return fs
    .readdirSync(folder, { withFileTypes: true })
    .filter((entry) => entry.isDirectory() && /^[0-9a-f]{2}$/.test(entry.name))
    .map((entry) => entry.name)
    .sort();
}

async function syncFolder(path: string): Promise<void> {
  try {
    const fd = fs.openSync(path, fs.constants.O_RDONLY | fs.constants.O_DIRECTORY);
    try {
      await flush(fd, Number.POSITIVE_INFINITY);
    } finally {
      fs.closeSync(fd);
    }
  } catch {
    // Evicted or made suspect meanwhile; there is nothing to make durable.
  }
}
