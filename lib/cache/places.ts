// Places: where one origin is read, for who reads it: a reload puts others in their place. What is asked from then on is asked of the new ones;
// what the old ones have on its way may come for a moment longer, then it is asked of the new ones as well. Control plane.

import { setMaxListeners } from "node:events";
import type { OpenedOrigin } from "../store/open.ts";
import type { Backend } from "../store/store.ts";

/** A range of some MiB comes within this time, or its place is slow: it may be why there are new ones. */
const GRACE_MS = 2_000;

/** A read of an origin; must end when the signal fires. */
type Work<T> = (origin: OpenedOrigin, signal: AbortSignal) => Promise<T>;

interface Opened {
  readonly origin: OpenedOrigin;
  readonly given: AbortController;
  reads: number;
}

export class Places {
  #now: Opened;
  readonly #graceMs: number;

  /** Takes the origin, which is closed when it was replaced and nobody reads it any more. */
  constructor(origin: OpenedOrigin, graceMs: number = GRACE_MS) {
    this.#now = opened(origin);
    this.#graceMs = graceMs;
  }

  /** What to read from now. For what has no read of its own to it: figures, plans. */
  get now(): OpenedOrigin {
    return this.#now.origin;
  }

  /** Reads, once more of the new places where they came meanwhile and the old ones didn't answer. */
  async read<T>(signal: AbortSignal | undefined, work: Work<T>): Promise<T> {
    for (;;) {
      const from = this.#now;
      const { origin, given } = from;
      const either = new AbortController();
      const onAbort = () => either.abort();
      for (const each of [signal, given.signal]) {
        if (each?.aborted) either.abort();
        each?.addEventListener("abort", onAbort, { once: true });
      }
      from.reads++;
      try {
        return await work(origin, either.signal);
      } catch (error) {
        if (from === this.#now || signal?.aborted) throw error;
      } finally {
        for (const each of [signal, given.signal]) each?.removeEventListener("abort", onAbort);
        if (--from.reads === 0 && from !== this.#now) origin.close();
      }
    }
  }

  /** The same as a backend. */
  get backend(): Backend {
    return {
      origin: this.now.origin,
      get: (path, options = {}) =>
        this.read(options.signal, (origin, signal) => origin.get(path, { ...options, signal })),
      has: (path, given) => this.read(given, (origin, signal) => origin.has(path, signal)),
      close: () => this.close(),
    };
  }

  /** Takes the origin as it is to be read from now on. */
  replace(origin: OpenedOrigin): void {
    const old = this.#now;
    this.#now = opened(origin);
    if (old.reads === 0) old.origin.close();
    else setTimeout(() => old.given.abort(), this.#graceMs).unref();
  }

  close(): void {
    this.now.close();
  }
}

function opened(origin: OpenedOrigin): Opened {
  const given = new AbortController();
  setMaxListeners(0, given.signal); // each read has one, for as long as it takes
  return { origin, given, reads: 0 };
}
