// burrow run --trace FILE: has the gofer note its requests, hears from the daemon what it fetches meanwhile, and writes both as one
// trace when the run has ended: docs/format/trace.md. Control plane.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { plainUrl } from "../ingest/conda/record.ts";
import { readTrace, TRACE_BYTES, TRACED_MISS, type Traced } from "../serve/trace.ts";
import { CLOCK_ORIGIN_MS, monotonicMs } from "../sys/clock.ts";
import { Mid, midName } from "../wire/lisafs/mid.ts";
import type { Context } from "./context.ts";
import { openExplained } from "./explain-view.ts";
import { checkWritable, type ProgressLine, writeText } from "./output.ts";
import type { Run } from "./runs.ts";
import type { SandboxOptions } from "./sandbox.ts";
import {
  showTrace,
  TRACE_FORMAT,
  type TraceContent,
  type TraceHead,
  type TraceMark,
} from "./trace-file.ts";
import { TraceNames } from "./trace-names.ts";
import { TraceWatch } from "./trace-watch.ts";

export const TRACE_OPTION = "--trace";

export class RunTrace implements Disposable {
  /** What the gofer maps. */
  readonly #requestsPath: string;
  readonly #file: string;
  readonly #startMs: number;
  readonly #startedAt = new Date().toISOString();
  readonly #marks: TraceMark[] = [{ kind: "mark", ms: 0, name: "burrow run" }];
  readonly #progress: ProgressLine;
  #mountId = "";
  #watch: TraceWatch | undefined;

  /** To be written to `file`; times count from `startMs` of performance.now(). BURROW_USAGE and BURROW_IO where it can't be written. */
  constructor(
    { folder }: Run,
    file: string,
    { startMs, progress }: { readonly startMs: number; readonly progress: ProgressLine },
  ) {
    checkWritable(file, TRACE_OPTION);
    this.#file = file;
    this.#startMs = CLOCK_ORIGIN_MS + startMs;
    this.#progress = progress;
    this.#requestsPath = join(folder, "requests");
    // Written out: on a full disk a hole in what the gofer maps would be its SIGBUS.
    writeText(this.#requestsPath, "\0".repeat(TRACE_BYTES), 0o600);
  }

  /** The query is prepared: hears of what is done for its mount from now on. */
  async watch(context: Context, mountId: string): Promise<void> {
    this.#mark("prepared");
    this.#mountId = mountId;
    this.#watch = await TraceWatch.open(context.cache, mountId);
  }

  /** What the sandbox has to know. */
  get sandbox(): Pick<SandboxOptions, "tracePath" | "onStart"> {
    const onStart = () => {
      this.#mark("runsc");
      return () => this.#mark("end");
    };
    return { tracePath: this.#requestsPath, onStart };
  }

  #mark(name: string): void {
    this.#marks.push({ kind: "mark", ms: this.#at(monotonicMs()), name });
  }

  /** Writes what there is, when the sandbox has ended and its mounts are still there. */
  async write(context: Context, about: Pick<TraceHead, "command" | "exitCode">): Promise<void> {
    await this.#watch?.end();
    this.#progress.update("whose the files of the trace are");
    using view = await openExplained(context, this.#mountId);
    const names = await TraceNames.of(view);
    const { records, dropped } = readTrace(readFileSync(this.#requestsPath));
    const { events = [], origins = [] } = this.#watch ?? {};
    const unheard = this.#watch?.isHeard === true ? [] : ["the daemon told nothing of its fetches"];
    const lost = dropped + (this.#watch?.dropped ?? 0);
    const rpcs = records.filter(({ kind }) => kind !== TRACED_MISS).map(this.#rpcOf(names));
    const misses = records.filter(({ kind }) => kind === TRACED_MISS).map(this.#missOf(names));
    const opened = new Set(
      rpcs.filter(({ name, errno }) => name === "OpenAt" && errno === 0).map(({ file }) => file),
    );
    const content: TraceContent = {
      head: {
        kind: "trace",
        format: TRACE_FORMAT,
        ...about,
        startedAt: this.#startedAt,
        dropped: lost,
        notes: [...unheard, ...view.notes],
      },
      packages: names.packages,
      marks: this.#marks,
      rpcs,
      misses,
      fetches: events.flatMap((event) => {
        if (event.kind !== "fetch") return [];
        const { kind, startMs, endMs, path, offset, bytes, isDemand } = event;
        const us = micros(endMs - startMs);
        const origin = plainUrl(origins[event.origin] ?? "");
        return [{ kind, ms: this.#at(startMs), us, origin, path, offset, bytes, isDemand }];
      }),
      prefetches: events.flatMap((event) => {
        if (event.kind !== "prefetch") return [];
        const { kind, atMs, blob, piece: block, bytes } = event;
        const file = names.byDigest(blob);
        return [{ kind, ms: this.#at(atMs), file, block, bytes, isUsed: opened.has(file) }];
      }),
      files: names.files,
    };
    this.#progress.end();
    writeText(this.#file, showTrace(content));
  }

  /** Milliseconds since the run's start, to the microsecond. */
  #at(monotonic: number): number {
    return Math.round((monotonic - this.#startMs) * 1_000) / 1_000;
  }

  readonly #rpcOf = (names: TraceNames) => (record: Traced) => {
    const { kind, mount, errno, startMs, durationMs, subject, offset, count } = record;
    return {
      kind: "rpc" as const,
      ms: this.#at(startMs),
      us: micros(durationMs),
      name: midName(kind),
      mount,
      file: subject === 0 ? -1 : names.byIno(subject),
      errno,
      page: kind === Mid.PRead ? offset : 0,
      count,
    };
  };

  readonly #missOf = (names: TraceNames) => (record: Traced) => {
    const { errno, startMs, durationMs, subject } = record;
    const ms = this.#at(startMs);
    return { kind: "miss" as const, ms, us: micros(durationMs), ...names.byPlace(subject), errno };
  };

  [Symbol.dispose](): void {
    this.#watch?.close();
  }
}

/** To the tenth. */
function micros(ms: number): number {
  return Math.round(ms * 10_000) / 10;
}
