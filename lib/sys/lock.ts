// Locks: flock(2), which the kernel gives up when its holder dies, however it dies. Node has no flock, so flock(1) of util-linux takes
// it on our open file: the lock belongs to the open file description, which the two processes share, and stays when flock(1) is gone.
// Control plane.

import { spawnSync } from "node:child_process";

/** Exit status of flock(1) when the lock is taken, set by us so that no other failure looks like it. */
const TAKEN = 99;

/** Takes the lock of an open file, for as long as the FD is open: false when somebody else has it. Throws Error where there are no locks. */
export function lockFile(fd: number): boolean {
  const args = ["--nonblock", "--exclusive", "--conflict-exit-code", String(TAKEN), "3"];
  const result = spawnSync("flock", args, { stdio: ["ignore", "ignore", "pipe", fd] });
  if (result.status === 0) return true;
  if (result.status === TAKEN) return false;
  const said = String(result.stderr ?? "").trim();
  throw new Error(`flock (util-linux) failed${said === "" ? "" : `: ${said}`}`, {
    cause: result.error,
  });
}
