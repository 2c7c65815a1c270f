// A daemon for as long as a sandbox runs. Control plane.

import { ensureDaemon } from "../cache/client.ts";
import type { Context } from "./context.ts";

/** How often a run looks whether the daemon is still there: its asks wait 30 s at most. */
const KEEP_MS = 1_000;

/** Starts a daemon anew when it dies under the sandbox, until the returned function is called: its gofer asks again. */
export function keepDaemon(context: Context): () => void {
  let isBusy = false;
  const timer = setInterval(() => {
    if (isBusy) return;
    isBusy = true;
    // One that can't be started is tried again; meanwhile the gofer answers what needs it with EIO at its deadline.
    ensureDaemon({ cache: context.cache, state: context.state, isKnown: true })
      .catch(() => {})
      .finally(() => {
        isBusy = false;
      });
  }, KEEP_MS);
  timer.unref();
  return () => clearInterval(timer);
}
