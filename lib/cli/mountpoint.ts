// Mountpoint: a directory of the host where a view is, or shall be, mounted by FUSE: by root with mount(8), by others with fusermount3,
// which is set-user-ID root and hands the FD of /dev/fuse over. man mount.fuse3(8), fusermount3(1). Control plane.

import fs from "node:fs";
import { basename, dirname, join } from "node:path";
import { errnoName } from "../base/errno.ts";
import { BurrowError } from "../base/error.ts";
import { mountDevice, readAhead, run } from "../daemon/fuse-mount.ts";
import { errnoOf } from "../store/node-error.ts";
import { mountedAt } from "../sys/mounted.ts";
import { native } from "../sys/native.ts";

const DEVICE = "/dev/fuse";
/** What mountinfo(5) and df(1) show: the type of burrow's own mounts. */
const TYPE = "fuse.burrow";
const HELPER = "fusermount3";
const SOCK_STREAM = 1;

export interface MountRights {
  readonly isReadOnly: boolean;
  /** Other users than the one who mounts may look in, as the modes of the files let them. */
  readonly allowsOthers: boolean;
}

const isRoot = () => process.getuid?.() === 0;

/** The path of a mountpoint without symlinks. Its own directory isn't asked: a stale mount doesn't answer. BURROW_USAGE. */
export function mountpointOf(text: string): string {
  try {
    const path = join(fs.realpathSync(dirname(text)), basename(text));
    if (mountedAt(path) !== undefined) return path;
    return fs.realpathSync(text);
  } catch (cause) {
    throw new BurrowError("BURROW_USAGE", `${text} is no directory to mount at`, { cause });
  }
}

/**
 * Refuses a mountpoint that would hide what a view's server itself reads: it would wait for itself, and all that looks there with it.
 * BURROW_USAGE with the first of `places` that lies there; paths of this host, each there or not yet.
 */
export function refuseHiding(path: string, places: readonly string[]): void {
  const below = path === "/" ? "/" : `${path}/`;
  const hidden = ["/", ...places].map(realPath).find((each) => `${each}/`.startsWith(below));
  if (hidden === undefined) return;
  const what = hidden === "/" ? "all of this host" : `${hidden}, which burrow needs`;
  throw new BurrowError("BURROW_USAGE", `a view at ${path} would hide ${what}: name another place`);
}

/** Without symlinks, as far as it is there. */
function realPath(path: string): string {
  try {
    return fs.realpathSync(path);
  } catch {
    return path === "/" ? path : join(realPath(dirname(path)), basename(path));
  }
}

/** Whether burrow has something mounted there, alive or not. */
export function isBurrows(path: string): boolean {
  return mountedAt(path)?.type === TYPE;
}

/** Takes away what a server of ours left at a path that was killed. One that lives is left alone. */
export async function sweep(path: string): Promise<void> {
  while (isBurrows(path)) {
    // Not stat(2), which the kernel answers by itself for as long as it may remember.
    const isStale = await fs.promises.statfs(path).then(
      () => false,
      (error) => errnoOf(error).code === "ENOTCONN",
    );
    if (!isStale) return;
    await detach(path, true);
  }
}

/** Has a directory there to mount at. BURROW_USAGE for what is none, and for a mount of ours that lives. */
export async function clear(path: string): Promise<void> {
  await sweep(path);
  const what = `burrow has a view mounted at ${path} already; end it: burrow umount ${path}`;
  if (isBurrows(path)) throw new BurrowError("BURROW_USAGE", what);
  if (fs.statSync(path).isDirectory()) return;
  throw new BurrowError("BURROW_USAGE", `${path} is no directory`);
}

/** Mounts at a path: the FD of /dev/fuse, the caller's. Until someone answers there, who looks in waits. BURROW_IO. */
export async function attach(path: string, rights: MountRights): Promise<number> {
  const options = [
    rights.isReadOnly ? "ro" : "rw",
    // Always: nothing in a view is trusted to be this host's.
    ...["nosuid", "nodev", "default_permissions"],
    ...(rights.allowsOthers ? ["allow_other"] : []),
  ].join(",");
  try {
    return isRoot() ? await attachAsRoot(path, options) : await attachByHelper(path, options);
  } catch (cause) {
    const what = `can't mount at ${path}`;
    throw new BurrowError("BURROW_IO", `${what}${adviceOf(cause)}`, { cause });
  }
}

async function attachAsRoot(path: string, options: string): Promise<number> {
  const device = fs.openSync(DEVICE, "r+");
  try {
    await mountDevice(device, path, TYPE, `${options},rootmode=40000,user_id=0,group_id=0`);
    return device;
  } catch (error) {
    fs.closeSync(device);
    throw error;
  }
}

/** libfuse, util/fusermount.c: the helper sends the FD over the socket that $_FUSE_COMMFD names. */
async function attachByHelper(path: string, options: string): Promise<number> {
  const ends = new Int32Array(2);
  const failed = native.socketPair(SOCK_STREAM, ends);
  if (failed < 0) throw new Error(`no socket: ${errnoName(failed)}`);
  const [own, theirs] = [ends[0]!, ends[1]!];
  try {
    const words = ["-o", `${options},fsname=burrow,subtype=burrow`, "--", path];
    await run(HELPER, words, theirs, { _FUSE_COMMFD: "3" });
    const fds = new Int32Array(2);
    native.receiveMessage(own, Buffer.alloc(1), fds, 0);
    if (fds[0] === 1) return fds[1]!;
    throw new Error(`${HELPER} gave no FD`);
  } finally {
    native.closeFd(own);
    native.closeFd(theirs);
  }
}

/** What to do about the usual causes. */
function adviceOf(cause: unknown): string {
  const { code, path, syscall } = cause as NodeJS.ErrnoException;
  if (code === "ENOENT" && path === DEVICE)
    return ": this kernel has no FUSE here; load it (modprobe fuse), or give the container /dev/fuse";
  if (code === "EPERM" || (code === "EACCES" && path === DEVICE))
    return `: ${DEVICE} is not for us; a container needs the device and CAP_SYS_ADMIN`;
  // EACCES: a folder of PATH is not for this user.
  if ((code === "ENOENT" || code === "EACCES") && syscall?.endsWith(HELPER))
    return `: who isn't root needs ${HELPER}; install the package fuse3`;
  if (/user_allow_other/.test(String(cause)))
    return ": others may look in only with user_allow_other in /etc/fuse.conf";
  return "";
}

/** After the server has answered: what only a mount that works can be told. */
export async function tune(path: string): Promise<void> {
  if (isRoot()) await readAhead(path);
}

/** The command that takes a mount of ours away; `isLazy`: even though files are open there, which goes on until they are closed. */
export function detachCommand(path: string, isLazy: boolean): readonly [string, ...string[]] {
  // Its path has no symlinks: without -c umount(8) looks for some and asks the server, which may hang.
  return isRoot()
    ? ["umount", "-i", "-c", ...(isLazy ? ["-l"] : []), path]
    : [HELPER, "-u", ...(isLazy ? ["-z"] : []), "--", path];
}

/** Runs that. Throws what umount(8) says. */
export async function detach(path: string, isLazy: boolean): Promise<void> {
  const [program, ...words] = detachCommand(path, isLazy);
  await run(program, words);
}
