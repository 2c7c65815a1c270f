// Socket: the stream-socket kind of communicator: 8-byte header {u32 payload bytes, u16 MID, u16 0}, payload, FDs with
// the first byte of a reply. LISAFS: sock.go; lisafs-wire section 1. Never blocks: a client that sends by drops or does
// not read its replies delays only itself. Data plane.

import { Errno } from "../base/errno.ts";
import { LISAFS_MESSAGE_MAX_BYTES } from "../base/limits.ts";
import { native } from "../sys/native.ts";
import { addSocket, armSocket, dropSocket } from "../sys/wait.ts";
import { type Communicator, PATHWAYS, type RequestSink } from "./communicator.ts";
import { HEADER_BYTES, Phase, SAVED_BYTES, SocketJournal } from "./socket-journal.ts";

/** FDs of one reply: 2 in practice (Channel); LISAFS: communicator.go wantFDs is a u8. */
const DONATED_MAX = 8;
const MSG_PEEK_DONTWAIT = 0x42;

/** A sendmsg of so much goes out whole or not at all. Linux: net/unix/af_unix.c, unix_stream_sendmsg makes one skb of it. */
const CHUNK_BYTES = 32 * 1024;

/** What the socket is about: a request comes in, is being handled or waits for bytes, or its reply goes out. */
const State = { receiving: 0, handling: 1, replying: 2 } as const;

const peeked = new Uint8Array(1);
/** Room for no FD: what a client sends is closed. */
const noFds = new Int32Array(1);

export class Socket implements Communicator {
  /** Room for the largest message. */
  readonly bytes: Uint8Array;
  readonly payloadStart = HEADER_BYTES;
  readonly payloadCapacity = LISAFS_MESSAGE_MAX_BYTES;
  readonly slot: number;
  readonly sink: RequestSink;
  readonly #fd: number;
  readonly #view: DataView;
  readonly #journal: SocketJournal;
  #received = 0;
  #state: (typeof State)[keyof typeof State] = State.receiving;
  #sent = 0;
  #toSend = 0;
  readonly #donated = new Int32Array(DONATED_MAX);
  readonly #isOwned: boolean[] = [];
  #donatedCount = 0;

  private constructor(fd: number, slot: number, sink: RequestSink, journal: SocketJournal) {
    this.#fd = fd;
    this.slot = slot;
    this.sink = sink;
    this.#journal = journal;
    this.bytes = journal.bytes;
    this.#view = new DataView(this.bytes.buffer, this.bytes.byteOffset, this.bytes.byteLength);
  }

  /** Watches a connected stream socket. Takes fd and the journal on success. */
  static open(
    fd: number,
    sink: RequestSink,
    journal: SocketJournal = SocketJournal.unkept(),
  ): Socket | number {
    const nonblocking = native.setNonblock(fd);
    if (nonblocking < 0) return nonblocking;
    const slot = addSocket(fd);
    return slot < 0 ? slot : new Socket(fd, slot, sink, journal);
  }

  get requestTag(): number {
    return this.#journal.serial * PATHWAYS;
  }

  /**
   * Goes on where another server ended, by what the journal says: runs the request that it had not answered again, or sends what is
   * left of its reply. False when that can't be known: then the connection must end.
   */
  resume(): boolean {
    const journal = this.#journal;
    switch (journal.phase) {
      case Phase.reading:
        return true;
      case Phase.handling:
        this.#takeOut();
        this.#rerun();
        return true;
      case Phase.sending:
        return this.#resumeReply();
      default:
        return false;
    }
  }

  /** A peer has nothing else to say before it is answered, so what is in the socket is the request under way. */
  #takeOut(): void {
    const waiting = native.queuedBytes(this.#fd, false);
    const rest = Math.min(waiting, this.#journal.requestBytes);
    if (rest > 0) native.readFd(this.#fd, this.bytes.subarray(0, rest));
  }

  #rerun(): void {
    this.#journal.restoreRequest();
    this.#handle(this.#journal.requestBytes);
  }

  /** The part that was being sent is one skb: it waits for the peer, or was read by it, or was never sent. */
  #resumeReply(): boolean {
    const journal = this.#journal;
    const { toSend, sent, watchFd } = journal;
    const isInOneMessage = toSend <= CHUNK_BYTES;
    if (sent > 0 || toSend > this.bytes.length) return false;
    const wasSent = native.queuedBytes(this.#fd, true) > 0 || native.wasRead(watchFd) > 0;
    if (!wasSent) {
      this.#rerun(); // its FDs are gone with who made them
      return true;
    }
    this.#toSend = toSend;
    this.#sent = Math.min(toSend, CHUNK_BYTES);
    if (isInOneMessage) journal.phase = Phase.reading;
    else {
      this.#state = State.replying;
      this.#send();
    }
    return true;
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
    if (this.#received === 0 && this.#receiveWhole()) return;
    for (;;) {
      const wanted = this.#wanted();
      if (wanted < 0) {
        this.#refuse();
        return;
      }
      if (this.#received === wanted) {
        this.#received = 0;
        this.#journal.noteRequest(wanted);
        this.#handle(wanted);
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
      this.#journal.phase = Phase.torn;
    }
  }

  /**
   * Takes a request that is there as a whole, as the sentry's are: it leaves the socket only when the journal has it. False when it is
   * not: then it is taken out as it comes, so that a peer that sends by drops costs no more than others.
   */
  #receiveWhole(): boolean {
    const room = this.bytes.subarray(0, SAVED_BYTES);
    const peeked = native.receiveMessage(this.#fd, room, noFds, MSG_PEEK_DONTWAIT);
    if (peeked < HEADER_BYTES) return false;
    const whole = HEADER_BYTES + this.#view.getUint32(0, true);
    if (whole > peeked) return false;
    this.#journal.noteRequest(whole);
    if (native.readFd(this.#fd, this.bytes.subarray(0, whole)) !== whole) {
      this.sink.end(); // nobody else reads here
      return true;
    }
    this.#handle(whole);
    return true;
  }

  #handle(bytes: number): void {
    this.#state = State.handling;
    this.sink.handle(this, this.#view.getUint16(4, true), bytes - HEADER_BYTES);
    if (this.#isParked()) armSocket(this.slot, false);
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
    this.#journal.noteReply(this.#toSend);
    this.#send();
  }

  #send(): void {
    while (this.#sent < this.#toSend) {
      const end = Math.min(this.#toSend, this.#sent + CHUNK_BYTES);
      const rest = this.bytes.subarray(this.#sent, end);
      // What it read before is no news: only what goes out now is to be remembered.
      if (this.#sent === 0 && this.#journal.watchFd >= 0) native.wasRead(this.#journal.watchFd);
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
      if (this.#sent < this.#toSend) this.#journal.sent = this.#sent;
    }
    this.#state = State.receiving;
    this.#journal.phase = Phase.reading;
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
    this.#journal.close();
  }
}
