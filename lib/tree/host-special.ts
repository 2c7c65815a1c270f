// FIFOs and Unix sockets of a host tree: what of them a sandbox may open, make and connect to, as runsc's flags say (--host-fifo,
// --host-uds). Nothing by default: the host's are not the sandbox's. Data plane.

import { Errno } from "../base/errno.ts";
import { S_IFSOCK } from "../base/file-types.ts";
import type { Name } from "../base/name.ts";
import { hostFs, StatField } from "../sys/hostfs.ts";
import { native } from "../sys/native.ts";
import type { HostParts } from "./host-nodes.ts";
import type { CreateRequest, Ino, OpenResult } from "./tree.ts";

/** What runsc's flags allow. runsc: config.go HostUDS, HostFifo. */
export interface SpecialFiles {
  readonly opensFifos: boolean;
  readonly connectsSockets: boolean;
  readonly bindsSockets: boolean;
}

export const NO_SPECIAL_FILES: SpecialFiles = {
  opensFifos: false,
  connectsSockets: false,
  bindsSockets: false,
};

/** SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET. <bits/socket_type.h> */
const SOCK_TYPES = [1, 2, 5];

/** Of type 0 any: the first that the other end is of, too. -ECONNREFUSED for what is no socket, and when nobody listens. */
export function connect(parts: HostParts, ino: Ino, sockType: number): number {
  const node = parts.nodes.get(ino);
  if (node === undefined) return -Errno.EBADF;
  if (node.type !== S_IFSOCK) return -Errno.ECONNREFUSED;
  if (sockType !== 0 && !SOCK_TYPES.includes(sockType)) return -Errno.ENXIO;
  let result = -Errno.EINVAL;
  for (const type of sockType === 0 ? SOCK_TYPES : [sockType]) {
    result = hostFs.connectAt(parts.procFd, node.fd, type);
    if (result !== -Errno.EPROTOTYPE) break;
  }
  return result;
}

export function bind(
  parts: HostParts,
  dir: Ino,
  name: Name,
  sockType: number,
  { mode, uid, gid }: CreateRequest,
  out: OpenResult,
): number {
  const { nodes, files, share, procFd, stat } = parts;
  const parent = nodes.get(dir);
  if (parent === undefined) return -Errno.EBADF;
  if (!SOCK_TYPES.includes(sockType)) return -Errno.ENXIO;
  if (!nodes.hasRoom || !files.hasRoom || !share.hasRoom(2)) return -Errno.EMFILE;
  const fd = hostFs.bindAt(procFd, parent.fd, name, sockType, mode, uid, gid, stat);
  if (fd < 0) return fd;
  const socketFd = stat[StatField.openFd]!;
  const ino = nodes.take(fd, stat);
  if (ino < 0) {
    native.closeFd(socketFd);
    hostFs.unlinkAt(parent.fd, name, false);
    return ino;
  }
  out.handle = files.take(socketFd);
  out.hostFd = socketFd;
  out.ownsFd = false;
  return ino;
}

/** The FD never blocks its new owner, who polls it. */
export function accept(parts: HostParts, handle: number): number {
  const fd = parts.files.get(handle);
  if (fd < 0) return fd;
  const peer = native.acceptPeer(fd);
  if (peer >= 0) native.setNonblock(peer);
  return peer;
}
