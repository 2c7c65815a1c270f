// Plan: from what a start will read to few long ranges of packs, in the order in which it will; what lies close together is asked for at
// once. Control plane.

import { setImmediate as turn } from "node:timers/promises";
import type { Digest } from "../base/digest.ts";
import { BurrowError } from "../base/error.ts";
import { BLOCK_BYTES, BLOCK_DIGESTS_OVER_BYTES } from "../base/limits.ts";
import { Codec } from "../store/codec.ts";
import type { Locator } from "../store/locator.ts";
import type { ProfileAsk } from "./profile.ts";

/** A range of a pack, and what is to be asked for once it is here. */
export interface Stretch {
  readonly path: string;
  readonly offset: number;
  readonly length: number;
  readonly asks: readonly ProfileAsk[];
}

export interface Plan {
  /** In the order of their first use. */
  readonly stretches: readonly Stretch[];
  /** What lies in no pack, or can't be found: asked for one by one. */
  readonly loose: readonly ProfileAsk[];
  /** What lies between, of large blobs that are to be here whole: nobody asked for it yet. */
  readonly rest: readonly Stretch[];
}

/** What the plan needs of an index. */
export interface PlannedTable {
  readonly count: number;
  digestAt(row: number): Digest;
  sizeOf(row: number): number;
}

/**
 * Bytes that nobody asked for, between two ranges that become one: less than what a request costs on most links. What a start of numpy and
 * pandas reads is 45 ranges of 28.3 MB with 128 KiB, 38 of 29.7 with 256, 30 of 32.8 with 512, 27 of 34.5 with 768.
 */
const GAP_BYTES = 512 * 1024;
/** The same where what lies between is wanted later anyway: who waits for what is behind it waits for that, too. */
const LATER_BYTES = 1024 * 1024;
/**
 * Of a pack: long enough for bandwidth, short enough that who needs its last byte doesn't wait for long. What is longer is cut evenly, into
 * parts of two thirds to one and a half of it: a last part of a few hundred KiB would be a request of its own.
 */
export const STRETCH_BYTES = 4 * 1024 * 1024;
/** What is fetched when nobody waits for anything may be longer. */
const REST_BYTES = 2 * STRETCH_BYTES;
/** Asks that are looked up in one turn of the loop. */
const TURN_ASKS = 16;

interface Part {
  readonly offset: number;
  readonly end: number;
  readonly order: number;
  readonly ask: ProfileAsk | undefined;
}

/** `last`: what is wanted of large blobs, too, after all that is asked for. */
export async function planOf(
  asks: readonly ProfileAsk[],
  table: PlannedTable,
  locator: Locator,
  last: Iterable<ProfileAsk> = [],
): Promise<Plan> {
  const parts = new Map<string, Part[]>();
  const loose: ProfileAsk[] = [];
  for (const [order, ask] of asks.entries()) {
    if (order % TURN_ASKS === TURN_ASKS - 1) await turn();
    const found = placeOf(ask, order, table, locator);
    if (found === undefined) loose.push(ask);
    for (const [path, some] of found ?? []) {
      const known = parts.get(path) ?? [];
      known.push(...some);
      parts.set(path, known);
    }
  }
  const later = new Map<string, Part[]>();
  for (const ask of last) {
    await turn();
    const found = placeOf(ask, 0, table, locator);
    for (const [path, some] of found ?? []) later.set(path, [...(later.get(path) ?? []), ...some]);
  }
  const stretches = [...parts].flatMap(([path, each]) =>
    stretchesOf(path, each, GAP_BYTES, later.get(path)),
  );
  const rest = [...later].flatMap(([path, some]) => {
    const taken = stretches.filter((each) => each.path === path);
    const isFree = ({ offset, end }: Part) =>
      taken.every((each) => end <= each.offset || offset >= each.offset + each.length);
    return stretchesOf(path, some.filter(isFree), 0, [], REST_BYTES);
  });
  stretches.sort((a, b) => a.order - b.order);
  return { stretches, loose, rest };
}

/** Where an ask leads, by pack; undefined where that can't be said. A locator is a hint: what is wrong in it is asked for as if there were none. */
function placeOf(...of: Parameters<typeof partsOf>): ReturnType<typeof partsOf> {
  try {
    return partsOf(...of);
  } catch (error) {
    if (error instanceof BurrowError && error.code === "BURROW_CORRUPT") return undefined;
    throw error;
  }
}

