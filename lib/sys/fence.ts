// Fences: FDs of directories that lead nowhere else, as far as the process may make them: who has the FD of a directory has all of its file
// system by "..", whatever the process's root is. Control plane.

import { nameOf } from "../base/name.ts";
import { O_DIRECTORY, O_PATH } from "./hostfs.ts";
import { native } from "./native.ts";

const OWN_FDS = "/proc/self/fd";

/**
 * An O_PATH FD of a directory by its path as people write it, of a mount of its own that is attached nowhere: ".." of it is itself. Where the process may not make
 * mounts, of the directory itself. -errno of open(2). Needs CAP_SYS_ADMIN over the mount namespace.
 */
export function openFenced(path: string): number {
  // By a path that ends in a mount its file system is asked nothing. man open(2), O_PATH.
  const fd = native.openAt(-1, nameOf(path), O_PATH | O_DIRECTORY, 0);
  const fenced = fd < 0 ? fd : native.fenceFd(fd);
  if (fenced < 0) return fd;
  native.closeFd(fd);
  return fenced;
}

let keptFds = -1;

/** Keeps /proc/self/fd for the functions below, for who opens trees when no path leads anywhere any more: 0 or -errno. */
export function keepOwnFds(): number {
  if (keptFds < 0) keptFds = openFenced(OWN_FDS);
  return Math.min(keptFds, 0);
}

/** An FD of /proc/self/fd, fenced: the caller's. */
export function openOwnFds(): number {
  return keptFds < 0 ? openFenced(OWN_FDS) : native.dupFd(keptFds);
}

/** Opens the file of an FD of ours anew. */
export function openAnew(fd: number, flags: number): number {
  if (keptFds < 0) return native.openAt(-1, `${OWN_FDS}/${fd}`, flags, 0);
  return native.openAt(keptFds, `${fd}`, flags, 0);
}
