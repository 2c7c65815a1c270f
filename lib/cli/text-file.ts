// A text that a user names: a lock or a profile, from a file or a pipe. Bounded, and read without blocking the thread, so that a signal is still
// heard while a pipe says nothing. And what is said of one that can't be read. Control plane.

import { createReadStream } from "node:fs";
import { BurrowError } from "../base/error.ts";
import { errnoOf, ioError } from "../store/node-error.ts";

/** The largest lock seen has 600 kB; 64 MiB is far past any. */
const TEXT_MAX_BYTES = 64 * 1024 * 1024;

/** The text at a path. BURROW_BAD_LOCK past 64 MiB; the system's own error when it can't be read. */
export async function readText(path: string): Promise<string> {
  const bytes = await readBounded(path, TEXT_MAX_BYTES);
  if (bytes !== undefined) return bytes.toString("utf8");
  throw new BurrowError("BURROW_BAD_LOCK", `${path} is no lock: it has more than 64 MiB`);
}

/** The bytes at a path; undefined when there are more than `max`. The system's own error when it can't be read. */
export async function readBounded(path: string, max: number): Promise<Buffer | undefined> {
  const parts: Buffer[] = [];
  let bytes = 0;
  for await (const part of createReadStream(path)) {
    bytes += (part as Buffer).length;
    if (bytes > max) return undefined;
    parts.push(part as Buffer);
  }
  return Buffer.concat(parts);
}

/** Why a file that a user named can't be read: BURROW_NOT_FOUND where it isn't there, else BURROW_IO. */
export function unreadable(what: string, path: string, cause: unknown): BurrowError {
  const { code } = errnoOf(cause);
  return code === "ENOENT" || code === "ENOTDIR"
    ? new BurrowError("BURROW_NOT_FOUND", `there is no ${what} ${path}`)
    : ioError(`can't read the ${what}`, path, cause);
}
