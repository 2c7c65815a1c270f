// What tests ask of a LISAFS server, by name: walk, open, read, … over a LisafsClient, with replies decoded. A helper throws
// when the server answers an errno, unless it says that it returns one. Tests and benches only.

import { errnoName } from "../../lib/base/errno.ts";
import { native } from "../../lib/sys/native.ts";
import type { Request } from "../../lib/wire/lisafs/message.ts";
import { Mid, midName } from "../../lib/wire/lisafs/mid.ts";
import type { LisafsClient, Reply } from "./lisafs-client.ts";

/** Statx, 144 bytes: lisafs-wire section 3.1. Read without the server's code, so that a mistake in it shows. */
export interface Stat {
  readonly mask: number;
  readonly blockSize: number;
  readonly nlink: number;
  readonly uid: number;
  readonly gid: number;
  readonly mode: number;
  readonly ino: number;
  readonly size: number;
  readonly blocks: number;
  readonly atimeSec: number;
  readonly atimeNs: number;
  readonly ctimeSec: number;
  readonly ctimeNs: number;
  readonly mtimeSec: number;
  readonly mtimeNs: number;
  readonly rdevMajor: number;
  readonly rdevMinor: number;
  readonly devMajor: number;
  readonly devMinor: number;
}

export interface Inode {
  readonly fd: number;
  readonly stat: Stat;
}

export interface Dirent {
  readonly ino: number;
  readonly devMinor: number;
  readonly devMajor: number;
  readonly offset: number;
  readonly type: number;
  readonly name: string;
}

const INODE_BYTES = 152;
const STATX_BYTES = 144;

/** The errno of a message, 0 when it went well. FDs that came are closed. */
export function errnoOf(
  client: LisafsClient,
  mid: number,
  fields: Partial<Request> = {},
  data?: Uint8Array,
): number {
  const { errno, fds } = client.call(mid, fields, data);
  for (const fd of fds) native.closeFd(fd);
  return errno;
}

/** The reply of a message that must go well. */
export function must(
  client: LisafsClient,
  mid: number,
  fields: Partial<Request> = {},
  data?: Uint8Array,
): Reply {
  const reply = client.call(mid, fields, data);
  if (reply.errno !== 0) throw new Error(`${midName(mid)}: ${errnoName(reply.errno)}`);
  return reply;
}

export function statAt(payload: Buffer, at: number): Stat {
  const u32 = (offset: number) => payload.readUInt32LE(at + offset);
  const u64 = (offset: number) => Number(payload.readBigUInt64LE(at + offset));
  const i64 = (offset: number) => Number(payload.readBigInt64LE(at + offset));
  return {
    mask: u32(0),
    blockSize: u32(4),
    nlink: u32(16),
    uid: u32(20),
    gid: u32(24),
    mode: payload.readUInt16LE(at + 28),
    ino: u64(32),
    size: u64(40),
    blocks: u64(48),
    atimeSec: i64(64),
    atimeNs: u32(72),
    ctimeSec: i64(96),
    ctimeNs: u32(104),
    mtimeSec: i64(112),
    mtimeNs: u32(120),
    rdevMajor: u32(128),
    rdevMinor: u32(132),
    devMajor: u32(136),
    devMinor: u32(140),
  };
}

export function inodeAt(payload: Buffer, at: number): Inode {
  return { fd: Number(payload.readBigUInt64LE(at)), stat: statAt(payload, at + 8) };
}

/** Names as people write them, as latin1 of their UTF-8. */
export function bytesOf(text: string): string {
  return Buffer.from(text, "utf8").toString("latin1");
}

export interface Walked {
  readonly status: number;
  readonly inodes: Inode[];
}

export function walk(client: LisafsClient, fd: number, ...names: string[]): Walked {
  const { payload } = must(client, Mid.Walk, { fd, names });
  const inodes: Inode[] = [];
  for (let i = 0; i < payload.readUInt16LE(1); i++) {
    inodes.push(inodeAt(payload, 3 + i * INODE_BYTES));
  }
  return { status: payload.readUInt8(0), inodes };
}

