// CacheDirectory: the files of a cache: made, written, sealed, checked and dropped. A file gets its name only when it is
// whole, verified by the caller, fsynced and sealed. Removal is by unlink alone: a file may be mapped in a sandbox, and
// truncating it would be a SIGBUS there. docs/format/cache.md. Control plane.

import { randomBytes } from "node:crypto";
import fs from "node:fs";
import { type Digest, isDigest } from "../base/digest.ts";
import { Errno, isShortage } from "../base/errno.ts";
import { BurrowError } from "../base/error.ts";
import { errnoOf, ioError } from "../store/node-error.ts";
import { Calls, FACTS, Fact, type FdOf, failureIn, type Results } from "../sys/calls.ts";
import { native } from "../sys/native.ts";
import { Disk } from "./disk.ts";
import { checkMarker, clearLeftovers, isOfThisBoot, makeCache, suspectAll } from "./ground.ts";
import { type CacheFolder, cachePath, shardOf } from "./layout.ts";
import { Lingering } from "./lingering.ts";
import {
  type FileState,
  isAbsence,
  type Looked,
  Looks,
  openThrough,
  sizeThrough,
  statThrough,
} from "./look.ts";
import { hashFile } from "./pool.ts";
import { holdsRanges } from "./ranges.ts";
import { openRegular } from "./regular-file.ts";
import { costOf, expectedCost, groupOf, type Removal, type Reservation, Room } from "./room.ts";
import { isSealed, sealOf } from "./seal.ts";
import { Shards, shardNames } from "./shards.ts";
import { expectedSum, noteSum } from "./sums.ts";

const SEALED_MODE = 0o444;
const WRITE_NEW = fs.constants.O_WRONLY | fs.constants.O_CREAT | fs.constants.O_EXCL;
export class CacheDirectory {
  readonly root: string;
  /** What its files take; without a limit unless the daemon sets one. */
  readonly room = new Room();
  /** By which all is done that a sandbox may wait for. */
  readonly disk: Disk;
  readonly lingering: Lingering;
  /** Whether its disk has what sync_file_range says it has; else fsync must be asked. Known once the daemon has started up. */
  holdsRanges = false;
  /** False when there surely are no suspects. */
  hasSuspects = true;
  readonly #looks: Looks;
  readonly #shards: Shards;

  private constructor(root: string) {
    this.root = root;
    this.disk = new Disk(root);
    this.#looks = new Looks(this.disk, root);
    this.#shards = new Shards(this.disk);
    this.lingering = new Lingering(this.room, (fd) => this.disk.close(fd));
  }

  /** Opens a cache, making it when `create` and it is missing. Throws for one of another format. */
  static open(root: string, create: boolean): CacheDirectory {
    try {
      if (create) makeCache(root);
      checkMarker(root);
    } catch (error) {
      if (error instanceof BurrowError) throw error;
      throw ioError("can't open the cache directory", root, error);
    }
    return new CacheDirectory(root);
  }

  path(folder: CacheFolder, digest: Digest): string {
    return cachePath(this.root, folder, digest);
  }

  /** Looks at a file by one open and fstat, on this thread: not for the daemon. size -1: any. */
  check(folder: CacheFolder, digest: Digest, size: number): FileState {
    let fd: number;
    try {
      fd = openRegular(this.path(folder, digest));
    } catch (error) {
      return isAbsence(errnoOf(error).errno) ? "missing" : "broken";
    }
    try {
      return isSealed(fd, digest, size) ? "sealed" : "broken";
    } finally {
      fs.closeSync(fd);
    }
  }

  /** The same through the disk's queue; "missing" on a disk that hangs. */
  async look(folder: CacheFolder, digest: Digest, size: number): Promise<FileState> {
    const states = await this.lookAll([{ folder, digest, size }]);
    return states[0]!;
  }

  /** Several looks at the price of one; as "missing" of files that are on a disk that hangs. */
  async lookAll(files: readonly Looked[]): Promise<FileState[]> {
    try {
      return await this.#looks.at(files);
    } catch (error) {
      if (!(error instanceof BurrowError)) throw error;
      return files.map(() => "missing");
    }
  }

