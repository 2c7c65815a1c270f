// Budget: how many requests may be made beside those that are asked for: a share of them, and a little by the clock. In an outage
// nothing is earned but by the clock, so that tries again make no storm (pitfalls D13). Control plane.

export interface BudgetOptions {
  /** Earned with each request that is asked for: 0.1 lets every tenth be made once more. */
  readonly share: number;
  /** Earned each second, whatever is asked. */
  readonly perSecond: number;
  /** The most that is saved up, and what there is at first. */
  readonly most: number;
  /** Milliseconds of a clock that never goes back. */
  readonly now?: () => number;
}

export class Budget {
  readonly #options: BudgetOptions;
  readonly #now: () => number;
  #saved: number;
  #sinceMs: number;

  constructor(options: BudgetOptions) {
    this.#options = options;
    this.#now = options.now ?? (() => performance.now());
    this.#saved = options.most;
    this.#sinceMs = this.#now();
  }

  /** A request that was asked for. */
  earn(): void {
    this.#add(this.#options.share);
  }

  /** Spends one if it is there. */
  take(): boolean {
    this.#tick();
    if (this.#saved < 1) return false;
    this.#saved--;
    return true;
  }

  /** Spends one that may have yet to be earned: the milliseconds until the clock alone has earned it. */
  borrow(): number {
    this.#tick();
    this.#saved--;
    return this.#saved >= 0 ? 0 : (-this.#saved / this.#options.perSecond) * 1000;
  }

  /** Gives back what was borrowed and not used. */
  giveBack(): void {
    this.#add(1);
  }

  #tick(): void {
    const nowMs = this.#now();
    this.#add(((nowMs - this.#sinceMs) / 1000) * this.#options.perSecond);
    this.#sinceMs = nowMs;
  }

  #add(amount: number): void {
    this.#saved = Math.min(this.#options.most, this.#saved + amount);
  }
}