/** The control FD at the end of a path that must exist. */
export function walkTo(client: LisafsClient, path: string, from = client.rootFd): number {
  const names = path.split("/").filter((name) => name !== "");
  if (names.length === 0) return from;
  const { inodes } = walk(client, from, ...names);
  if (inodes.length !== names.length) throw new Error(`walk of ${path} ends early`);
  return inodes.at(-1)!.fd;
}

export function walkStat(client: LisafsClient, fd: number, ...names: string[]): Stat[] {
  const { payload } = must(client, Mid.WalkStat, { fd, names });
  const stats: Stat[] = [];
  for (let i = 0; i < payload.readUInt16LE(0); i++) {
    stats.push(statAt(payload, 2 + i * STATX_BYTES));
  }
  return stats;
}

export function stat(client: LisafsClient, fd: number): Stat {
  return statAt(must(client, Mid.FStat, { fd }).payload, 0);
}

export interface Opened {
  readonly fd: number;
  /** The donated host FD or -1; the caller's. */
  readonly hostFd: number;
}

export function open(client: LisafsClient, fd: number, flags = 0): Opened {
  const { payload, fds } = must(client, Mid.OpenAt, { fd, flags });
  return { fd: Number(payload.readBigUInt64LE(0)), hostFd: fds[0] ?? -1 };
}

/** Opens the file at a path and closes what was donated. */
export function openPath(client: LisafsClient, path: string, flags = 0): number {
  const { fd, hostFd } = open(client, walkTo(client, path), flags);
  if (hostFd >= 0) native.closeFd(hostFd);
  return fd;
}

export function read(client: LisafsClient, fd: number, offset: number, count: number): Buffer {
  const { payload } = must(client, Mid.PRead, { fd, offset, count });
  const got = Number(payload.readBigUInt64LE(0));
  if (payload.length !== 8 + got) throw new Error("PRead's count differs from its bytes");
  return payload.subarray(8);
}

export function write(client: LisafsClient, fd: number, offset: number, data: Uint8Array): number {
  return Number(must(client, Mid.PWrite, { fd, offset }, data).payload.readBigUInt64LE(0));
}

export function close(client: LisafsClient, ...fds: number[]): void {
  must(client, Mid.Close, { fds });
}

/** The dentries of one reply. */
export function getdents(client: LisafsClient, fd: number, count: number): Dirent[] {
  const { payload } = must(client, Mid.Getdents64, { fd, count });
  const dirents: Dirent[] = [];
  let at = 2;
  for (let i = 0; i < payload.readUInt16LE(0); i++) {
    const length = payload.readUInt16LE(at + 25);
    dirents.push({
      ino: Number(payload.readBigUInt64LE(at)),
      devMinor: payload.readUInt32LE(at + 8),
      devMajor: payload.readUInt32LE(at + 12),
      offset: Number(payload.readBigUInt64LE(at + 16)),
      type: payload.readUInt8(at + 24),
      name: payload.toString("latin1", at + 27, at + 27 + length),
    });
    at += 27 + length;
  }
  if (at !== payload.length) throw new Error("Getdents64's count differs from its bytes");
  return dirents;
}

/** Lists a directory as the sentry does: a rewind, then on to an empty reply. */
export function list(client: LisafsClient, fd: number, budget = 65_536): Dirent[] {
  const all: Dirent[] = [];
  for (let count = -budget; ; count = budget) {
    const part = getdents(client, fd, count);
    if (part.length === 0) return all;
    all.push(...part);
  }
}

/** All bytes of a host FD. */
export function contentOf(hostFd: number): Buffer {
  const facts = new Float64Array(5);
  native.statFd(hostFd, facts);
  const bytes = Buffer.alloc(facts[0]!);
  const got = native.preadFd(hostFd, bytes, 0);
  if (got !== bytes.length) throw new Error(`pread: ${got} of ${bytes.length}`);
  return bytes;
}
