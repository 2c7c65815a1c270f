// Guard of a mount: a shell that waits for the end of the command that mounted, and takes the mount away if that was killed and couldn't.
// The server can't: once it is hardened it starts no program. Control plane.

import { spawn } from "node:child_process";
import type { Socket } from "node:net";
import { mountinfoPath } from "../sys/mounted.ts";
import { detachCommand } from "./mountpoint.ts";

/**
 * `sh -c SCRIPT sh PATH DEVICE COMMAND…`: a line on stdin ends it; when that ends without one, it runs the command, if the topmost mount at
 * the path is of that device: what is mounted over it is another's. Fields of mountinfo as in lib/sys/mounted.ts. Signals of a terminal are for the command.
 */
const SCRIPT = `
trap "" HUP INT TERM
read -r _ && exit
while read -r _ _ device _ at _; do
  if [ "$at" = "$1" ]; then top=$device; fi
done </proc/self/mountinfo
[ "$top" = "$2" ] && shift 2 && exec "$@"
`;

/** Guards the mount of that device (as mountedAt has it) at a path, until this process ends or what is given is called. */
export function guard(path: string, device: string): () => void {
  const words = [mountinfoPath(path), device, ...detachCommand(path, true)];
  const child = spawn("sh", ["-c", SCRIPT, "sh", ...words], {
    cwd: "/",
    stdio: ["pipe", "ignore", "ignore"],
  });
  const stdin = child.stdin as Socket;
  // Without a guard a killed command leaves its mount, which the next one sweeps away.
  child.on("error", () => {});
  stdin.on("error", () => {});
  child.unref();
  stdin.unref();
  // Nor may it look: the next mount there may have the same device.
  return () => stdin.end("\n");
}
