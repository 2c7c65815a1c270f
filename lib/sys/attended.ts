// Attended time: how long this process has listened. A loop that others' work, or its own, kept from its events comes to its timers before
// it hears what came meanwhile, so by the wall's clock a disk or an origin that answered long ago seems silent. Whoever judges others by
// their silence judges by this time, which stands while the loop doesn't turn. Control plane.

/** Of any stretch in which the loop didn't turn no more than this counts. */
const TURN_MS = 100;

let seenMs = performance.now();
let lostMs = 0;

/** Milliseconds, from an arbitrary begin. They pass as the clock's do while somebody waits by a Patience or asks within each turn. */
export function attendedMs(): number {
  const nowMs = performance.now();
  lostMs += Math.max(0, nowMs - seenMs - TURN_MS);
  seenMs = nowMs;
  return nowMs - lostMs;
}

/** Calls back after so much attended time in which nothing was heard, once, and after what has come until then was. */
export class Patience {
  readonly #ms: number;
  readonly #onEnd: () => void;
  #untilMs: number;
  #timer: NodeJS.Timeout | undefined;
  #isOver = false;

  constructor(ms: number, onEnd: () => void) {
    this.#ms = ms;
    this.#onEnd = onEnd;
    this.#untilMs = attendedMs() + ms;
    this.#wait();
  }

  /** Something was heard: all of the time from now. */
  renew(): void {
    this.#untilMs = attendedMs() + this.#ms;
  }

  /** Nobody waits any more. */
  end(): void {
    this.#isOver = true;
    clearTimeout(this.#timer);
  }

  #wait(): void {
    const leftMs = Math.max(1, this.#untilMs - attendedMs());
    this.#timer = setTimeout(() => setImmediate(() => this.#look()), Math.min(leftMs, TURN_MS));
  }

  #look(): void {
    if (this.#isOver) return;
    if (attendedMs() < this.#untilMs) this.#wait();
    else {
      this.#isOver = true;
      this.#onEnd();
    }
  }
}
