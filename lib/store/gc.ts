// Collection of a store: mark, tell, sweep. What nothing refers to is listed for writers to see, and removed when no writer is at work
// that may still rely on it. Safe at any point to be killed, and beside any number of writers. docs/format/store.md, "Collection",
// is the normative text. Control plane.

import type { Digest } from "../base/digest.ts";
import { explain } from "../base/error.ts";
import type { DeltaStore } from "./deltas.ts";
import {
  type GarbageList,
  LIST_PATHS_MAX,
  putGarbage,
  readGarbage,
  shrinkGarbage,
} from "./garbage.ts";
import { repackHeld } from "./lay-out.ts";
import { CLOCK, type Clock, Collector, type LiveLease } from "./lease.ts";
import type { Pack } from "./pack-use.ts";
import { inParallel } from "./parallel.ts";
import { type PackUsers, type ReadOrder, type Repacked, sparseAmong, usersOf } from "./repack.ts";
import type { SizedObject } from "./store.ts";
import {
  type Fault,
  type Survey,
  type SurveyOptions,
  Surveyor,
  type SurveyPorts,
  type Total,
} from "./survey.ts";

/** Age below which nothing is removed: of objects, and of the news that content has moved. */
export const KEEP_MS = 86_400_000;
/** Packs that are needed for less than this part of them are repacked. */
const LIVE_SHARE = 0.5;
/** Removals at once. */
const PARALLEL = 8;

export interface CollectOptions extends Omit<SurveyOptions, "onProgress"> {
  /** Whether packs that are mostly garbage are repacked. */
  readonly isRepacking: boolean;
  readonly packBytes?: number;
  /** What comes first in packs that are written anew: what starts over some layers and snapshots read. */
  readonly orderOf?: (of: ReadonlySet<Digest>) => Promise<ReadOrder | undefined>;
  readonly onProgress?: (text: string) => void;
  readonly clock?: Clock;
}

export interface Collected {
  readonly kept: Total;
  readonly freed: Total;
  /** What is garbage, but new, moved only now, or known to a writer that is at work. */
  readonly later: Total;
  readonly repacked: Omit<Repacked, "faults">;
  /** Writers at work that something could not be removed for. */
  readonly writers: readonly string[];
  readonly faults: readonly Fault[];
}

export interface Planned extends Collected {
  /** Paths of what nothing refers to, new or not. */
  readonly unreferenced: ReadonlySet<string>;
}

/** What a collection would do now, as far as can be said without writing anything; `nowMs` is near the store's time. */
export async function plan(
  store: DeltaStore,
  ports: SurveyPorts,
  options: Omit<CollectOptions, "clock">,
  nowMs: number,
): Promise<Planned> {
  const survey = await new Surveyor(store, ports, surveyOptions(options)).look(nowMs);
  const faults = [...survey.faults];
  const lists = await readGarbage(store.whole, reportTo(faults));
  const waits = waitingOf(lists, [], nowMs, options.keepMs);
  const now = survey.garbage.filter(({ path }) => !waits.has(path));
  const wait = survey.garbage.filter(({ path }) => waits.has(path));
  const { sparse } = await sparseOf(store, survey, options, nowMs, faults);
  return {
    kept: lessOf(survey.all, [...survey.garbage, ...survey.young]),
    freed: totalOf(now),
    later: totalOf([...wait, ...survey.young]),
    repacked: {
      packs: sparse.length,
      oldBytes: totalOf(sparse.map(({ pack }) => pack)).bytes,
      newBytes: sparse.reduce((sum, { liveBytes }) => sum + liveBytes, 0),
    },
    writers: [],
    faults,
    unreferenced: new Set([...survey.garbage, ...survey.young].map(({ path }) => path)),
  };
}

/** Collects. BURROW_BUSY when another collection is at work; what is wrong with single objects is among the faults. */
export async function collect(
  store: DeltaStore,
  ports: SurveyPorts,
  options: CollectOptions,
): Promise<Collected> {
  const collector = await Collector.open(store.whole, options.clock ?? CLOCK);
  try {
    return await new Collection(store, ports, options, collector).run();
  } finally {
    await collector.close();
  }
}

