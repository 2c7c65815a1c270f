// Wrapper: tries again after a transient error, a bounded number of times, with growing, jittered pauses.
// notFound and permanent errors pass at once, as does everything once the caller's signal fires. Control plane.

import { setTimeout as sleep } from "node:timers/promises";
import { BurrowError } from "../base/error.ts";
import { type Backend, classOf, type GetOptions } from "./store.ts";

export interface RetryOptions {
  /** Requests in all, the first included. */
  readonly tries?: number;
  /** First pause; doubles with each try. */
  readonly baseMs?: number;
  readonly capMs?: number;
}

const TRIES = 3;
const BASE_MS = 100;
const CAP_MS = 2_000;

/** `inner` with retries of get and has. */
export function retrying(inner: Backend, options: RetryOptions = {}): Backend {
  const tries = options.tries ?? TRIES;
  const baseMs = options.baseMs ?? BASE_MS;
  const capMs = options.capMs ?? CAP_MS;

  async function attempt<T>(call: () => Promise<T>, signal: AbortSignal | undefined): Promise<T> {
    for (let count = 1; ; count++) {
      try {
        return await call();
      } catch (error) {
        if (classOf(error) !== "transient" || count >= tries || signal?.aborted) throw error;
        await pause(pauseMs(error, count, baseMs, capMs), error, signal);
      }
    }
  }

  return {
    origin: inner.origin,
    get: (path: string, got: GetOptions = {}) => attempt(() => inner.get(path, got), got.signal),
    has: (path: string, signal?: AbortSignal) => attempt(() => inner.has(path, signal), signal),
    close: () => inner.close(),
  };
}

/** Full jitter: anything up to the doubled pause, but no less than the origin asked for (Retry-After). */
function pauseMs(error: unknown, count: number, baseMs: number, capMs: number): number {
  const jittered = Math.random() * Math.min(capMs, baseMs * 2 ** (count - 1));
  const asked = error instanceof BurrowError ? Number(error.context["retryAfterMs"] ?? 0) : 0;
  return asked > 0 ? asked + jittered : jittered;
}

async function pause(ms: number, error: unknown, signal: AbortSignal | undefined): Promise<void> {
  try {
    await sleep(ms, undefined, signal ? { signal } : {});
  } catch {
    throw error;
  }
}
