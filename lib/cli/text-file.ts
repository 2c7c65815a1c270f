// A text that a user names: a lock, from a file or a pipe. Bounded, and read without blocking the thread, so that a signal is still
// heard while a pipe says nothing. Control plane.

import { createReadStream } from "node:fs";
import { BurrowError } from "../base/error.ts";

/** The largest lock seen has 600 kB; 64 MiB is far past any. */
const TEXT_MAX_BYTES = 64 * 1024 * 1024;

/** The text at a path. BURROW_BAD_LOCK past 64 MiB; the system's own error when it can't be read. */
export async function readText(path: string): Promise<string> {
  const parts: Buffer[] = [];
  let bytes = 0;
  for await (const part of createReadStream(path)) {
    bytes += (part as Buffer).length;
    if (bytes > TEXT_MAX_BYTES) {
      throw new BurrowError("BURROW_BAD_LOCK", `${path} is no lock: it has more than 64 MiB`);
    }
    parts.push(part as Buffer);
  }
  return Buffer.concat(parts).toString("utf8");
}
