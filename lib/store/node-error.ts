// What a failed system call of Node says of itself, and the error that is made of it. Control plane.

import { Errno, fromNode } from "../base/errno.ts";
import { BurrowError } from "../base/error.ts";

/** Positive errno and name ("ENOENT") of an error that Node threw; EIO and "" when it carries none. */
export function errnoOf(error: unknown): { errno: number; code: string } {
  const code = error instanceof Error && "code" in error ? String(error.code) : "";
  return { errno: -fromNode(error), code };
}

/** Whether an errno, of either sign, says that there is no space: on the disk, or in somebody's share of it. */
function isFullErrno(errno: number): boolean {
  const value = Math.abs(errno);
  return value === Errno.ENOSPC || value === Errno.EDQUOT;
}

/** BURROW_NO_SPACE for an errno that says so, else BURROW_IO. */
export function ioCode(errno: number): "BURROW_NO_SPACE" | "BURROW_IO" {
  return isFullErrno(errno) ? "BURROW_NO_SPACE" : "BURROW_IO";
}

/** A failed system call as a BurrowError that keeps its errno and names the path, by which the disk is known: BURROW_NO_SPACE when it is full. */
export function ioError(message: string, path: string, cause: unknown): BurrowError {
  const errno = cause instanceof BurrowError ? (cause.errno ?? Errno.EIO) : errnoOf(cause).errno;
  return new BurrowError(ioCode(errno), message, { errno, cause, context: { path } });
}
