// Views: what each sandbox's view had to wait for. Of a few at a time, so that a node which starts thousands a day does not make as
// many series: those that came when a place was free; all others, and those that are gone, are counted together. Control plane.

import type { AskFailure } from "../cache/counters.ts";
import { newPrefetchFigures, type PrefetchFigures } from "./prefetched.ts";

/** Views with a place of their own. */
export const VIEWS_MAX = 32;
/** The name of all others; no mount has it. */
export const OTHER_VIEWS = "(other)";

/** Mounts whose last failure is kept, and how much of its text: STATUS is one frame. */
const FAILURES_MAX = 16;
const FAILURE_CHARS = 1_000;

/** Only ever grows. */
export interface ViewFigures extends PrefetchFigures {
  asks: number;
  failedAsks: number;
  /** Time from asks to their answers, summed up: asks at once count each. */
  blockedMs: number;
  /** Content asked for that was not on this node. */
  fetchedBytes: number;
}

interface View {
  readonly figures: ViewFigures;
  connections: number;
}

export class Views {
  readonly #views = new Map<string, View>();
  readonly #other = newFigures();
  readonly #failures = new Map<string, AskFailure>();

  /** Called for each connection of a view that is welcomed; the figures are the caller's to add to until close(). */
  open(id: string): ViewFigures {
    let view = this.#views.get(id);
    if (view === undefined && this.#views.size >= VIEWS_MAX) return this.#other;
    view ??= { figures: newFigures(), connections: 0 };
    this.#views.set(id, view);
    view.connections++;
    return view.figures;
  }

  /** Called for each of these connections that ends; what `figures` has is counted with the others when it was a view's last. */
  close(id: string, figures: ViewFigures): void {
    const view = this.#views.get(id);
    if (view === undefined || view.figures !== figures || --view.connections > 0) return;
    this.#views.delete(id);
    for (const key of Object.keys(figures) as (keyof ViewFigures)[])
      this.#other[key] += figures[key];
  }

  /** Those of a view that is connected, or of all others. */
  figuresOf(id: string): ViewFigures {
    return this.#views.get(id)?.figures ?? this.#other;
  }

  /** Notes why an ask of a mount failed: who ran the sandbox asks for it when that has ended. */
  failed(id: string, failure: AskFailure): void {
    this.#failures.delete(id);
    this.#failures.set(id, { ...failure, error: failure.error.slice(0, FAILURE_CHARS) });
    const [oldest] = this.#failures.keys();
    if (this.#failures.size > FAILURES_MAX && oldest !== undefined) this.#failures.delete(oldest);
  }

  /** The last failure of those mounts that failed last. */
  failures(): Record<string, AskFailure> {
    return Object.fromEntries(this.#failures);
  }

  /** By view; the others last. */
  figures(): Record<string, ViewFigures> {
    const named = [...this.#views].map(([id, { figures }]) => [id, { ...figures }] as const);
    return { ...Object.fromEntries(named), [OTHER_VIEWS]: { ...this.#other } };
  }
}

function newFigures(): ViewFigures {
  return { asks: 0, failedAsks: 0, blockedMs: 0, fetchedBytes: 0, ...newPrefetchFigures() };
}
