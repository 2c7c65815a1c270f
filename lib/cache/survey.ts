// Survey: finds out what a cache takes, folder by folder, in the background: nothing waits for it, and no more than one folder is
// held in memory. Later it looks again where somebody else may have written or removed something. Control plane.

import { Calls, FACTS, Fact, type Place } from "../sys/calls.ts";
import type { Disk } from "./disk.ts";
import { CACHE_FOLDERS, type CacheFolder } from "./layout.ts";
import { namesIn } from "./names.ts";
import { costOf, FILE_COST_BYTES, type Group, type Room } from "./room.ts";

/** Files that later looks may cost a second. */
const AGAIN_FILES = 400;
/** Folders whose change is looked for a second: all of them in half a minute. */
const AGAIN_FOLDERS = 40;
const SHARDS = Array.from({ length: 256 }, (_, i) => i.toString(16).padStart(2, "0"));

/** What is surveyed: a cache directory. */
export interface Surveyed {
  readonly root: string;
  readonly disk: Disk;
  readonly room: Room;
}

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
export async function lookAt(
  { root, disk, room }: Surveyed,
  group: Group,
): Promise<Found[] | undefined> {
  if (!room.beginLook(group)) return undefined;
  let sum = -1;
  try {
    const path = `${root}/${group}`;
    const found: Found[] = [];
    let bytes = 0;
    let isFirst = true;
    for await (const names of namesIn(disk, path)) {
      const paths = names.map((name) => `${path}/${name}`);
      // The folder comes along with its first files.
      if (isFirst) paths.push(path);
      const facts = await factsOf(disk, paths);
      const folder = isFirst ? facts.pop() : undefined;
      isFirst = false;
      if (folder !== undefined) bytes += costOf(blocksOf(folder)) - FILE_COST_BYTES;
      for (const [i, name] of names.entries()) {
        const of = facts[i];
        if (of === undefined) continue;
        const costBytes = costOf(blocksOf(of));
        bytes += costBytes;
        found.push({ name, costBytes, readMs: of[Fact.atimeMs]!, changedMs: of[Fact.ctimeMs]! });
      }
    }
    sum = bytes;
    return found;
  } catch {
    return undefined;
  } finally {
    room.endLook(group, sum);
  }
}

/** What lstat(2) says of each; undefined of what isn't there or can't be looked at. */
async function factsOf(
  disk: Disk,
  paths: readonly string[],
): Promise<(Float64Array | undefined)[]> {
  const all = new Float64Array(paths.length * FACTS);
  const calls = new Calls();
  const places: Place[] = [];
  const facts = paths.map((_, i) => all.subarray(i * FACTS, (i + 1) * FACTS));
  calls.optional(() => {
    for (const [i, path] of paths.entries()) places.push(calls.lstat(path, facts[i]!));
  });
  const results = await disk.run("walk", () => calls.run());
  return facts.map((one, i) => (results[places[i]!]! < 0 ? undefined : one));
}

function blocksOf(facts: Float64Array): { readonly blocks: number } {
  return { blocks: facts[Fact.blocks]! };
}

export class Survey {
  readonly #cache: Surveyed;
  /** What a group's folder said when it was last looked at. */
  readonly #seen = new Map<Group, { readonly changedMs: number; readonly files: number }>();
  #at = 0;
  #allowance = 0;
  #isAtWork = false;
  #isStopped = false;

  constructor(cache: Surveyed) {
    this.#cache = cache;
  }

  /** The first look at everything. Never rejects. */
  async run(): Promise<void> {
    for (const group of await this.#there()) {
      if (this.#isStopped) return;
      await this.#look(group);
    }
    this.#cache.room.surveyed();
  }

  /** Groups that have a folder; the room hears of the others that they are empty. Most are, in a small cache: all are asked for at once. */
  async #there(): Promise<Group[]> {
    const { root, disk, room } = this.#cache;
    const groups = GROUPS.filter((group) => room.beginLook(group));
    try {
      const facts = await factsOf(
        disk,
        groups.map((group) => `${root}/${group}`),
      );
      const empty = new Set(groups.filter((_, i) => facts[i] === undefined));
      for (const group of groups) room.endLook(group, empty.has(group) ? 0 : -1);
      for (const group of empty) this.#seen.set(group, { changedMs: 0, files: 0 });
      return GROUPS.filter((group) => !empty.has(group));
    } catch {
      for (const group of groups) room.endLook(group, -1);
      return [...GROUPS];
    }
  }

  /** Called once a second: looks again at folders that changed since they were looked at, as far as that costs little. */
  async again(): Promise<void> {
    if (this.#isAtWork || !this.#cache.room.isSurveyed) return;
    this.#isAtWork = true;
    this.#allowance = Math.min(this.#allowance + AGAIN_FILES, 256 * AGAIN_FILES);
    for (let i = 0; i < AGAIN_FOLDERS && !this.#isStopped; i++) {
      const group = GROUPS[this.#at % GROUPS.length]!;
      const seen = this.#seen.get(group);
      if ((await this.#changedMs(group)) !== seen?.changedMs) {
        if ((seen?.files ?? 0) > this.#allowance) break;
        this.#allowance -= await this.#look(group);
      }
      this.#at++;
    }
    this.#isAtWork = false;
  }

  /** Looks at all blobs again at once. Never rejects. */
  async blobs(): Promise<void> {
    if (!this.#cache.room.isSurveyed) return;
    for (const group of [...groupsOf("blobs"), ...groupsOf("suspect")])
      if (!this.#isStopped) await this.#look(group);
  }

  stop(): void {
    this.#isStopped = true;
  }

  /** How many files it looked at. */
  async #look(group: Group): Promise<number> {
    const before = await this.#changedMs(group);
    const found = await lookAt(this.#cache, group);
    if (found === undefined) return 0;
    this.#seen.set(group, { changedMs: before, files: found.length });
    return found.length;
  }

  /** When a folder last changed, ms; 0 when it isn't there, -1 when nobody knows. */
  async #changedMs(group: Group): Promise<number> {
    try {
      const [facts] = await factsOf(this.#cache.disk, [`${this.#cache.root}/${group}`]);
      if (facts === undefined) return 0;
      return facts[Fact.mtimeSec]! * 1e3 + facts[Fact.mtimeNs]! / 1e6;
    } catch {
      return -1;
    }
  }
}
