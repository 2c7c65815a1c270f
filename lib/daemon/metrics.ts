// The daemon's figures: what STATUS shows. Control plane.

import type { Fetcher } from "../cache/fetcher.ts";
import type { Keeper } from "../cache/keeper.ts";
import type { LoopDelay } from "./loop-delay.ts";
import type { Views } from "./views.ts";

/** A snapshot of the counters by subject; every number only grows, but for those of `now` and sizes of `room`. */
export function figuresOf(
  fetcher: Fetcher,
  keeper: Keeper,
  now: { readonly connections: number; readonly standbys: number },
): Record<string, unknown> {
  return {
    now: { ...now, partials: fetcher.partials, isIdle: fetcher.isIdle },
    room: { ...keeper.facts, ...fetcher.shelf.facts },
    fetch: { ...fetcher.counters },
    ...(fetcher.lastFailure === undefined ? {} : { lastFailure: fetcher.lastFailure }),
    origins: fetcher.origins.figures(),
  };
}

/** What there is now of requests, views and this process. */
export function processFigures(
  fetcher: Fetcher,
  { views, loop }: { readonly views: Views; readonly loop: LoopDelay },
): Record<string, unknown> {
  const { user, system } = process.cpuUsage();
  return {
    queues: fetcher.origins.queues(),
    views: views.figures(),
    failures: views.failures(),
    loop: loop.figures,
    process: { residentBytes: process.memoryUsage.rss(), cpuMs: (user + system) / 1e3 },
  };
}
