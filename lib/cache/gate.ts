// Gate: how many requests go to an origin at once, and who goes first. Demand overtakes background work, which waits
// while demand is under way, but not for ever (pitfalls D6). Control plane.

import { timeoutError } from "../store/store.ts";

interface Waiter {
  readonly isDemand: boolean;
  readonly sinceMs: number;
  readonly start: () => void;
}

export interface GateFigures {
  readonly demand: number;
  readonly background: number;
  readonly demandQueued: number;
  readonly backgroundQueued: number;
}

/** Background work may hold this many places, and starts beside demand after having waited this long. */
const BACKGROUND_SLOTS = 2;
const PATIENCE_MS = 500;

export class Gate {
  readonly #slots: number;
  readonly #demandQueue: Waiter[] = [];
  readonly #backgroundQueue: Waiter[] = [];
  #demand = 0;
  #background = 0;
  #timer: NodeJS.Timeout | undefined;

  constructor(slots: number) {
    this.#slots = slots;
  }

  /** What is under way and what waits now. */
  get figures(): GateFigures {
    return {
      demand: this.#demand,
      background: this.#background,
      demandQueued: this.#demandQueue.length,
      backgroundQueued: this.#backgroundQueue.length,
    };
  }

  /** Runs `work` when it is its turn; rejects as a timeout when the signal fires before that. */
  async run<T>(isDemand: boolean, signal: AbortSignal, work: () => Promise<T>): Promise<T> {
    await this.#enter(isDemand, signal);
    try {
      return await work();
    } finally {
      if (isDemand) this.#demand--;
      else this.#background--;
      this.#admit();
    }
  }

  #enter(isDemand: boolean, signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const queue = isDemand ? this.#demandQueue : this.#backgroundQueue;
      const onAbort = () => {
        const at = queue.indexOf(waiter);
        if (at >= 0) queue.splice(at, 1);
        reject(timeoutError("gave up waiting for a turn at the origin", {}));
      };
      const start = () => {
        signal.removeEventListener("abort", onAbort);
        resolve();
      };
      const waiter = { isDemand, sinceMs: Date.now(), start };
      if (signal.aborted) return onAbort();
      signal.addEventListener("abort", onAbort, { once: true });
      queue.push(waiter);
      this.#admit();
    });
  }

  #admit(): void {
    while (this.#demandQueue.length > 0 && this.#demand + this.#background < this.#slots) {
      this.#demand++;
      this.#demandQueue.shift()!.start();
    }
    const first = this.#backgroundQueue[0];
    if (first === undefined || this.#background >= BACKGROUND_SLOTS) return;
    if (this.#demand + this.#background >= this.#slots) return;
    const waitedMs = Date.now() - first.sinceMs;
    if (this.#demand === 0 || waitedMs >= PATIENCE_MS) {
      this.#background++;
      this.#backgroundQueue.shift()!.start();
      this.#admit();
    } else if (this.#timer === undefined) {
      this.#timer = setTimeout(() => {
        this.#timer = undefined;
        this.#admit();
      }, PATIENCE_MS - waitedMs);
      this.#timer.unref();
    }
  }
}
