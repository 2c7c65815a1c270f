// Extended attributes of a host tree: the user.* ones of regular files and directories. security.* and trusted.* are
// the host's own and system.* are ACLs that the sentry would not honour: absent to a reader, EPERM to a writer.
// Data plane.

import { latin1At } from "../base/bytes.ts";
import { Errno } from "../base/errno.ts";
import { S_IFDIR, S_IFREG } from "../base/file-types.ts";
import { hostFs } from "../sys/hostfs.ts";
import { native } from "../sys/native.ts";
import type { HostParts } from "./host-nodes.ts";
import { type Ino, O_RDONLY } from "./tree.ts";

const USER = "user.";
const HIDDEN = ["security.", "trusted.", "system."];
/** Largest list of names the kernel gives. <linux/limits.h> XATTR_LIST_MAX. */
const LIST_MAX_BYTES = 65_536;

const names = Buffer.alloc(LIST_MAX_BYTES);

/** Whether a name may be used: 0, `hidden` for one of the host's, -EOPNOTSUPP for no namespace at all. man xattr(7). */
function check(name: string, hidden: number): number {
  if (name.startsWith(USER)) return 0;
  for (const prefix of HIDDEN) if (name.startsWith(prefix)) return hidden;
  return -Errno.EOPNOTSUPP;
}

/** An FD that xattr calls take, the caller's: -EOPNOTSUPP for what is neither file nor directory. */
function openNode(parts: HostParts, ino: Ino): number {
  const node = parts.nodes.get(ino);
  if (node === undefined) return -Errno.EBADF;
  if (node.type !== S_IFREG && node.type !== S_IFDIR) return -Errno.EOPNOTSUPP;
  return hostFs.reopenFd(parts.procFd, node.fd, O_RDONLY);
}

export function get(parts: HostParts, ino: Ino, name: string, out: Uint8Array): number {
  const fd = openNode(parts, ino);
  if (fd < 0) return fd;
  const bad = check(name, -Errno.ENODATA);
  const length = bad < 0 ? bad : hostFs.getXattr(fd, name, out);
  native.closeFd(fd);
  // To a buffer of 0 bytes the kernel answers with the length.
  return length > out.length ? -Errno.ERANGE : length;
}

/** The user.* names. A symlink or special file has none. */
export function list(parts: HostParts, ino: Ino, out: Uint8Array): number {
  const fd = openNode(parts, ino);
  if (fd < 0) return fd === -Errno.EOPNOTSUPP ? 0 : fd;
  const length = hostFs.listXattr(fd, names);
  native.closeFd(fd);
  if (length < 0) return length;
  let start = 0;
  let copied = 0;
  for (let end = 0; end < length; end++) {
    if (names[end] !== 0) continue;
    if (latin1At(names, start, start + USER.length) === USER) {
      if (copied + end + 1 - start > out.length) return -Errno.ERANGE;
      out.set(names.subarray(start, end + 1), copied);
      copied += end + 1 - start;
    }
    start = end + 1;
  }
  return copied;
}

export function set(
  parts: HostParts,
  ino: Ino,
  name: string,
  value: Uint8Array,
  flags: number,
): number {
  const bad = check(name, -Errno.EPERM);
  const fd = bad < 0 ? bad : openNode(parts, ino);
  if (fd < 0) return fd;
  const failed = hostFs.setXattr(fd, name, value, flags);
  native.closeFd(fd);
  return failed;
}

export function remove(parts: HostParts, ino: Ino, name: string): number {
  const bad = check(name, -Errno.EPERM);
  const fd = bad < 0 ? bad : openNode(parts, ino);
  if (fd < 0) return fd;
  const failed = hostFs.removeXattr(fd, name);
  native.closeFd(fd);
  return failed;
}
