// Wrapper: counts what an origin was asked for and what came. Control plane.

import type { Backend, GetOptions } from "./store.ts";
import { classOf } from "./store.ts";

/** Counters of one origin, or of many that share it. Only ever grow. */
export interface Meter {
  requests: number;
  bytes: number;
  notFound: number;
  permanent: number;
  transient: number;
}

export function newMeter(): Meter {
  return { requests: 0, bytes: 0, notFound: 0, permanent: 0, transient: 0 };
}

/** `inner` with each request counted in `meter`: below retry.ts, so that every try counts. */
export function metered(inner: Backend, meter: Meter): Backend {
  async function count<T>(call: Promise<T>): Promise<T> {
    meter.requests++;
    try {
      return await call;
    } catch (error) {
      meter[classOf(error)]++;
      throw error;
    }
  }
  return {
    origin: inner.origin,
    async get(path: string, options: GetOptions = {}): Promise<Buffer> {
      const bytes = await count(inner.get(path, options));
      meter.bytes += bytes.length;
      return bytes;
    },
    has: (path, signal) => count(inner.has(path, signal)),
    close: () => inner.close(),
  };
}
