// Waiting for a condition, with or without the event loop: as long as a loaded machine may need. Test support.

import { setTimeout as sleep } from "node:timers/promises";

export { sleep };

/** Far above what anything waited for takes, so that only what never comes fails: a command with its daemon took 25 s to start at a load of 30. */
const WAIT_MS = 60_000;
/** What a loaded machine may add to a deadline that is tested: what hangs takes longer yet. */
export const LATE_MS = 20_000;

const sleeper = new Int32Array(new SharedArrayBuffer(4));

/** Blocks this thread. */
export function sleepMs(ms: number): void {
  Atomics.wait(sleeper, 0, 0, ms);
}

/** Waits until `done` is true; returns whether it came true. */
export async function until(done: () => boolean | Promise<boolean>): Promise<boolean> {
  for (const end = performance.now() + WAIT_MS; performance.now() < end; await sleep(20)) {
    if (await done()) return true;
  }
  return done();
}

/** As until, blocking this thread. */
export function blockUntil(done: () => boolean): boolean {
  for (const end = performance.now() + WAIT_MS; performance.now() < end; sleepMs(1)) {
    if (done()) return true;
  }
  return done();
}
