// Pending: blocks of one blob that are being fetched, by origin. Who needs one waits for the run that brings it, if that comes from the
// same origin; another's may never end. Control plane.

import type { Digest } from "../base/digest.ts";
import type { Source } from "./pieces.ts";

/** A request for some blocks, and for which snapshot's reader. */
export interface Run {
  readonly snapshot: Digest;
  readonly done: Promise<void>;
}

export class Pending {
  readonly #origins = new Map<string, Map<number, Run>>();

  get isEmpty(): boolean {
    return this.#origins.size === 0;
  }

  /** The run that brings a block from an origin. */
  get(origin: string, block: number): Run | undefined {
    return this.#origins.get(origin)?.get(block);
  }

  /** Whether a block is on its way from anywhere. */
  has(block: number): boolean {
    for (const runs of this.#origins.values()) if (runs.has(block)) return true;
    return false;
  }

  /** Whether a block is on its way from any other origin. */
  isElsewhere(origin: string, block: number): boolean {
    for (const [name, runs] of this.#origins) if (name !== origin && runs.has(block)) return true;
    return false;
  }

  /** Notes the run that brings `count` blocks from `first` on, until it ends; in the place of others from there. */
  add({ origin, snapshot }: Source, first: number, count: number, work: Promise<void>): Run {
    const runs = this.#origins.get(origin) ?? new Map<number, Run>();
    this.#origins.set(origin, runs);
    const done = work.finally(() => {
      for (let block = first; block < first + count; block++)
        if (runs.get(block) === run) runs.delete(block);
      if (runs.size === 0 && this.#origins.get(origin) === runs) this.#origins.delete(origin);
    });
    const run = { snapshot, done };
    for (let block = first; block < first + count; block++) runs.set(block, run);
    // Each waiter sees the rejection by its own await; without one it is no news.
    done.catch(() => undefined);
    return run;
  }
}

/** Waits until all have ended: why those failed that did. */
export async function failuresOf(works: Iterable<Promise<unknown>>): Promise<unknown[]> {
  const outcomes = await Promise.allSettled(works);
  return outcomes.flatMap((outcome) => (outcome.status === "rejected" ? [outcome.reason] : []));
}
