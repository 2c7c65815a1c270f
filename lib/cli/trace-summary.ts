// What a trace comes to: totals, and what was read, waited for and brought of each package and file. Pure. Control plane.

import type { TraceContent, TraceFile } from "./trace-file.ts";

const PAGE_BYTES = 4096;

/** What happened to a file, or to all of a package's. */
export interface TraceTally {
  /** Requests that name it. */
  requests: number;
  /** Requests that waited for its bytes, and for how long, one after the other or not. */
  misses: number;
  waitedMs: number;
  /** Content that came before it was asked for, and what of it is of files that weren't opened. */
  prefetchedBytes: number;
  wastedBytes: number;
}

export interface FileSummary extends TraceTally {
  readonly file: TraceFile;
  isRead: boolean;
  /** All of a file that was handed over to the sandbox: nobody sees what it reads then. */
  readBytes: number;
}

export interface PackageSummary extends TraceTally {
  readonly title: string;
  readonly files: number;
  readonly bytes: number;
  filesRead: number;
  readBytes: number;
}

export interface TraceSummary {
  readonly command: readonly string[];
  readonly exitCode: number;
  /** From the run's start to the end of the sandbox, or of what is last. */
  readonly ms: number;
  readonly rpcs: number;
  /** By name, the commonest first. */
  readonly rpcsByName: Readonly<Record<string, number>>;
  /** In the gofer, all together. */
  readonly rpcMs: number;
  readonly misses: number;
  readonly waitedMs: number;
  /** Time in which at least one request waited. */
  readonly blockedMs: number;
  readonly firstReads: number;
  /** Those for which nobody had to wait. */
  readonly firstReadsLocal: number;
  readonly fetches: number;
  readonly failedFetches: number;
  readonly fetchedBytes: number;
  readonly prefetchedBytes: number;
  readonly wastedBytes: number;
  readonly dropped: number;
  readonly packages: readonly PackageSummary[];
  /** Titles of those of which no file was opened. */
  readonly neverRead: readonly string[];
}

function newTally(): TraceTally {
  return { requests: 0, misses: 0, waitedMs: 0, prefetchedBytes: 0, wastedBytes: 0 };
}

/** Of each file of a trace, by its number. */
export function summarizeFiles(trace: TraceContent): FileSummary[] {
  const all: FileSummary[] = trace.files.map((file) => {
    return { file, isRead: false, readBytes: 0, ...newTally() };
  });
  const pages = new Map<number, Stretch[]>();
  for (const { name, file, errno, page, count } of trace.rpcs) {
    const of = all[file];
    if (of === undefined) continue;
    of.requests++;
    if (errno !== 0) continue;
    if (name === "OpenAt" && !of.file.isDirectory) of.isRead = true;
    if (name !== "PRead") continue;
    const stretch = { from: page, end: page + Math.ceil(count / PAGE_BYTES) };
    const others = pages.get(file);
    if (others === undefined) pages.set(file, [stretch]);
    else others.push(stretch);
  }
  for (const { file, us } of trace.misses) {
    const of = all[file];
    if (of === undefined) continue;
    of.misses++;
    of.waitedMs += us / 1_000;
  }
  for (const { file, bytes, isUsed } of trace.prefetches) {
    const of = all[file];
    if (of === undefined) continue;
    of.prefetchedBytes += bytes;
    if (!isUsed) of.wastedBytes += bytes;
  }
  for (const [i, of] of all.entries()) {
    const read = pages.get(i);
    const seen = read === undefined ? of.file.bytes : covered(read) * PAGE_BYTES;
    of.readBytes = of.isRead ? Math.min(of.file.bytes, seen) : 0;
  }
  return all;
}

export function summarize(
  trace: TraceContent,
  files: readonly FileSummary[] = summarizeFiles(trace),
): TraceSummary {
  const packages: PackageSummary[] = trace.packages.map(({ title, files: count, bytes }) => {
    return { title, files: count, bytes, filesRead: 0, readBytes: 0, ...newTally() };
  });
  for (const each of files) {
    const of = packages[each.file.package];
    if (of === undefined) continue;
    if (each.isRead) of.filesRead++;
    of.readBytes += each.readBytes;
    for (const key of Object.keys(newTally()) as (keyof TraceTally)[]) of[key] += each[key];
  }
  const { head, marks, rpcs, misses, fetches, prefetches } = trace;
  const names = new Map<string, number>();
  for (const { name } of rpcs) names.set(name, 1 + (names.get(name) ?? 0));
  const waitedFor = new Set(misses.map(({ file }) => file));
  const read = files.filter(({ isRead, file }) => isRead && file.bytes > 0);
  const ends = [...rpcs, ...misses, ...fetches].map(({ ms, us }) => ms + us / 1_000);
  const sum = (numbers: readonly number[]) => numbers.reduce((all, one) => all + one, 0);
  return {
    command: head.command,
    exitCode: head.exitCode,
    ms: maxOf([...marks.map(({ ms }) => ms), ...ends]),
    rpcs: rpcs.length,
    rpcsByName: Object.fromEntries([...names].sort(([, a], [, b]) => b - a)),
    rpcMs: sum(rpcs.map(({ us }) => us)) / 1_000,
    misses: misses.length,
    waitedMs: sum(misses.map(({ us }) => us)) / 1_000,
    blockedMs: covered(misses.map(({ ms, us }) => ({ from: ms, end: ms + us / 1_000 }))),
    firstReads: read.length,
    firstReadsLocal: read.filter(({ file }) => !waitedFor.has(file.id)).length,
    fetches: fetches.length,
    failedFetches: fetches.filter(({ bytes }) => bytes < 0).length,
    fetchedBytes: sum(fetches.map(({ bytes }) => Math.max(0, bytes))),
    prefetchedBytes: sum(prefetches.map(({ bytes }) => bytes)),
    wastedBytes: sum(prefetches.map(({ bytes, isUsed }) => (isUsed ? 0 : bytes))),
    dropped: head.dropped,
    packages,
    neverRead: packages.filter(({ filesRead }) => filesRead === 0).map(({ title }) => title),
  };
}

/** Of many: Math.max takes them as arguments, of which there can't be so many. */
function maxOf(numbers: readonly number[]): number {
  return numbers.reduce((most, one) => Math.max(most, one), 0);
}

interface Stretch {
  readonly from: number;
  readonly end: number;
}

/** How much of a line is in at least one of some stretches of it. */
function covered(stretches: readonly Stretch[]): number {
  let total = 0;
  let until = Number.NEGATIVE_INFINITY;
  for (const { from, end } of [...stretches].sort((a, b) => a.from - b.from)) {
    if (end > until) total += end - Math.max(from, until);
    until = Math.max(until, end);
  }
  return total;
}
