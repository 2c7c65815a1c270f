// Dice: a run of numbers that a seed decides, for fuzzing: the same on every machine. Tests only.

export class Dice {
  #state: number;

  constructor(seed: number) {
    this.#state = seed || 1;
  }

  /** 0 to n-1. Xorshift, 32 bits. */
  pick(n: number): number {
    let x = this.#state;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.#state = x >>> 0;
    return this.#state % n;
  }

  of<T>(values: readonly T[]): T {
    return values[this.pick(values.length)]!;
  }

  /** Most often one of twelve names, at times one of those given, or as long as may be and longer. `plain`: of 20, how many aren't those given. */
  name(plain: number, others: readonly string[]): string {
    const kind = this.pick(20);
    if (kind === 0) return "x".repeat(255);
    if (kind === 1) return "x".repeat(256);
    return kind < plain ? `n${this.pick(12)}` : this.of(others);
  }
}
