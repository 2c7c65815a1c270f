// Wrapper: tries again after a transient error, a bounded number of times, with growing, jittered pauses.
// notFound and permanent errors pass at once, as does everything once the caller's signal fires. Control plane.

import { setTimeout as sleep } from "node:timers/promises";
import { BurrowError } from "../base/error.ts";
import { type Backend, classOf, type GetOptions, type WritableBackend } from "./store.ts";
import { verified } from "./verify.ts";

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

/** A call, made again after a transient error. */
export async function tries<T>(
  call: () => Promise<T>,
  options: RetryOptions = {},
  signal?: AbortSignal,
): Promise<T> {
  const { tries: most = TRIES, baseMs = BASE_MS, capMs = CAP_MS } = options;
  for (let count = 1; ; count++) {
    try {
      return await call();
    } catch (error) {
      if (classOf(error) !== "transient" || count >= most || signal?.aborted) throw error;
      await pause(pauseMs(error, count, baseMs, capMs), error, signal);
    }
  }
}

/** `inner` with retries of get and has. */
export function retrying(inner: Backend, options: RetryOptions = {}): Backend {
  return {
    origin: inner.origin,
    get: (path: string, got: GetOptions = {}) =>
      tries(() => inner.get(path, got), options, got.signal),
    has: (path: string, signal?: AbortSignal) =>
      tries(() => inner.has(path, signal), options, signal),
    close: () => inner.close(),
  };
}

/** A store with what it reads verified and all but lists tried again: for one behind a network. A list tries its pages again itself. */
export function retryingStore(inner: WritableBackend, options: RetryOptions = {}): WritableBackend {
  const { get, has, close } = retrying(verified(inner), options);
  return {
    origin: inner.origin,
    get,
    has,
    put: (path, bytes) => tries(() => inner.put(path, bytes), options),
    list: (folder) => inner.list(folder),
    sizes: (folder) => inner.sizes(folder),
    remove: (path) => tries(() => inner.remove(path), options),
    close,
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
