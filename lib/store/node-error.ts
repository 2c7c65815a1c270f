// What a failed system call of Node says of itself. Control plane.

import { fromNode } from "../base/errno.ts";

/** Positive errno and name ("ENOENT") of an error that Node threw; EIO and "" when it carries none. */
export function errnoOf(error: unknown): { errno: number; code: string } {
  const code = error instanceof Error && "code" in error ? String(error.code) : "";
  return { errno: -fromNode(error), code };
}
