// The messages of the kernel's FUSE client that a read-only, flat file system needs, and what all FUSE servers share; request.ts and
// reply.ts have those of a whole tree. Source: Linux, include/uapi/linux/fuse.h, protocol 7.31 and later; man fuse(4). Requests are
// read from a buffer, replies written into one; neither is kept. Integers are the machine's own, little-endian here. Pure;
// data-plane rules.

import { getU64, setU64, viewOf } from "../../base/bytes.ts";

/** The oldest minor version of protocol 7 that is spoken: has FUSE_MAX_PAGES and FUSE_NO_OPEN_SUPPORT. Linux 5.2. */
export const FUSE_MAJOR = 7;
export const FUSE_MINOR_MIN = 31;
const FUSE_MINOR = 45;

/** Bytes of the buffer that requests are read into: FUSE_MIN_READ_BUFFER is 8,192. */
export const REQUEST_MAX_BYTES = 64 * 1024;
/** Of fuse_in_header and fuse_out_header. */
export const REQUEST_HEAD_BYTES = 40;
export const REPLY_HEAD_BYTES = 16;

/** The node number of a file system's root. */
export const ROOT_NODE = 1;

export const Opcode = {
  lookup: 1,
  forget: 2,
  getattr: 3,
  setattr: 4,
  readlink: 5,
  symlink: 6,
  mknod: 8,
  mkdir: 9,
  unlink: 10,
  rmdir: 11,
  rename: 12,
  link: 13,
  open: 14,
  read: 15,
  write: 16,
  statfs: 17,
  release: 18,
  fsync: 20,
  setxattr: 21,
  getxattr: 22,
  listxattr: 23,
  removexattr: 24,
  flush: 25,
  init: 26,
  opendir: 27,
  readdir: 28,
  releasedir: 29,
  fsyncdir: 30,
  access: 34,
  create: 35,
  interrupt: 36,
  destroy: 38,
  batchForget: 42,
  fallocate: 43,
  readdirplus: 44,
  rename2: 45,
} as const;

/** Bits of `flags` in FUSE_INIT. */
const ASYNC_READ = 1 << 0;
const ATOMIC_O_TRUNC = 1 << 3;
const BIG_WRITES = 1 << 5;
const DO_READDIRPLUS = 1 << 13;
const READDIRPLUS_AUTO = 1 << 14;
const PARALLEL_DIROPS = 1 << 18;
const NO_OPEN_SUPPORT = 1 << 17;
const MAX_PAGES = 1 << 22;
const CACHE_SYMLINKS = 1 << 23;
const NO_OPENDIR_SUPPORT = 1 << 24;
/** FUSE_HAS_RESEND is bit 39, and so 7 of `flags2`. Linux 6.9. */
const HAS_RESEND = 1 << 7;

/** What each of our servers wants of the kernel. */
const LAZY_WISHES = ASYNC_READ | PARALLEL_DIROPS | NO_OPEN_SUPPORT | MAX_PAGES | NO_OPENDIR_SUPPORT;
export const TREE_WISHES = ASYNC_READ | PARALLEL_DIROPS | MAX_PAGES | BIG_WRITES | ATOMIC_O_TRUNC;
/** Of a tree that never changes, too: attributes come with a listing, targets are kept. */
export const IMMUTABLE_WISHES = TREE_WISHES | DO_READDIRPLUS | READDIRPLUS_AUTO | CACHE_SYMLINKS;
/** The same where the kernel opens by itself: with all attributes, since who lists there (a sentry) asks for each. */
export const UNOPENED_WISHES =
  (IMMUTABLE_WISHES & ~READDIRPLUS_AUTO) | NO_OPEN_SUPPORT | NO_OPENDIR_SUPPORT;

/** Pages of 4,096 bytes in one READ or WRITE: 1 MiB, the most there can be by default. */
const READ_MAX_PAGES = 256;
export const READ_MAX_BYTES = READ_MAX_PAGES * 4096;
/** Reads ahead and other requests that nobody waits for, at once. */
const BACKGROUND_MAX = 64;
/** The least that the kernel wants to be allowed to write. */
const WRITE_MIN_BYTES = 4096;

/** What never changes may be remembered for as long as the kernel likes: seconds. */
export const FOR_EVER_SECONDS = 2 ** 31;

/** fuse_notify_code of a message without a request. */
const NOTIFY_RESEND = 7;

/** A request's head. `unique` names it in its reply. */
export interface Request {
  readonly opcode: number;
  readonly unique: Unique;
  /** -1 for a number past 2^53. */
  readonly node: number;
  /** What follows the head. */
  readonly body: Uint8Array;
}

export type Unique = readonly [low: number, high: number];

/** Reads a request: undefined when it isn't whole. */
export function decodeRequest(bytes: Uint8Array): Request | undefined {
  if (bytes.length < REQUEST_HEAD_BYTES) return undefined;
  const view = viewOf(bytes);
  const length = view.getUint32(0, true);
  if (length !== bytes.length) return undefined;
  return {
    opcode: view.getUint32(4, true),
    unique: [view.getUint32(8, true), view.getUint32(12, true)],
    node: getU64(view, 16),
    body: bytes.subarray(REQUEST_HEAD_BYTES, length),
  };
}

/** The name of a LOOKUP, latin1. */
export function decodeName(body: Uint8Array): string {
  const end = body.indexOf(0);
  return Buffer.from(body.subarray(0, end < 0 ? body.length : end)).toString("latin1");
}

export interface ReadRange {
  readonly offset: number;
  readonly length: number;
}

