// FuseSession: one mount's state: answers the kernel's FUSE client on an FD of /dev/fuse for a tree. What misses its bytes is parked and
// run again from the start; all else is answered at once. man fuse(4). Data plane.

import { Errno, MISS } from "../../base/errno.ts";
import {
  FUSE_LINE_MAX,
  FUSE_PARKED_BYTES_MAX,
  FUSE_TURN_REQUESTS,
  PARKED_MAX,
} from "../../base/limits.ts";
import { native } from "../../sys/native.ts";
import type { Tree } from "../../tree/tree.ts";
import { Cursor } from "../../wire/cursor.ts";
import {
  decodeForgets,
  decodeInit,
  encodeInit,
  encodeResend,
  FOR_EVER_SECONDS,
  FUSE_MAJOR,
  FUSE_MINOR_MIN,
  IMMUTABLE_WISHES,
  Opcode,
  READ_MAX_BYTES,
  REPLY_HEAD_BYTES,
  REQUEST_HEAD_BYTES,
  TREE_WISHES,
  UNOPENED_WISHES,
  type Unique,
} from "../../wire/fuse/message.ts";
import { putHead } from "../../wire/fuse/reply.ts";
import { decodeHead, FuseRequest } from "../../wire/fuse/request.ts";
import { Count, counters } from "../counters.ts";
import type { Waiting } from "../park.ts";
import { dispatch, type LogLine } from "./dispatch.ts";
import { NO_REPLY } from "./handler.ts";
import { HandleTable } from "./handles.ts";
import { NodeTable } from "./nodes.ts";
import { Unopened } from "./unopened.ts";

export interface FuseParked extends Waiting {
  readonly connection: FuseSession;
  readonly unique: Unique;
  /** The whole request. */
  readonly bytes: Buffer;
}

interface Lined {
  readonly unique: Unique;
  /** The whole request. */
  readonly bytes: Buffer;
}

/** What a session needs of its loop. */
export interface FuseHost {
  readonly log: LogLine;
  /** Parks a request that has just returned MISS. */
  park(parked: FuseParked): void;
  unpark(parked: FuseParked): void;
  /** Since when a request waits that is parked now, and until when. */
  wait(): Pick<Waiting, "sinceMs" | "deadlineMs">;
}

/** Beside the data of a WRITE: its head and struct fuse_write_in, in pages. */
const REQUEST_BYTES = READ_MAX_BYTES + 4096;
/** Of a READ: its head, and struct fuse_read_in. */
const LINED_BYTES = REQUEST_HEAD_BYTES + 40;
/** How long names and attributes hold in a tree that is written to: only through this mount, but link counts change beside it. */
const WRITABLE_SECONDS = 1;

export class FuseSession {
  readonly tree: Tree;
  readonly isReadOnly: boolean;
  /** Nothing ever changes, so that the kernel may remember whatever it was told. */
  readonly isImmutable: boolean;
  /** For how long it may, s. */
  readonly seconds: number;
  readonly nodes: NodeTable;
  readonly handles: HandleTable;
  /** Where the kernel opens files and directories by itself, without asking: what it reads. Only of what never changes. */
  readonly unopened: Unopened | undefined;
  readonly #fd: number;
  readonly #host: FuseHost;
  readonly #in = new Cursor(Buffer.alloc(REQUEST_BYTES));
  readonly #out = new Cursor(Buffer.alloc(REPLY_HEAD_BYTES + READ_MAX_BYTES));
  readonly #request = new FuseRequest();
  readonly #parked = new Set<FuseParked>();
  /** READs that came while as many waited for bytes as may, by the lower half of their number: all but they are answered meanwhile. */
  readonly #line = new Map<number, Lined>();
  /** The kernel has been told what it may do: the mount can be used. */
  isReady = false;
  /** The mount is gone, or its connection was aborted. */
  isEnded = false;

  /**
   * Over an FD of /dev/fuse that doesn't block and that something is mounted with; both it and the tree stay the caller's.
   * `isUnopened`: the kernel is told to open files of a tree that never changes by itself.
   */
  constructor(fd: number, tree: Tree, isReadOnly: boolean, host: FuseHost, isUnopened = false) {
    this.#fd = fd;
    this.#host = host;
    this.tree = tree;
    this.isReadOnly = isReadOnly;
    this.isImmutable = tree.isReadOnly && tree.isStateless;
    this.seconds = this.isImmutable ? FOR_EVER_SECONDS : WRITABLE_SECONDS;
    this.nodes = new NodeTable(tree);
    this.handles = new HandleTable(tree);
    this.unopened = isUnopened && this.isImmutable ? new Unopened(this.handles) : undefined;
  }

