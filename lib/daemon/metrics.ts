// The daemon's figures: what STATUS shows. Control plane.

import type { Fetcher } from "../cache/fetcher.ts";
import type { Keeper } from "../cache/keeper.ts";

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
    origins: fetcher.origins.meters(),
  };
}
