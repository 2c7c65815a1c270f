// Mailbox: the gofer's end of the unix socket to the daemon, and the only place where the two planes meet. It asks for blobs
// and blocks by their rows in the view's snapshots, never by path or URL; an answer wakes the parked request. A daemon that
// goes away is reconnected to and asked again, so its restart is a pause. Never blocks. docs/protocol/mailbox.md. Data plane.

import { assert } from "../base/assert.ts";
import { Errno, MISS } from "../base/errno.ts";
import { PARKED_MAX } from "../base/limits.ts";
import { native } from "../sys/native.ts";
import { addSocket, armSocket, dropSocket } from "../sys/wait.ts";
import { DAEMON_SOCKET } from "./layout.ts";
import {
  type AnswerFields,
  bringsFile,
  decodeAnswer,
  encodeAskBlob,
  encodeAskBlocks,
  encodeAskLazy,
  encodeBare,
  encodeHello,
  encodeTouches,
  FRAME_MAX_BYTES,
  Frame,
  frameBytes,
  frameId,
  frameType,
  welcomeErrno,
  welcomeTakesTouches,
} from "./mailbox-wire.ts";
import { TouchTable } from "./touches.ts";

/** What the daemon said about one ask. */
export interface Answer {
  /** 0, or a positive errno: the bytes can't be had. */
  readonly errno: number;
  /** "" when the blob is whole, else the partial file in which the blocks asked for are present. Of askLazy: the lazy file, or "". */
  readonly name: string;
  /** The file itself when it came along, else -1: it is in the cache directory. */
  readonly hostFd: number;
}

/** Who learns of blobs and blocks that have come: cache/blocks.ts. Takes the answer's FD. */
export interface BlockListener {
  learn(row: number, first: number, count: number, answer: Answer): number;
  /** Of a lazy file: count is 0. */
  learnLazy(row: number, name: string): void;
}

interface Ask {
  readonly ticket: number;
  readonly snapshot: number;
  readonly row: number;
  /** First block and count, or -1 and 0 for the whole blob. */
  readonly first: number;
  readonly count: number;
  readonly isLazy: boolean;
  readonly listener: BlockListener;
}

/** How long to wait before the next try to reach a daemon that isn't there. */
const RECONNECT_FIRST_MS = 10;
const RECONNECT_MAX_MS = 500;
/** A sandbox that asks for nothing in this time isn't held up by what is sent in it. */
const QUIET_MS = 1_000;

export class Mailbox {
  readonly #path: string;
  readonly #mountId: string;
  readonly #asks = new Map<number, Ask>();
  readonly #in = Buffer.alloc(FRAME_MAX_BYTES + 4);
  /** Files that came along and whose answers weren't taken yet, in order. */
  #files: number[] = [];
  #received = 0;
  /** Counts connections: what was received on one means nothing on the next. */
  #connection = 0;
  #out: Buffer = Buffer.alloc(0);
  #folderFd: number | undefined = undefined;
  #fd = -1;
  #slot = -1;
  #retryMs = RECONNECT_FIRST_MS;
  #retryAtMs = 0;
  /** Whether the daemon has answered our hello. */
  #isWelcome = false;
  /** What was read first of the view, for the daemon to hear. */
  readonly touches = new TouchTable();
  #takesTouches = false;
  /** Ticket of the ask that the last MISS stands for. */
  lastTicket = 0;
  /** What that ask is for: another number for other bytes. A request that goes on from one to the next gets on. */
  lastPlace = 0;
  /** Called for each answer: the ticket, and 0 or a positive errno. */
  onAnswer: (ticket: number, errno: number) => void = () => {};
  /** Called for each ask that the daemon says it works on. */
  onWorking: (ticket: number) => void = () => {};

  constructor(socketPath: string, mountId: string) {
    this.#path = socketPath;
    this.#mountId = mountId;
  }

  /**
   * From now on the daemon's socket is looked for in a directory that is held by this FD, or, -1, in the working directory: its path
   * leads nowhere any more. The FD stays the caller's.
   */
  useFolder(folderFd: number): void {
    this.#folderFd = folderFd;
  }

  /** The wait slot of the connected socket, or -1. */
  get slot(): number {
    return this.#slot;
  }

  /** Asks for a whole blob: MISS, or -EIO when too many asks are open. */
  askBlob(snapshot: number, row: number, listener: BlockListener): number {
    for (const ask of this.#asks.values()) {
      if (ask.row !== row || ask.snapshot !== snapshot || ask.count !== 0 || ask.isLazy) continue;
      this.lastTicket = ask.ticket;
      this.lastPlace = placeOf(ask);
      return MISS;
    }
    return this.#ask(snapshot, row, -1, 0, listener);
  }

