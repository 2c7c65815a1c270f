// A pool of worker threads with one bound on memory for all: a job starts when a worker is free and what it may need fits beside
// those at work, or when it is alone. Inspections come first, since others wait for them, then the largest archives, so that none of
// them is left to the end and one worker. Control plane.

import { cpus } from "node:os";
import { Worker } from "node:worker_threads";
import type { Digest } from "../base/digest.ts";
import { BurrowError } from "../base/error.ts";
import { PRELOAD_JOB_BYTES } from "../base/limits.ts";
import type { HeldLease } from "../store/garbage.ts";
import {
  type Answer,
  type Ask,
  type Ingested,
  type IngestJob,
  type Inspected,
  type InspectJob,
  type Job,
  type JobProgress,
  type Order,
  plainError,
  type Report,
  type Shown,
  thrownError,
  type WorkerData,
} from "./work.ts";

export interface PoolOptions {
  /** The store, as openStore takes it. */
  readonly origin: string;
  readonly damaged: ReadonlySet<string>;
  /** What all work under: whatever they find or make stays until its end. */
  readonly held: HeldLease;
  /** Workers at once. */
  readonly jobs: number;
  /** Memory of all jobs together. */
  readonly memoryBytes: number;
}

/**
 * What a job may hold: open and half-written packs, tables of the package's files; and a file that outgrows a pack whole, as it is
 * packed: twice the archive, since LZ4 packs less than zstd.
 */
function jobBytes(archiveBytes: number): number {
  return PRELOAD_JOB_BYTES + 2 * archiveBytes;
}

/** Jobs at once when nobody says. */
export function defaultJobs(): number {
  return Math.max(1, cpus().length);
}

function givenUp(): BurrowError {
  return new BurrowError("BURROW_IO", "the work was given up");
}

interface Waiting {
  readonly job: Job;
  readonly bytes: number;
  readonly onProgress: (progress: JobProgress) => void;
  readonly resolve: (result: Inspected | Ingested) => void;
  readonly reject: (error: unknown) => void;
}

function rankOf({ job, bytes }: Waiting): number {
  return job.kind === "inspect" ? Infinity : bytes;
}

interface Member {
  readonly worker: Worker;
  busy: Waiting | undefined;
}

export class WorkerPool {
  readonly #options: PoolOptions;
  readonly #members = new Set<Member>();
  readonly #queue: Waiting[] = [];
  #bytes = 0;
  #isClosed = false;

  constructor(options: PoolOptions) {
    this.#options = options;
  }

  run(job: InspectJob, archiveBytes: number): Promise<Inspected>;
  run(
    job: IngestJob,
    archiveBytes: number,
    onProgress: (progress: JobProgress) => void,
  ): Promise<Ingested>;
  /** Does a job in its turn. Rejects with what the job threw, or when its worker died of it, or the pool is closed. */
  run(
    job: Job,
    archiveBytes: number,
    onProgress: (progress: JobProgress) => void = () => undefined,
  ): Promise<Inspected | Ingested> {
    if (this.#isClosed) return Promise.reject(givenUp());
    return new Promise((resolve, reject) => {
      const bytes = jobBytes(archiveBytes);
      const waiting = { job, bytes, onProgress, resolve, reject };
      const isBefore = (other: Waiting) => rankOf(waiting) > rankOf(other);
      const at = this.#queue.findIndex(isBefore);
      this.#queue.splice(at < 0 ? this.#queue.length : at, 0, waiting);
      this.#admit();
    });
  }

  /** Tells all workers of a layer that is new in the store. */
  learn(layer: Digest): void {
    for (const { worker } of this.#members) {
      worker.postMessage({ kind: "learn", layer } satisfies Order);
    }
  }

  /** Ends all workers; jobs that wait or are at work are rejected. */
  async close(): Promise<void> {
    this.#isClosed = true;
    for (const waiting of this.#queue.splice(0)) waiting.reject(givenUp());
    await Promise.all([...this.#members].map(({ worker }) => worker.terminate()));
  }

  #admit(): void {
    for (let next = this.#queue[0]; next !== undefined; next = this.#queue[0]) {
      const isAlone = this.#bytes === 0;
      if (!isAlone && this.#bytes + next.bytes > this.#options.memoryBytes) return;
      const member = this.#freeMember();
      if (member === undefined) return;
      this.#queue.shift();
      member.busy = next;
      this.#bytes += next.bytes;
      member.worker.ref();
      member.worker.postMessage({ kind: "job", job: next.job } satisfies Order);
    }
  }

  #freeMember(): Member | undefined {
    for (const member of this.#members) if (member.busy === undefined) return member;
    if (this.#isClosed || this.#members.size >= this.#options.jobs) return undefined;
    const { origin, damaged, held } = this.#options;
    const workerData: WorkerData = { origin, damaged: [...damaged], hidden: [...held.hidden] };
    const worker = new Worker(new URL("../../preload-worker.cjs", import.meta.url), {
      workerData,
      // Past it the worker dies, and its package alone fails.
      resourceLimits: { maxOldGenerationSizeMb: Math.floor(this.#options.memoryBytes / 2 ** 20) },
    });
    const member: Member = { worker, busy: undefined };
    this.#members.add(member);
    worker.on("message", (report: Report) => this.#hear(member, report));
    worker.on("error", (error) => this.#bury(member, error));
    worker.on("exit", () => this.#bury(member, new Error("the worker ended")));
    return member;
  }

  #hear(member: Member, report: Report): void {
    if (report.kind === "ask") void this.#answer(member, report);
    else if (report.kind === "shown") this.#show(member, report);
    else this.#report(member, report);
  }

  async #answer({ worker }: Member, { id, what, path }: Ask): Promise<void> {
    const { held } = this.#options;
    let error: Answer["error"];
    try {
      await held[what](path);
    } catch (why) {
      error = plainError(why);
    }
    worker.postMessage({ kind: "answer", id, error } satisfies Order);
  }

  #show(from: Member, shown: Shown): void {
    this.#options.held.show(shown.path);
    for (const member of this.#members)
      if (member !== from) member.worker.postMessage(shown satisfies Order);
  }

  #report(member: Member, report: Exclude<Report, Ask | Shown>): void {
    const { busy } = member;
    if (busy === undefined) return;
    if (report.kind === "progress") {
      busy.onProgress(report);
      return;
    }
    this.#free(member);
    if (report.kind === "done") busy.resolve(report.result);
    else busy.reject(thrownError(report.error));
    this.#admit();
  }

  /** A worker that is gone takes its job with it; the next gets a new one. */
  #bury(member: Member, cause: Error): void {
    if (!this.#members.delete(member)) return;
    const { busy } = member;
    this.#free(member);
    const isOfMemory = (cause as NodeJS.ErrnoException).code === "ERR_WORKER_OUT_OF_MEMORY";
    busy?.reject(
      isOfMemory
        ? new BurrowError("BURROW_UNSUPPORTED", "it needs more memory than --memory allows")
        : cause,
    );
    this.#admit();
  }

  #free(member: Member): void {
    if (member.busy === undefined) return;
    this.#bytes -= member.busy.bytes;
    member.busy = undefined;
    // Idle workers keep no process alive.
    member.worker.unref();
  }
}
