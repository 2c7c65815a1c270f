// Views: what each sandbox's view had to wait for. Of a few at a time, so that a node which starts thousands a day does not make as
// many series: those that came when a place was free; all others, and those that are gone, are counted together. Control plane.

/** Views with a place of their own. */
export const VIEWS_MAX = 32;
/** The name of all others; no mount has it. */
export const OTHER_VIEWS = "(other)";

/** Only ever grows. */
export interface ViewFigures {
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

  /** By view; the others last. */
  figures(): Record<string, ViewFigures> {
    const named = [...this.#views].map(([id, { figures }]) => [id, { ...figures }] as const);
    return { ...Object.fromEntries(named), [OTHER_VIEWS]: { ...this.#other } };
  }
}

function newFigures(): ViewFigures {
  return { asks: 0, failedAsks: 0, blockedMs: 0, fetchedBytes: 0 };
}
