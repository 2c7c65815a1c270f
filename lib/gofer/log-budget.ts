// LogBudget: how many lines a log takes of what clients bring about: who connects again and again must not fill a disk. Pure.

/** Lines at once, and how many more each second. */
const LINES = 50;
const LINES_A_SECOND = 1;

export class LogBudget {
  #left = LINES;
  #atMs: number;
  #omitted = 0;

  constructor(nowMs: number) {
    this.#atMs = nowMs;
  }

  /** Whether one more line is written: -1 for no, else how many weren't since the last. */
  take(nowMs: number): number {
    this.#left = Math.min(LINES, this.#left + ((nowMs - this.#atMs) / 1000) * LINES_A_SECOND);
    this.#atMs = nowMs;
    if (this.#left < 1) {
      this.#omitted++;
      return -1;
    }
    this.#left--;
    const omitted = this.#omitted;
    this.#omitted = 0;
    return omitted;
  }
}
