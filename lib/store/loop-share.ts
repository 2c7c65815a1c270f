// LoopShare: long work on a loop that others wait for, in parts: where one turn of the loop has had its share, the rest is for later ones.
// One for all work of a kind: many side by side have no more of a turn than one. Control plane.

export class LoopShare {
  readonly #shareMs: number;
  readonly #parts: (() => void)[] = [];
  #turnMs = Number.NEGATIVE_INFINITY;

  /** What may be done before the loop does all else that waits. The last part of a turn may end after that. */
  constructor(shareMs: number) {
    this.#shareMs = shareMs;
  }

  /** Does a part of some work, at once or in a later turn, in the order of asking. Rejects with what it throws. */
  run<T>(part: () => T): Promise<T> {
    return new Promise((resolve, reject) => {
      const work = () => {
        try {
          resolve(part());
        } catch (error) {
          reject(error);
        }
      };
      if (this.#parts.length === 0 && this.#hasTime) work();
      else if (this.#parts.push(work) === 1) setImmediate(() => void this.#turn());
    });
  }

  get #hasTime(): boolean {
    return performance.now() - this.#turnMs <= this.#shareMs;
  }

  async #turn(): Promise<void> {
    this.#turnMs = performance.now();
    let done = 0;
    while (done < this.#parts.length && this.#hasTime) {
      this.#parts[done++]!();
      // What goes on with the outcome is of this turn, too.
      await undefined;
    }
    this.#parts.splice(0, done);
    if (this.#parts.length > 0) setImmediate(() => void this.#turn());
  }
}
