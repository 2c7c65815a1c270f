// What burrow run says of its own when it could not start a command, as an error with a code: runsc's text for people stands above
// it. Control plane.

import { BurrowError } from "../base/error.ts";
import {
  commandFault,
  isNoDirectory,
  NOT_EXECUTABLE,
  NOT_FOUND,
  type Started,
} from "./command-fault.ts";
import { NOT_ROOT } from "./output.ts";
import type { LookedAt } from "./view-path.ts";

/** runsc's own: it failed before the command ran. A command may exit with it, too. */
export const RUNTIME_FAILED = 128;

/** How burrow run ends: failure where the command did not start, as far as that can be told. */
export interface Ending {
  readonly exitCode: number;
  readonly failure?: BurrowError;
}

function ending(exitCode: number, what: string, cause?: unknown): Ending {
  const failure = new BurrowError("BURROW_START", what, { cause, context: { exitCode } });
  return { exitCode, failure };
}

/** Of a sandbox that was ended since it did not start. */
export function lateEnding(startMs: number): Ending {
  const what = `the sandbox asked for no file within ${startMs / 1000} s and was ended`;
  const advice = "burrow doctor tries runsc's platforms; --start-timeout gives it longer";
  return ending(RUNTIME_FAILED, `${what}; ${advice}`);
}

/** Of a sandbox that never asked for a file. One that a signal ended, or that has no failure, needs no words. */
export function unconnectedEnding(exitCode: number, goferLog: string): Ending {
  if (exitCode === 0 || exitCode > RUNTIME_FAILED) return { exitCode };
  const advice = process.getuid?.() === 0 ? "" : `; ${NOT_ROOT}`;
  const what = `runsc failed before the sandbox had its files: what it said is above${advice}`;
  const lines = goferLog.trim();
  return ending(exitCode, what, lines === "" ? undefined : new Error(lines));
}

/** Of a command that runsc answered with 128: 127 or 126 where the view tells why. */
export function refusedEnding(view: LookedAt, started: Started): Ending {
  const { command, cwd, uid, gid } = started;
  if (isNoDirectory(view, cwd))
    return ending(RUNTIME_FAILED, `the sandbox has no directory ${cwd} to run ${command} in`);
  const code = commandFault(view, started);
  if (code === NOT_FOUND) {
    const where = command.includes("/") ? "" : ` in its PATH (${started.path})`;
    return ending(code, `the sandbox has no ${command}${where}`);
  }
  if (code === NOT_EXECUTABLE) {
    const what = `${command} is no plain file that user ${uid}:${gid} may execute`;
    return ending(code, what);
  }
  return { exitCode: RUNTIME_FAILED };
}

/** What is said of servers that others took the place of, or nothing. */
export function successorNote(restarts: number): string | undefined {
  if (restarts === 0) return undefined;
  const times = restarts === 1 ? "once" : `${restarts} times`;
  return `another server took the place of the sandbox's: ${times}; it died, or "burrow gofer upgrade" relieved it`;
}