/** What a READ asks for: undefined when it is malformed or goes past 2^53. */
export function decodeRead(body: Uint8Array): ReadRange | undefined {
  if (body.length < 20) return undefined;
  const view = viewOf(body);
  const offset = getU64(view, 8);
  const length = view.getUint32(16, true);
  return offset < 0 || length > READ_MAX_BYTES ? undefined : { offset, length };
}

/** How many lookups of the node a FORGET takes back. */
export function decodeForget(body: Uint8Array): number {
  return body.length < 8 ? 0 : getU64(viewOf(body), 0);
}

/** The same for many nodes. */
export function* decodeForgets(body: Uint8Array): Iterable<{ node: number; lookups: number }> {
  if (body.length < 8) return;
  const view = viewOf(body);
  const count = view.getUint32(0, true);
  for (let i = 0; i < count && 8 + 16 * (i + 1) <= body.length; i++) {
    yield { node: getU64(view, 8 + 16 * i), lookups: getU64(view, 16 + 16 * i) };
  }
}

export interface InitRequest {
  readonly major: number;
  readonly minor: number;
  readonly flags: number;
  readonly flags2: number;
}

export function decodeInit(body: Uint8Array): InitRequest | undefined {
  if (body.length < 16) return undefined;
  const view = viewOf(body);
  return {
    major: view.getUint32(0, true),
    minor: view.getUint32(4, true),
    flags: view.getUint32(12, true),
    flags2: body.length < 20 ? 0 : view.getUint32(16, true),
  };
}

/** Whether the client can be asked to send again what nobody answered. */
export function canResend({ flags2 }: InitRequest): boolean {
  return (flags2 & HAS_RESEND) !== 0;
}

/** A reply without a body: 0 or -errno. */
export function encodeReply(unique: Unique, result: number): Buffer {
  return reply(unique, 0, result);
}

/** Writes the head of a reply to a READ before `length` bytes that stand behind it: what is sent of `out`. */
export function putReadReply(out: Buffer, unique: Unique, length: number): Buffer {
  putHead(out, unique, REPLY_HEAD_BYTES + length, 0);
  return out.subarray(0, REPLY_HEAD_BYTES + length);
}

/** `wishes`: flags that are taken where the kernel offers them; `writeMaxBytes` of one WRITE. */
export function encodeInit(
  unique: Unique,
  request: InitRequest,
  wishes: number = LAZY_WISHES,
  writeMaxBytes: number = WRITE_MIN_BYTES,
): Buffer {
  const out = reply(unique, 64);
  const view = viewOf(out);
  const at = REPLY_HEAD_BYTES;
  view.setUint32(at, FUSE_MAJOR, true);
  view.setUint32(at + 4, Math.min(FUSE_MINOR, request.minor), true);
  view.setUint32(at + 8, READ_MAX_BYTES, true); // read ahead
  view.setUint32(at + 12, (wishes & request.flags) >>> 0, true);
  view.setUint16(at + 16, BACKGROUND_MAX, true);
  view.setUint16(at + 18, BACKGROUND_MAX, true);
  view.setUint32(at + 20, writeMaxBytes, true);
  view.setUint32(at + 24, 1, true); // granularity of times, ns
  view.setUint16(at + 28, READ_MAX_PAGES, true);
  return out;
}

/** What a node is: a directory, or a read-only file of some size. */
export interface NodeFacts {
  readonly node: number;
  readonly mode: number;
  readonly size: number;
}

/** A reply to LOOKUP. */
export function encodeEntry(unique: Unique, facts: NodeFacts): Buffer {
  const out = reply(unique, 128);
  const view = viewOf(out);
  const at = REPLY_HEAD_BYTES;
  setU64(view, at, facts.node);
  setU64(view, at + 16, FOR_EVER_SECONDS);
  setU64(view, at + 24, FOR_EVER_SECONDS);
  putAttr(view, at + 40, facts);
  return out;
}

/** A reply to GETATTR. */
export function encodeAttr(unique: Unique, facts: NodeFacts): Buffer {
  const out = reply(unique, 104);
  const view = viewOf(out);
  setU64(view, REPLY_HEAD_BYTES, FOR_EVER_SECONDS);
  putAttr(view, REPLY_HEAD_BYTES + 16, facts);
  return out;
}

/** A reply to STATFS: of a file system without room. */
export function encodeStatfs(unique: Unique): Buffer {
  const out = reply(unique, 80);
  const view = viewOf(out);
  view.setUint32(REPLY_HEAD_BYTES + 40, 4096, true);
  view.setUint32(REPLY_HEAD_BYTES + 44, 255, true);
  view.setUint32(REPLY_HEAD_BYTES + 48, 4096, true);
  return out;
}

/** Has the client send again what was read from the device and not answered: who was to answer is gone. */
export function encodeResend(): Buffer {
  return reply([0, 0], 0, NOTIFY_RESEND);
}

function reply(unique: Unique, bodyBytes: number, error: number = 0): Buffer {
  const out = Buffer.alloc(REPLY_HEAD_BYTES + bodyBytes);
  putHead(out, unique, out.length, error);
  return out;
}

function putHead(out: Buffer, unique: Unique, length: number, error: number): void {
  const view = viewOf(out);
  view.setUint32(0, length, true);
  view.setInt32(4, error, true);
  view.setUint32(8, unique[0], true);
  view.setUint32(12, unique[1], true);
}

function putAttr(view: DataView, at: number, { node, mode, size }: NodeFacts): void {
  setU64(view, at, node);
  setU64(view, at + 8, size);
  setU64(view, at + 16, Math.ceil(size / 512));
  view.setUint32(at + 60, mode, true);
  view.setUint32(at + 64, 1, true); // names
  view.setUint32(at + 80, 4096, true);
}
