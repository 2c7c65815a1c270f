// How many files a process may have open here: the hard RLIMIT_NOFILE, to which those that need many raise theirs. Tests only.

import { readFileSync } from "node:fs";

/** Why a test that needs so many has to be skipped; false when it doesn't. man proc_pid_limits(5) */
export function fewOpenFiles(needed: number): string | false {
  const limits = readFileSync("/proc/self/limits", "utf8");
  const [, hard] = /^Max open files +\d+ +(\d+)/m.exec(limits) ?? [];
  return hard !== undefined && Number(hard) < needed
    ? `a process may have ${hard} files open, and this needs ${needed}`
    : false;
}
