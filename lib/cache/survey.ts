// Survey: finds out what a cache takes, folder by folder, in the background: nothing waits for it, and no more than one folder is
// held in memory. Later it looks again where somebody else may have written or removed something. Control plane.

import fs from "node:fs";
import { errnoOf } from "../store/node-error.ts";
import { CACHE_FOLDERS, type CacheFolder } from "./layout.ts";
import { costOf, FILE_COST_BYTES, type Group, type Room } from "./room.ts";
import { Turns } from "./turns.ts";

/** A folder that takes less is listed at once, in some 50 us: an eviction from a small cache goes through all of them. */
const AT_ONCE_BYTES = 4 * 1024 * 1024;
/** Files that later looks may cost a second. */
const AGAIN_FILES = 400;
/** Folders whose change is looked for a second: all of them in half a minute. */
const AGAIN_FOLDERS = 40;
const SHARDS = Array.from({ length: 256 }, (_, i) => i.toString(16).padStart(2, "0"));

/** A file as a look finds it. */
export interface Found {
  readonly name: string;
  readonly costBytes: number;
  /** When it was read first since its reference was cleared, ms; 0: it wasn't. */
  readonly readMs: number;
  readonly changedMs: number;
}

/** All groups of one folder of a cache. */
export function groupsOf(folder: CacheFolder): Group[] {
  if (folder === "partial" || folder === "tmp") return [folder];
  return SHARDS.map((shard) => `${folder}/${shard}`);
}

/** The groups that are surveyed, small folders first. Partial files are counted block by block by who writes them. */
const GROUPS: readonly Group[] = [...CACHE_FOLDERS]
  .reverse()
  .filter((folder) => folder !== "partial" && folder !== "tmp")
  .flatMap(groupsOf);

/**
 * Looks at every file of a group and has the room know their sum. undefined when another look is under way or the folder can't be read.
 * A file that can't be looked at is passed over.
 */
export async function lookAt(root: string, group: Group, room: Room): Promise<Found[] | undefined> {
  if (!room.beginLook(group)) return undefined;
  let sum = -1;
  try {
    const path = `${root}/${group}`;
    const folder = fs.statSync(path, { throwIfNoEntry: false });
    const known = room.bytesOf(group);
    const isSmall = known >= 0 && known < AT_ONCE_BYTES;
    const names =
      folder === undefined ? [] : isSmall ? fs.readdirSync(path) : await fs.promises.readdir(path);
    const found: Found[] = [];
    let bytes = folder === undefined ? 0 : costOf(folder) - FILE_COST_BYTES;
    const turns = new Turns();
    for (const name of names) {
      if (turns.isOver) await turns.next();
      const one = lookAtFile(`${path}/${name}`, name);
      if (one === undefined) continue;
      bytes += one.costBytes;
      found.push(one);
    }
    sum = bytes;
    return found;
  } catch {
    return undefined;
  } finally {
    room.endLook(group, sum);
  }
}

function lookAtFile(path: string, name: string): Found | undefined {
  try {
    const stat = fs.lstatSync(path, { throwIfNoEntry: false });
    if (stat === undefined) return undefined;
    return {
      name,
      costBytes: costOf(stat),
      readMs: stat.atimeMs,
      changedMs: stat.ctimeMs,
    };
  } catch {
    return undefined;
  }
}

export class Survey {
  readonly #root: string;
  readonly #room: Room;
  /** What a group's folder said when it was last looked at. */
  readonly #seen = new Map<Group, { readonly changedMs: number; readonly files: number }>();
  #at = 0;
  #allowance = 0;
  #isAtWork = false;
  #isStopped = false;

  constructor(root: string, room: Room) {
    this.#root = root;
    this.#room = room;
  }

  /** The first look at everything. Never rejects. */
  async run(): Promise<void> {
    for (const group of GROUPS) {
      if (this.#isStopped) return;
      await this.#look(group);
    }
    this.#room.surveyed();
  }

  /** Called once a second: looks again at folders that changed since they were looked at, as far as that costs little. */
  async again(): Promise<void> {
    if (this.#isAtWork || !this.#room.isSurveyed) return;
    this.#isAtWork = true;
    this.#allowance = Math.min(this.#allowance + AGAIN_FILES, 256 * AGAIN_FILES);
    for (let i = 0; i < AGAIN_FOLDERS && !this.#isStopped; i++) {
      const group = GROUPS[this.#at % GROUPS.length]!;
      const seen = this.#seen.get(group);
      if (changedMs(`${this.#root}/${group}`) !== seen?.changedMs) {
        if ((seen?.files ?? 0) > this.#allowance) break;
        this.#allowance -= await this.#look(group);
      }
      this.#at++;
    }
    this.#isAtWork = false;
  }

  /** Looks at all blobs again at once. Never rejects. */
  async blobs(): Promise<void> {
    if (!this.#room.isSurveyed) return;
    for (const group of [...groupsOf("blobs"), ...groupsOf("suspect")])
      if (!this.#isStopped) await this.#look(group);
  }

  stop(): void {
    this.#isStopped = true;
  }

  /** How many files it looked at. */
  async #look(group: Group): Promise<number> {
    const before = changedMs(`${this.#root}/${group}`);
    const found = await lookAt(this.#root, group, this.#room);
    if (found === undefined) return 0;
    this.#seen.set(group, { changedMs: before, files: found.length });
    return found.length;
  }
}

/** When a folder last changed, ms; 0 when it isn't there. */
function changedMs(path: string): number {
  try {
    return fs.statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0;
  } catch (error) {
    return -errnoOf(error).errno;
  }
}
