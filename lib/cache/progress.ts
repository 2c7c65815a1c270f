// Progress: when an origin last sent something worth waiting for. Who waits for bytes of it, in a queue of ours or for its answer, has its
// time again by that (docs/design/0029-patience.md). Control plane.

import type { Backend } from "../store/store.ts";

/** So much of bodies that are still coming is a sign of life; less than that in all of a patience is a drip (pitfalls D11). */
const SIGN_BYTES = 64 * 1024;

export class Progress {
  #heardMs = Number.NEGATIVE_INFINITY;
  #bytes = 0;

  /** By performance.now(). */
  get heardMs(): number {
    return this.#heardMs;
  }

  /** `inner`, of which what comes is heard: so much of any bodies, or all that somebody asked for. */
  through(inner: Backend): Backend {
    return {
      origin: inner.origin,
      get: async (path, options = {}) => {
        const onBytes = (bytes: number) => {
          this.#came(bytes);
          options.onBytes?.(bytes);
        };
        const got = await inner.get(path, { ...options, onBytes });
        this.#heard();
        return got;
      },
      has: (path, signal) => inner.has(path, signal),
      close: () => inner.close(),
    };
  }

  #came(bytes: number): void {
    this.#bytes += bytes;
    if (this.#bytes >= SIGN_BYTES) this.#heard();
  }

  #heard(): void {
    this.#bytes = 0;
    this.#heardMs = performance.now();
  }
}
