// Addresses of sockets as the kernel has them, struct sockaddr, from and to what people write: unix, IPv4, IPv6 and vsock. man unix(7),
// ip(7), ipv6(7), vsock(7). Any plane.

import { viewOf } from "../base/bytes.ts";
import { native } from "./native.ts";

const Family = { unix: 1, ipv4: 2, ipv6: 10, vsock: 40 } as const;
/** sun_path with its NUL. */
const UNIX_PATH_BYTES = 108;
const ADDRESS_BYTES = 128;
/** vsock: any CID, and the machine's own. linux/vm_sockets.h VMADDR_CID_ANY and VMADDR_CID_LOCAL. */
export const ANY_CID = 0xffff_ffff;
export const LOCAL_CID = 1;

/** asm-generic/socket.h: SO_TYPE, SO_PEERCRED (the user id of who connected a unix socket), SO_ACCEPTCONN. */
export const SocketOption = { type: 3, peerUser: 17, isListening: 30 } as const;

/** Who is at an end of a socket. Addresses are as people write them. */
export type Peer =
  | { readonly kind: "unix" }
  | { readonly kind: "ip"; readonly address: string; readonly port: number }
  | { readonly kind: "vsock"; readonly cid: number; readonly port: number }
  | { readonly kind: "other"; readonly family: number };

/** The address of a unix socket's path; undefined when the kernel takes none so long (107 bytes). */
export function unixAddress(path: string): Uint8Array | undefined {
  const bytes = Buffer.from(path, "utf8");
  if (bytes.length >= UNIX_PATH_BYTES) return undefined;
  const out = Buffer.alloc(2 + UNIX_PATH_BYTES);
  out.writeUInt16LE(Family.unix, 0);
  out.set(bytes, 2);
  return out;
}

/** The address of an IPv4 or IPv6 address, its 4 or 16 bytes, and a port. */
export function ipAddress(bytes: Uint8Array, port: number): Uint8Array {
  const isSix = bytes.length === 16;
  const out = Buffer.alloc(isSix ? 28 : 16);
  out.writeUInt16LE(isSix ? Family.ipv6 : Family.ipv4, 0);
  out.writeUInt16BE(port, 2);
  out.set(bytes, isSix ? 8 : 4);
  return out;
}

export function vsockAddress(cid: number, port: number): Uint8Array {
  const out = Buffer.alloc(16);
  out.writeUInt16LE(Family.vsock, 0);
  out.writeUInt32LE(port, 4);
  out.writeUInt32LE(cid, 8);
  return out;
}

/** Who is at the other end of a socket, or at this one: -errno when it is none, or not connected. */
export function addressOf(fd: number, ofPeer: boolean): Peer | number {
  const out = new Uint8Array(ADDRESS_BYTES);
  const length = native.socketAddress(fd, ofPeer, out);
  if (length < 0) return length;
  const view = viewOf(out);
  const family = view.getUint16(0, true);
  if (family === Family.unix) return { kind: "unix" };
  const port = view.getUint16(2, false);
  if (family === Family.ipv4) return { kind: "ip", address: out.subarray(4, 8).join("."), port };
  if (family === Family.ipv6) return { kind: "ip", address: showIpv6(out.subarray(8, 24)), port };
  return family === Family.vsock
    ? { kind: "vsock", cid: view.getUint32(8, true), port: view.getUint32(4, true) }
    : { kind: "other", family };
}

/** Eight groups, none left out; an IPv4 address that came in by an IPv6 socket as the IPv4 address that it is. */
function showIpv6(bytes: Uint8Array): string {
  const view = viewOf(bytes);
  const groups = Array.from({ length: 8 }, (_, i) => view.getUint16(2 * i, false));
  const isMapped = groups.slice(0, 5).every((group) => group === 0) && groups[5] === 0xffff;
  if (isMapped) return bytes.subarray(12).join(".");
  return groups.map((group) => group.toString(16)).join(":");
}

/** The machine itself: 127.0.0.0/8 and ::1, as addressOf shows them. */
export function isLoopback(address: string): boolean {
  return address.startsWith("127.") || address === "0:0:0:0:0:0:0:1";
}
