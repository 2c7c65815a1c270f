// LoopDelay: how late this process's loop comes to its timers: over the last minute, since over a daemon's whole life nothing would be
// seen any more. Control plane.

import { type IntervalHistogram, monitorEventLoopDelay } from "node:perf_hooks";

/** How often it looks. */
const LOOK_MS = 20;
const WINDOW_MS = 60_000;
const NS_PER_MS = 1e6;

export interface DelayFigures {
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly maxMs: number;
}

export class LoopDelay {
  readonly #histogram: IntervalHistogram = monitorEventLoopDelay({ resolution: LOOK_MS });
  readonly #timer: NodeJS.Timeout;
  #last: DelayFigures | undefined;

  constructor() {
    this.#histogram.enable();
    this.#timer = setInterval(() => {
      this.#last = this.#read();
      this.#histogram.reset();
    }, WINDOW_MS);
    this.#timer.unref();
  }

  /** Of the last whole minute, or since the start while there was none. */
  get figures(): DelayFigures {
    return this.#last ?? this.#read();
  }

  stop(): void {
    clearInterval(this.#timer);
    this.#histogram.disable();
  }

  /** What is measured is the time between two looks. */
  #read(): DelayFigures {
    const late = (ns: number) => Math.max(0, ns / NS_PER_MS - LOOK_MS);
    if (this.#histogram.count === 0) return { p50Ms: 0, p99Ms: 0, maxMs: 0 };
    const { max } = this.#histogram;
    const [p50, p99] = [this.#histogram.percentile(50), this.#histogram.percentile(99)];
    return { p50Ms: late(p50), p99Ms: late(p99), maxMs: late(max) };
  }
}
