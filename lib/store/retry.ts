// Wrapper: tries again after a transient error, a bounded number of times, with growing, jittered pauses, and no more often than a
// budget allows that all calls share. notFound and permanent errors pass at once, as does everything once the caller's signal fires.
// Control plane.

import { BurrowError } from "../base/error.ts";
import type { Budget } from "./budget.ts";
import { pause } from "./pause.ts";
import { type Backend, classOf, type GetOptions, type WritableBackend } from "./store.ts";
import { verified } from "./verify.ts";

export interface RetryOptions {
  /** Requests in all, the first included. */
  readonly tries?: number;
  /** No try begins later than this after the first. */
  readonly tryingMs?: number;
  /** First pause; doubles with each try. */
  readonly baseMs?: number;
  readonly capMs?: number;
  /** What tries after the first are paid from: who finds it empty waits until something is in it. */
  readonly budget?: Budget;
  /** Gives up where the budget is empty, in place of waiting. */
  readonly isHasty?: boolean;
  /** Called before each try after the first. */
  readonly onRetry?: () => void;
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
  const { tries: most = TRIES, baseMs = BASE_MS, capMs = CAP_MS, budget, onRetry } = options;
  const { tryingMs = Number.POSITIVE_INFINITY } = options;
  const untilMs = performance.now() + tryingMs;
  budget?.earn();
  for (let count = 1; ; count++) {
    try {
      return await call();
    } catch (error) {
      if (classOf(error) !== "transient" || count >= most || signal?.aborted) throw error;
      if (options.isHasty === true && budget?.take() === false) throw error;
      const owedMs = options.isHasty === true ? 0 : (budget?.borrow() ?? 0);
      const pausedMs = Math.max(pauseMs(error, count, baseMs, capMs), owedMs);
      const isTime = performance.now() + pausedMs <= untilMs;
      if (!isTime || !(await pause(pausedMs, signal))) {
        budget?.giveBack();
        throw error;
      }
      onRetry?.();
    }
  }
}

/** `inner` with retries of get and has. */
export function retrying(inner: Backend, options: RetryOptions = {}): Backend {
  // What nobody waits for isn't insisted on: who comes to want it would wait for its pauses (pitfalls D7).
  const few = { ...options, tries: Math.min(TRIES, options.tries ?? TRIES), isHasty: true };
  return {
    origin: inner.origin,
    get: (path: string, got: GetOptions = {}) =>
      tries(() => inner.get(path, got), got.isUrgent === false ? few : options, got.signal),
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
