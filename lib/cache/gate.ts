// Gate: how many requests go to an origin at once, and who goes first. Demand overtakes background work, which gets what demand leaves:
// a range on the link or in a router's queue can't be called back, so none is sent while demand is under way or was a moment ago, and
// small ones, one at a time, until it has been quiet for a while; but never none for ever (pitfalls D6). docs/design/0014-background.md.
// Control plane.

import { timeoutError } from "../store/store.ts";

interface Waiter {
  readonly sinceMs: number;
  readonly start: () => void;
}

export interface GateFigures {
  readonly demand: number;
  readonly background: number;
  readonly demandQueued: number;
  readonly backgroundQueued: number;
}

/** What time it is, and a call later, with what takes that back. */
export interface Clock {
  nowMs(): number;
  after(ms: number, call: () => void): () => void;
}

/** Places of background work when nobody has asked for long, and until then. */
const BACKGROUND_SLOTS = 2;
const CAUTIOUS_SLOTS = 1;
/** A sandbox that reads cold files asks again within this time, mostly: then the link is to be free. */
const QUIET_MS = 300;
/** Who was quiet for so long is done. */
const CALM_MS = 1_000;
/** Under steady demand background work starts once in so long: with CAUTIOUS_BYTES it meets less than one demand in a hundred. */
const PATIENCE_MS = 500;

/** A background request is long enough for bandwidth where it is calm; else it is off a link of 1 Gbit/s in 2 ms. */
const CALM_BYTES = 1024 * 1024;
const CAUTIOUS_BYTES = 256 * 1024;

const REAL: Clock = {
  nowMs: () => performance.now(),
  after: (ms, call) => {
    const timer = setTimeout(call, Math.ceil(ms)).unref();
    return () => clearTimeout(timer);
  },
};

export class Gate {
  readonly #slots: number;
  readonly #clock: Clock;
  readonly #demandQueue: Waiter[] = [];
  readonly #backgroundQueue: Waiter[] = [];
  #demand = 0;
  #background = 0;
  #demandEndMs = Number.NEGATIVE_INFINITY;
  #backgroundStartMs = Number.NEGATIVE_INFINITY;
  #forgetTimer: () => void = () => undefined;

  constructor(slots: number, clock: Clock = REAL) {
    this.#slots = slots;
    this.#clock = clock;
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

  /** Whether nobody has demanded anything for a while. */
  get isCalm(): boolean {
    return this.#quietMs() >= CALM_MS;
  }

  /** How much one background request should ask for, in bytes. */
  get backgroundBytes(): number {
    return this.isCalm ? CALM_BYTES : CAUTIOUS_BYTES;
  }

  /** Runs `work` when it is its turn; rejects as a timeout when the signal fires before that. */
  async run<T>(isDemand: boolean, signal: AbortSignal, work: () => Promise<T>): Promise<T> {
    await this.#enter(isDemand, signal);
    try {
      return await work();
    } finally {
      if (isDemand) {
        this.#demand--;
        this.#demandEndMs = this.#clock.nowMs();
      } else this.#background--;
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
      const waiter = { sinceMs: this.#clock.nowMs(), start };
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
    this.#forgetTimer();
    while (this.#backgroundQueue.length > 0 && this.#demand + this.#background < this.#slots) {
      const waitMs = this.#backgroundWaitMs(this.#backgroundQueue[0]!);
      if (waitMs > 0) {
        // Without a time it is the end of another request that lets it start.
        if (waitMs < Number.POSITIVE_INFINITY)
          this.#forgetTimer = this.#clock.after(waitMs, () => this.#admit());
        return;
      }
      this.#background++;
      this.#backgroundStartMs = this.#clock.nowMs();
      this.#backgroundQueue.shift()!.start();
    }
  }

  /** How long there has been no demand. */
  #quietMs(): number {
    if (this.#demand + this.#demandQueue.length > 0) return 0;
    return this.#clock.nowMs() - this.#demandEndMs;
  }

  /** How long background work has yet to wait if nothing changes. */
  #backgroundWaitMs({ sinceMs }: Waiter): number {
    const isDemanded = this.#demand + this.#demandQueue.length > 0;
    const quietMs = this.#quietMs();
    if (this.#background >= BACKGROUND_SLOTS) return Number.POSITIVE_INFINITY;
    const untilCalmMs = isDemanded ? Number.POSITIVE_INFINITY : CALM_MS - quietMs;
    if (this.#background >= CAUTIOUS_SLOTS) return untilCalmMs;
    const untilQuietMs = isDemanded ? Number.POSITIVE_INFINITY : QUIET_MS - quietMs;
    const waitedMs = this.#clock.nowMs() - Math.max(sinceMs, this.#backgroundStartMs);
    return Math.min(untilQuietMs, PATIENCE_MS - waitedMs);
  }
}
