// Memory kill: whether the kernel killed somebody for want of memory. A sandbox that it killed ends with 137, as one does that was
// killed by hand: its cgroup, which would know, is gone by then. Control plane.

import { readFileSync } from "node:fs";

/** How many processes of this machine the kernel has killed for want of memory, in cgroups or in all; 0 where it doesn't count. */
export function memoryKills(vmstat = "/proc/vmstat"): number {
  try {
    return Number(/^oom_kill (\d+)$/m.exec(readFileSync(vmstat, "utf8"))?.[1] ?? 0);
  } catch {
    return 0;
  }
}

/** What to say of a sandbox that ended so; undefined when nothing points to memory. */
export function memoryNote(
  exitCode: number,
  kills: number,
  memory: string | undefined,
): string | undefined {
  if (exitCode !== 137 || kills <= 0) return undefined;
  const advice =
    memory === undefined
      ? "this machine has too little"
      : `--memory ${memory} is too little for it`;
  return `the sandbox was killed (137), and meanwhile the kernel killed for want of memory: ${advice}`;
}
