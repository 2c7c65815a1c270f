// LisafsClient: the sentry's end of a LISAFS connection: over the main socket and over channels. Every call blocks the thread,
// so the server must be another process; a call that gets no answer in time gives errno ETIMEDOUT. Tests and benches only.

import { viewOf } from "../../lib/base/bytes.ts";
import { Errno } from "../../lib/base/errno.ts";
import { native } from "../../lib/sys/native.ts";
import { Cursor } from "../../lib/wire/cursor.ts";
import { encodeRequest } from "../../lib/wire/lisafs/encode.ts";
import { Request } from "../../lib/wire/lisafs/message.ts";
import { Mid } from "../../lib/wire/lisafs/mid.ts";
import { sleep, sleepMs } from "./wait.ts";

/** Largest payload: LISAFS message.go MaxMessageSize. */
export const PAYLOAD_MAX = 2 * 1024 * 1024 - 4096;
const SOCKET_HEADER = 8;
export const WINDOW_HEADER = 16;
export const CHANNEL_START = 20;
/** Whose turn it is, in a window's first word: lisafs-wire section 2. */
const CLIENT_ACTIVE = 0;
const SERVER_ACTIVE = 1;
const MSG_DONTWAIT = 0x40;
/** Far above what an answer takes, a server's start before the first among it, so that only what never comes fails. */
export const TIMEOUT_MS = 60_000;

/** errno 0: the reply's payload, and the FDs that came with it, which are the caller's. */
export interface Reply {
  readonly errno: number;
  readonly mid: number;
  readonly payload: Buffer;
  readonly fds: number[];
}

/** One pathway: the socket or a channel. `payload` may lie in memory that the next call overwrites. */
export interface Pathway {
  readonly name: string;
  /** Sends `bytes` of payload from `buffer` and waits. */
  transact(mid: number, payloadBytes: number): Reply;
  /** Where the request's payload is written. */
  readonly buffer: Buffer;
  readonly start: number;
}

/** The connection's end as an errno of a reply, e.g. -EPIPE of a call. */
function broken(errno: number): Reply {
  return { errno, mid: -1, payload: Buffer.alloc(0), fds: [] };
}

export class SocketPathway implements Pathway {
  readonly name = "socket";
  readonly buffer = Buffer.alloc(SOCKET_HEADER + PAYLOAD_MAX);
  readonly start = SOCKET_HEADER;
  readonly fd: number;
  readonly #fds = new Int32Array(32);
  timeoutMs = TIMEOUT_MS;

  constructor(fd: number) {
    this.fd = fd;
  }

  transact(mid: number, payloadBytes: number): Reply {
    this.buffer.writeUInt32LE(payloadBytes, 0);
    this.buffer.writeUInt16LE(mid, 4);
    this.buffer.writeUInt16LE(0, 6);
    const failed = this.send(this.buffer.subarray(0, SOCKET_HEADER + payloadBytes));
    return failed < 0 ? broken(-failed) : this.receive();
  }

