// Why a command wasn't started, by what the view holds: runsc says 128 for all that goes wrong before the command runs, shells say 127
// for a command that isn't there and 126 for one that can't be run. Looked at only after a 128. Control plane.

import { posix } from "node:path";
import { S_IFDIR, S_IFMT, S_IFREG } from "../base/file-types.ts";
import { type Found, findPath, type LookedAt } from "./view-path.ts";

export const NOT_FOUND = 127;
export const NOT_EXECUTABLE = 126;

export interface Started {
  readonly command: string;
  readonly cwd: string;
  /** $PATH of the command. */
  readonly path: string;
  readonly uid: number;
  readonly gid: number;
}

/** 127 or 126 when the view says that the command could not be started; undefined when it could, or can't be told. */
export function commandFault(view: LookedAt, started: Started): number | undefined {
  const { command, cwd, path } = started;
  if (command.includes("/")) {
    const found = findPath(view, posix.resolve(cwd, command));
    if (found === "unknown") return undefined;
    if ("missing" in found) return NOT_FOUND;
    return isExecutable(found, started) ? undefined : NOT_EXECUTABLE;
  }
  for (const folder of path.split(":")) {
    const found = findPath(view, posix.resolve(cwd, folder, command || "."));
    if (found === "unknown" || (!("missing" in found) && isExecutable(found, started)))
      return undefined;
  }
  return NOT_FOUND;
}

/** Whether a path is surely none of a directory. */
export function isNoDirectory(view: LookedAt, path: string): boolean {
  const found = findPath(view, posix.resolve("/", path));
  if (found === "unknown") return false;
  return "missing" in found || (found.mode & S_IFMT) !== S_IFDIR;
}

function isExecutable(found: Found, { uid, gid }: Started): boolean {
  const bit = found.uid === uid ? 0o100 : found.gid === gid ? 0o010 : 0o001;
  return (found.mode & S_IFMT) === S_IFREG && (found.mode & bit) !== 0;
}
