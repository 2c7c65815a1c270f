// Deadlines: until when work may go on: for a time in which nothing is heard of what it waits for, and for a longer one whatever is heard
// (docs/design/0029-patience.md); and signals that fire then, or when all work is stopped. Not by AbortSignal.any(): what it makes holds its
// sources by weak references alone, so that under Node.js 20 a timeout among them is collected, and never fires (nodejs/node#57736); and what
// lives long among them keeps all that was made of it (#54614). Control plane.

import { BurrowError } from "../base/error.ts";

/** How long work may take, ms. */
export interface Patience {
  /** From its begin, or from what was last heard. */
  readonly silentMs: number;
  /** In all. Where it is less than silentMs, that counts. */
  readonly mostMs: number;
}

/** One piece of work's, to be disposed of with it. It keeps no process alive. */
export class Deadline implements Disposable {
  readonly #patience: Patience;
  readonly #heardMs: () => number;
  /** Made when somebody wants a signal: asks are many. */
  #control: AbortController | undefined;
  readonly #begunMs = performance.now();
  readonly #onEnd: () => void;
  #timer: NodeJS.Timeout | undefined;
  #isOver = false;
  /** Called when it is over. */
  onOver: () => void = () => {};

  /** `heardMs`: when that which is waited for was last heard, by performance.now(). */
  constructor(
    patience: Patience,
    heardMs: () => number = () => Number.NEGATIVE_INFINITY,
    onEnd = () => {},
  ) {
    this.#patience = patience;
    this.#heardMs = heardMs;
    this.#onEnd = onEnd;
    this.#wait();
  }

  /** Fires when it is over. */
  get signal(): AbortSignal {
    this.#control ??= new AbortController();
    if (this.#isOver) this.#control.abort();
    return this.#control.signal;
  }

  get isOver(): boolean {
    return this.#isOver;
  }

  /** What is over, for people. */
  get reason(): string {
    const { silentMs, mostMs } = this.#patience;
    return this.#isSilent
      ? `not here, and for ${silentMs} ms nothing came`
      : `not here within ${Math.max(silentMs, mostMs)} ms`;
  }

  /** The work has ended: the signal doesn't fire any more. */
  [Symbol.dispose](): void {
    clearTimeout(this.#timer);
    this.#onEnd();
  }

  /** Over at once. */
  abort(): void {
    this[Symbol.dispose]();
    this.#isOver = true;
    this.#control?.abort();
    this.onOver();
  }

  get #isSilent(): boolean {
    return performance.now() >= this.#silentAtMs;
  }

  get #silentAtMs(): number {
    return Math.max(this.#begunMs, this.#heardMs()) + this.#patience.silentMs;
  }

  #wait(): void {
    const { silentMs, mostMs } = this.#patience;
    const lastMs = this.#begunMs + Math.max(silentMs, mostMs);
    const leftMs = Math.min(this.#silentAtMs, lastMs) - performance.now();
    if (leftMs <= 0) this.abort();
    else this.#timer = setTimeout(() => this.#wait(), Math.ceil(leftMs)).unref();
  }
}

/** Those of all work that can be stopped. */
export class Deadlines {
  readonly #open = new Set<Deadline>();
  #isStopped = false;

  /** One that stop() ends, too; that is over when it was called before. */
  begin(patience: Patience, heardMs?: () => number): Deadline {
    const deadline = new Deadline(patience, heardMs, () => this.#open.delete(deadline));
    this.#open.add(deadline);
    if (this.#isStopped) deadline.abort();
    return deadline;
  }

  get isStopped(): boolean {
    return this.#isStopped;
  }

  stop(): void {
    this.#isStopped = true;
    for (const deadline of [...this.#open]) deadline.abort();
  }
}

/** What work comes to; BURROW_TIMEOUT when its deadline is over, and the work goes on. */
export async function inTime<T>(work: Promise<T>, deadline: Deadline): Promise<T> {
  const late = new Promise<never>((_, reject) => {
    deadline.onOver = () =>
      reject(new BurrowError("BURROW_TIMEOUT", deadline.reason, { class: "transient" }));
    if (deadline.isOver) deadline.onOver();
  });
  return await Promise.race([work, late]);
}

/**
 * What a read comes to that another may have begun: `joined` is theirs. One that ended by their deadline is begun in our name, for as long
 * as our signal lets it.
 */
export async function inOwnTime<T>(
  signal: AbortSignal,
  joined: () => Promise<T> | undefined,
  begin: () => Promise<T>,
): Promise<T> {
  for (;;) {
    const theirs = joined();
    try {
      return await (theirs ?? begin());
    } catch (error) {
      const isLate = error instanceof BurrowError && error.code === "BURROW_TIMEOUT";
      if (theirs === undefined || !isLate || signal.aborted) throw error;
    }
  }
}
