// The daemon's figures: what STATUS shows. Control plane.

import type { Fetcher } from "../cache/fetcher.ts";

/** A snapshot of the counters by subject; every number only grows, but for `now`. */
export function figuresOf(
  fetcher: Fetcher,
  now: { readonly connections: number; readonly standbys: number },
): Record<string, unknown> {
  return {
    now: { ...now, partials: fetcher.partials, isIdle: fetcher.isIdle },
    fetch: { ...fetcher.counters },
    ...(fetcher.lastFailure === undefined ? {} : { lastFailure: fetcher.lastFailure }),
    origins: fetcher.origins.figures(),
  };
}
