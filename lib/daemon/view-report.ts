// What a connection tells of its view and hears about it: what was read first (docs/design/0023-touches.md), and, for who watches a start,
// what the daemon does meanwhile (docs/format/trace.md). Both are bounded, and neither changes what is fetched. Control plane.

import { TOUCHES_MAX } from "../base/limits.ts";
import type { Fetcher } from "../cache/fetcher.ts";
import type { Touch } from "../cache/mailbox-wire.ts";
import type { Source } from "../cache/pieces.ts";
import type { SnapshotSource } from "../gofer/mount.ts";
import { type Prefetched, UNUSED_MAX } from "./prefetched.ts";
import type { Sources } from "./sources.ts";
import type { TraceEvent, Tracing, Watcher } from "./tracing.ts";
import type { ViewFigures } from "./views.ts";

export interface ReportContext {
  readonly sources: Sources;
  readonly prefetched: Prefetched;
  readonly tracing: Tracing;
  readonly fetcher: Pick<Fetcher, "deadlineOf">;
}

/** A view as a connection has it. */
export interface ReportedView {
  readonly mountId: string;
  readonly snapshots: readonly SnapshotSource[];
  readonly figures: ViewFigures;
  /** Whether it tells what it touches. */
  readonly isHeard: boolean;
}

export class ViewReport {
  readonly #context: ReportContext;
  readonly #view: ReportedView;
  /** Touches that it told so far. */
  #told = 0;
  #watcher: Watcher | undefined;

  constructor(context: ReportContext, view: ReportedView) {
    this.#context = context;
    this.#view = view;
  }

  /** Hears what comes along with what the view asked for. */
  readonly onPrefetch: NonNullable<Source["onPrefetch"]> = (blob, piece, bytes) => {
    const { mountId, isHeard } = this.#view;
    const { prefetched, tracing } = this.#context;
    // What of it is used nobody would hear of a view that doesn't tell.
    if (isHeard) prefetched.brought(mountId, blob, piece, bytes);
    else tracing.brought(mountId, blob, piece, bytes);
  };

  /** Counts what a view first read; false when it is more than a gofer tells, or can't be. */
  take(touches: readonly Touch[]): boolean {
    const { snapshots, figures, isHeard } = this.#view;
    this.#told += touches.length;
    if (!isHeard || this.#told > TOUCHES_MAX) return false;
    if (touches.some(({ snapshot }) => snapshot >= snapshots.length)) return false;
    const { prefetched } = this.#context;
    const local = touches.filter(({ isLocal }) => isLocal).length;
    for (const each of [figures, prefetched.figures]) {
      each.touches += touches.length;
      each.localTouches += local;
    }
    // A view that finds all it needs has its indexes read for nothing.
    if (!prefetched.isEmpty) void this.#use(touches);
    return true;
  }

  async #use(touches: readonly Touch[]): Promise<void> {
    const { prefetched, sources, fetcher } = this.#context;
    // A frame of whole large files, again and again, must not keep the loop: no more pieces await their use.
    let left = UNUSED_MAX;
    for (const number of new Set(touches.map(({ snapshot }) => snapshot))) {
      const of = this.#view.snapshots[number]!;
      using deadline = fetcher.deadlineOf(of.origin);
      const source = await sources.open(of, deadline.signal).catch(() => undefined);
      // An index that can't be read fails its asks, and they say why.
      if (source === undefined) continue;
      const { table } = source;
      for (const { snapshot, row, first, count } of touches)
        if (snapshot === number && row < table.count)
          left -= prefetched.used(table.digestAt(row), table.sizeOf(row), first, count, left);
    }
  }

  /** Begins to tell what is done for the view: `tell` sends the body of a TRACED. The second time it tells what is left, and ends. */
  trace(
    tellEvents: (events: readonly TraceEvent[]) => boolean,
    tell: (body: { readonly origins: readonly string[] } | { readonly dropped: number }) => void,
  ): void {
    const { tracing } = this.#context;
    if (this.#watcher === undefined) {
      const origins = [...new Set(this.#view.snapshots.map(({ origin }) => origin))];
      this.#watcher = tracing.watch(this.#view.mountId, origins, tellEvents);
      tell({ origins });
      return;
    }
    const watcher = this.#watcher;
    this.close();
    watcher.flush();
    tell({ dropped: watcher.dropped });
  }

  /** The connection has ended. */
  close(): void {
    if (this.#watcher !== undefined) this.#context.tracing.stop(this.#view.mountId, this.#watcher);
    this.#watcher = undefined;
  }
}
