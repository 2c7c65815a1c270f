// Upper: the query's own tmpfs: a Linux tmpfs that is attached nowhere, under a writable host tree. The kernel keeps
// the quota, for writes through donated FDs too, and frees everything with the last FD.
// docs/design/0002-upper-on-tmpfs.md says why. Control plane; the tree it makes is of the data plane.

import { Errno } from "../base/errno.ts";
import { HostFd } from "../sys/host-fd.ts";
import { newTmpfs } from "../sys/new-mount.ts";
import { HostTree } from "./host.ts";
import { isWritable, type WritableTree } from "./tree.ts";

export type Upper = HostTree & WritableTree;

export interface UpperOptions {
  /** Bytes of content: whole pages of files, and of symlink targets too long for their inode. At least a page. */
  readonly sizeBytes: number;
  /**
   * Inodes, as tmpfs counts them: the root is one, each further hard link is one, and user xattrs take from them
   * (a part of one per 1,024 bytes). At least 2.
   */
  readonly inodes: number;
  /** Permissions of its root, e.g. 0o1777. */
  readonly mode: number;
}

const PAGE_BYTES = 4096;

/**
 * A new, empty upper. -EPERM when the process has no CAP_SYS_ADMIN over its mount namespace: make it before
 * capabilities are dropped. -EINVAL for a quota under a page or 2 inodes: to tmpfs 0 would mean no limit at all.
 */
export function createUpper(options: UpperOptions): Upper | number {
  const fd = createUpperFd(options);
  return typeof fd === "number" ? fd : openUpper(fd);
}

/** The mount of a new upper alone: for a stub that keeps it and has it served by one server after another. */
export function createUpperFd(options: UpperOptions): HostFd | number {
  const { sizeBytes, inodes, mode } = options;
  if (!(sizeBytes >= PAGE_BYTES && inodes >= 2)) return -Errno.EINVAL;
  if (!(Number.isSafeInteger(sizeBytes) && Number.isSafeInteger(inodes))) return -Errno.EINVAL;
  const fd = newTmpfs(sizeBytes, inodes, mode);
  return fd < 0 ? fd : new HostFd(fd);
}

/** The tree over an upper's mount, which it takes. Its files are as the last server left them. */
export function openUpper(mount: HostFd): Upper | number {
  const tree = HostTree.take(mount, { isReadOnly: false, isScratch: true });
  if (typeof tree === "number") return tree;
  return isWritable(tree) ? tree : -Errno.EROFS;
}
