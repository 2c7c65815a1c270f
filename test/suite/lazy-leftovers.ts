// A lazy mount that a daemon left, to the holder or to nobody: ended and unmounted at the end of a test. Test support.

import { spawnSync } from "node:child_process";
import fs from "node:fs";
import { pidOf } from "../../lib/sys/owner.ts";

/** How often something is mounted where the daemon of a cache mounts large files that are on their way. */
export function lazyMountsOf(cache: string): number {
  const lines = fs.readFileSync("/proc/self/mountinfo", "utf8").split("\n");
  return lines.filter((line) => line.split(" ")[4] === `${cache}/lazy`).length;
}

/** Ends who holds the mount for the next daemon, and the mount. */
export function removeLazyMount(cache: string): void {
  const path = `${cache}/lazy.state`;
  if (fs.existsSync(path)) {
    const { holder } = JSON.parse(fs.readFileSync(path, "utf8").split("\n")[0]!);
    const pid = pidOf(holder);
    if (pid !== undefined) process.kill(-pid, "SIGKILL");
  }
  if (lazyMountsOf(cache) === 0) return;
  spawnSync("umount", ["-f", `${cache}/lazy`]);
  spawnSync("umount", ["-l", `${cache}/lazy`]);
}
