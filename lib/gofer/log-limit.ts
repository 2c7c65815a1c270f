// Lines of a log that strangers cause: so many a minute, and then how many were left out. Whoever can connect could fill a disk. Data
// plane: it has no timer of its own.

const MINUTE_MS = 60_000;

export class LogLimit {
  readonly #log: (line: string) => void;
  readonly #perMinute: number;
  readonly #nowMs: () => number;
  #untilMs = Number.NEGATIVE_INFINITY;
  #count = 0;

  constructor(log: (line: string) => void, perMinute: number, nowMs = () => performance.now()) {
    this.#log = log;
    this.#perMinute = perMinute;
    this.#nowMs = nowMs;
  }

  /** Logs a line, unless there were enough in this minute. */
  line(text: string): void {
    const nowMs = this.#nowMs();
    if (nowMs >= this.#untilMs) {
      this.end();
      this.#untilMs = nowMs + MINUTE_MS;
    }
    if (++this.#count <= this.#perMinute) this.#log(text);
  }

  /** Says what was left out, if any. */
  end(): void {
    const left = this.#count - this.#perMinute;
    this.#count = 0;
    if (left > 0) this.#log(`lines of clients that were left out within a minute: ${left}`);
  }
}
