// Lay out: writes packs anew beside any number of writers, as a collector: what a collection finds mostly unused, and what a start of some
// snapshot reads, so that it lies together (docs/design/0027-learned-starts.md). docs/format/store.md, "Collection". Control plane.

import type { Digest } from "../base/digest.ts";
import { explain } from "../base/error.ts";
import { PACK_TARGET_BYTES } from "../base/limits.ts";
import type { DeltaStore } from "./deltas.ts";
import { type GarbageList, putGarbage } from "./garbage.ts";
import { readLocator } from "./known.ts";
import { CLOCK, type Clock, Collector } from "./lease.ts";
import type { Locator } from "./locator.ts";
import type { Pack } from "./pack-use.ts";
import {
  type PackUsers,
  type ReadOrder,
  type Repacked,
  type RepackOptions,
  repack,
  usersOf,
} from "./repack.ts";
import { type Fault, Surveyor, type SurveyPorts } from "./survey.ts";

export interface RepackHow {
  readonly packBytes: RepackOptions["packBytes"] | undefined;
  readonly order: ReadOrder | undefined;
  readonly others?: ReadOrder | undefined;
  readonly onProgress: ((text: string) => void) | undefined;
  /** The store's time. */
  readonly nowMs: number;
}

export interface RepackedHeld {
  /** Undefined where a writer is at work that makes deltas of what would be written anew, or it failed. */
  readonly done: Repacked | undefined;
  /** Lists of packs that were replaced, and of notes that were hidden. */
  readonly lists: readonly GarbageList[];
  readonly faults: readonly Fault[];
}

/** Repacks as a collector that holds the store. */
export async function repackHeld(
  store: DeltaStore,
  collector: Collector,
  packs: readonly Pack[],
  users: PackUsers,
  { packBytes, order, others, onProgress, nowMs }: RepackHow,
): Promise<RepackedHeld> {
  const { whole } = store;
  const lists: GarbageList[] = [];
  const faults: Fault[] = [];
  let done: Repacked | undefined;
  const hidden = await hideNear(store, nowMs);
  try {
    const leases = await collector.leases();
    if (leases.some(({ avoids }) => !avoids.includes(hidden.path))) return { done, lists, faults };
    done = await repack(store, packs, users, {
      ...(packBytes === undefined ? {} : { packBytes }),
      ...(order === undefined ? {} : { order }),
      ...(others === undefined ? {} : { others }),
      check: () => collector.check(),
      onReplaced: async (moved) => {
        const paths = moved.map(({ path }) => path);
        lists.push(await putGarbage(whole, { sinceMs: nowMs, isReplaced: true, paths }));
      },
      onProgress: (moved, count) => onProgress?.(`repacked ${moved} of ${count} packs`),
    });
  } catch (error) {
    faults.push({ what: "repack", why: explain(error) });
  } finally {
    await whole.remove(hidden.path);
  }
  return { done, lists, faults };
}

/** Lists all notes of what is near: whoever has read that makes no deltas, so locators may be written anew. */
async function hideNear({ whole }: DeltaStore, nowMs: number): Promise<GarbageList> {
  const paths: string[] = [];
  for await (const path of whole.list("near")) paths.push(path);
  return await putGarbage(whole, { sinceMs: nowMs, isReplaced: false, paths });
}

export interface LayOutOptions {
  readonly packBytes?: number;
  /** What starts over others read that lie in the same packs: it stays together, too. */
  readonly orderOf?: (of: ReadonlySet<Digest>) => Promise<ReadOrder | undefined>;
  readonly onProgress?: (text: string) => void;
  readonly clock?: Clock;
}

/** Ranges that a start reads, and their bytes. */
export interface Ranges {
  readonly count: number;
  readonly bytes: number;
}

export interface LaidOut {
  readonly before: Ranges;
  readonly after: Ranges;
  readonly repacked: Omit<Repacked, "faults">;
  /** False where a writer at work was in the way. */
  readonly isDone: boolean;
  readonly faults: readonly Fault[];
}

/**
 * Has what starts of a snapshot read lie together: the packs that it lies in are written anew, for all that leads into them. The old ones
 * stay until a collection's time is over. BURROW_BUSY when another collection is at work.
 */