  /**
   * Writes verified bytes, which come to `sum` where their name isn't that, as a sealed file, with space that was reserved for it or now
   * is; behind what others wait for if `isBehind` says so when it comes to that (Disk.hurry, by the digest). Nothing is left behind when it fails (BURROW_NO_SPACE, BURROW_IO).
   */
  async writeSealed(
    folder: CacheFolder,
    digest: Digest,
    bytes: Uint8Array,
    reserved?: Reservation,
    sum: Digest = digest,
    isBehind = () => false,
  ): Promise<void> {
    const space = reserved ?? (await this.room.reserve(expectedCost(bytes.length)));
    const facts = new Float64Array(FACTS);
    const keep = (by: Pick<Reservation, "keep">) =>
      by.keep(groupOf(folder, digest), costOf({ blocks: facts[Fact.blocks]! }));
    // The file that stands after all is nobody's but the cache's.
    const late = (results: Results) => {
      if (failureIn(results) === 0) keep({ keep: (group, cost) => this.room.add(group, cost) });
    };
    try {
      await this.#inShard(folder, digest, async (path) => {
        const aside = this.temporary(digest);
        const calls = new Calls();
        const fd = { at: calls.open(aside, WRITE_NEW, 0o600) };
        calls.pwrite(fd, bytes, 0);
        if (sum !== digest) noteSum(calls, fd, sum);
        addSeal(calls, fd, digest);
        calls.stat(fd, facts);
        calls.rename(aside, path);
        calls.always(() => calls.close(fd)).ifFailed(() => calls.unlink(aside));
        const options = { bytes: bytes.length, late, behind: isBehind() ? digest : undefined };
        await this.disk.calls("write", calls, "can't write to the cache", aside, options);
      });
      keep(space);
    } finally {
      if (reserved === undefined) space.release();
    }
  }

  /** Writes an unsealed hint (a locator): whole or not at all, verified by its user. Without space for it: BURROW_NO_SPACE. */
  async writeHint(folder: CacheFolder, digest: Digest, bytes: Uint8Array): Promise<void> {
    const space = this.room.tryReserve(expectedCost(bytes.length));
    if (space === undefined) {
      throw new BurrowError("BURROW_NO_SPACE", "no space for a hint", {
        context: { path: this.path(folder, digest) },
      });
    }
    try {
      await this.#inShard(folder, digest, async (path) => {
        const aside = this.temporary(digest);
        const calls = new Calls();
        const fd = { at: calls.open(aside, WRITE_NEW, 0o644) };
        calls.pwrite(fd, bytes, 0);
        calls.fchmod(fd, 0o644);
        calls.rename(aside, path);
        calls.always(() => calls.close(fd)).ifFailed(() => calls.unlink(aside));
        const options = { bytes: bytes.length };
        await this.disk.calls("write", calls, "can't write to the cache", aside, options);
      });
      space.keep(groupOf(folder, digest), expectedCost(bytes.length));
    } finally {
      space.release();
    }
  }

  /** As writeHint, in the place of one that may be there. */
  async replaceHint(folder: CacheFolder, digest: Digest, bytes: Uint8Array): Promise<void> {
    const before = await sizeThrough(this.disk, this.path(folder, digest)).catch(() => -1);
    await this.writeHint(folder, digest, bytes);
    if (before >= 0) this.room.subtract(groupOf(folder, digest), expectedCost(before));
  }

  /**
   * Fsyncs, seals and names an open, verified file, which comes to `sum` where its name isn't that: what it takes. The FD stays the
   * caller's. If the disk hangs it may have its name later, and is counted then.
   */
  async publish(
    fd: number,
    aside: string,
    folder: CacheFolder,
    digest: Digest,
    sum: Digest = digest,
    sizeBytes = 0,
  ): Promise<number> {
    const facts = new Float64Array(FACTS);
    const cost = () => costOf({ blocks: facts[Fact.blocks]! });
    const late = (results: Results) => {
      if (failureIn(results) === 0) this.room.add(groupOf(folder, digest), cost());
    };
    await this.#inShard(folder, digest, async (path) => {
      const calls = new Calls();
      // Of our own: the caller may close the other one while this hangs, and its number would be another file's.
      const own = native.dupFd(fd);
      if (own < 0) throw new BurrowError("BURROW_IO", "no FD to keep a file by", { errno: -own });
      if (sum !== digest) noteSum(calls, own, sum);
      addSeal(calls, own, digest);
      calls.stat(own, facts);
      if (aside !== path) calls.rename(aside, path);
      calls.always(() => calls.close(own));
      // Named by its path, whatever failed: that is how the disk is known to be at fault.
      const options = { bytes: sizeBytes, late, ownFd: own };
      await this.disk.calls("write", calls, "can't keep a file", aside, options);
    });
    return cost();
  }

  /**
   * Hashes a file that is broken or suspect; right ones are sealed and end in blobs/, wrong ones are dropped: the size of a right one, or
   * -1. BURROW_IO when there is no FD or memory to look at it: it stays as it is.
   */
  async revive(folder: CacheFolder, digest: Digest): Promise<number> {
    const path = this.path(folder, digest);
    let fd = -1;
    try {
      fd = await openThrough(this.disk, path);
      if ((await hashFile(fd, this.disk)) === (await expectedSum(fd, digest, this.disk))) {
        const target = folder === "suspect" ? "blobs" : folder;
        const facts = await statThrough(this.disk, fd);
        const sizeBytes = facts[Fact.size]!;
        let isMoved = false;
        const removal = this.#beginRemoval(folder, digest, facts);
        try {
          const cost = await this.publish(fd, path, target, digest, digest, sizeBytes);
          isMoved = folder !== target;
          if (isMoved) this.room.add(groupOf(target, digest), cost);
        } finally {
          removal.end(isMoved);
        }
        return sizeBytes;
      }
    } catch (error) {
      // A file that can't be read is as good as a wrong one.
      if (isShortage(errnoOf(error).errno)) throw error;
    } finally {
      if (fd >= 0) void this.disk.close(fd);
    }
    try {
      await this.drop(folder, digest);
    } catch {
      // On a disk that takes no writes a wrong file stays, and is never vouched for.
    }
    return -1;
  }

  /** Unlinks a file, or what stands in its place. */
  async drop(folder: CacheFolder, digest: Digest): Promise<void> {
    const path = this.path(folder, digest);
    const facts = new Float64Array(FACTS);
    const look = new Calls();
    look.optional(() => look.lstat(path, facts));
    await this.disk.run("look", () => look.run());
    const removal = this.#beginRemoval(folder, digest, facts);
    let isGone = false;
    try {
      const calls = new Calls();
      const unlinked = calls.unlink(path);
      const errno = -(await this.disk.run("write", () => calls.run()))[unlinked]!;
      if (errno === Errno.EISDIR)
        await this.disk.run("write", () => fs.promises.rm(path, { force: true, recursive: true }));
      else if (errno > 0 && !isAbsence(errno))
        throw ioError(
          "can't remove a cached file",
          path,
          new BurrowError("BURROW_IO", "", { errno }),
        );
      isGone = errno === 0;
    } finally {
      removal.end(isGone);
    }
  }

  #beginRemoval(folder: CacheFolder, digest: Digest, facts: Float64Array): Removal {
    return this.room.beginRemoval(groupOf(folder, digest), costOf({ blocks: facts[Fact.blocks]! }));
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
    clearLeftovers(this.root);
    this.holdsRanges = holdsRanges(this.root);
    if (isSuspect || !isOfThisBoot(this.root)) {
      suspectAll(this.root);
      return true;
    }
    this.hasSuspects = fs.readdirSync(`${this.root}/suspect`).length > 0;
    return false;
  }

  /** Digests in a sharded folder, in order. */
  *digests(folder: CacheFolder): Iterable<Digest> {
    for (const shard of shardNames(`${this.root}/${folder}`)) {
      for (const name of fs.readdirSync(`${this.root}/${folder}/${shard}`).sort()) {
        if (isDigest(name)) yield name;
      }
    }
  }

  /**
   * Does what ends by giving a file its name; where the folder for it is missing, or something else has the name of either, that is set
   * right, and it is done again.
   */
  async #inShard(
    folder: CacheFolder,
    digest: Digest,
    work: (path: string) => Promise<void>,
  ): Promise<void> {
    const path = this.path(folder, digest);
    const shard = `${this.root}/${folder}/${shardOf(digest)}`;
    if (!this.#shards.isKnown(shard)) {
      // It counts from here on.
      this.room.add(groupOf(folder, digest), 0);
      await this.#shards.make(shard);
    }
    try {
      await work(path);
    } catch (error) {
      const errno = error instanceof BurrowError ? (error.errno ?? 0) : 0;
      const isOfShard = isAbsence(errno) || errno === Errno.ELOOP;
      if (!isOfShard && errno !== Errno.EISDIR) throw error;
      if (isOfShard) await this.#shards.make(shard);
      else await this.drop(folder, digest);
      await work(path);
    }
    this.#shards.sync(shard);
  }
}

export function writeFully(fd: number, bytes: Uint8Array, position: number): void {
  let done = 0;
  while (done < bytes.length) {
    done += fs.writeSync(fd, bytes, done, bytes.length - done, position + done);
  }
}

/** Has a chain make an open file durable, and then sealed: after a power cut a sealed name must not stand before its data. */
function addSeal(calls: Calls, fd: FdOf, digest: Digest): void {
  const { sec, nsec } = sealOf(digest);
  calls.fsync(fd);
  calls.fchmod(fd, SEALED_MODE);
  calls.futimens(fd, sec, nsec);
}
