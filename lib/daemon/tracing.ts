// Tracing: what the daemon does while somebody watches the start of a view: requests to its origins, whoever they are for, and what was
// brought for it before it asked. Nobody watches, as a rule: then it costs a look at an empty table. Bounded by what a watcher takes.
// docs/format/trace.md. Control plane.

import type { Digest } from "../base/digest.ts";
import type { RequestFacts } from "../cache/origins.ts";
import { CLOCK_ORIGIN_MS, monotonicMs } from "../sys/clock.ts";

/** Events of one frame: each is some 200 bytes of JSON, a frame 64 KiB. */
const BATCH = 200;
const BATCH_MS = 50;
/** A pack's name is 70 long; a stage's object may have any. */
const PATH_CHARS = 200;
/** Events that one watcher hears. */
const EVENTS_MAX = 131_072;

/** A request, or what one brought; times by CLOCK_MONOTONIC. `origin` is a position among those of the view. */
export type TraceEvent =
  | {
      readonly kind: "fetch";
      readonly startMs: number;
      readonly endMs: number;
      readonly origin: number;
      readonly path: string;
      readonly offset: number;
      /** That came; -1: it failed. */
      readonly bytes: number;
      readonly isDemand: boolean;
    }
  | {
      readonly kind: "prefetch";
      readonly atMs: number;
      readonly blob: Digest;
      readonly piece: number;
      readonly bytes: number;
    };

/** Takes events: false when they find no room with who watches. */
export type TraceSink = (events: readonly TraceEvent[]) => boolean;

export class Watcher {
  readonly #origins: readonly string[];
  readonly #sink: TraceSink;
  #events: TraceEvent[] = [];
  #timer: NodeJS.Timeout | undefined;
  #heard = 0;
  /** Events that weren't told. */
  dropped = 0;

  constructor(origins: readonly string[], sink: TraceSink) {
    this.#origins = origins;
    this.#sink = sink;
  }

  originOf(name: string): number {
    return this.#origins.indexOf(name);
  }

  note(event: TraceEvent): void {
    if (++this.#heard > EVENTS_MAX) {
      this.dropped++;
      return;
    }
    this.#events.push(event);
    if (this.#events.length === BATCH) this.flush();
    else this.#timer ??= setTimeout(() => this.flush(), BATCH_MS);
  }

  /** Tells what there is. */
  flush(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const events = this.#events;
    this.#events = [];
    if (events.length > 0 && !this.#sink(events)) this.dropped += events.length;
  }
}

export class Tracing {
  /** By the id of a view's mount. */
  readonly #watchers = new Map<string, Set<Watcher>>();

  /** Has `sink` hear of a view until stop(). */
  watch(mountId: string, origins: readonly string[], sink: TraceSink): Watcher {
    const watcher = new Watcher(origins, sink);
    const others = this.#watchers.get(mountId);
    if (others === undefined) this.#watchers.set(mountId, new Set([watcher]));
    else others.add(watcher);
    return watcher;
  }

  stop(mountId: string, watcher: Watcher): void {
    const others = this.#watchers.get(mountId);
    others?.delete(watcher);
    if (others?.size === 0) this.#watchers.delete(mountId);
  }

  requested({ origin, path, range, isDemand, startMs, bytes }: RequestFacts): void {
    if (this.#watchers.size === 0) return;
    const endMs = monotonicMs();
    for (const watchers of this.#watchers.values()) {
      for (const watcher of watchers) {
        const at = watcher.originOf(origin);
        if (at < 0) continue;
        watcher.note({
          kind: "fetch",
          startMs: CLOCK_ORIGIN_MS + startMs,
          endMs,
          origin: at,
          path: path.slice(0, PATH_CHARS),
          offset: range?.offset ?? 0,
          bytes,
          isDemand,
        });
      }
    }
  }

  brought(mountId: string, blob: Digest, piece: number, bytes: number): void {
    for (const watcher of this.#watchers.get(mountId) ?? [])
      watcher.note({ kind: "prefetch", atMs: monotonicMs(), blob, piece, bytes });
  }
}
