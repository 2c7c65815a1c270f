// The figures of burrow top: what a daemon did between two of its STATUS. Pure. Control plane.

import type { DaemonStatus, DirectStatus, SharedStatus } from "../cache/client.ts";
import type { QueueFigures } from "../cache/origins.ts";
import type { PrefetchFigures } from "../daemon/prefetched.ts";
import type { ViewFigures } from "../daemon/views.ts";

/** A STATUS with what `burrow top` reads of it; a daemon of another build may lack some. */
export type TopStatus = DaemonStatus & {
  readonly queues?: Readonly<Record<string, QueueFigures>>;
  readonly views?: Readonly<Record<string, Partial<ViewFigures>>>;
  readonly prefetch?: PrefetchFigures;
  readonly loop?: { readonly p99Ms?: number };
  readonly process?: { readonly residentBytes: number; readonly cpuMs: number };
  readonly lazy?: Readonly<Record<string, number>>;
};

export interface TopOrigin {
  readonly name: string;
  readonly bytesPerSecond: number;
  readonly requestsPerSecond: number;
  readonly bytes: number;
  readonly requests: number;
  readonly failures: number;
  readonly demand: number;
  readonly background: number;
  readonly demandQueued: number;
  readonly backgroundQueued: number;
}

export interface TopView {
  readonly name: string;
  readonly asksPerSecond: number;
  readonly asks: number;
  readonly failedAsks: number;
  readonly fetchedBytes: number;
  /** Of each second, how many requests of the view waited, on average. */
  readonly waiting: number;
  readonly blockedMs: number;
  /** Of what it read first, what was on the node by then; null: nothing was read, or nobody says. */
  readonly localShare: number | null;
}

/** Rates are of the time between the two; all else is since the daemon began. */
export interface TopFigures {
  readonly at: string;
  readonly seconds: number;
  readonly pid: number;
  readonly upMs: number;
  readonly isIdle: boolean;
  readonly connections: number;
  readonly standbys: number;
  /** null: none may. */
  readonly shared: SharedStatus | null;
  /** null: nobody has asked for one. */
  readonly direct: DirectStatus | null;
  readonly residentBytes: number;
  /** Of one CPU. */
  readonly cpuShare: number;
  readonly loopDelayMs: number;
  readonly cacheUsedBytes: number;
  /** 0: none. */
  readonly cacheLimitBytes: number;
  readonly memoryTierBytes: number;
  readonly bytesPerSecond: number;
  readonly requestsPerSecond: number;
  readonly asksPerSecond: number;
  readonly asks: number;
  readonly failedAsks: number;
  /** Asks that were answered from the cache's disk meanwhile, and reads of the lazy mount. */
  readonly diskHitsPerSecond: number;
  readonly lazyReadsPerSecond: number;
  readonly firstReadsPerSecond: number;
  /** Of all first reads since the daemon began; null: none yet, or it doesn't ask. */
  readonly localShare: number | null;
  readonly prefetchedBytes: number;
  readonly prefetchUsedShare: number | null;
  /** Those that do something first. */
  readonly origins: readonly TopOrigin[];
  readonly views: readonly TopView[];
}

/** What was done from one STATUS to the next, `seconds` apart. Of another daemon's the first counts for nothing. */
export function topFigures(before: TopStatus, now: TopStatus, seconds: number): TopFigures {
  const earlier = before.pid === now.pid ? before : undefined;
  const rate = (of: (status: TopStatus) => number | undefined): number => {
    const was = earlier === undefined ? 0 : (of(earlier) ?? 0);
    return Math.max(0, (of(now) ?? 0) - was) / seconds;
  };
  const { room, prefetch } = now;
  const origins = originsOf(now, rate);
  const sum = (key: "bytesPerSecond" | "requestsPerSecond") =>
    origins.reduce((all, origin) => all + origin[key], 0);
  return {
    at: new Date().toISOString(),
    seconds,
    pid: now.pid,
    upMs: now.upMs,
    ...now.now,
    shared: now.shared ?? null,
    direct: now.direct ?? null,
    residentBytes: now.process?.residentBytes ?? 0,
    cpuShare: rate((status) => status.process?.cpuMs) / 1_000,
    loopDelayMs: now.loop?.p99Ms ?? 0,
    cacheUsedBytes: room.usedBytes,
    cacheLimitBytes: room.limitBytes,
    memoryTierBytes: room.memory.usedBytes,
    bytesPerSecond: sum("bytesPerSecond"),
    requestsPerSecond: sum("requestsPerSecond"),
    asksPerSecond: rate(({ fetch }) => fetch["asks"]),
    asks: now.fetch["asks"] ?? 0,
    failedAsks: now.fetch["failedAsks"] ?? 0,
    diskHitsPerSecond: rate(({ fetch }) => fetch["hits"]),
    lazyReadsPerSecond: rate(({ lazy }) => lazy?.["reads"]),
    firstReadsPerSecond: rate((status) => status.prefetch?.touches),
    localShare: shareOf(prefetch?.localTouches, prefetch?.touches),
    prefetchedBytes: prefetch?.prefetchedBytes ?? 0,
    prefetchUsedShare: shareOf(prefetch?.usedBytes, prefetch?.prefetchedBytes),
    origins,
    views: viewsOf(now, rate),
  };
}

type Rate = (of: (status: TopStatus) => number | undefined) => number;

function shareOf(part: number | undefined, whole: number | undefined): number | null {
  return part === undefined || !whole ? null : part / whole;
}

function originsOf(now: TopStatus, rate: Rate): TopOrigin[] {
  const origins = Object.entries(now.origins).map(([name, meter]): TopOrigin => {
    const { demand, background, demandQueued, backgroundQueued } = now.queues?.[name] ?? NO_QUEUE;
    return {
      name,
      bytesPerSecond: rate((status) => status.origins[name]?.bytes),
      requestsPerSecond: rate((status) => status.origins[name]?.requests),
      bytes: meter.bytes,
      requests: meter.requests,
      failures: meter.transient + meter.permanent,
      demand,
      background,
      demandQueued,
      backgroundQueued,
    };
  });
  const busy = ({ bytesPerSecond, demand, background }: TopOrigin) =>
    bytesPerSecond + demand + background;
  return origins.sort((a, b) => busy(b) - busy(a) || b.bytes - a.bytes);
}

const NO_QUEUE = { demand: 0, background: 0, demandQueued: 0, backgroundQueued: 0 };

function viewsOf(now: TopStatus, rate: Rate): TopView[] {
  const views = Object.entries(now.views ?? {}).map(([name, of]): TopView => {
    return {
      name,
      asksPerSecond: rate((status) => status.views?.[name]?.asks),
      asks: of.asks ?? 0,
      failedAsks: of.failedAsks ?? 0,
      fetchedBytes: of.fetchedBytes ?? 0,
      waiting: rate((status) => status.views?.[name]?.blockedMs) / 1_000,
      blockedMs: of.blockedMs ?? 0,
      localShare: shareOf(of.localTouches, of.touches),
    };
  });
  return views.sort((a, b) => b.waiting - a.waiting || b.blockedMs - a.blockedMs);
}
