// Runs: the folder of each `burrow run` under STATE/runs, named by its id and its process, so that what a killed run left can be
// told from what a live one needs. The folder comes before all else of a run and goes last. Control plane.

import { mkdirSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { isMountId } from "../gofer/mount.ts";
import { ioError } from "../store/node-error.ts";
import { hasEnded, ownOwner } from "../sys/owner.ts";
import { type Context, makeFolders } from "./context.ts";
import { holdSignals, onInterrupt } from "./interrupt.ts";
import { newRunId, removeMounts } from "./query.ts";
import { deleteSandbox } from "./sandbox.ts";

export interface Run {
  readonly id: string;
  /** Its bundle: STATE/runs/ID@OWNER, which only its user may read. */
  readonly folder: string;
}

function runsFolder(context: Context): string {
  return join(context.state, "runs");
}

/** A new run of this process. */
function openRun(context: Context): Run {
  const id = newRunId();
  const folder = join(runsFolder(context), `${id}@${ownOwner()}`);
  makeFolders(runsFolder(context));
  try {
    mkdirSync(folder, { mode: 0o700 });
  } catch (error) {
    throw ioError("can't make a folder for the run", folder, error);
  }
  return { id, folder };
}

/** Removes what a run keeps in files; its sandbox is gone by then. May be called again. */
function closeRun(context: Context, { id, folder }: Run): void {
  removeMounts(context, id);
  for (const name of mountNames(context))
    if (name.startsWith(`${id}-`)) removeMounts(context, name);
  rmSync(folder, { recursive: true, force: true });
}

/** A server has mounts for each of its views: ID-1 and so on. */
function mountNames({ state }: Context): string[] {
  try {
    return readdirSync(join(state, "mounts"));
  } catch {
    return []; // no mount yet
  }
}

/** Whether a signal now ends this process and what there is of the run: not while a sandbox gets the signals. */
export interface Watch {
  start(): void;
  stop(): void;
}

/** For a process whose signals are its own business: what a killed one leaves, the next run's sweep removes. */
export const NO_WATCH: Watch = { start() {}, stop() {} };

/** Does `work` with a new run, and leaves nothing of it, whatever becomes of the work. With `given`, that says what signals do. */
export async function withRun<T>(
  context: Context,
  work: (run: Run, watch: Watch) => Promise<T>,
  given?: Watch,
): Promise<T> {
  await sweepRuns(context);
  // Who says what signals do says so all the time.
  const stopHolding = given === undefined ? holdSignals() : () => {};
  try {
    return await inRun(context, openRun(context), work, given);
  } finally {
    stopHolding();
  }
}

async function inRun<T>(
  context: Context,
  run: Run,
  work: (run: Run, watch: Watch) => Promise<T>,
  given: Watch | undefined,
): Promise<T> {
  const clean = () => closeRun(context, run);
  let stopWatching: (() => void) | undefined;
  const watch = given ?? {
    start: () => {
      stopWatching ??= onInterrupt(clean);
    },
    stop: () => {
      stopWatching?.();
      stopWatching = undefined;
    },
  };
  watch.start();
  let result: T;
  try {
    result = await work(run, watch);
  } catch (error) {
    try {
      clean();
    } catch {} // why it failed is worth more than what then can't be removed
    throw error;
  } finally {
    watch.stop();
  }
  clean();
  return result;
}

/**
 * Removes what runs left that were killed: sandbox, mounts, folder. Live ones are never touched, and several sweeps may meet. What
 * can't be removed (another user's) stays for a later one.
 */
export async function sweepRuns(context: Context): Promise<void> {
  let names: string[];
  try {
    names = readdirSync(runsFolder(context));
  } catch {
    return; // no run yet
  }
  for (const name of names) {
    const [id, owner] = name.split("@");
    if (id === undefined || owner === undefined || !isMountId(id) || !hasEnded(owner)) continue;
    try {
      await deleteSandbox(context, id);
      closeRun(context, { id, folder: join(runsFolder(context), name) });
    } catch {}
  }
}
