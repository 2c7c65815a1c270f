// Keeper: keeps a cache within its limit while a daemon runs: has the room know what is there, makes place when somebody needs it and a
// little ahead of that, and leaves some of the disk to others. Control plane.

import fs from "node:fs";
import type { Digest } from "../base/digest.ts";
import type { CacheDirectory } from "./directory.ts";
import { Evictor, type EvictorCounters } from "./evictor.ts";
import type { Pinned } from "./pins.ts";
import type { RoomFacts } from "./room.ts";
import { Survey } from "./survey.ts";
import { joinSuspects } from "./suspects.ts";

/** Place is made ahead when less than the first part of the limit is free, until the second is. */
const LOW = 1 / 20;
const HIGH = 1 / 10;
/** Without a limit, and with one: this part of the disk is left free as long as anything can go for it. */
const DISK_FREE = 1 / 20;

/** What may lie in a cache of this limit for good: beyond it files go ahead of need. */
export function lastingBytes(limitBytes: number): number {
  return Math.floor(limitBytes * (1 - LOW));
}

/** Folders and small files that every cache has: the marker, the lock, the socket, the boot file, hints at their first look. */
const FIXED_BYTES = 64 * 1024;

/** What else can give up space, and what must not be taken from it. */
export interface Tenant {
  /** Was promised to a gofer a moment ago, or is being worked on. */
  isPromised(digest: Digest): boolean;
  /** Gives up partial files that nobody works with: the bytes that are free by that. */
  dropIdle(bytes: number): Promise<number>;
  tick(): Promise<void>;
}

export interface KeeperFacts extends RoomFacts, EvictorCounters {
  readonly byFolder: Readonly<Record<string, number>>;
  readonly pinnedSnapshots: number;
}

export class Keeper {
  readonly #cache: CacheDirectory;
  readonly #tenant: Tenant;
  readonly #evictor: Evictor;
  readonly #pinned: Pinned;
  readonly #survey: Survey;
  #looking = Promise.resolve();
  #isAtWork = false;
  #isStopped = false;

  /** limitBytes 0: no limit. */
  constructor(cache: CacheDirectory, tenant: Tenant, pinned: Pinned, limitBytes: number) {
    this.#cache = cache;
    this.#tenant = tenant;
    this.#pinned = pinned;
    this.#evictor = new Evictor(cache, {
      isPinned: (digest) => this.#pinned.has(digest),
      isPromised: (digest) => tenant.isPromised(digest),
    });
    this.#survey = new Survey(cache);
    const { room } = cache;
    room.limitBytes = limitBytes;
    room.add("fixed", FIXED_BYTES);
    room.makeRoom = (bytes, files) => this.#makeRoom(bytes, files);
    const space = spaceOf(fs.statfsSync(cache.root));
    room.countInodes(space.inodes, space.freeInodes);
    // Whatever is in the cache is no more than what is on its disk.
    if (limitBytes > 0) room.unknown(Math.max(0, limitBytes - space.usedBytes));
  }

  get facts(): KeeperFacts {
    return {
      ...this.#cache.room.facts,
      ...this.#evictor.counters,
      byFolder: this.#cache.room.byFolder(),
      pinnedSnapshots: this.#pinned.snapshots,
    };
  }

  /** Looks at what is there, for the limit's sake. Never rejects. */
  async start(): Promise<void> {
    await joinSuspects(this.#cache, () => this.#isStopped);
    if (this.#cache.room.limitBytes > 0) await this.#survey.run();
  }

  /** Called about once a second. Never rejects. */
  async tick(): Promise<void> {
    if (this.#isAtWork || this.#isStopped) return;
    this.#isAtWork = true;
    try {
      this.#cache.lingering.look();
      await this.#tenant.tick();
      await this.#pinned.refresh();
      await this.#makeAhead();
      if (this.#cache.room.limitBytes > 0) await this.#survey.again();
    } finally {
      this.#isAtWork = false;
    }
  }

  /** Somebody has removed blobs: counts what is there again. Never rejects. */
  look(): Promise<void> {
    const isLimited = this.#cache.room.limitBytes > 0;
    // One that is under way may have passed by where they were.
    if (isLimited) this.#looking = this.#looking.then(() => this.#survey.blobs());
    return this.#looking;
  }

  stop(): void {
    this.#isStopped = true;
    this.#survey.stop();
    this.#evictor.stop();
    this.#cache.lingering.close();
  }

  async #makeAhead(): Promise<void> {
    const { room } = this.#cache;
    const { limitBytes, freeBytes, isSurveyed } = room;
    if (limitBytes > 0 && isSurveyed && freeBytes < limitBytes * LOW) {
      await this.#makeRoom(limitBytes * HIGH - freeBytes);
    }
    const space = await this.#lookAtDisk();
    if (space === undefined) return;
    const wantedBytes = space.sizeBytes * DISK_FREE - space.freeBytes;
    const wantedFiles = Math.ceil(space.inodes * DISK_FREE - space.freeInodes);
    if (wantedBytes > 0 || wantedFiles > 0)
      await this.#makeRoom(Math.max(0, wantedBytes), Math.max(0, wantedFiles));
  }

  /** What the file system has, which the room hears of; undefined when it hangs or can't tell. */
  async #lookAtDisk(): Promise<Space | undefined> {
    const { root, disk, room } = this.#cache;
    try {
      const space = spaceOf(await disk.run("look", () => fs.promises.statfs(root)));
      room.countInodes(space.inodes, space.freeInodes);
      return space;
    } catch {
      return undefined;
    }
  }

  async #makeRoom(bytes: number, files = 0): Promise<number> {
    if (this.#isStopped) return 0;
    await this.#pinned.refresh();
    const freed = await this.#evictor.makeRoom(bytes, files);
    if (files > 0) await this.#lookAtDisk();
    return freed >= bytes ? freed : freed + (await this.#tenant.dropIdle(bytes - freed));
  }
}

interface Space {
  readonly sizeBytes: number;
  readonly usedBytes: number;
  readonly freeBytes: number;
  readonly inodes: number;
  readonly freeInodes: number;
}

/** Of a file system: all, in use, and free to us. */
function spaceOf({ blocks, bfree, bavail, bsize, files, ffree }: fs.StatsFs): Space {
  return {
    inodes: files,
    freeInodes: ffree,
    sizeBytes: blocks * bsize,
    usedBytes: (blocks - bfree) * bsize,
    freeBytes: bavail * bsize,
  };
}
