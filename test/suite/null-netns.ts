// The network namespace that a runsc of 2026 keeps for all sandboxes of a --root, by mounts in it that it never takes away: more than
// one where several were started at once.

import { spawnSync } from "node:child_process";
import { join } from "node:path";

export const NULL_NETNS = "null-netns";

/** Takes them out of a runsc's --root. */
export function unmountNullNetns(root: string): void {
  while (spawnSync("umount", [join(root, NULL_NETNS)], { stdio: "ignore" }).status === 0);
}
