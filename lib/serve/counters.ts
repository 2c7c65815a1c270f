// Counters of one gofer: plain numbers in one Float64Array, which may lie in a mapped file, so that a reader sees them
// while the sandbox runs and after the gofer was killed. Counting is one addition. Data plane (write), any (read).

import { MID_COUNT, midName } from "../wire/lisafs/mid.ts";

/** Positions after the requests by message id (0 to 33). */
export const Count = {
  errors: MID_COUNT,
  donated: MID_COUNT + 1,
  misses: MID_COUNT + 2,
  parkedTimeouts: MID_COUNT + 3,
  failedFetches: MID_COUNT + 4,
  readBytes: MID_COUNT + 5,
  writtenBytes: MID_COUNT + 6,
  internalErrors: MID_COUNT + 7,
  refused: MID_COUNT + 8,
  connections: MID_COUNT + 9,
  /** Servers that took the place of one that died. */
  restarts: MID_COUNT + 10,
} as const;

export const COUNTER_COUNT = 64;
export const COUNTER_BYTES = COUNTER_COUNT * 8;

/** The counters of this process, until useCounters gives them a mapped home. */
export let counters: Float64Array = new Float64Array(COUNTER_COUNT);

export function useCounters(home: Float64Array): void {
  // A predecessor's are there already.
  for (let i = 0; i < home.length; i++) home[i]! += counters[i]!;
  counters = home;
}

/** From now on what is done counts for another sandbox of this process. */
export function countFor(sandbox: Float64Array): void {
  counters = sandbox;
}

/** { requests by message name, and the others by theirs }, without zeros: for JSON and people. */
export function showCounters(values: Float64Array): {
  requests: Record<string, number>;
  others: Record<string, number>;
} {
  const requests: Record<string, number> = {};
  for (let mid = 0; mid < MID_COUNT; mid++) {
    if (values[mid]) requests[midName(mid)] = values[mid]!;
  }
  const others: Record<string, number> = {};
  for (const [name, at] of Object.entries(Count)) if (values[at]) others[name] = values[at]!;
  return { requests, others };
}
