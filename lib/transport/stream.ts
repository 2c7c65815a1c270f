// Stream: 9P's frames over a connected stream socket: size[4] and what follows, requests in, replies out, both through buffers of a
// fixed size. Never blocks: a client that sends by drops or doesn't read its replies delays only itself. Data plane.

import { Errno } from "../base/errno.ts";
import { native } from "../sys/native.ts";
import { addSocket, armSocket, dropSocket, watchSocket } from "../sys/wait.ts";

/** size[4] type[1] tag[2]: the least that a message has. 9P2000 intro(5). */
const HEADER_BYTES = 7;
/** How much of a message must be here for its rest to be waited for by asking again: what a socket takes in one piece, about. */
const CUT_BYTES = 16_384;
/** How often: some 10 us, in which 64 KiB are copied. To sleep and be woken takes longer; from a client that sends by drops it is as little. */
const CUT_TRIES = 24;
const noFds = new Int32Array(1);

export class Stream {
  /** The wait slot of the socket. */
  readonly slot: number;
  readonly #fd: number;
  /** What came and was not taken: from #start to #end. */
  #in = Buffer.alloc(0);
  #start = 0;
  #end = 0;
  /** What is to be sent: from #sent to #filled. */
  #out = Buffer.alloc(0);
  #sent = 0;
  #filled = 0;
  /** Bytes of the largest message, either way. */
  #messageMax = 0;
  /** The last read left nothing behind, at that moment. */
  #isDrained = false;
  /** The loop hears of input, for as long as there is some. */
  #isWatched = false;

  private constructor(fd: number, slot: number, messageMax: number) {
    this.#fd = fd;
    this.slot = slot;
    this.resize(messageMax);
  }

  /** Watches a connected stream socket, which it takes on success: -errno else. `messageMax`: bytes of the largest message. */
  static open(fd: number, messageMax: number): Stream | number {
    const nonblocking = native.setNonblock(fd);
    if (nonblocking < 0) return nonblocking;
    const slot = addSocket(fd);
    return slot < 0 ? slot : new Stream(fd, slot, messageMax);
  }

  /**
   * Takes messages of another size from now on. A buffer holds two largest messages, so that the next can come while one is there. It
   * never shrinks: a client that asks again and again for another size must not have memory filled with zeros each time.
   */
  resize(messageMax: number): void {
    this.#messageMax = messageMax;
    const bytes = 2 * messageMax;
    if (this.#in.length >= bytes) return;
    const [oldIn, oldOut] = [this.#in, this.#out];
    this.#in = Buffer.from(new ArrayBuffer(bytes));
    this.#out = Buffer.from(new ArrayBuffer(bytes));
    oldIn.copy(this.#in, 0, this.#start, this.#end);
    oldOut.copy(this.#out, 0, this.#sent, this.#filled);
    this.#end -= this.#start;
    this.#start = 0;
    this.#filled -= this.#sent;
    this.#sent = 0;
  }

  /** The buffer of what came, and that of what goes out: others after resize(). */
  get incoming(): Buffer {
    return this.#in;
  }

  get outgoing(): Buffer {
    return this.#out;
  }

  /**
   * Bytes of the next message that is here whole, which starts at messageStart; 0: none is; -EPROTO: its size is none that a message
   * may have, so the stream can't be followed any more.
   */
  next(): number {
    if (this.#end - this.#start < 4) return 0;
    const bytes = this.#in.readUInt32LE(this.#start);
    if (bytes < HEADER_BYTES || bytes > this.#messageMax) return -Errno.EPROTO;
    return this.#end - this.#start < bytes ? 0 : bytes;
  }

  get messageStart(): number {
    return this.#start;
  }

  /** The next message is done with: its bytes may be overwritten. */
  take(bytes: number): void {
    this.#start += bytes;
    if (this.#start === this.#end) {
      this.#start = 0;
      this.#end = 0;
    }
  }

  /**
   * Reads what has come: its bytes, 0 when the client is gone, -errno; -EAGAIN when there is nothing, or was nothing more the last time:
   * of most clients, which wait for the reply, that saves a call for each request. What has come since is an event after arm().
   */
  receive(): number {
    if (this.#isDrained && !this.#isCut()) {
      this.#isDrained = false;
      return -Errno.EAGAIN;
    }
    if (this.#start > 0 && this.#in.length - this.#end < this.#messageMax) {
      this.#in.copyWithin(0, this.#start, this.#end);
      this.#end -= this.#start;
      this.#start = 0;
    }
    for (let tries = this.#isCut() ? CUT_TRIES : 1; ; ) {
      const room = this.#in.subarray(this.#end);
      const got = native.readFd(this.#fd, room);
      if (got === -Errno.EINTR || (got === -Errno.EAGAIN && --tries > 0)) continue;
      if (got > 0) this.#end += got;
      this.#isDrained = got > 0 && got < room.length;
      return got;
    }
  }

  /** Whether the first part of a large message is here, the rest of which its sender is copying in at this moment, if it is honest. */
  #isCut(): boolean {
    return this.#end - this.#start >= CUT_BYTES;
  }

  /** Where in `outgoing` the next reply goes, of the largest message's bytes at most; -1 while older ones take the room: flush first. */
  room(): number {
    return this.#filled + this.#messageMax > this.#out.length ? -1 : this.#filled;
  }

  get messageMax(): number {
    return this.#messageMax;
  }

  /** The reply that was written at room() is to be sent. */
  put(bytes: number): void {
    this.#filled += bytes;
  }

  /** Sends what is to be sent: 0 when all of it was taken, -EAGAIN while the client doesn't read, or -errno. */
  flush(): number {
    while (this.#sent < this.#filled) {
      const rest = this.#out.subarray(this.#sent, this.#filled);
      const sent = native.sendMessage(this.#fd, rest, noFds, 0);
      if (sent === -Errno.EINTR) continue;
      if (sent < 0) return sent;
      this.#sent += sent;
    }
    this.#sent = 0;
    this.#filled = 0;
    return 0;
  }

  /** Has the loop hear of what comes next, or of room to send alone. */
  arm(forOutput: boolean): void {
    if (forOutput) armSocket(this.slot, true);
    else if (!this.#isWatched) watchSocket(this.slot);
    this.#isWatched = !forOutput;
  }

  /** Until arm() nothing more is read: the loop hears once more of what comes, at most. */
  rest(): void {
    if (this.#isWatched) armSocket(this.slot, false);
    this.#isWatched = false;
  }

  /** Forgets the socket and closes it. Called once. */
  close(): void {
    dropSocket(this.slot);
    native.closeFd(this.#fd);
  }
}