export async function layOut(
  store: DeltaStore,
  ports: SurveyPorts,
  snapshot: Digest,
  order: ReadOrder,
  options: LayOutOptions,
): Promise<LaidOut> {
  const collector = await Collector.open(store.whole, options.clock ?? CLOCK);
  try {
    const nowMs = await collector.now();
    const before = readsOf(await readLocator(store, snapshot), order);
    const none = { packs: 0, oldBytes: 0, newBytes: 0 };
    const asItIs = { before: before.ranges, after: before.ranges, repacked: none };
    // Of what lies together already a new order would win nothing.
    if (
      before.ranges.count <=
      leastRanges(before.ranges.bytes, options.packBytes ?? PACK_TARGET_BYTES)
    )
      return { ...asItIs, isDone: true, faults: [] };
    // Nothing is collected: all that is there is followed to where it leads.
    const surveyor = new Surveyor(store, ports, { keepMs: Number.POSITIVE_INFINITY, isAll: false });
    const survey = await surveyor.look(nowMs);
    if (!survey.isSure) return { ...asItIs, isDone: false, faults: survey.faults };
    const known = new Map([...survey.packs.used()].map(({ pack }) => [pack.digest, pack]));
    const packs = before.packs.flatMap((digest) => known.get(digest) ?? []);
    const users = await usersOf(store, survey.live, packs);
    const { packBytes, onProgress, orderOf } = options;
    const others = await orderOf?.(new Set([...users.values()].flat()));
    const how = { packBytes, onProgress, order, others, nowMs };
    const { done, faults } = await repackHeld(store, collector, packs, users, how);
    const all = [...survey.faults, ...faults, ...(done?.faults ?? [])];
    if (done === undefined) return { ...asItIs, isDone: false, faults: all };
    const { faults: _, ...repacked } = done;
    const { ranges } = readsOf(await readLocator(store, snapshot), order);
    return { before: before.ranges, after: ranges, repacked, isDone: true, faults: all };
  } finally {
    await collector.close();
  }
}

/** One request of a start, at most, as preload/plan.ts has it; and what lies so close together is one range. */
const RANGE_BYTES = 4 * 1024 * 1024;
const GAP_BYTES = 128 * 1024;

/** What a start reads lies in so few ranges when it was laid together: it goes on through some packs, and may begin amid a range in each. */
function leastRanges(bytes: number, packBytes: number): number {
  return Math.ceil(bytes / RANGE_BYTES) + Math.ceil(bytes / packBytes) + 1;
}

/** The ranges that a start reads, and the packs that they lie in, in the order of their first use. */
function readsOf(locator: Locator, order: ReadOrder): { ranges: Ranges; packs: Digest[] } {
  const chunks: { pack: Digest; offset: number; end: number; place: number }[] = [];
  for (let row = 0; locator.kind === "packs" && row < locator.blobCount; row++)
    for (let block = 0; block < locator.chunkCount(row); block++) {
      const place = order(locator.digestAt(row), block);
      if (place === undefined) continue;
      const { pack, offset, stored } = locator.chunkAt(row, block);
      chunks.push({ pack, offset, end: offset + stored, place });
    }
  const firsts = new Map<Digest, number>();
  for (const { pack, place } of chunks)
    firsts.set(pack, Math.min(place, firsts.get(pack) ?? place));
  const packs = [...firsts].sort((a, b) => a[1] - b[1]).map(([pack]) => pack);
  chunks.sort((a, b) => (a.pack === b.pack ? a.offset - b.offset : a.pack < b.pack ? -1 : 1));
  let [count, bytes, start, end, pack] = [0, 0, 0, 0, ""];
  for (const chunk of chunks) {
    const goesOn = chunk.pack === pack && chunk.offset - end <= GAP_BYTES;
    if (goesOn && chunk.end - start <= RANGE_BYTES) {
      bytes += Math.max(0, chunk.end - end);
      end = Math.max(end, chunk.end);
      continue;
    }
    count++;
    bytes += chunk.end - chunk.offset;
    ({ pack, offset: start, end } = chunk);
  }
  return { ranges: { count, bytes }, packs };
}
