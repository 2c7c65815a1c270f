// Turns: at most so many at once; and one after the other for equal names. Control plane.

/** Places for `count` at once; the others wait in order. */
export class Turns {
  #free: number;
  readonly #waiting: (() => void)[] = [];

  constructor(count: number) {
    this.#free = count;
  }

  /** Resolves when there is a place; whoever has it calls leave once. */
  enter(): Promise<void> {
    if (this.#free > 0) {
      this.#free--;
      return Promise.resolve();
    }
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  leave(): void {
    const next = this.#waiting.shift();
    if (next === undefined) this.#free++;
    else next();
  }
}

/** Does work of one name after that of the same name before it, whatever came of that. */
export class Chains {
  readonly #last = new Map<string, Promise<unknown>>();

  async run<T>(name: string, work: () => Promise<T>): Promise<T> {
    const before = this.#last.get(name);
    const now = (before ?? Promise.resolve()).then(work, work);
    this.#last.set(name, now);
    try {
      return await now;
    } finally {
      if (this.#last.get(name) === now) this.#last.delete(name);
    }
  }
}
