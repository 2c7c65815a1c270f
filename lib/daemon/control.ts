// The body of STATUS_REPLY. Control plane.

import type { Fetcher } from "../cache/fetcher.ts";
import type { Keeper } from "../cache/keeper.ts";
import type { DaemonConfig } from "./config.ts";
import type { LoopDelay } from "./loop-delay.ts";
import { figuresOf, processFigures } from "./metrics.ts";
import type { Views } from "./views.ts";

const STATUS_VERSION = 1;

/** Names of origins and mounts, and what failed: not for every user of the node. */
const HIDDEN = {
  origins: {},
  queues: {},
  views: {},
  failures: {},
  lastFailure: undefined,
  reloads: undefined,
};

/** What other users than the daemon's own and root may know of it. */
export function forStrangers(status: Record<string, unknown>): Record<string, unknown> {
  return { ...status, ...HIDDEN };
}

export function statusOf(
  config: DaemonConfig,
  startedMs: number,
  fetcher: Fetcher,
  keeper: Keeper,
  now: { readonly connections: number; readonly standbys: number },
  more: { readonly views: Views; readonly loop: LoopDelay },
): Record<string, unknown> {
  return {
    version: STATUS_VERSION,
    pid: process.pid,
    cache: config.cache,
    state: config.state,
    ...(config.origins === "" ? {} : { originsFile: config.origins }),
    upMs: Math.round(performance.now() - startedMs),
    ...figuresOf(fetcher, keeper, now),
    ...processFigures(fetcher, more),
  };
}
