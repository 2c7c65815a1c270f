// Where `burrow serve` listens, and whom it lets in: from what was written on the command line to sockets. Control plane.

import { randomBytes } from "node:crypto";
import { chmodSync, linkSync, lstatSync, rmSync } from "node:fs";
import { isIP, isIPv6 } from "node:net";
import { dirname, resolve } from "node:path";
import { Errno, errnoName } from "../base/errno.ts";
import { BurrowError } from "../base/error.ts";
import { openSocketName, type SocketName } from "../cache/socket-name.ts";
import type { Access } from "../gofer/ninep-access.ts";
import { errnoOf } from "../store/node-error.ts";
import {
  ANY_CID,
  addressOf,
  ipAddress,
  isLoopback,
  LOCAL_CID,
  SocketOption,
  unixAddress,
  vsockAddress,
} from "../sys/address.ts";
import { native } from "../sys/native.ts";

export type ListenAddress =
  | { readonly kind: "unix"; readonly path: string }
  | { readonly kind: "tcp"; readonly host: string; readonly port: number }
  | { readonly kind: "vsock"; readonly cid: number; readonly port: number }
  | { readonly kind: "fd"; readonly fd: number };

/** An open socket, listening or connected. */
export interface ServedSocket {
  readonly fd: number;
  readonly isListening: boolean;
  /** As people write it, with the port that it got. */
  readonly shown: string;
  /** The file of a unix socket, to be removed at the end, and its inode: the name may be another server's by then. */
  readonly path?: string;
  readonly inode?: number;
}

/** Removes the file of a unix socket, if it is still its own. */
export function removeSocketFile({ path, inode }: ServedSocket): void {
  if (path !== undefined && lstatSync(path, { throwIfNoEntry: false })?.ino === inode)
    rmSync(path, { force: true });
}

const U32_MAX = 2 ** 32 - 1;
const ADVICE = "say unix:PATH, tcp:127.0.0.1:PORT, vsock:CID:PORT or fd:N";

function usage(what: string): BurrowError {
  return new BurrowError("BURROW_USAGE", what);
}

function number(text: string, max: number): number | undefined {
  return /^\d{1,10}$/.test(text) && Number(text) <= max ? Number(text) : undefined;
}

/** BURROW_USAGE. */
export function parseListen(text: string): ListenAddress {
  const at = text.indexOf(":");
  const rest = text.slice(at + 1);
  const kind = at < 0 ? "" : text.slice(0, at);
  const bad = () => usage(`--listen: "${text}" is no address; ${ADVICE}`);
  if (kind === "unix" && rest !== "") return { kind, path: resolve(rest) };
  if (kind === "fd") {
    const fd = number(rest, 1_000_000);
    if (fd === undefined || fd < 3) throw bad();
    return { kind, fd };
  }
  const colon = rest.lastIndexOf(":");
  const host = rest.slice(0, Math.max(0, colon));
  const port = number(rest.slice(colon + 1), kind === "tcp" ? 65_535 : U32_MAX);
  if (colon < 0 || port === undefined) throw bad();
  if (kind === "vsock") {
    const cid = host === "any" ? ANY_CID : number(host, U32_MAX);
    if (cid === undefined) throw bad();
    return { kind, cid, port };
  }
  const bare = host === "localhost" ? "127.0.0.1" : host.replace(/^\[(.*)\]$/, "$1");
  if (kind !== "tcp" || isIP(bare) === 0) throw bad();
  return { kind, host: bare, port };
}

/** Whom else to let in: "uid:N", "ip:ADDRESS", "cid:N". BURROW_USAGE. */
export function parseAllowed(texts: readonly string[]): Access {
  const access = { users: [] as number[], addresses: [] as string[], cids: [] as number[] };
  for (const text of texts) {
    const at = text.indexOf(":");
    const rest = text.slice(at + 1);
    const id = number(rest, U32_MAX);
    if (text.startsWith("uid:") && id !== undefined) access.users.push(id);
    else if (text.startsWith("cid:") && id !== undefined) access.cids.push(id);
    else if (text.startsWith("ip:") && isIP(rest) !== 0) access.addresses.push(plainIp(rest));
    else throw usage(`--allow: "${text}" is nobody; say uid:N, ip:ADDRESS or cid:N`);
  }
  return access;
}

/** An IP address as the kernel's bytes. */
function ipBytes(text: string): Uint8Array {
  if (!isIPv6(text)) return Uint8Array.from(text.split(".").map(Number));
  // The URL parser writes an IPv4 tail as groups, and shortens: the one gap is filled with zeros.
  const plain = new URL(`http://[${text}]/`).hostname.slice(1, -1);
  const [head = "", tail] = plain.split("::");
  const groups = (part: string) => (part === "" ? [] : part.split(":"));
  const [front, back] = [groups(head), groups(tail ?? "")];
  const gap = tail === undefined ? 0 : 8 - front.length - back.length;
  const all = [...front, ...new Array<string>(gap).fill("0"), ...back];
  return Uint8Array.from(
    all.flatMap((group) => {
      const value = Number.parseInt(group, 16);
      return [value >> 8, value & 0xff];
    }),
  );
}

/** As addressOf shows it. */
function plainIp(text: string): string {
  const bytes = ipBytes(text);
  if (bytes.length === 4) return bytes.join(".");
  const groups = Array.from({ length: 8 }, (_, i) => (bytes[2 * i]! << 8) | bytes[2 * i + 1]!);
  return groups.map((group) => group.toString(16)).join(":");
}