  /** Writes all bytes; waits while the server does not read. */
  send(bytes: Uint8Array): number {
    const deadline = performance.now() + this.timeoutMs;
    let rest = bytes;
    while (rest.length > 0) {
      const sent = native.sendMessage(this.fd, rest, this.#fds, 0);
      if (sent === -Errno.EAGAIN && performance.now() < deadline) sleepMs(0.2);
      else if (sent < 0) return sent;
      else rest = rest.subarray(sent);
    }
    return 0;
  }

  /** The reply under way. */
  receive(): Reply {
    const fds: number[] = [];
    const header = Buffer.alloc(SOCKET_HEADER);
    let failed = this.#readAll(header, fds);
    if (failed < 0) return broken(-failed);
    const mid = header.readUInt16LE(4);
    const payload = Buffer.alloc(header.readUInt32LE(0));
    failed = this.#readAll(payload, fds);
    if (failed < 0) return broken(-failed);
    return { errno: mid === Mid.Error ? payload.readUInt32LE(0) : 0, mid, payload, fds };
  }

  #readAll(out: Buffer, fds: number[]): number {
    const deadline = performance.now() + this.timeoutMs;
    let rest = out;
    for (let spins = 0; rest.length > 0; ) {
      const got = native.receiveMessage(this.fd, rest, this.#fds, MSG_DONTWAIT);
      if (got === -Errno.EAGAIN) {
        if (spins++ < 2000) continue;
        if (performance.now() > deadline) return -Errno.ETIMEDOUT;
        sleepMs(0.2);
        continue;
      }
      if (got < 0) return got;
      for (let i = 0; i < this.#fds[0]!; i++) fds.push(this.#fds[1 + i]!);
      if (got === 0) return -Errno.ECONNRESET;
      rest = rest.subarray(got);
    }
    return 0;
  }
}

export class ChannelPathway implements Pathway {
  readonly name = "channel";
  readonly window: Uint8Array;
  readonly view: DataView;
  readonly buffer: Buffer;
  readonly start = CHANNEL_START;
  readonly memoryFd: number;
  readonly socketFd: number;
  timeoutMs = TIMEOUT_MS;
  readonly #fds = new Int32Array(8);
  readonly #byte = new Uint8Array(1);

  /** Maps the window and shakes hands. Takes both FDs. */
  constructor(memoryFd: number, socketFd: number, offset: number, length: number) {
    const mapped = native.map(memoryFd, offset, length, true);
    if (typeof mapped === "number") throw new Error(`can't map the window: ${mapped}`);
    this.window = new Uint8Array(mapped);
    this.view = viewOf(this.window);
    this.buffer = Buffer.from(mapped);
    this.memoryFd = memoryFd;
    this.socketFd = socketFd;
    this.buffer.write("{}\n", WINDOW_HEADER, "latin1");
    const got = native.channelCall(this.window, 3, this.timeoutMs);
    if (got !== 3) throw new Error(`no handshake: ${got}`);
  }

  transact(mid: number, payloadBytes: number): Reply {
    this.view.setUint16(WINDOW_HEADER, mid, true);
    this.view.setUint16(WINDOW_HEADER + 2, 0, true);
    return this.transactRaw(4 + payloadBytes);
  }

  /** Gives control with a datagram of whatever stands in the window. */
  transactRaw(datagramBytes: number): Reply {
    const got = native.channelCall(this.window, datagramBytes, this.timeoutMs);
    return got < 0 ? broken(-got) : this.#reply(got);
  }

  /** Gives control and doesn't wait: finish() has the reply. Others may be asked meanwhile. */
  begin(mid: number, payloadBytes: number): void {
    this.view.setUint16(WINDOW_HEADER, mid, true);
    this.view.setUint16(WINDOW_HEADER + 2, 0, true);
    native.channelCall(this.window, 4 + payloadBytes, 0);
  }

  /** The reply to what began. It looks for it: whoever has several under way finds most of them there. */
  finish(): Reply {
    const deadline = performance.now() + this.timeoutMs;
    while (this.view.getUint32(0, true) === SERVER_ACTIVE) {
      if (performance.now() > deadline) return broken(Errno.ETIMEDOUT);
      sleepMs(0.05);
    }
    const isOurs = this.view.getUint32(0, true) === CLIENT_ACTIVE;
    return isOurs ? this.#reply(this.view.getUint32(4, true)) : broken(Errno.EPIPE);
  }

  /** As transact, with the event loop running while the server is at it: for what this process has to do meanwhile. */
  async transactBeside(mid: number, payloadBytes: number): Promise<Reply> {
    const { timeoutMs } = this;
    this.timeoutMs = 0;
    const reply = this.transact(mid, payloadBytes);
    this.timeoutMs = timeoutMs;
    if (reply.errno !== Errno.ETIMEDOUT || reply.mid >= 0) return reply;
    const deadline = performance.now() + timeoutMs;
    while (this.view.getUint32(0, true) === SERVER_ACTIVE) {
      if (performance.now() > deadline) return broken(Errno.ETIMEDOUT);
      await sleep(1);
    }
    return this.finish();
  }

  #reply(got: number): Reply {
    const mid = this.view.getUint16(WINDOW_HEADER, true);
    const fds: number[] = [];
    for (let i = this.view.getUint8(WINDOW_HEADER + 2); i > 0; i--) {
      const received = native.receiveMessage(this.socketFd, this.#byte, this.#fds, MSG_DONTWAIT);
      if (received < 0 || this.#fds[0] !== 1) throw new Error(`FD ${i} is missing: ${received}`);
      fds.push(this.#fds[1]!);
    }
    const payload = Buffer.from(this.buffer.subarray(CHANNEL_START, WINDOW_HEADER + got));
    return { errno: mid === Mid.Error ? payload.readUInt32LE(0) : 0, mid, payload, fds };
  }

  close(): void {
    native.closeFd(this.memoryFd);
    native.closeFd(this.socketFd);
  }
}

export class LisafsClient {
  readonly socket: SocketPathway;
  readonly channels: ChannelPathway[] = [];
  /** Where call() goes; a test may set it. */
  pathway: Pathway;
  rootFd = 0;
  root: Buffer = Buffer.alloc(0);
  messageMax = 0;
  supported: number[] = [];
  readonly #cursors = new Map<Pathway, Cursor>();
  #isOpen = true;

  /** A client on a connected stream socket, which it takes. Nothing is sent yet. */
  constructor(fd: number) {
    this.socket = new SocketPathway(fd);
    this.pathway = this.socket;
  }

  /** Connects, mounts and opens `channelCount` channels; calls go over the first, if any. */
  static mount(fd: number, channelCount = 0): LisafsClient {
    const client = new LisafsClient(fd);
    const errno = client.mount();
    if (errno !== 0) throw new Error(`Mount: errno ${errno}`);
    for (let i = 0; i < channelCount; i++) {
      const opened = client.openChannel();
      if (typeof opened === "number") throw new Error(`Channel: errno ${opened}`);
      client.pathway = client.channels[0]!;
    }
    return client;
  }

  mount(): number {
    const { errno, payload } = this.call(Mid.Mount);
    if (errno !== 0) return errno;
    this.rootFd = Number(payload.readBigUInt64LE(0));
    this.root = payload.subarray(8, 152);
    this.messageMax = payload.readUInt32LE(152);
    for (let i = 0; i < payload.readUInt16LE(156); i++) {
      this.supported.push(payload.readUInt16LE(158 + 2 * i));
    }
    return 0;
  }

  /** A new channel, asked for over `via`; or a positive errno. */
  openChannel(via: Pathway = this.pathway): ChannelPathway | number {
    const { errno, payload, fds } = this.call(Mid.Channel, {}, undefined, via);
    if (errno !== 0) return errno;
    const offset = Number(payload.readBigInt64LE(0));
    const length = Number(payload.readBigUInt64LE(8));
    const channel = new ChannelPathway(fds[0]!, fds[1]!, offset, length);
    this.channels.push(channel);
    return channel;
  }

  /** Sends a message made of the fields given (the others are 0) and waits for its reply. */
  call(mid: number, fields: Partial<Request> = {}, data?: Uint8Array, via = this.pathway): Reply {
    const request = Object.assign(new Request(), fields);
    if (fields.names !== undefined) request.nameCount = fields.names.length;
    if (fields.fds !== undefined) request.fdCount = fields.fds.length;
    const cursor = this.#cursorOf(via);
    if (!encodeRequest(mid, request, cursor, data)) throw new Error(`no room for message ${mid}`);
    return via.transact(mid, cursor.offset - via.start);
  }

  /** As call over a channel, with the event loop running meanwhile. */
  callBeside(mid: number, fields: Partial<Request>, channel = this.channels[0]!): Promise<Reply> {
    const cursor = this.#cursorOf(channel);
    if (!encodeRequest(mid, Object.assign(new Request(), fields), cursor)) {
      throw new Error(`no room for message ${mid}`);
    }
    return channel.transactBeside(mid, cursor.offset - channel.start);
  }

  /** Sends any payload as any message. */
  callRaw(mid: number, payload: Uint8Array, via = this.pathway): Reply {
    via.buffer.set(payload, via.start);
    return via.transact(mid, payload.length);
  }

  #cursorOf(via: Pathway): Cursor {
    let cursor = this.#cursors.get(via);
    if (cursor === undefined) {
      cursor = new Cursor(via.buffer);
      this.#cursors.set(via, cursor);
    }
    return cursor.seek(via.start, via.start + PAYLOAD_MAX);
  }

  /** Closes FDs that came with a reply. */
  takeBack(fds: readonly number[]): void {
    for (const fd of fds) native.closeFd(fd);
  }

  /** Hangs up. Idempotent. */
  close(): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    for (const channel of this.channels) channel.close();
    native.closeFd(this.socket.fd);
  }
}
