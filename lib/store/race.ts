// Race: one read, asked of one runner after the other until one answers: the next when one failed, when one is called off, or when one
// takes longer than patience allows. The first answer wins, and the others are told to stop. Control plane.

import { Patience } from "../sys/attended.ts";

/** Why someone is asked: the first | another failed | what runs takes long | what runs is in doubt. */
export type Reason = "first" | "failed" | "slow" | "doubt";
/** The answer was taken | another one was | it failed. */
export type End = "won" | "lost" | "failed";

/** Someone who can be asked. */
export interface Runner<T> {
  /** The answer, or a rejection; must end when the signal fires. */
  run(signal: AbortSignal): Promise<T>;
  /** Calls back when it is better to ask someone else, too; gives what takes that back. */
  onDoubt?(watcher: () => void): () => void;
  /** Called once, before the race is decided by it. */
  ended(how: End, error?: unknown): void;
}

export interface RaceOptions<T> {
  /** Who is asked next; undefined when nobody is left. */
  next(why: Reason): Runner<T> | undefined;
  /** How long the first is waited for, in attended time, before another is asked beside it; undefined: for ever. */
  readonly patienceMs: number | undefined;
  /** Given what has it all again: the answer is on its way. */
  readonly onRenewal?: ((renew: () => void) => void) | undefined;
  readonly signal: AbortSignal | undefined;
}

/** The first answer. Rejects with the failures, in order, when nobody is left to ask. */
export function race<T>(options: RaceOptions<T>): Promise<T> {
  return new Promise((resolve, reject) => new Race(options, resolve, reject).start());
}

/** What a race rejects with. */
export class AllFailed {
  readonly errors: readonly unknown[];

  constructor(errors: readonly unknown[]) {
    this.errors = errors;
  }
}

interface Running<T> {
  readonly runner: Runner<T>;
  readonly control: AbortController;
  readonly forget: (() => void) | undefined;
}

class Race<T> {
  readonly #options: RaceOptions<T>;
  readonly #resolve: (value: T) => void;
  readonly #reject: (reason: AllFailed) => void;
  readonly #running = new Set<Running<T>>();
  readonly #errors: unknown[] = [];
  readonly #onAbort = () => this.#abortAll();
  #patience: Patience | undefined;
  #isOver = false;

  constructor(
    options: RaceOptions<T>,
    resolve: (value: T) => void,
    reject: (reason: AllFailed) => void,
  ) {
    this.#options = options;
    this.#resolve = resolve;
    this.#reject = reject;
  }

  start(): void {
    const { signal, patienceMs, onRenewal } = this.#options;
    signal?.addEventListener("abort", this.#onAbort, { once: true });
    if (patienceMs !== undefined) {
      const patience = new Patience(patienceMs, () => this.#startNext("slow"));
      this.#patience = patience;
      onRenewal?.(() => patience.renew());
    }
    this.#startNext("first");
    if (this.#running.size === 0) this.#end(() => this.#reject(new AllFailed(this.#errors)));
  }

  #startNext(why: Reason): void {
    const isAborted = this.#options.signal?.aborted === true;
    const runner = this.#isOver || isAborted ? undefined : this.#options.next(why);
    if (runner === undefined) return;
    const control = new AbortController();
    const forget = runner.onDoubt?.(() => this.#startNext("doubt"));
    const running: Running<T> = { runner, control, forget };
    this.#running.add(running);
    runner.run(control.signal).then(
      (value) => this.#won(running, value),
      (error: unknown) => this.#failed(running, error),
    );
  }

  #won(winner: Running<T>, value: T): void {
    if (this.#isOver) return;
    this.#end(() => {
      for (const running of this.#running) {
        running.forget?.();
        running.runner.ended(running === winner ? "won" : "lost");
        if (running !== winner) running.control.abort();
      }
      this.#running.clear();
      this.#resolve(value);
    });
  }

  #failed(running: Running<T>, error: unknown): void {
    if (!this.#running.delete(running)) return;
    running.forget?.();
    running.runner.ended("failed", error);
    this.#errors.push(error);
    if (this.#running.size === 0) this.#startNext("failed");
    if (this.#running.size > 0) return;
    this.#end(() => this.#reject(new AllFailed(this.#errors)));
  }

  /** Whoever asked gave up: the runners end by themselves, and their failures are the answer. */
  #abortAll(): void {
    for (const { control } of this.#running) control.abort();
  }

  #end(how: () => void): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#patience?.end();
    this.#options.signal?.removeEventListener("abort", this.#onAbort);
    how();
  }
}
