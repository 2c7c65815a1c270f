// The daemon's log, bounded: peers and origins can cause lines without end. Control plane.

import fs from "node:fs";
import type { Log } from "../cache/counters.ts";

/** Lines within a window; past it they are counted and the count is logged. */
const LINES_MAX = 100;
const WINDOW_MS = 10_000;
const STDERR = 2;

/** A log that passes on so many lines at most in each window, then says how many it did not. `now` in ms. */
export function boundedLog(log: Log, now: () => number = () => performance.now()): Log {
  let startedMs = now();
  let lines = 0;
  return (event, facts) => {
    if (now() - startedMs >= WINDOW_MS) {
      if (lines > LINES_MAX) log("lines left out", { lines: lines - LINES_MAX });
      startedMs = now();
      lines = 0;
    }
    if (++lines <= LINES_MAX) log(event, facts);
  };
}

/** JSON lines to stderr. A file that was removed is written to no more: nobody can read it, and it would fill the disk. */
export function logToStderr(event: string, facts: Readonly<Record<string, string | number>>): void {
  try {
    const stat = fs.fstatSync(STDERR);
    if (stat.isFile() && stat.nlink === 0) return;
  } catch {
    return;
  }
  process.stderr.write(`${JSON.stringify({ time: new Date().toISOString(), event, ...facts })}\n`);
}
