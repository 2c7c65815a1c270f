// Socket: the stream-socket kind of communicator: 8-byte header {u32 payload bytes, u16 MID, u16 0}, payload, FDs with
// the first byte of a reply. LISAFS: sock.go; lisafs-wire section 1. Never blocks: a client that sends by drops or does
// not read its replies delays only itself. Data plane.

import { Errno } from "../base/errno.ts";
import { LISAFS_MESSAGE_MAX_BYTES } from "../base/limits.ts";
import { native } from "../sys/native.ts";
import { addSocket, armSocket, dropSocket } from "../sys/wait.ts";
import type { Communicator, RequestSink } from "./communicator.ts";

const HEADER_BYTES = 8;
/** FDs of one reply: 2 in practice (Channel); LISAFS: communicator.go wantFDs is a u8. */
const DONATED_MAX = 8;
const MSG_PEEK_DONTWAIT = 0x42;

/** What the socket is about: a request comes in, is being handled or waits for bytes, or its reply goes out. */
const State = { receiving: 0, handling: 1, replying: 2 } as const;

const peeked = new Uint8Array(1);
/** Room for no FD: what a client sends is closed. */
const noFds = new Int32Array(1);

export class Socket implements Communicator {
  /** Room for the largest message: untouched pages of it cost nothing. */
  readonly bytes = new Uint8Array(HEADER_BYTES + LISAFS_MESSAGE_MAX_BYTES);
  readonly payloadStart = HEADER_BYTES;
  readonly payloadCapacity = LISAFS_MESSAGE_MAX_BYTES;
  readonly slot: number;
  readonly sink: RequestSink;
  readonly #fd: number;
  readonly #view = new DataView(this.bytes.buffer);
  #received = 0;
  #state: (typeof State)[keyof typeof State] = State.receiving;
  #sent = 0;
  #toSend = 0;
  readonly #donated = new Int32Array(DONATED_MAX);
  readonly #isOwned: boolean[] = [];
  #donatedCount = 0;

  private constructor(fd: number, slot: number, sink: RequestSink) {
    this.#fd = fd;
    this.slot = slot;
    this.sink = sink;
  }

  /** Watches a connected stream socket. Takes fd on success. */
  static open(fd: number, sink: RequestSink): Socket | number {
    const nonblocking = native.setNonblock(fd);
    if (nonblocking < 0) return nonblocking;
    const slot = addSocket(fd);
    return slot < 0 ? slot : new Socket(fd, slot, sink);
  }

  /** The loop saw an event on the socket: goes on with what is under way. */
  advance(): void {
    if (this.#state === State.receiving) this.#receive();
    else if (this.#state === State.replying) this.#send();
    else this.#watchParked();
  }

  /** An event while a request waits for bytes: a hang-up ends it; what else came is read after the reply. */
  #watchParked(): void {
    const got = native.receiveMessage(this.#fd, peeked, noFds, MSG_PEEK_DONTWAIT);
    if (got === 0 || (got < 0 && got !== -Errno.EAGAIN && got !== -Errno.EINTR)) this.sink.end();
  }

  #receive(): void {
    for (;;) {
      const wanted = this.#wanted();
      if (wanted < 0) {
        this.#refuse();
        return;
      }
      if (this.#received === wanted) {
        const mid = this.#view.getUint16(4, true);
        this.#received = 0;
        this.#state = State.handling;
        this.sink.handle(this, mid, wanted - HEADER_BYTES);
        if (this.#isParked()) armSocket(this.slot, false);
        return;
      }
      const got = native.readFd(this.#fd, this.bytes.subarray(this.#received, wanted));
      if (got === -Errno.EAGAIN) {
        armSocket(this.slot, false);
        return;
      }
      if (got === -Errno.EINTR) continue;
      if (got <= 0) {
        this.sink.end();
        return;
      }
      this.#received += got;
    }
  }

  /** Asked again after a call that may have answered. */
  #isParked(): boolean {
    return this.#state === State.handling;
  }

  /** Bytes that the message under way has in all, as far as they are known; -1 when it is too large. */
  #wanted(): number {
    if (this.#received < HEADER_BYTES) return HEADER_BYTES;
    const payloadBytes = this.#view.getUint32(0, true);
    return payloadBytes > LISAFS_MESSAGE_MAX_BYTES ? -1 : HEADER_BYTES + payloadBytes;
  }

  /** A header that says more than the protocol allows: the stream can't be followed any more. */
  #refuse(): void {
    this.#view.setUint32(HEADER_BYTES, Errno.EIO, true);
    this.reply(0, 4);
    this.sink.end();
  }

  donate(hostFd: number, isOwned: boolean): number {
    if (this.#donatedCount === DONATED_MAX) {
      if (isOwned) native.closeFd(hostFd);
      return -Errno.EMFILE;
    }
    this.#isOwned[this.#donatedCount] = isOwned;
    this.#donated[this.#donatedCount++] = hostFd;
    return 0;
  }

  reply(mid: number, payloadBytes: number): void {
    this.#view.setUint32(0, payloadBytes, true);
    this.#view.setUint16(4, mid, true);
    this.#view.setUint16(6, 0, true);
    this.#toSend = HEADER_BYTES + payloadBytes;
    this.#sent = 0;
    this.#state = State.replying;
    this.#send();
  }

  #send(): void {
    while (this.#sent < this.#toSend) {
      const rest = this.bytes.subarray(this.#sent, this.#toSend);
      const fdCount = this.#sent === 0 ? this.#donatedCount : 0;
      const sent = native.sendMessage(this.#fd, rest, this.#donated, fdCount);
      if (sent === -Errno.EAGAIN) {
        armSocket(this.slot, true);
        return;
      }
      if (sent === -Errno.EINTR) continue;
      if (sent < 0) {
        this.#closeDonated();
        this.sink.end();
        return;
      }
      if (this.#sent === 0) this.#closeDonated();
      this.#sent += sent;
    }
    this.#state = State.receiving;
    armSocket(this.slot, false);
  }

  #closeDonated(): void {
    for (let i = 0; i < this.#donatedCount; i++) {
      if (this.#isOwned[i]) native.closeFd(this.#donated[i]!);
    }
    this.#donatedCount = 0;
  }

  /** Forgets the socket and closes it. Called once, by its connection. */
  close(): void {
    this.#closeDonated();
    dropSocket(this.slot);
    native.closeFd(this.#fd);
  }
}
