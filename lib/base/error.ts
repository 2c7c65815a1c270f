// BurrowError: the one error class of the control plane. Its code is stable and documented in
// docs/errors.md; its class tells retry logic what to do; its context names package, blob, source.

/** What a caller may do about it: it is not there | it will never work | it may work later. */
export type ErrorClass = "notFound" | "permanent" | "transient";

/** Every code the program throws. docs/errors.md lists what each means and what to do. */
export type ErrorCode =
  | "BURROW_USAGE"
  | "BURROW_NOT_FOUND"
  | "BURROW_IO"
  | "BURROW_NO_SPACE"
  | "BURROW_CORRUPT"
  | "BURROW_DIGEST_MISMATCH"
  | "BURROW_BAD_ARCHIVE"
  | "BURROW_BAD_INDEX"
  | "BURROW_BAD_LOCK"
  | "BURROW_CAPTURE"
  | "BURROW_BAD_PACKAGE"
  | "BURROW_BAD_REPODATA"
  | "BURROW_PREFIX_TOO_LONG"
  | "BURROW_UNSOLVABLE"
  | "BURROW_ORIGIN"
  | "BURROW_STALE"
  | "BURROW_TIMEOUT"
  | "BURROW_BUSY"
  | "BURROW_LEASE"
  | "BURROW_DAEMON"
  | "BURROW_START"
  | "BURROW_UNSUPPORTED";

/** What an error says beside its code and message. */
export interface BurrowErrorOptions {
  /** notFound for BURROW_NOT_FOUND, else permanent, when missing. */
  readonly class?: ErrorClass;
  /** Positive, of the system call that failed. */
  readonly errno?: number;
  /** The error behind it. */
  readonly cause?: unknown;
  /** Facts for people and logs, e.g. { package: "numpy-1.24", blob: "sha256:…", source: "http://…" }. */
  readonly context?: Readonly<Record<string, string | number>>;
}

/** An error with a stable code: docs/errors.md. */
export class BurrowError extends Error {
  /** As every Error has one. */
  override readonly name = "BurrowError";
  /** What it is, for programs. */
  readonly code: ErrorCode;
  /** What a caller may do about it. */
  readonly class: ErrorClass;
  /** Positive, where a system call failed. */
  readonly errno: number | undefined;
  /** Facts for people and logs. */
  readonly context: Readonly<Record<string, string | number>>;

  constructor(code: ErrorCode, message: string, options: BurrowErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.class = options.class ?? (code === "BURROW_NOT_FOUND" ? "notFound" : "permanent");
    this.errno = options.errno;
    this.context = options.context ?? {};
  }
}

/** One line for people: message, context in brackets, then each cause. */
export function explain(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  let text = error.message;
  if (error instanceof BurrowError) {
    const facts = Object.entries(error.context).map(([key, value]) => `${key}: ${value}`);
    if (facts.length > 0) text += ` [${facts.join(", ")}]`;
  }
  return error.cause === undefined ? text : `${text}; because: ${explain(error.cause)}`;
}
