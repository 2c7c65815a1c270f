// How many files this process may have open. Any plane.

import fs from "node:fs";

/** RLIMIT_NOFILE of this process: Node has raised it as far as it may. man proc_pid_limits(5). */
export function openFilesLimit(): number {
  const limit = /^Max open files\s+(\d+)/m.exec(fs.readFileSync("/proc/self/limits", "utf8"));
  return limit === null ? Number.POSITIVE_INFINITY : Number(limit[1]);
}
