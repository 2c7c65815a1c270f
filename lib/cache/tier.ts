// The tier's filling: what it lacked, or had wrong, is read from the origin whole, verified by its name, and put there, one object at a
// time behind all demand. Nodes that fill the same at once write the same bytes. A tier that can't be written is left alone for a
// while; nobody waits for any of this. Control plane.

import { BurrowError, explain } from "../base/error.ts";
import { isNamedByContent } from "../store/layout.ts";
import { openTier } from "../store/open.ts";
import type { WritableBackend } from "../store/store.ts";
import type { Log } from "./counters.ts";
import { Deadlines } from "./deadlines.ts";

/** Objects that wait; what comes when there are more is noted when it is missed again. */
const QUEUE_MAX = 256;
/** For one object: a pack of 32 MiB. */
const FILL_MS = 120_000;
/** After one that failed. */
const PAUSE_MS = 30_000;

export interface TierFigures {
  readonly at: string;
  /** Objects put there, and their bytes. */
  readonly filled: number;
  readonly filledBytes: number;
  readonly failed: number;
}

export interface TierOptions {
  readonly at: string;
  /** Reads an object whole, past the tier, when background work has its turn. */
  readonly read: (path: string, signal: AbortSignal) => Promise<Buffer>;
  readonly log: Log;
  readonly pauseMs?: number;
}

export class TierFilling {
  readonly #options: TierOptions;
  /** By path: whether it is to be written even where the tier has it. */
  readonly #queue = new Map<string, boolean>();
  readonly #deadlines = new Deadlines();
  #store: Promise<WritableBackend> | undefined;
  #isRunning = false;
  #pausedUntilMs = 0;
  #filled = 0;
  #filledBytes = 0;
  #failed = 0;

  constructor(options: TierOptions) {
    this.#options = options;
  }

  get figures(): TierFigures {
    const { at } = this.#options;
    return { at, filled: this.#filled, filledBytes: this.#filledBytes, failed: this.#failed };
  }

  /** The tier lacks an object; or has it wrong, and it is to be replaced. */
  note(path: string, isWrong: boolean): void {
    if (!isNamedByContent(path) || this.#deadlines.isStopped) return;
    if (performance.now() < this.#pausedUntilMs) return;
    if (this.#queue.size >= QUEUE_MAX && !this.#queue.has(path)) return;
    this.#queue.set(path, isWrong || this.#queue.get(path) === true);
    if (!this.#isRunning) void this.#run();
  }

  close(): void {
    this.#deadlines.stop();
    this.#queue.clear();
    void this.#store?.then((store) => store.close()).catch(() => undefined);
  }

  async #run(): Promise<void> {
    this.#isRunning = true;
    for (let next = this.#next(); next !== undefined; next = this.#next()) {
      const [path, isWrong] = next;
      try {
        await this.#fill(path, isWrong);
      } catch (error) {
        if (this.#deadlines.isStopped) break;
        this.#failed++;
        this.#queue.clear();
        this.#pausedUntilMs = performance.now() + (this.#options.pauseMs ?? PAUSE_MS);
        const context = error instanceof BurrowError ? error.context : {};
        const { at, log } = this.#options;
        log("tier not filled", { ...context, tier: at, path, error: explain(error) });
      }
    }
    this.#isRunning = false;
  }

  /** The object stays in the queue until it is done, so that it isn't put there twice. */
  #next(): [string, boolean] | undefined {
    for (const entry of this.#queue) return entry;
    return undefined;
  }

  async #fill(path: string, isWrong: boolean): Promise<void> {
    const { at, read } = this.#options;
    this.#store ??= openTier(at);
    const store = await this.#store;
    using deadline = this.#deadlines.begin({ silentMs: FILL_MS, mostMs: FILL_MS });
    const { signal } = deadline;
    // Another node may have been faster.
    if (isWrong || !(await store.has(path, signal))) {
      const bytes = await read(path, signal);
      await store.put(path, bytes);
      this.#filled++;
      this.#filledBytes += bytes.length;
    }
    this.#queue.delete(path);
  }
}
