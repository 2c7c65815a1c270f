// Adopt: the server's end of its socket to the stub: receives the sandbox's FDs, gives copies back for safe keeping. The
// protocol is docs/protocol/adopt.md. Runs before the data plane and, for keep and drop, beside it: never blocks then.

import { Errno } from "../base/errno.ts";
import { BurrowError } from "../base/error.ts";
import { native } from "../sys/native.ts";

const MAGIC = 0x31575242;
const HEADER_BYTES = 16;
const RECORD_BYTES = 16;
const FDS_MAX = 200;
const MESSAGE_MAX_BYTES = 64 * 1024;
/** ADOPT: more of these messages follow. */
export const MORE = 1;
/** ADOPT: get ready and say READY; another server has these, and a second ADOPT follows when it has ended. */
const PREPARE = 2;

export const Type = {
  adopt: 1,
  keep: 2,
  drop: 3,
  start: 4,
  ready: 5,
  done: 6,
  serving: 7,
  leave: 8,
  share: 9,
  launch: 10,
  gone: 11,
} as const;

export const Role = {
  io: 1,
  spec: 2,
  mounts: 3,
  syncChroot: 4,
  syncNvproxy: 5,
  rpc: 6,
  devIo: 7,
  log: 8,
  debugLog: 9,
  syncSentryExit: 10,
  proc: 11,
  stub: 12,
  plan: 13,
  counters: 14,
  memory: 16,
  fdSocket: 17,
  upper: 18,
  fdPeer: 19,
  journal: 20,
  reads: 21,
} as const;

const MSG_DONTWAIT = 0x40;
const MSG_PEEK_DONTWAIT = 0x42;

export interface AdoptedFd {
  readonly role: number;
  /** Among the FDs of its role: for io the mount's position. */
  readonly index: number;
  readonly sub: number;
  readonly fd: number;
}

export interface Message {
  readonly type: number;
  readonly flags: number;
  readonly fds: readonly AdoptedFd[];
  readonly body: Buffer;
}

/** Blocks for the next message of the stub; undefined when the stub is gone or, with its FDs closed, when it is malformed. */
export function receiveMessage(stubFd: number, flags = 0): Message | undefined {
  const message = Buffer.alloc(MESSAGE_MAX_BYTES);
  const fds = new Int32Array(FDS_MAX + 1);
  const got = native.receiveMessage(stubFd, message, fds, flags);
  if (got <= 0) return undefined;
  const count = got < HEADER_BYTES ? 0 : message.readUInt16LE(6);
  const bodyAt = HEADER_BYTES + count * RECORD_BYTES;
  const isWhole =
    got >= HEADER_BYTES &&
    message.readUInt32LE(0) === MAGIC &&
    count === fds[0] &&
    got === bodyAt + message.readUInt32LE(12);
  if (!isWhole) {
    for (let i = 0; i < fds[0]!; i++) native.closeFd(fds[1 + i]!);
    return undefined;
  }
  const received: AdoptedFd[] = [];
  for (let i = 0; i < count; i++) {
    const at = HEADER_BYTES + i * RECORD_BYTES;
    received.push({
      role: message.readUInt32LE(at),
      index: message.readUInt32LE(at + 4),
      sub: message.readUInt32LE(at + 8),
      fd: fds[1 + i]!,
    });
  }
  const body = message.subarray(bodyAt, got);
  return { type: message.readUInt16LE(4), flags: message.readUInt32LE(8), fds: received, body };
}

export interface Adopted {
  readonly fds: readonly AdoptedFd[];
  /** Another server still serves on these. */
  readonly isPreparing: boolean;
}

/** Blocks until the stub has sent all FDs. Throws BURROW_USAGE when the peer is no stub. */
export function receiveAdopted(stubFd: number): Adopted {
  const adopted: AdoptedFd[] = [];
  for (;;) {
    const message = receiveMessage(stubFd);
    if (message?.type !== Type.adopt) {
      throw new BurrowError("BURROW_USAGE", "the stub sent no adopt message, or a malformed one");
    }
    adopted.push(...message.fds);
    if ((message.flags & MORE) !== 0) continue;
    return { fds: adopted, isPreparing: (message.flags & PREPARE) !== 0 };
  }
}

