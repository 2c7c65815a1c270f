// Mounting FUSE file systems by an FD of our own, with mount(8) and umount(8) of util-linux: Node has no mount(2). man mount.fuse(8),
// fuse(4). Control plane.

import { spawn } from "node:child_process";
import fs from "node:fs";
import { BurrowError } from "../base/error.ts";
import { makeOwnFolder } from "../store/folder.ts";
import { mountedAt } from "../sys/mounted.ts";

const DEVICE = "/dev/fuse";
const READ_AHEAD_KIB = 1024;
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
    await mountDevice(device, folder, "fuse", OPTIONS);
    return device;
  } catch (cause) {
    if (device >= 0) fs.closeSync(device);
    throw new BurrowError("BURROW_DAEMON", "can't mount large files that are on their way", {
      cause,
      context: { folder },
    });
  }
}

/** Mounts a folder by an FD of /dev/fuse. Without a helper program of that name: the FD is ours. Throws what mount(8) says. */
export async function mountDevice(
  device: number,
  folder: string,
  type: string,
  options: string,
): Promise<void> {
  await run("mount", ["-i", "-t", type, "-o", `fd=3,${options}`, "burrow", folder], device);
}

/** Takes away what is mounted at a folder, as often as something is. By force: files that are open would keep their session, and who
 * waits for it, alive. */
export async function unmount(folder: string): Promise<void> {
  while (isMounted(folder)) {
    await run("umount", ["-f", folder]).catch(() => undefined);
    if (isMounted(folder)) await run("umount", ["-l", folder]);
  }
}

export function isMounted(folder: string): boolean {
  return mountedAt(folder) !== undefined;
}

/** Has the kernel read ahead in a mounted file system as much as one request may ask for, where it lets us. Asks its server. */
export async function readAhead(folder: string): Promise<void> {
  const { dev } = await fs.promises.stat(folder, { bigint: true });
  // Linux: dev_t of 8 bits of major number above 8 of minor and more. man makedev(3). An anonymous device has major 0.
  const minor = (dev & 0xffn) | ((dev >> 12n) & 0xfff00n);
  const path = `/sys/class/bdi/0:${minor}/read_ahead_kb`;
  await fs.promises.writeFile(path, String(READ_AHEAD_KIB)).catch(() => undefined);
}

/** Runs a program of the system with an FD at 3. Throws what it says when it fails. */
export function run(
  program: string,
  args: readonly string[],
  fd?: number,
  env?: NodeJS.ProcessEnv,
): Promise<void> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, {
      stdio: ["ignore", "ignore", "pipe", fd ?? "ignore"],
      env: { ...process.env, ...env },
    });
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
