// Adopt: the server's end of its socket to the stub: receives the sandbox's FDs, gives copies back for safe keeping. The
// protocol is docs/protocol/adopt.md. Runs before the data plane and, for keep and drop, beside it: never blocks then.

import { errnoName } from "../base/errno.ts";
import { BurrowError } from "../base/error.ts";
import { native } from "../sys/native.ts";

const MAGIC = 0x31575242;
const HEADER_BYTES = 16;
const RECORD_BYTES = 16;
const FDS_MAX = 200;
/** ADOPT: more of these messages follow. */
const MORE = 1;

const Type = { adopt: 1, keep: 2, drop: 3 } as const;

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
  memory: 16,
  fdSocket: 17,
  upper: 18,
} as const;

export interface AdoptedFd {
  readonly role: number;
  /** Among the FDs of its role: for io the mount's position. */
  readonly index: number;
  readonly sub: number;
  readonly fd: number;
}

/** Blocks until the stub has sent all FDs. Throws BURROW_USAGE when the peer is no stub. */
export function receiveAdopted(stubFd: number): AdoptedFd[] {
  const message = Buffer.alloc(64 * 1024);
  const fds = new Int32Array(FDS_MAX + 1);
  const adopted: AdoptedFd[] = [];
  for (;;) {
    const got = native.receiveMessage(stubFd, message, fds, 0);
    if (got < HEADER_BYTES) {
      const why = got < 0 ? errnoName(got) : `a message of ${got} bytes`;
      throw new BurrowError("BURROW_USAGE", `no adopt message from the stub: ${why}`);
    }
    const type = message.readUInt16LE(4);
    const count = message.readUInt16LE(6);
    const isWhole = count === fds[0] && got >= HEADER_BYTES + count * RECORD_BYTES;
    if (message.readUInt32LE(0) !== MAGIC || type !== Type.adopt || !isWhole) {
      throw new BurrowError("BURROW_USAGE", "the stub's adopt message is malformed");
    }
    for (let i = 0; i < count; i++) {
      const at = HEADER_BYTES + i * RECORD_BYTES;
      adopted.push({
        role: message.readUInt32LE(at),
        index: message.readUInt32LE(at + 4),
        sub: message.readUInt32LE(at + 8),
        fd: fds[1 + i]!,
      });
    }
    if ((message.readUInt32LE(8) & MORE) === 0) return adopted;
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

/** Gives the stub copies of FDs, which stay ours: 0 or -errno. */
export function keepFds(stubFd: number, kept: readonly AdoptedFd[]): number {
  const message = header(Type.keep, kept.length, 0);
  const fds = new Int32Array(kept.length);
  for (const [i, { role, index, sub, fd }] of kept.entries()) {
    const at = HEADER_BYTES + i * RECORD_BYTES;
    message.writeUInt32LE(role, at);
    message.writeUInt32LE(index, at + 4);
    message.writeUInt32LE(sub, at + 8);
    fds[i] = fd;
  }
  const sent = native.sendMessage(stubFd, message, fds, kept.length);
  return sent < 0 ? sent : 0;
}

/** Tells the stub that a connection is over: it closes what it keeps of it. */
export function dropConnection(stubFd: number, index: number): void {
  const message = header(Type.drop, 0, 4);
  message.writeUInt32LE(index, HEADER_BYTES);
  native.sendMessage(stubFd, message, new Int32Array(1), 0);
}
