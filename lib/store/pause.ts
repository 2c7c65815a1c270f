// A pause that ends early, by false, when whoever waits gives up. Control plane.

import { setTimeout as sleep } from "node:timers/promises";

/** Resolves after `ms`: true, or false as soon as the signal fires. */
export async function pause(ms: number, signal?: AbortSignal): Promise<boolean> {
  if (signal?.aborted) return false;
  if (ms <= 0) return true;
  try {
    await sleep(ms, undefined, signal ? { signal } : {});
    return true;
  } catch {
    return false;
  }
}
