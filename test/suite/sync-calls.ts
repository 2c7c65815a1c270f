// Which synchronous calls of node:fs a test's own thread makes: each would hold it up as long as a disk hangs. Test support.

import fs from "node:fs";
import type { Teardown } from "./served.ts";

export interface SyncCalls {
  /** Names of those made while it looked. */
  readonly seen: string[];
  pause(): void;
  resume(): void;
}

/** Looks until the test ends. What a module took out of node:fs by name isn't seen. */
export function syncCalls(t: Teardown): SyncCalls {
  const seen: string[] = [];
  const all = fs as unknown as Record<string, unknown>;
  const names = Object.keys(all).filter((name) => name.endsWith("Sync"));
  const kept = new Map(names.map((name) => [name, all[name] as (...words: unknown[]) => unknown]));
  const pause = () => {
    Object.assign(all, Object.fromEntries(kept));
  };
  const resume = () => {
    for (const [name, call] of kept) {
      all[name] = (...words: unknown[]) => {
        seen.push(name);
        return call(...words);
      };
    }
  };
  t.teardown(pause);
  resume();
  return { seen, pause, resume };
}
