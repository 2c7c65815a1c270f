// Mounted: what is mounted at a path of this host, as this process's mount namespace has it. Any plane.

import fs from "node:fs";

export interface Mounted {
  /** Of the file system, as in "fuse.burrow". */
  readonly type: string;
  /** "MAJOR:MINOR": of no other file system as long as this one is mounted or open. */
  readonly device: string;
}

/** A path as mountinfo has it: blanks and backslashes as octal. */
export function mountinfoPath(path: string): string {
  return path.replace(/[\\ \t\n]/g, (c) => `\\${c.charCodeAt(0).toString(8).padStart(3, "0")}`);
}

/**
 * What is mounted at a folder, the last where there are several, which hides the others; undefined: nothing is. man
 * proc_pid_mountinfo(5): the device is the third field, the path the fifth; the type follows a dash. The folder itself isn't asked.
 */
export function mountedAt(folder: string): Mounted | undefined {
  const path = Buffer.from(mountinfoPath(folder)).toString("latin1");
  const lines = fs.readFileSync("/proc/self/mountinfo", "latin1").split("\n");
  const found = lines.map((line) => line.split(" ")).findLast((fields) => fields[4] === path);
  return found && { type: found[found.indexOf("-", 6) + 1]!, device: found[2]! };
}
