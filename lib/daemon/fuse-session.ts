// FuseSession: answers the kernel's FUSE client on an FD of /dev/fuse for a flat, read-only file system whose files never change, so
// that the kernel remembers whatever it was told. A READ may take as long as the bytes take to come; all else is answered at once,
// from memory (pitfall A9). man fuse(4). Control plane.

import fs from "node:fs";
import { Errno, MISS } from "../base/errno.ts";
import { S_IFDIR } from "../base/file-types.ts";
import type { Log } from "../cache/counters.ts";
import { errnoOf } from "../store/node-error.ts";
import {
  canResend,
  decodeForget,
  decodeForgets,
  decodeInit,
  decodeName,
  decodeRead,
  decodeRequest,
  encodeAttr,
  encodeEntry,
  encodeInit,
  encodeReply,
  encodeResend,
  encodeStatfs,
  FUSE_MAJOR,
  FUSE_MINOR_MIN,
  type NodeFacts,
  Opcode,
  putReadReply,
  READ_MAX_BYTES,
  REPLY_HEAD_BYTES,
  REQUEST_MAX_BYTES,
  type ReadRange,
  type Request,
  ROOT_NODE,
  type Unique,
} from "../wire/fuse/message.ts";

/** The files of a session. */
export interface FuseFiles {
  /** The file of a name in the root, and one lookup more of it; undefined when there is none. */
  lookup(name: string): NodeFacts | undefined;
  /** What a node is; undefined when it isn't known. */
  facts(node: number): NodeFacts | undefined;
  /** The kernel takes lookups of a node back: at none it knows it no more. */
  forget(node: number, lookups: number): void;
  /** Reads at once: bytes, fewer than fit at the file's end only; MISS when they aren't here; or -errno. */
  read(node: number, offset: number, out: Uint8Array): number;
  /** Brings what a read missed, or some of it: 0, or -errno when it can't be had. Doesn't reject. */
  fetch(node: number, offset: number, length: number): Promise<number>;
}

/** Requests that are waited for at once, each in a thread of Node's pool: two, so that one can be answered while the next comes. */
const READERS = 2;
/** READs under way. Past them they fail: whoever causes so many has as many threads, and each costs its bytes. */
const READS_MAX = 4096;
/** How often bytes that were fetched may be gone again before they are read. */
const TRIES = 5;
const ROOT: NodeFacts = { node: ROOT_NODE, mode: S_IFDIR | 0o755, size: 0 };

export class FuseSession {
  /** Resolves when the file system was unmounted, or its connection ended otherwise, and nobody reads from the FD any more. */
  readonly ended: Promise<void>;
  readonly #fd: number;
  readonly #files: FuseFiles;
  readonly #log: Log;
  readonly #onResumable: () => void;
  /** Of the READ that is answered. */
  readonly #reply = Buffer.alloc(REPLY_HEAD_BYTES + READ_MAX_BYTES);
  #reads = 0;
  #readers = READERS;
  #isEnded = false;
  #end: () => void = () => undefined;

  /**
   * Over an FD of /dev/fuse that something is mounted with, which stays the caller's. `onResumable`: the kernel would send again what
   * nobody answered, so another session may follow on this one.
   */
  constructor(fd: number, files: FuseFiles, log: Log, onResumable: () => void = () => undefined) {
    this.#fd = fd;
    this.#files = files;
    this.#log = log;
    this.#onResumable = onResumable;
    this.ended = new Promise((resolve) => {
      this.#end = resolve;
    });
    for (let i = 0; i < READERS; i++) this.#receive(Buffer.alloc(REQUEST_MAX_BYTES));
  }

