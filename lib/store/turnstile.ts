// Turnstile: where many wait for one thing they would all go on in the turn of the loop in which it comes, and nothing else would be heard
// until the last of them has. They pass few at a time, in the order in which they came; who comes alone passes at once. Control plane.

/** Each does some 0.1 ms before it waits again: a few milliseconds in all. */
const AT_ONCE = 32;

export class Turnstile {
  readonly #atOnce: number;
  readonly #waiting: (() => void)[] = [];
  /** In this turn of the loop. */
  #passed = 0;

  constructor(atOnce: number = AT_ONCE) {
    this.#atOnce = atOnce;
  }

  /** To be awaited; undefined: there is nothing to wait for. */
  pass(): Promise<void> | undefined {
    if (this.#passed >= this.#atOnce) return new Promise((go) => this.#waiting.push(go));
    if (this.#passed++ === 0) setImmediate(() => this.#turn());
    return undefined;
  }

  #turn(): void {
    const next = this.#waiting.splice(0, this.#atOnce);
    this.#passed = next.length;
    for (const go of next) go();
    if (next.length > 0) setImmediate(() => this.#turn());
  }
}
