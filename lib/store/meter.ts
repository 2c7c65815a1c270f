// Wrapper: counts what an origin was asked for and what came. Control plane.

import { BurrowError } from "../base/error.ts";
import { type Backend, classOf, type GetOptions } from "./store.ts";

/** Counters of one origin, or of one of the places where it lies. Only ever grow. */
export interface Meter {
  /** Each try counts, those below and retries among them. */
  requests: number;
  bytes: number;
  /** Failures by what a caller may do about them. */
  notFound: number;
  permanent: number;
  transient: number;
  /** Of the transient ones: silence and slowness, that our own deadlines ended. */
  timeouts: number;
  /** Ended by us, since another was faster or nobody waits any more: no failures. */
  aborted: number;
  /** Content that was not what its digest says. */
  mismatches: number;
  /** Requests made a second time after a failure. */
  retries: number;
  /** Requests made beside one that took long, and those of them that were answered first. */
  hedges: number;
  hedgesWon: number;
}

export function newMeter(): Meter {
  return {
    requests: 0,
    bytes: 0,
    notFound: 0,
    permanent: 0,
    transient: 0,
    timeouts: 0,
    aborted: 0,
    mismatches: 0,
    retries: 0,
    hedges: 0,
    hedgesWon: 0,
  };
}

/** The sum of several, as one. */
export function sumOf(meters: readonly Meter[]): Meter {
  const sum = newMeter();
  for (const meter of meters)
    for (const key of Object.keys(sum) as (keyof Meter)[]) sum[key] += meter[key];
  return sum;
}

/** `inner` with each request counted in `meter`: below retry.ts, so that every try counts. */
export function metered(inner: Backend, meter: Meter): Backend {
  async function count<T>(call: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
    meter.requests++;
    try {
      return await call;
    } catch (error) {
      if (signal?.aborted) meter.aborted++;
      else {
        meter[classOf(error)]++;
        if (error instanceof BurrowError && error.code === "BURROW_TIMEOUT") meter.timeouts++;
      }
      throw error;
    }
  }
  return {
    origin: inner.origin,
    async get(path: string, options: GetOptions = {}): Promise<Buffer> {
      const bytes = await count(inner.get(path, options), options.signal);
      meter.bytes += bytes.length;
      return bytes;
    },
    has: (path, signal) => count(inner.has(path, signal), signal),
    close: () => inner.close(),
  };
}
