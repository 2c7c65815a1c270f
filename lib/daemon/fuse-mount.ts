// Mounting FUSE file systems by an FD of our own, with mount(8) and umount(8) of util-linux: Node has no mount(2). man mount.fuse(8),
// fuse(4). Control plane.

import { spawn } from "node:child_process";
import fs from "node:fs";
import { BurrowError } from "../base/error.ts";
import { makeOwnFolder } from "../store/folder.ts";

const DEVICE = "/dev/fuse";
/** Not noexec: a sentry maps libraries to run them. default_permissions: the kernel judges modes by itself; a gofer in a user namespace is "other". */
const OPTIONS =
  "ro,nosuid,nodev,rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions";

/** An FD of /dev/fuse with which the folder is mounted, the caller's. */
export async function mountFuse(folder: string): Promise<number> {
  let device = -1;
  try {
    await unmount(folder);
    makeOwnFolder(folder, 0o755);
    device = fs.openSync(DEVICE, "r+");
    // Without a helper program of that name: the FD is ours.
    const args = ["-i", "-t", "fuse", "-o", `fd=3,${OPTIONS}`, "burrow", folder];
    await run("mount", args, device);
    return device;
  } catch (cause) {
    if (device >= 0) fs.closeSync(device);
    throw new BurrowError("BURROW_DAEMON", "can't mount large files that are on their way", {
      cause,
      context: { folder },
    });
  }
}

/** Takes away what is mounted at a folder, as often as something is. By force: files that are open would keep their session, and who
 * waits for it, alive. */
export async function unmount(folder: string): Promise<void> {
  while (isMounted(folder)) {
    await run("umount", ["-f", folder]).catch(() => undefined);
    if (isMounted(folder)) await run("umount", ["-l", folder]);
  }
}

/** man proc_pid_mountinfo(5): the fifth field, with spaces and backslashes as octal. */
export function isMounted(folder: string): boolean {
  const shown = folder.replace(
    /[\\ \t\n]/g,
    (c) => `\\${c.charCodeAt(0).toString(8).padStart(3, "0")}`,
  );
  const lines = fs.readFileSync("/proc/self/mountinfo", "latin1").split("\n");
  return lines.some((line) => line.split(" ")[4] === Buffer.from(shown).toString("latin1"));
}

function run(program: string, args: readonly string[], fd?: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { stdio: ["ignore", "ignore", "pipe", fd ?? "ignore"] });
    let output = "";
    child.stderr?.on("data", (bytes) => {
      output += bytes;
    });
    child.once("error", reject);
    child.once("close", (code) => {
      if (code === 0) resolve();
      else reject(new Error(`${program}: ${output.trim() || `status ${code}`}`));
    });
  });
}