function header(type: number, fdCount: number, bodyBytes: number): Buffer {
  const message = Buffer.alloc(HEADER_BYTES + fdCount * RECORD_BYTES + bodyBytes);
  message.writeUInt32LE(MAGIC, 0);
  message.writeUInt16LE(type, 4);
  message.writeUInt16LE(fdCount, 6);
  message.writeUInt32LE(bodyBytes, 12);
  return message;
}

/** A message without FDs: `word`, if any, is its body. */
function send(stubFd: number, type: number, word?: number): number {
  const message = header(type, 0, word === undefined ? 0 : 4);
  if (word !== undefined) message.writeUInt32LE(word, HEADER_BYTES);
  return native.sendMessage(stubFd, message, new Int32Array(1), 0);
}

const NO_BODY = Buffer.alloc(0);

/** A message of FDs, at most FDS_MAX: 0 or -errno. */
function sendFds(to: number, type: number, given: readonly AdoptedFd[], body = NO_BODY): number {
  const message = header(type, given.length, body.length);
  body.copy(message, message.length - body.length);
  const fds = new Int32Array(given.length);
  for (const [i, { role, index, sub, fd }] of given.entries()) {
    const at = HEADER_BYTES + i * RECORD_BYTES;
    message.writeUInt32LE(role, at);
    message.writeUInt32LE(index, at + 4);
    message.writeUInt32LE(sub, at + 8);
    fds[i] = fd;
  }
  const sent = native.sendMessage(to, message, fds, given.length);
  return sent < 0 ? sent : 0;
}

/** Gives the stub copies of FDs, which stay ours: 0 or -errno. */
export function keepFds(stubFd: number, kept: readonly AdoptedFd[]): number {
  return sendFds(stubFd, Type.keep, kept);
}

/** The stub's part, for a rehearsal of a few FDs: copies of them: 0 or -errno. */
export function sendAdopt(serverFd: number, given: readonly AdoptedFd[]): number {
  return sendFds(serverFd, Type.adopt, given);
}

/** Tells the stub that a connection is over: it closes what it keeps of it. */
export function dropConnection(stubFd: number, index: number): void {
  send(stubFd, Type.drop, index);
}

/** Tells the stub that all is taken up: from now on it replaces us when we die. */
export function sendServing(stubFd: number): void {
  send(stubFd, Type.serving);
}

/** Whether the stub, which has something to say, is gone or wants us to leave to a successor what we have. */
export function isToLeave(stubFd: number): boolean {
  const message = takeMessage(stubFd);
  return message === undefined || (message !== "none" && message.type === Type.leave);
}

/**
 * The answer to a START that a standby takes, to an ADOPT that only prepares and, with the server's pid, to a SHARE: < 0 when nobody
 * waits for it any more.
 */
export function sendReady(to: number, pid?: number): number {
  return send(to, Type.ready, pid);
}

/** Has a standby serve many sandboxes of one tenant: 0 or -errno. */
export function sendShare(to: number, given: readonly AdoptedFd[], text: string): number {
  return sendFds(to, Type.share, given, Buffer.from(text));
}

/** Has a shared server serve one more: 0 or -errno. */
export function sendLaunch(to: number, given: readonly AdoptedFd[]): number {
  return sendFds(to, Type.launch, given);
}

/** Tells who sent a launch that its sandbox is served no more. */
export function sendGone(to: number, launch: number): void {
  send(to, Type.gone, launch);
}

/** What a socket that has something to say says: undefined when its peer is gone, or says nothing that is sound; "none": nothing yet. */
export function takeMessage(fd: number): Message | undefined | "none" {
  const peeked = native.receiveMessage(fd, new Uint8Array(1), new Int32Array(1), MSG_PEEK_DONTWAIT);
  if (peeked === -Errno.EAGAIN || peeked === -Errno.EINTR) return "none";
  return receiveMessage(fd, MSG_DONTWAIT);
}

/** A standby's end: the exit code that a child would have had. */
export function sendDone(stubFd: number, code: number): void {
  send(stubFd, Type.done, code);
}
