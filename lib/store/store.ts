// The Backend contract: immutable objects by path, below a directory or an HTTP prefix; and the classes of its
// errors, which are all that retry logic looks at. Backends and wrappers implement it, one concern a file.
// Control plane.

import { Errno } from "../base/errno.ts";
import { BurrowError, type ErrorClass } from "../base/error.ts";

/** Bytes offset to offset + length of an object; both must exist. */
export interface ByteRange {
  readonly offset: number;
  readonly length: number;
}

export interface GetOptions {
  /** Without a range the whole object is read. A range is given back exactly or the call fails. */
  readonly range?: ByteRange;
  /** Largest object taken when there is no range; WHOLE_MAX_BYTES when missing. */
  readonly maxBytes?: number;
  readonly signal?: AbortSignal;
  /** Takes nothing but this state of the object: BURROW_STALE when it is another by now. For backends on S3. */
  readonly pin?: ObjectPin;
  /** Someone waits for it: worth a second request when the first takes long. False: nobody does, so it isn't insisted on. */
  readonly isUrgent?: boolean;
  /** By a new connection: one that stood open may lead nowhere. */
  readonly isAnew?: boolean;
  /** Hears who sent what is returned, where there are several who might have. */
  readonly onSender?: (sender: Sender) => void;
  /** Hears how many bytes came, while they come; of what isn't behind a network it may not. */
  readonly onBytes?: (bytes: number) => void;
  /** Names of senders to be asked after all others: what they sent was not what it must be. */
  readonly avoid?: ReadonlySet<string>;
}

/** One state of an object that may be replaced: all of its bytes, read under it, belong together. */
export interface ObjectPin {
  /** Of a bucket that keeps versions; undefined: the object is pinned by its ETag alone. */
  readonly versionId: string | undefined;
  /** As the service writes it, without quotes. */
  readonly etag: string;
  readonly size: number;
}

/** Who sent something: to be told when it was wrong, so that others are asked. */
export interface Sender {
  readonly name: string;
  blame(why: string): void;
}

/**
 * Objects that are written once. Every method may be called at any time by any number of callers. What get
 * returns is the caller's own, is exactly as long as asked, and is NOT verified: verify.ts and the fetcher do that.
 */
export interface Backend {
  /** The origin as people wrote it: a directory or a URL. For messages and logs. */
  readonly origin: string;
  get(path: string, options?: GetOptions): Promise<Buffer>;
  has(path: string, signal?: AbortSignal): Promise<boolean>;
  /** Gives up sockets that are kept open. Calls made later may open new ones. */
  close(): void;
}

export interface SizedObject {
  readonly path: string;
  readonly bytes: number;
  /** When it was last put, by the store's clock: ms since 1970; a store may know whole seconds alone. */
  readonly modifiedMs: number;
}

/** A Backend that can be written and listed. */
export interface WritableBackend extends Backend {
  /** Whole or not at all; durable when it resolves, and then nobody looks at `bytes` any more. Replaces what is there (equal bytes, by the naming rule). */
  put(path: string, bytes: Uint8Array): Promise<void>;
  /** Paths of the objects below a folder ("packs"), in no order; empty when the folder is missing. */
  list(folder: string): AsyncIterable<string>;
  /** The same with their bytes and times: of what has an object of its own. What goes meanwhile may be missing. */
  sizes(folder: string): AsyncIterable<SizedObject>;
  /** Removes an object for good when it resolves; what isn't there is removed already. */
  remove(path: string): Promise<void>;
}

/** Largest object read whole: packs are 32 MiB, an index of 16 million inodes is larger than any seen. */
export const WHOLE_MAX_BYTES = 2 * 1024 * 1024 * 1024 - 1;

export function isWritable(backend: Backend): backend is WritableBackend {
  return "put" in backend && "list" in backend;
}

/** An error of a backend. Its class says what a caller may do; `path` names the object. */
export function backendError(
  errorClass: ErrorClass,
  message: string,
  context: Readonly<Record<string, string | number>>,
  cause?: unknown,
): BurrowError {
  const code = errorClass === "notFound" ? "BURROW_NOT_FOUND" : "BURROW_ORIGIN";
  return new BurrowError(code, message, { class: errorClass, context, cause });
}

/** An object that is there, but not all of what a locator says of it: cut off, or another one. */
export function tooShort(
  length: number | string,
  context: Readonly<Record<string, string | number>>,
): BurrowError {
  const what = `the object ends at ${length}, before the range asked for`;
  return new BurrowError("BURROW_CORRUPT", what, { context });
}

/**
 * Whether a locator may have led there though the content has moved: what it leads to is gone, short, or not what it must be, after
 * whatever tries the reader had.
 */
export function isAstray(error: unknown): boolean {
  return classOf(error) === "notFound" || isDamage(error);
}

/** Whether an object was read, and is not what it must be. */
export function isDamage(error: unknown): boolean {
  if (!(error instanceof BurrowError)) return false;
  return error.code === "BURROW_DIGEST_MISMATCH" || error.code === "BURROW_CORRUPT";
}

/** An error that a deadline made. Transient: the origin may answer the next time. */
export function timeoutError(
  message: string,
  context: Readonly<Record<string, string | number>>,
): BurrowError {
  return new BurrowError("BURROW_TIMEOUT", message, { class: "transient", context });
}

/** The state of an object that was pinned is gone: the object was replaced or removed, and no try brings it back. */
export function staleError(
  why: string,
  context: Readonly<Record<string, string | number>>,
): BurrowError {
  const message = `the object is not what it was when it was listed: ${why}`;
  return new BurrowError("BURROW_STALE", message, { errno: Errno.ESTALE, context });
}

/** The class of any error: what is no BurrowError is a bug or a system fault, and permanent. */
export function classOf(error: unknown): ErrorClass {
  return error instanceof BurrowError ? error.class : "permanent";
}

const PATH_PART = /^[^/\0]+$/;

/**
 * Refuses a path that could leave the root: empty, absolute, with "..", "." or an empty part, or NUL. A locator
 * of kind "files" carries paths that others wrote.
 */
export function checkPath(path: string): void {
  for (const part of path.split("/")) {
    if (part === "." || part === ".." || !PATH_PART.test(part)) {
      throw new BurrowError("BURROW_CORRUPT", "a path in the store must stay below its root", {
        context: { path },
      });
    }
  }
}

/** Throws the signal's reason as a transient timeout when it has fired. */
export function throwIfAborted(
  signal: AbortSignal | undefined,
  path: string,
  origin: string,
): void {
  if (signal?.aborted) throw timeoutError("gave up reading from the origin", { path, origin });
}
