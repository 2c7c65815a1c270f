// Who may connect to a 9P server: told by what the kernel says of the other end, and decided before a byte of theirs is read.
// Control plane.

import { errnoName } from "../base/errno.ts";
import { addressOf, isLoopback, LOCAL_CID, SocketOption } from "../sys/address.ts";
import { native } from "../sys/native.ts";

/** Beside the server's own user and root, by unix sockets, and beside this machine, by the others. */
export interface Access {
  readonly users: readonly number[];
  /** IP addresses as addressOf shows them. */
  readonly addresses: readonly string[];
  readonly cids: readonly number[];
}

/** Asked once: a hardened server may not. */
const OWN_USER = process.geteuid?.() ?? 0;

/** Why whoever connected may not; undefined: they may. */
export function refusalOf(fd: number, access: Access): string | undefined {
  const peer = addressOf(fd, true);
  if (typeof peer === "number") return `it can't be told who it is: ${errnoName(peer)}`;
  if (peer.kind === "unix") {
    const user = native.socketOption(fd, SocketOption.peerUser);
    const isKnown = user === 0 || user === OWN_USER || access.users.includes(user);
    return isKnown ? undefined : `user ${user} is not among those allowed`;
  }
  if (peer.kind === "ip") {
    const { address } = peer;
    const isKnown = isLoopback(address) || access.addresses.includes(address);
    return isKnown ? undefined : `${address} is not among those allowed`;
  }
  if (peer.kind === "vsock") {
    const { cid } = peer;
    const isKnown = cid === LOCAL_CID || access.cids.includes(cid);
    return isKnown ? undefined : `CID ${cid} is not among those allowed`;
  }
  return `it comes by a socket of family ${peer.family}`;
}
