// What preloader and worker threads say to each other: jobs, progress, results, errors as plain values. Control plane.

import type { Digest } from "../base/digest.ts";
import { BurrowError, type ErrorCode, explain } from "../base/error.ts";
import type { PackageFacts } from "../ingest/conda/environment.ts";
import type { ExplicitPackage } from "../ingest/conda/explicit.ts";
import type { PythonTarget } from "../ingest/conda/noarch.ts";
import { errnoOf, ioCode } from "../store/node-error.ts";

/** What is worked at: an archive on this machine, which the job compares with its item before it believes it. */
interface Archive {
  readonly path: string;
  readonly item: ExplicitPackage;
}

/** Says which archive it is, and for that of a python package which Python is in it. */
export interface InspectJob extends Archive {
  readonly kind: "inspect";
}

/** Makes the package's layer in the store. */
export interface IngestJob extends Archive {
  readonly kind: "ingest";
  readonly prefix: string;
  readonly python: PythonTarget | undefined;
}

export type Job = InspectJob | IngestJob;

export interface Inspected {
  readonly sha256: string;
  readonly python: PythonTarget | undefined;
}

export interface Ingested {
  readonly layer: Digest;
  readonly facts: PackageFacts;
  readonly files: number;
  readonly contentBytes: number;
  /** Bytes of packs that the store did not have. */
  readonly storedBytes: number;
  readonly warnings: readonly string[];
}

/** What a worker is given at its start. */
export interface WorkerData {
  /** The store, as openStore takes it. */
  readonly origin: string;
  /** What is to be written again (openStore). */
  readonly damaged: readonly string[];
  /** What the lease that it works under hides (HeldLease). */
  readonly hidden: readonly string[];
}

/** To a worker: a job, news of what others put into the store, what became of its asks. */
export type Order = { readonly kind: "job"; readonly job: Job } | Learn | Shown | Answer;

/** Something hidden was put under the lease: said by who has put it, and told to all others. */
export interface Shown {
  readonly kind: "shown";
  readonly path: string;
}

/** A worker has the lease's holder do something (HeldLease). */
export interface Ask {
  readonly kind: "ask";
  readonly id: number;
  readonly what: "check" | "confirm" | "keep";
  /** What is to be kept. */
  readonly path: string;
}

export interface Answer {
  readonly kind: "answer";
  readonly id: number;
  readonly error: PlainError | undefined;
}

export interface Learn {
  readonly kind: "learn";
  readonly layer: Digest;
}

/** Where a job is: of an ingest. */
export interface JobProgress {
  readonly files: number;
  readonly bytes: number;
}

/** From a worker. */
export type Report =
  | Ask
  | Shown
  | ({ readonly kind: "progress" } & JobProgress)
  | { readonly kind: "done"; readonly result: Inspected | Ingested }
  | { readonly kind: "failed"; readonly error: PlainError };

/** An error as threads can pass it: classes don't survive. */
export interface PlainError {
  readonly code: string;
  readonly isTransient: boolean;
  readonly message: string;
  readonly context: Readonly<Record<string, string | number>>;
}

/** What a system call refused keeps its name, so that a full disk is told from a bug. */
export function plainError(error: unknown): PlainError {
  if (error instanceof BurrowError) {
    const { code, context, cause } = error;
    const message =
      cause === undefined ? error.message : `${error.message}; because: ${explain(cause)}`;
    return { code, isTransient: error.class === "transient", message, context };
  }
  const { syscall } = (error ?? {}) as NodeJS.ErrnoException;
  const text = error instanceof Error ? (syscall ? error.message : error.stack) : String(error);
  return {
    code: syscall === undefined ? "BURROW_INTERNAL" : ioCode(errnoOf(error).errno),
    isTransient: false,
    message: text ?? "",
    context: {},
  };
}

/** The error again; a bug stays one. */
export function thrownError({ code, isTransient, message, context }: PlainError): Error {
  if (code === "BURROW_INTERNAL") return new Error(message);
  const errorClass = isTransient ? "transient" : "permanent";
  return new BurrowError(code as ErrorCode, message, { class: errorClass, context });
}
