// Fences: FDs of directories that lead nowhere else, as far as the process may make them: who has the FD of a directory has all of its file
// system by "..", whatever the process's root is. Control plane.

import { nameOf } from "../base/name.ts";
import { O_DIRECTORY, O_PATH } from "./hostfs.ts";
import { native } from "./native.ts";

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
