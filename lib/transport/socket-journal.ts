// SocketJournal: what a successor must know of a main socket: the request that was read and not answered, and how far its answer went.
// In memory that the stub keeps, where it has one. docs/protocol/adopt.md, section 8. Data plane.

import { LISAFS_MESSAGE_MAX_BYTES } from "../base/limits.ts";
import { native } from "../sys/native.ts";

export const HEADER_BYTES = 8;
/**
 * What is kept of a request, whose reply overwrites it: all that the sentry sends over a socket but the data of large writes, which no
 * reply reaches.
 */
export const SAVED_BYTES = 64 * 1024;
const WORDS_BYTES = 4096;
const BUFFER_START = WORDS_BYTES + SAVED_BYTES;
const PAGE_BYTES = 4096;

/** Bytes of a journal. */
export const SOCKET_JOURNAL_BYTES =
  BUFFER_START + Math.ceil((HEADER_BYTES + LISAFS_MESSAGE_MAX_BYTES) / PAGE_BYTES) * PAGE_BYTES;

/**
 * Where a server was with its socket. reading: all of a request is still in the socket, or none came. torn: a part of one was taken
 * out, and nobody can take it up. handling: `saved` has the request; the socket may still have it too. sending: the reply's bytes
 * stand in the buffer.
 */
export const Phase = { reading: 0, torn: 1, handling: 2, sending: 3 } as const;
export type Phase = (typeof Phase)[keyof typeof Phase];

const Word = { phase: 0, requestBytes: 1, toSend: 2, sent: 3, serial: 4, version: 5 } as const;
/** Of all that a connection's journal says, this file's part and the others'. Another version is nothing that we can take up. */
export const JOURNAL_VERSION = 2;
/** Where it stands in the memory, a u32. */
export const JOURNAL_VERSION_OFFSET = Word.version * 4;

export class SocketJournal {
  readonly saved: Uint8Array;
  /** The socket's buffer: header, then payload. Untouched pages of it cost nothing. */
  readonly bytes: Uint8Array;
  /** Remembers that the peer read: native.watchReads; -1: nobody takes up this socket. */
  readonly watchFd: number;
  readonly #words: Int32Array;

  /** Over memory from `start` on; zeros are a socket of which nothing was read. Takes watchFd. */
  constructor(memory: ArrayBuffer, start: number, watchFd: number) {
    this.#words = new Int32Array(memory, start, WORDS_BYTES / 4);
    this.saved = new Uint8Array(memory, start + WORDS_BYTES, SAVED_BYTES);
    this.bytes = new Uint8Array(
      memory,
      start + BUFFER_START,
      HEADER_BYTES + LISAFS_MESSAGE_MAX_BYTES,
    );
    this.watchFd = watchFd;
  }

  /** One that dies with the server. */
  static unkept(): SocketJournal {
    return new SocketJournal(new ArrayBuffer(SOCKET_JOURNAL_BYTES), 0, -1);
  }

  get phase(): Phase {
    return this.#words[Word.phase] as Phase;
  }

  /** Each change is one store, after all that it speaks of: a server may end between any two. */
  set phase(phase: Phase) {
    this.#words[Word.phase] = phase;
  }

  get version(): number {
    return this.#words[Word.version]!;
  }

  set version(version: number) {
    this.#words[Word.version] = version;
  }

  /** Bytes of the request under way, its header among them. */
  get requestBytes(): number {
    return this.#words[Word.requestBytes]!;
  }

  get toSend(): number {
    return this.#words[Word.toSend]!;
  }

  /** Bytes of the reply that surely went out. */
  get sent(): number {
    return this.#words[Word.sent]!;
  }

  set sent(bytes: number) {
    this.#words[Word.sent] = bytes;
  }

  /** Counts requests. */
  get serial(): number {
    return this.#words[Word.serial]! >>> 0;
  }

  /** The request that stands in the buffer is under way. */
  noteRequest(bytes: number): void {
    this.saved.set(this.bytes.subarray(0, Math.min(bytes, SAVED_BYTES)));
    this.#words[Word.requestBytes] = bytes;
    this.#words[Word.serial]!++;
    this.phase = Phase.handling;
  }

  /** Puts it back into the buffer, where its reply may have overwritten it. */
  restoreRequest(): void {
    this.bytes.set(this.saved.subarray(0, Math.min(this.requestBytes, SAVED_BYTES)));
    this.phase = Phase.handling;
  }

  /** The reply in the buffer is to be sent. */
  noteReply(bytes: number): void {
    this.#words[Word.toSend] = bytes;
    this.#words[Word.sent] = 0;
    this.phase = Phase.sending;
  }

  /** Gives the watching FD back; the memory is its owner's. */
  close(): void {
    if (this.watchFd >= 0) native.closeFd(this.watchFd);
  }
}