  /** Has the kernel send again what a session before this one did not answer: false if it can't. */
  resume(): boolean {
    try {
      fs.writeSync(this.#fd, encodeResend());
      return true;
    } catch {
      return false;
    }
  }

  /** Answers nothing any more: another session will. What is read from the device after this is sent again to that one. */
  abandon(): void {
    this.#isEnded = true;
  }

  /** READs under way. */
  get reads(): number {
    return this.#reads;
  }

  #receive(buffer: Buffer): void {
    fs.read(this.#fd, buffer, 0, buffer.length, null, (error, got) => {
      if (error !== null && !isPassing(error)) return this.#finish(error);
      if (error === null) this.#take(buffer.subarray(0, got));
      this.#receive(buffer);
    });
  }

  /** Each reader hears of the end by itself. Until the last has, the FD's number must not become another's. */
  #finish(error: Error): void {
    const isNews = !this.#isEnded && errnoOf(error).code !== "ENODEV";
    if (isNews) this.#log("lazy mount lost", { error: error.message });
    this.#isEnded = true;
    if (--this.#readers === 0) this.#end();
  }

  #take(bytes: Buffer): void {
    const request = decodeRequest(bytes);
    if (request === undefined || this.#isEnded) return;
    const reply = this.#answer(request);
    if (reply !== undefined) this.#send(reply);
  }

  /** The reply, if it can be given at once and one is wanted. */
  #answer(request: Request): Uint8Array | undefined {
    const { opcode, unique, node, body } = request;
    const files = this.#files;
    switch (opcode) {
      case Opcode.init:
        return this.#init(request);
      case Opcode.lookup: {
        const found = node === ROOT_NODE ? files.lookup(decodeName(body)) : undefined;
        return found ? encodeEntry(unique, found) : encodeReply(unique, -Errno.ENOENT);
      }
      case Opcode.getattr: {
        const found = node === ROOT_NODE ? ROOT : files.facts(node);
        return found ? encodeAttr(unique, found) : encodeReply(unique, -Errno.ENOENT);
      }
      case Opcode.read:
        return this.#read(request);
      case Opcode.forget:
        files.forget(node, decodeForget(body));
        return undefined;
      case Opcode.batchForget:
        for (const { node: one, lookups } of decodeForgets(body)) files.forget(one, lookups);
        return undefined;
      case Opcode.interrupt:
        return undefined; // what is read will be there for the next who asks
      case Opcode.statfs:
        return encodeStatfs(unique);
      case Opcode.readdir:
      case Opcode.readdirplus:
      case Opcode.release:
      case Opcode.releasedir:
      case Opcode.destroy:
        return encodeReply(unique, 0); // names are told, not listed
      default:
        // OPEN and OPENDIR among them: then the kernel opens by itself, and keeps its cache. FLUSH, too: who dies asks nobody.
        return encodeReply(unique, -Errno.ENOSYS);
    }
  }

  #init({ unique, body }: Request): Uint8Array {
    const wanted = decodeInit(body);
    if (wanted?.major === FUSE_MAJOR && wanted.minor >= FUSE_MINOR_MIN) {
      if (canResend(wanted)) this.#onResumable();
      return encodeInit(unique, wanted);
    }
    this.#log("lazy mount refused", { major: wanted?.major ?? -1, minor: wanted?.minor ?? -1 });
    return encodeReply(unique, -Errno.EPROTO);
  }

  /** Answers a READ; false when it misses its bytes. Look, read and reply are one step: nothing comes between. */
  #readNow(unique: Unique, node: number, { offset, length }: ReadRange): boolean {
    const out = this.#reply.subarray(REPLY_HEAD_BYTES, REPLY_HEAD_BYTES + length);
    const got = this.#files.read(node, offset, out);
    if (got === MISS) return false;
    this.#send(got < 0 ? encodeReply(unique, got) : putReadReply(this.#reply, unique, got));
    return true;
  }

  #read({ unique, node, body }: Request): Uint8Array | undefined {
    const range = decodeRead(body);
    if (range === undefined) return encodeReply(unique, -Errno.EINVAL);
    if (this.#readNow(unique, node, range)) return undefined;
    if (this.#reads >= READS_MAX) return encodeReply(unique, -Errno.EIO);
    this.#reads++;
    void this.#fetch(unique, node, range).then((failed) => {
      this.#reads--;
      if (failed < 0) this.#send(encodeReply(unique, failed));
    });
    return undefined;
  }

  /** Answers a READ when its bytes have come: 0, or -errno if they can't be had. */
  async #fetch(unique: Unique, node: number, range: ReadRange): Promise<number> {
    for (let tries = 0; tries < TRIES; tries++) {
      const failed = await this.#files.fetch(node, range.offset, range.length);
      if (failed < 0) return failed;
      if (this.#isEnded || this.#readNow(unique, node, range)) return 0;
    }
    return -Errno.EIO;
  }

  #send(reply: Uint8Array): void {
    if (this.#isEnded) return;
    try {
      fs.writeSync(this.#fd, reply);
    } catch (error) {
      // ENOENT: nobody waits for it any more. Else the connection is gone, which the readers will hear.
      const { code } = errnoOf(error);
      if (code !== "ENOENT") this.#log("lazy reply not taken", { error: code ?? String(error) });
    }
  }
}

/** Whether reading goes on: a request was interrupted before it was read. man fuse(4), libfuse fuse_lowlevel.c. */
function isPassing(error: Error): boolean {
  const { code } = errnoOf(error);
  return code === "ENOENT" || code === "EINTR" || code === "EAGAIN";
}