  /** Follows a session on the same device: the kernel sends again what that one did not answer. False if it can't, before Linux 6.9. */
  resume(): boolean {
    this.isReady = native.writeFd(this.#fd, encodeResend()) >= 0;
    return this.isReady;
  }

  /** Answers what there is to answer, a bounded number: whether there may be more at once. */
  turn(): boolean {
    for (let i = 0; i < FUSE_TURN_REQUESTS; i++) {
      const got = native.readFd(this.#fd, this.#in.buffer);
      if (got === -Errno.EAGAIN) return false;
      // Interrupted before it was read. man fuse(4); libfuse, fuse_lowlevel.c.
      if (got === -Errno.ENOENT || got === -Errno.EINTR) continue;
      if (got < 0) {
        this.isEnded = true;
        if (got !== -Errno.ENODEV) this.#host.log(`the mount is lost: ${-got}`);
        return false;
      }
      this.#answer(got);
    }
    return true;
  }

  /** Answers the request of so many bytes that stands in the buffer. */
  #answer(bytes: number, isAgain: boolean = false): void {
    const request = this.#request;
    if (!decodeHead(this.#in, bytes, request)) {
      this.#host.log(`a request of ${bytes} bytes is none`);
      return;
    }
    if (!isAgain && this.#isFull && request.opcode === Opcode.read) {
      this.#lineUp(bytes);
      return;
    }
    const { buffer } = this.#out;
    const reply = this.#out.seek(REPLY_HEAD_BYTES, buffer.length);
    const outcome = dispatch(this, request, this.#in, reply, this.#host.log);
    if (outcome === NO_REPLY) return;
    if (outcome === MISS) {
      if (!isAgain) counters[Count.misses]!++;
      this.#park(bytes);
    } else this.#send(request.unique, outcome < 0 ? outcome : 0, reply.offset);
  }

  #send(unique: Unique, errno: number, end: number): void {
    if (errno < 0) counters[Count.errors]!++;
    const bytes = errno < 0 ? REPLY_HEAD_BYTES : end;
    putHead(this.#out, unique, errno, bytes);
    const sent = native.writeFd(this.#fd, this.#out.buffer.subarray(0, bytes));
    // ENOENT: nobody waits for it any more. Else the connection is gone, which the next read says.
    if (sent < 0 && sent !== -Errno.ENOENT && sent !== -Errno.ENODEV)
      this.#host.log(`a reply was not taken: ${-sent}`);
  }

  get #isFull(): boolean {
    return this.#parked.size >= PARKED_MAX;
  }

  /** One mount has many readers, sandboxes of a direct one: that some wait for much is no fault of the others'. */
  #lineUp(bytes: number): void {
    const { unique } = this.#request;
    if (this.#line.size >= FUSE_LINE_MAX || bytes > LINED_BYTES) {
      this.#send(unique, -Errno.EIO, 0);
      return;
    }
    this.#line.set(unique[0], { unique, bytes: Buffer.from(this.#in.buffer.subarray(0, bytes)) });
  }

  /** Goes on with what stands in line, as far as there is room: to be called when something was woken. */
  advance(): void {
    for (const [number, { bytes }] of this.#line) {
      if (this.#isFull) return;
      this.#line.delete(number);
      bytes.copy(this.#in.buffer);
      this.#answer(bytes.length);
    }
  }

  #park(bytes: number): void {
    const { unique } = this.#request;
    if (bytes > FUSE_PARKED_BYTES_MAX || this.#isFull) {
      this.#send(unique, -Errno.EIO, 0);
      return;
    }
    const copy = Buffer.from(this.#in.buffer.subarray(0, bytes));
    const parked: FuseParked = { connection: this, unique, bytes: copy, ...this.#host.wait() };
    this.#parked.add(parked);
    this.#host.park(parked);
  }

  /** A parked request's bytes are here (0), or can't be had: runs it again, or answers it with the errno. */
  wake(parked: FuseParked, errno: number): void {
    if (!this.#parked.delete(parked)) return;
    if (errno !== 0) {
      this.#send(parked.unique, -errno, 0);
      return;
    }
    parked.bytes.copy(this.#in.buffer);
    this.#answer(parked.bytes.length, true);
  }

  /** Requests that wait for bytes. */
  get parkedCount(): number {
    return this.#parked.size;
  }

  /** READs that wait for those. */
  get lineLength(): number {
    return this.#line.size;
  }

  /** The bytes of a request that has some, until the next is read. */
  data({ dataStart, dataLength }: FuseRequest): Uint8Array {
    return this.#in.buffer.subarray(dataStart, dataStart + dataLength);
  }

  // Handlers of what is about the session itself.

  init(reply: Cursor): number {
    const body = this.#in.buffer.subarray(REQUEST_HEAD_BYTES, this.#in.end);
    const wanted = decodeInit(body);
    if (wanted === undefined || wanted.major < FUSE_MAJOR) return -Errno.EPROTO;
    if (wanted.major === FUSE_MAJOR && wanted.minor < FUSE_MINOR_MIN) {
      this.#host.log(`the kernel's FUSE is 7.${wanted.minor}; it must be 7.${FUSE_MINOR_MIN}`);
      return -Errno.EPROTO;
    }
    const kept = this.unopened === undefined ? IMMUTABLE_WISHES : UNOPENED_WISHES;
    const wishes = this.isImmutable ? kept : TREE_WISHES;
    const whole = encodeInit(this.#request.unique, wanted, wishes, READ_MAX_BYTES);
    reply.putBytes(whole.subarray(REPLY_HEAD_BYTES));
    this.isReady = true;
    return 0;
  }

  /** Whoever waits for a request was killed or has had a signal: of those that wait for bytes it needs none any more. */
  interrupt(uniqueLow: number): number {
    const lined = this.#line.get(uniqueLow);
    if (lined !== undefined) {
      this.#line.delete(uniqueLow);
      this.#send(lined.unique, -Errno.EINTR, 0);
    }
    for (const parked of this.#parked) {
      if (parked.unique[0] !== uniqueLow) continue;
      this.#host.unpark(parked);
      this.wake(parked, Errno.EINTR);
      break;
    }
    return NO_REPLY;
  }

  forgetMany(): number {
    const body = this.#in.buffer.subarray(REQUEST_HEAD_BYTES, this.#in.end);
    for (const { node, lookups } of decodeForgets(body)) this.nodes.forget(node, lookups);
    return NO_REPLY;
  }

  /** Gives back what the tree holds for the kernel. */
  dispose(): void {
    this.#parked.clear();
    this.#line.clear();
    this.handles.dispose();
    this.nodes.dispose();
  }
}
