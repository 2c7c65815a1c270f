// Turns: long work on the event loop in parts, by time: a file costs 5 us where its folder is in memory and a hundred times that where it
// isn't, and nobody shall wait for more than one part. Control plane.

import { setImmediate as nextTurn } from "node:timers/promises";

/** With what comes between two looks at it, far below the 20 ms that a loop may be late (pitfalls E6). */
const TURN_MS = 4;

export class Turns {
  #sinceMs = performance.now();

  /** Whether others should have theirs. */
  get isOver(): boolean {
    return performance.now() - this.#sinceMs >= TURN_MS;
  }

  /** Resolves after others had theirs. */
  async next(): Promise<void> {
    await nextTurn();
    this.#sinceMs = performance.now();
  }
}