/**
 * What would let in whoever can reach this machine is refused, unless it is said who may. BURROW_USAGE.
 */
export function checkReach(address: ListenAddress, access: Access): void {
  if (address.kind === "tcp" && !isLoopback(plainIp(address.host)) && access.addresses.length === 0)
    throw usage(
      `--listen: others than this machine reach ${address.host}: say whom to let in by --allow ip:ADDRESS`,
    );
  if (address.kind === "vsock" && address.cid !== LOCAL_CID && access.cids.length === 0)
    throw usage("--listen: say which machines to let in by --allow cid:N");
}

/** Opens the socket. BURROW_USAGE, BURROW_BUSY, BURROW_IO. */
export function openListener(address: ListenAddress, access: Access): ServedSocket {
  if (address.kind === "fd") return takeFd(address.fd);
  if (address.kind === "unix") return listenUnix(address.path, access);
  const bytes =
    address.kind === "tcp"
      ? ipAddress(ipBytes(address.host), address.port)
      : vsockAddress(address.cid, address.port);
  const asked =
    address.kind === "tcp"
      ? `tcp:${address.host}:${address.port}`
      : `vsock:${address.cid === ANY_CID ? "any" : address.cid}:${address.port}`;
  const fd = listenAt(bytes, asked);
  const own = addressOf(fd, false);
  const port = typeof own !== "number" && own.kind === "ip" ? own.port : undefined;
  const shown = port === undefined ? asked : asked.replace(/\d+$/, String(port));
  return { fd, isListening: true, shown };
}

function listenAt(bytes: Uint8Array, shown: string): number {
  const fd = native.listenAt(bytes);
  if (fd >= 0) return fd;
  throw listenFailure(shown, -fd);
}

function listenFailure(shown: string, errno: number): BurrowError {
  const isUsed = errno === EADDRINUSE || errno === Errno.EEXIST;
  const why = isUsed ? "something else listens there" : (REASONS.get(errno) ?? errnoName(-errno));
  const what = `can't listen at ${shown}: ${why}`;
  return new BurrowError(isUsed ? "BURROW_BUSY" : "BURROW_IO", what, { errno });
}

const EADDRINUSE = 98;
/** What these calls fail with beside the errnos that files know. */
const REASONS = new Map<number, string>([
  [97, "this kernel has no such sockets (EAFNOSUPPORT)"],
  [99, "this machine has no such address (EADDRNOTAVAIL)"],
  [Errno.ENOENT, "there is no such folder (ENOENT): make it first"],
  [Errno.EACCES, "EACCES"],
  [Errno.ENODEV, "this machine has no vsock device (ENODEV)"],
]);

/**
 * A file of a socket that nobody listens on is what a killed server left; any other file stays. It has its name once it listens and lets in
 * whom it is to: who waits for the file may connect.
 */
function listenUnix(path: string, access: Access): ServedSocket {
  const shown = `unix:${path}`;
  if (unixAddress(path) === undefined)
    throw usage(`--listen: ${path} is longer than the 107 bytes that a socket's path has`);
  const found = lstatSync(path, { throwIfNoEntry: false });
  if (found !== undefined) {
    if (!found.isSocket()) throw usage(`--listen: ${path} is there, and no socket`);
    const probe = native.connectUnix(path);
    if (probe >= 0) native.closeFd(probe);
    if (probe !== -Errno.ECONNREFUSED)
      throw new BurrowError(
        "BURROW_BUSY",
        `can't listen at ${shown}: something else listens there`,
      );
    rmSync(path, { force: true });
  }
  const aside = nameBeside(path, shown);
  let fd = -1;
  try {
    fd = listenAt(unixAddress(aside.name)!, shown);
    chmodSync(aside.name, access.users.length > 0 ? 0o666 : 0o600);
    linkSync(aside.name, path);
    return { fd, isListening: true, shown, path, inode: lstatSync(path).ino };
  } catch (error) {
    if (fd >= 0) native.closeFd(fd);
    throw error instanceof BurrowError ? error : listenFailure(shown, errnoOf(error).errno);
  } finally {
    rmSync(aside.name, { force: true });
    aside.close();
  }
}

/** A name in the same folder that nothing has. BURROW_IO. */
function nameBeside(path: string, shown: string): SocketName {
  try {
    return openSocketName(dirname(path), `.${randomBytes(6).toString("hex")}`);
  } catch (error) {
    throw listenFailure(shown, errnoOf(error).errno);
  }
}

const SOCK_STREAM = 1;

/** An FD that this process was started with: a stream that listens or is connected. BURROW_USAGE. */
function takeFd(fd: number): ServedSocket {
  const refuse = (why: string) => usage(`--listen: FD ${fd} ${why}`);
  const type = native.socketOption(fd, SocketOption.type);
  if (type === -Errno.EBADF) throw refuse("is not open");
  if (type < 0) throw refuse("is no socket");
  if (type !== SOCK_STREAM) throw refuse("is no stream, which 9P needs");
  const isListening = native.socketOption(fd, SocketOption.isListening) === 1;
  if (!isListening && typeof addressOf(fd, true) === "number")
    throw refuse("neither listens nor is connected");
  if (isListening) native.setNonblock(fd);
  return { fd, isListening, shown: `fd:${fd}` };
}