/** One run of the collector. */
class Collection {
  readonly #store: DeltaStore;
  readonly #options: CollectOptions;
  readonly #collector: Collector;
  readonly #surveyor: Surveyor;
  readonly #faults: Fault[] = [];

  constructor(
    store: DeltaStore,
    ports: SurveyPorts,
    options: CollectOptions,
    collector: Collector,
  ) {
    this.#store = store;
    this.#options = options;
    this.#collector = collector;
    this.#surveyor = new Surveyor(store, ports, surveyOptions(options));
  }

  async run(): Promise<Collected> {
    const { whole } = this.#store;
    const startMs = await this.#collector.now();
    const lists = await readGarbage(whole, reportTo(this.#faults));
    // What a list says that can't be understood may be that content has moved: then nodes look where it was, for the grace.
    const isReplaced = this.#faults.length > 0;
    let survey = await this.#surveyor.look(startMs);
    const listed = new Set(lists.flatMap(({ paths }) => paths));
    const fresh = survey.garbage.map(({ path }) => path).filter((path) => !listed.has(path));
    for (let at = 0; at < fresh.length; at += LIST_PATHS_MAX) {
      const paths = fresh.slice(at, at + LIST_PATHS_MAX);
      lists.push(await putGarbage(whole, { sinceMs: startMs, isReplaced, paths }));
    }
    const repacked = await this.#repack(survey, startMs, lists);
    // From here on writers wait before they make again what may go, and what earlier ones have published is seen.
    const leases = await this.#collector.beginSweep();
    survey = await this.#surveyor.look(startMs);
    const waits = waitingOf(lists, leases, startMs, this.#options.keepMs);
    const known = new Set(lists.flatMap(({ paths }) => paths));
    const isDue = ({ path }: SizedObject) => known.has(path) && !waits.has(path);
    // Whoever sees a locator follows it, whatever list has that to which it leads.
    for (const object of survey.garbage)
      if (isLocator(object) && !isDue(object)) await this.#surveyor.hold(object);
    const doomed = survey.garbage.filter(isDue);
    const { removed, failed } = await this.#sweep(doomed);
    const gone = new Set(removed.map(({ path }) => path));
    const left = survey.garbage.filter(({ path }) => !gone.has(path));
    await this.#shrink(lists, new Set(left.map(({ path }) => path)));
    const later = left.filter(({ path }) => !failed.has(path));
    return {
      kept: lessOf(survey.all, [...survey.garbage, ...survey.young]),
      freed: totalOf(removed),
      later: totalOf([...later, ...survey.young]),
      repacked,
      writers: leases.filter((lease) => holdsAny(lease, lists)).map(({ what }) => what),
      faults: [...survey.faults, ...this.#faults],
    };
  }

  /** Removes what is dead, in the order that it is in: a pack is never gone before what leads to it. */
  async #sweep(doomed: readonly SizedObject[]): Promise<{
    removed: SizedObject[];
    failed: Set<string>;
  }> {
    const removed: SizedObject[] = [];
    const failed = new Set<string>();
    for (const group of byFolder(doomed)) {
      await inParallel(group, PARALLEL, async (object) => {
        if (this.#surveyor.isNeeded(object)) return;
        await this.#collector.check();
        try {
          await this.#store.whole.remove(object.path);
          removed.push(object);
          this.#options.onProgress?.(`removed ${removed.length} of ${doomed.length} objects`);
        } catch (error) {
          failed.add(object.path);
          // It leads to something yet, and that stays with it.
          if (isLocator(object)) await this.#surveyor.hold(object);
          this.#faults.push({ what: object.path, why: explain(error) });
        }
      });
    }
    return { removed, failed };
  }

  /** Takes out of the lists what is gone, and what something refers to after all. */
  async #shrink(lists: readonly GarbageList[], left: ReadonlySet<string>): Promise<void> {
    for (const list of lists) {
      await this.#collector.check();
      await shrinkGarbage(
        this.#store.whole,
        list,
        list.paths.filter((path) => left.has(path)),
      );
    }
  }

  async #repack(survey: Survey, nowMs: number, lists: GarbageList[]) {
    const none = { packs: 0, oldBytes: 0, newBytes: 0 };
    const { sparse, users } = await sparseOf(
      this.#store,
      survey,
      this.#options,
      nowMs,
      this.#faults,
    );
    const packs = sparse.map(({ pack }) => pack);
    if (packs.length === 0) return none;
    const { packBytes, onProgress, orderOf } = this.#options;
    const order = await orderOf?.(new Set([...users.values()].flat()));
    const how = { packBytes, onProgress, order, nowMs };
    const repacked = await repackHeld(this.#store, this.#collector, packs, users, how);
    lists.push(...repacked.lists);
    this.#surveyor.forget();
    const { faults, ...counts } = repacked.done ?? { ...none, faults: [] };
    this.#faults.push(...repacked.faults, ...faults);
    return counts;
  }
}

function reportTo(faults: Fault[]) {
  return (what: string, error: unknown) => void faults.push({ what, why: explain(error) });
}

function surveyOptions({ keepMs, isAll, onProgress }: CollectOptions): SurveyOptions {
  return {
    keepMs,
    isAll,
    onProgress: (what, count) => onProgress?.(`looked at ${count} ${what}`),
  };
}

/** Old packs of which little is needed, and the locators that lead into them. */
async function sparseOf(
  store: DeltaStore,
  { packs, live, isSure }: Survey,
  { keepMs, isRepacking }: Pick<CollectOptions, "keepMs" | "isRepacking">,
  nowMs: number,
  faults: Fault[],
): Promise<{ sparse: { pack: Pack; liveBytes: number }[]; users: PackUsers }> {
  if (!isRepacking || !isSure) return { sparse: [], users: new Map() };
  const likely = [...packs.used()]
    .filter(({ pack, liveBytes }) => liveBytes < pack.bytes * LIVE_SHARE)
    .map(({ pack }) => pack)
    .filter(({ modifiedMs }) => modifiedMs <= nowMs - keepMs);
  if (likely.length === 0) return { sparse: [], users: new Map() };
  const users = await usersOf(store, live, likely);
  return { sparse: await sparseAmong(store, likely, users, LIVE_SHARE, faults), users };
}

/** Whether a writer is at work that may rely on what is in any of the lists. */
function holdsAny({ avoids }: LiveLease, lists: readonly GarbageList[]): boolean {
  return lists.some(({ path, paths }) => paths.length > 0 && !avoids.includes(path));
}

/** What of the lists may not go yet: for the sake of nodes that look where content was, or of writers. */
function waitingOf(
  lists: readonly GarbageList[],
  leases: readonly LiveLease[],
  nowMs: number,
  keepMs: number,
): Set<string> {
  const waiting = new Set(leases.flatMap(({ keeps }) => keeps));
  for (const { path, paths, sinceMs, isReplaced } of lists) {
    const isNew = isReplaced && sinceMs > nowMs - keepMs;
    if (isNew || leases.some(({ avoids }) => !avoids.includes(path)))
      for (const each of paths) waiting.add(each);
  }
  return waiting;
}

function isLocator({ path }: SizedObject): boolean {
  return /^(deltas\/)?locators\//.test(path);
}

/** Runs of one folder, in their order. */
function byFolder(objects: readonly SizedObject[]): SizedObject[][] {
  const groups: SizedObject[][] = [];
  let last = "";
  for (const object of objects) {
    const folder = object.path.slice(0, -"/ab/".length - 64);
    if (folder !== last) groups.push([]);
    last = folder;
    groups.at(-1)!.push(object);
  }
  return groups;
}

function totalOf(objects: readonly SizedObject[]): Total {
  return { objects: objects.length, bytes: objects.reduce((sum, { bytes }) => sum + bytes, 0) };
}

function lessOf({ objects, bytes }: Total, less: readonly SizedObject[]): Total {
  const { objects: count, bytes: size } = totalOf(less);
  return { objects: objects - count, bytes: bytes - size };
}
