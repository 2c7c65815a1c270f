// LoopDelay: how late this process's loop comes to its timers: over the last minute, since over a daemon's whole life nothing would be
// seen any more. And what of that was its own computing, and what a wait for a CPU that others had. Control plane.

import { createHistogram, type RecordableHistogram } from "node:perf_hooks";
import { ThreadTime } from "../sys/thread-time.ts";

/** How often it looks. */
const LOOK_MS = 20;
const WINDOW_MS = 60_000;
/** Histograms hold whole numbers over 0. */
const US_PER_MS = 1e3;

/**
 * Milliseconds. What was neither held nor queued the thread slept through: a call that blocks, or a lock whose holder had no CPU. Both are
 * at most what is said: before a timer is due the thread works and stands in line, too. 0 where the kernel doesn't tell.
 */
export interface DelayFigures {
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly maxMs: number;
  /** It computed. */
  readonly heldP99Ms: number;
  readonly heldMaxMs: number;
  /** It stood in line for a CPU. */
  readonly queuedP99Ms: number;
  readonly queuedMaxMs: number;
}

export class LoopDelay {
  readonly #late = createHistogram();
  readonly #held = createHistogram();
  readonly #queued = createHistogram();
  readonly #time = new ThreadTime();
  readonly #timer: NodeJS.Timeout;
  #last: DelayFigures | undefined;
  #begunMs = performance.now();
  #lookedMs = this.#begunMs;

  constructor() {
    this.#timer = setInterval(() => this.#look(), LOOK_MS);
    this.#timer.unref();
  }

  /** Of the last whole minute, or since the start while there was none. */
  get figures(): DelayFigures {
    return this.#last ?? this.#read();
  }

  stop(): void {
    clearInterval(this.#timer);
    this.#time.close();
  }

  #look(): void {
    const nowMs = performance.now();
    const { ranMs, queuedMs } = this.#time;
    this.#time.look();
    const lateMs = nowMs - this.#lookedMs - LOOK_MS;
    note(this.#late, lateMs);
    note(this.#held, Math.min(lateMs, this.#time.ranMs - ranMs));
    note(this.#queued, Math.min(lateMs, this.#time.queuedMs - queuedMs));
    this.#lookedMs = nowMs;
    if (nowMs - this.#begunMs < WINDOW_MS) return;
    this.#last = this.#read();
    this.#begunMs = nowMs;
    for (const each of [this.#late, this.#held, this.#queued]) each.reset();
  }

  #read(): DelayFigures {
    return {
      p50Ms: read(this.#late, 50),
      p99Ms: read(this.#late, 99),
      maxMs: read(this.#late, 100),
      heldP99Ms: read(this.#held, 99),
      heldMaxMs: read(this.#held, 100),
      queuedP99Ms: read(this.#queued, 99),
      queuedMaxMs: read(this.#queued, 100),
    };
  }
}

function note(histogram: RecordableHistogram, ms: number): void {
  histogram.record(Math.max(1, Math.round(ms * US_PER_MS)));
}

/** What came in time was noted as 1 µs. */
function read(histogram: RecordableHistogram, percentile: number): number {
  if (histogram.count === 0) return 0;
  const us = percentile === 100 ? histogram.max : histogram.percentile(percentile);
  return Math.max(0, us - 1) / US_PER_MS;
}