function partsOf(
  ask: ProfileAsk,
  order: number,
  table: PlannedTable,
  locator: Locator,
): Map<string, Part[]> | undefined {
  if (locator.kind !== "packs" || ask.row >= table.count) return undefined;
  const row = locator.find(table.digestAt(ask.row));
  const chunks = row < 0 ? 0 : locator.chunkCount(row);
  if (chunks === 0) return undefined;
  const size = table.sizeOf(ask.row);
  if (size > BLOCK_DIGESTS_OVER_BYTES) {
    // A chunk for each block, or it lies.
    if (chunks !== Math.ceil(size / BLOCK_BYTES)) return undefined;
    const end = ask.count === 0 ? chunks : Math.min(chunks, ask.first + ask.count);
    const found = Array.from({ length: Math.max(0, end - ask.first) }, (_, i) =>
      locator.chunkAt(row, ask.first + i),
    );
    if (found.length === 0 || found.some(({ codec }) => codec === Codec.delta)) return undefined;
    // What is read of it may have been laid apart from the rest.
    const byPath = new Map<string, Part[]>();
    for (const [i, { path, offset, stored }] of found.entries()) {
      const part = { offset, end: offset + stored, order, ask: i === 0 ? ask : undefined };
      const known = byPath.get(path);
      if (known === undefined) byPath.set(path, [part]);
      else known.push(part);
    }
    return byPath;
  }
  if (locator.chunkAt(row, 0).codec === Codec.delta) return undefined;
  // None of its neighbours, as a demand would bring: who read them said so.
  const { path, offset, stored } = locator.chunkAt(row, 0);
  return new Map([[path, [{ offset, end: offset + stored, order, ask }]]]);
}

/** Parts of one pack, those that lie close together as one, cut evenly where that is longer than aimBytes. */
function stretchesOf(
  path: string,
  parts: Part[],
  gapBytes: number,
  later: readonly Part[] = [],
  aimBytes = STRETCH_BYTES,
): (Stretch & { order: number })[] {
  const runs: { readonly parts: Part[]; readonly offset: number; end: number }[] = [];
  parts.sort((a, b) => a.offset - b.offset || a.end - b.end);
  const laterIn = counterOf(later);
  for (const part of parts) {
    const last = runs.at(-1);
    const end = last?.end ?? 0;
    const gap = part.offset - end;
    const isClose =
      gap <= gapBytes || (gap <= LATER_BYTES && gap - laterIn(end, part.offset) <= gapBytes);
    if (last !== undefined && isClose) {
      last.end = Math.max(last.end, part.end);
      last.parts.push(part);
    } else runs.push({ parts: [part], offset: part.offset, end: part.end });
  }
  return runs.flatMap(({ parts: some, offset, end }) => {
    const count = Math.max(1, Math.round((end - offset) / aimBytes));
    return cutOf(path, some, (end - offset) / count);
  });
}

/** Parts that lie close together as stretches of some length, each part in the one in which it begins. */
function cutOf(
  path: string,
  parts: readonly Part[],
  lengthBytes: number,
): (Stretch & { order: number })[] {
  const stretches: { offset: number; length: number; order: number; asks: Part[] }[] = [];
  let endsAt = 0;
  for (const part of parts) {
    const last = stretches.at(-1);
    const end = last === undefined ? 0 : last.offset + last.length;
    // What the one before has already is not asked for again.
    const isIn = last !== undefined && (part.offset < endsAt || part.end <= end);
    if (isIn) {
      last.length = Math.max(last.length, part.end - last.offset);
      last.order = Math.min(last.order, part.order);
      last.asks.push(part);
      continue;
    }
    const offset = Math.max(part.offset, end);
    const { order } = part;
    stretches.push({ offset, length: part.end - offset, order, asks: [part] });
    endsAt = (last === undefined ? part.offset : endsAt) + lengthBytes;
  }
  return stretches.map((stretch) => ({
    path,
    ...stretch,
    asks: stretch.asks
      .filter(({ ask }) => ask !== undefined)
      .sort((a, b) => a.order - b.order)
      .map(({ ask }) => ask!),
  }));
}

/** Counts the bytes that parts have in [from, to), which is asked for in the order of offsets. */
function counterOf(parts: readonly Part[]): (from: number, to: number) => number {
  const sorted = [...parts].sort((a, b) => a.offset - b.offset);
  let next = 0;
  return (from, to) => {
    let bytes = 0;
    while (next < sorted.length && sorted[next]!.offset < to) {
      const { offset, end } = sorted[next++]!;
      bytes += Math.max(0, Math.min(end, to) - Math.max(offset, from));
    }
    return bytes;
  };
}