  /** Asks for `count` blocks of a large blob; the listener learns of them before the request is run again. */
  askBlocks(
    snapshot: number,
    row: number,
    first: number,
    count: number,
    listener: BlockListener,
  ): number {
    return this.#ask(snapshot, row, first, count, listener);
  }

  /** Asks for a file that can be read before the blob is whole; the listener learns its name before the request is run again. */
  askLazy(snapshot: number, row: number, listener: BlockListener): number {
    return this.#ask(snapshot, row, -1, 0, listener, true);
  }

  #ask(
    snapshot: number,
    row: number,
    first: number,
    count: number,
    listener: BlockListener,
    isLazy: boolean = false,
  ): number {
    if (this.#asks.size >= PARKED_MAX) return -Errno.EIO;
    const ticket = nextTicket++;
    const ask: Ask = { ticket, snapshot, row, first, count, isLazy, listener };
    this.#asks.set(ticket, ask);
    this.lastTicket = ticket;
    this.lastPlace = placeOf(ask);
    if (this.#fd >= 0) this.#sendAsk(ask);
    else this.connect(0);
    return MISS;
  }

  /** Nobody waits for this ask any more (deadline, or its connection ended). */
  forget(ticket: number): void {
    if (this.#asks.delete(ticket) && this.#fd >= 0)
      this.#send(encodeBare(scratch, Frame.cancel, ticket));
  }

  /** Milliseconds from `nowMs` until tick() has something to do; -1: nothing. */
  waitMs(nowMs: number): number {
    if (this.#fd >= 0 || this.#asks.size === 0) return -1;
    return Math.max(0, this.#retryAtMs - nowMs);
  }

  /** Tries again to reach the daemon when someone waits for it. */
  tick(nowMs: number): void {
    if (this.waitMs(nowMs) === 0) this.connect(nowMs);
  }

  /** Connects and asks again for all that is open. A daemon that isn't there is tried again by tick(). */
  connect(nowMs: number): void {
    if (this.#fd >= 0) return;
    const fd =
      this.#folderFd === undefined
        ? native.connectUnix(this.#path)
        : native.connectHere(this.#folderFd, DAEMON_SOCKET);
    const slot = fd < 0 ? fd : addSocket(fd);
    if (slot < 0) {
      if (fd >= 0) native.closeFd(fd);
      this.#retryLater(nowMs);
      return;
    }
    this.#fd = fd;
    this.#slot = slot;
    this.#connection++;
    this.#received = 0;
    this.#isWelcome = false;
    this.#out = Buffer.alloc(0);
    this.#send(encodeHello(scratch, 0, this.#mountId, true));
    for (const ask of this.#asks.values()) this.#sendAsk(ask);
  }

  #retryLater(nowMs: number): void {
    this.#retryAtMs = nowMs + this.#retryMs;
    this.#retryMs = Math.min(2 * this.#retryMs, RECONNECT_MAX_MS);
  }

  /** How long the loop is to wait for something to do before it has touches sent: they are no hurry. -1: there are none to send. */
  get quietMs(): number {
    return this.#takesTouches && this.touches.count > 0 ? QUIET_MS : -1;
  }

  /** Tells the daemon what was touched, if it is there and wants to know: in a quiet moment, at the end, or when a frame is full. */
  sendTouches(): void {
    const { count, words } = this.touches;
    if (count === 0 || !this.#takesTouches || this.#out.length > 0) return;
    this.touches.clear();
    this.#send(encodeTouches(scratch, words, count));
  }

  #disconnect(): void {
    if (this.#fd < 0) return;
    this.#takesTouches = false;
    dropSocket(this.#slot);
    native.closeFd(this.#fd);
    for (const file of this.#files) native.closeFd(file);
    this.#files = [];
    this.#fd = -1;
    this.#slot = -1;
    // Who ended us before a word has too many peers, or is about to end: it is not asked again and again.
    if (this.#isWelcome) this.#retryAtMs = 0;
    else this.#retryLater(performance.now());
  }

  #sendAsk(ask: Ask): void {
    const { ticket, snapshot, row, count, isLazy } = ask;
    if (isLazy) this.#send(encodeAskLazy(scratch, ticket, snapshot, row));
    else if (count > 0) this.#send(encodeAskBlocks(scratch, ticket, ask));
    else this.#send(encodeAskBlob(scratch, ticket, snapshot, row));
  }

  /** Sends the first `bytes` of the scratch, behind what the socket hasn't taken yet. */
  #send(bytes: number): void {
    assert(bytes > 0, "the frame fits");
    this.#out = Buffer.concat([this.#out, scratch.subarray(0, bytes)]);
    this.#flush();
  }

  #flush(): void {
    while (this.#out.length > 0 && this.#fd >= 0) {
      const sent = native.sendMessage(this.#fd, this.#out, noFds, 0);
      if (sent === -Errno.EAGAIN) {
        armSocket(this.#slot, true);
        return;
      }
      if (sent < 0) {
        this.#disconnect();
        return;
      }
      this.#out = this.#out.subarray(sent);
    }
  }

  /** The loop saw an event on the socket. */
  advance(): void {
    this.#flush();
    while (this.#fd >= 0) {
      const got = native.receiveMessage(this.#fd, this.#in.subarray(this.#received), inFds, 0);
      for (let i = 1; got >= 0 && i <= inFds[0]!; i++) this.#files.push(inFds[i]!);
      if (got === -Errno.EAGAIN) {
        armSocket(this.#slot, this.#out.length > 0);
        return;
      }
      if (got === -Errno.EINTR) continue;
      if (got <= 0 || !this.#take(got)) {
        this.#disconnect();
        if (this.#isWelcome) this.tick(0);
        return;
      }
    }
  }

  /** Takes `got` more bytes; false when the peer does not speak the protocol. */
  #take(got: number): boolean {
    const connection = this.#connection;
    this.#received += got;
    let start = 0;
    for (;;) {
      const length = frameBytes(this.#in, start, this.#received);
      if (length < 0) return false;
      if (length === 0) break;
      if (!this.#accept(start, length)) return false;
      // Whoever was woken may have asked more, found the daemon gone and connected anew.
      if (this.#connection !== connection) return true;
      start += length;
    }
    this.#in.copyWithin(0, start, this.#received);
    this.#received -= start;
    return true;
  }

  /** Takes a whole frame. */
  #accept(start: number, length: number): boolean {
    const type = frameType(this.#in, start);
    if (type === Frame.welcome) {
      const errno = welcomeErrno(this.#in, start, length);
      if (errno < 0) return false;
      this.#isWelcome = true;
      this.#retryMs = RECONNECT_FIRST_MS;
      this.#takesTouches = welcomeTakesTouches(this.#in, start);
      this.touches.want(this.#takesTouches);
      // A daemon that doesn't know the view can answer nothing: all that wait fail now, not at their deadline.
      if (errno !== 0) for (const ask of [...this.#asks.values()]) this.#finish(ask, errno, "");
      return true;
    }
    if (type === Frame.working) {
      for (const ticket of this.#asks.keys()) this.onWorking(ticket);
      return true;
    }
    if (type !== Frame.answer || decodeAnswer(this.#in, start, length, answer) < 0) return false;
    // Files come in the order of their answers, none later than its answer. man unix(7), SCM_RIGHTS.
    const hostFd = bringsFile(answer) ? (this.#files.shift() ?? -1) : -1;
    if (bringsFile(answer) && hostFd < 0) return false;
    const ask = this.#asks.get(frameId(this.#in, start));
    if (ask !== undefined) this.#finish(ask, answer.errno, answer.name, hostFd);
    else if (hostFd >= 0) native.closeFd(hostFd);
    return true;
  }

  #finish(ask: Ask, errno: number, name: string, hostFd = -1): void {
    this.#asks.delete(ask.ticket);
    let outcome = errno;
    if (errno === 0) {
      const { row, first, count, listener } = ask;
      if (ask.isLazy) listener.learnLazy(row, name);
      else if (listener.learn(row, first, count, { errno, name, hostFd }) < 0) outcome = Errno.EIO;
    }
    this.onAnswer(ask.ticket, outcome);
  }

  dispose(): void {
    this.sendTouches();
    this.#disconnect();
    this.#asks.clear();
  }
}

/** Of all mailboxes of the process: what waits for them is parked together, by ticket. */
let nextTicket = 1;
const noFds = new Int32Array(1);
/** What one receive may bring: a daemon sends one file with an answer, and the kernel ends a receive behind it. */
const inFds = new Int32Array(5);
/** The frame that is sent next. */
const scratch = Buffer.alloc(FRAME_MAX_BYTES);
/** The answer that is taken. */
const answer: AnswerFields = { errno: 0, state: 0, name: "" };

const ROWS = 2 ** 24;
const BLOCKS = 2 ** 20;

function placeOf({ snapshot, row, first }: Ask): number {
  return (snapshot * ROWS + row) * BLOCKS + first + 1;
}
