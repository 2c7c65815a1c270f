// Finding processes of this machine by their arguments, whoever started them. Tests only.

import fs from "node:fs";

/** Pids of those whose arguments are such. One that has ended and waits to be reaped has none. man proc_pid_cmdline(5). */
export function pidsOf(isOne: (words: string[]) => boolean): number[] {
  return fs
    .readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) => {
      try {
        return isOne(fs.readFileSync(`/proc/${pid}/cmdline`, "latin1").split("\0"));
      } catch {
        return false; // it ended meanwhile
      }
    });
}
