// ConnectionJournal: the memory of one connection that outlives its server, since the stub keeps it: what is under way on the main
// socket, the FDIDs, and what the tree needs to find their inodes. The client never sees it. docs/protocol/adopt.md, section 8. Data plane.

import { Errno } from "../../base/errno.ts";
import { native } from "../../sys/native.ts";
import {
  JOURNAL_VERSION,
  SOCKET_JOURNAL_BYTES,
  SocketJournal,
} from "../../transport/socket-journal.ts";
import type { Tree } from "../../tree/tree.ts";
import { FD_ROWS_BYTES, FdRows } from "./fd-rows.ts";

/**
 * The last change that each of the last servers began, doubles: which server this is, then tag and outcome of each. One a server, since
 * it has one thread; several, since a successor may begin another's request before it comes to the one that was begun.
 */
const Change = { life: 0, first: 2 } as const;
const LIVES = 7;
const CHANGE_START = SOCKET_JOURNAL_BYTES + FD_ROWS_BYTES;
const CHANGE_BYTES = 128;
const TREE_START = CHANGE_START + CHANGE_BYTES;

/** What became of a change under a predecessor. */
export const Replay = { fresh: 0, unknown: 1, done: 2 } as const;
export type Replay = (typeof Replay)[keyof typeof Replay];

export class ConnectionJournal {
  readonly socket: SocketJournal;
  readonly rows: FdRows;
  /** A predecessor wrote it. */
  readonly isResumed: boolean;
  /** Of the memory, for the stub to keep: open until closeFd. */
  readonly memoryFd: number;
  #isFdOpen = true;
  readonly #memory: ArrayBuffer;
  readonly #change: Float64Array;
  /** Where this server's own change stands, and the one under way. */
  #own: number = Change.first;
  #at: number = Change.first;

  private constructor(memory: ArrayBuffer, memoryFd: number, watchFd: number, isResumed: boolean) {
    this.#memory = memory;
    this.memoryFd = memoryFd;
    this.isResumed = isResumed;
    this.socket = new SocketJournal(memory, 0, watchFd);
    this.rows = new FdRows(memory, SOCKET_JOURNAL_BYTES);
    this.#change = new Float64Array(memory, CHANGE_START, CHANGE_BYTES / 8);
  }

  /** A new one for a socket and a tree: -errno. */
  static create(socketFd: number, tree: Tree): ConnectionJournal | number {
    const memoryFd = native.memfd("burrow-journal", TREE_START + (tree.journalBytes ?? 0));
    if (memoryFd < 0) return memoryFd;
    const watchFd = native.watchReads(socketFd);
    if (watchFd < 0) {
      native.closeFd(memoryFd);
      return watchFd;
    }
    return ConnectionJournal.open(memoryFd, watchFd, tree, false);
  }

  /** One that a predecessor left. Takes both FDs, whatever comes of it. -EPROTO: of another version. */
  static open(
    memoryFd: number,
    watchFd: number,
    tree: Tree,
    isResumed = true,
  ): ConnectionJournal | number {
    const bytes = TREE_START + (tree.journalBytes ?? 0);
    const memory = native.map(memoryFd, 0, bytes, true);
    if (typeof memory !== "number") {
      const journal = new ConnectionJournal(memory, memoryFd, watchFd, isResumed);
      if (!isResumed) journal.socket.version = JOURNAL_VERSION;
      if (journal.socket.version === JOURNAL_VERSION) {
        journal.#beginLife();
        return journal;
      }
      native.unmap(memory);
    }
    native.closeFd(memoryFd);
    native.closeFd(watchFd);
    return typeof memory === "number" ? memory : -Errno.EPROTO;
  }

  /**
   * Before a change that can't be made twice, for the request `tag`: whether a predecessor made it, or may have (it ended in the middle),
   * or nobody did.
   */
  begin(tag: number): Replay {
    const words = this.#change;
    for (let at: number = Change.first; at < words.length; at += 2) {
      if (words[at] !== tag) continue;
      this.#at = at;
      return words[at + 1] ? Replay.done : Replay.unknown;
    }
    this.#at = this.#own;
    words[this.#at + 1] = 0;
    words[this.#at] = tag;
    return Replay.fresh;
  }

  /** The change was made. */
  finish(): void {
    this.#change[this.#at + 1] = 1;
  }

  #beginLife(): void {
    const life = this.isResumed ? this.#change[Change.life]! + 1 : 0;
    this.#change[Change.life] = life;
    this.#own = Change.first + 2 * (life % LIVES);
    this.#change[this.#own] = 0;
  }

  /** The tree's part. */
  treeMemory(tree: Tree): Uint8Array {
    return new Uint8Array(this.#memory, TREE_START, tree.journalBytes ?? 0);
  }

  /** The memory stays mapped. */
  closeFd(): void {
    if (this.#isFdOpen) native.closeFd(this.memoryFd);
    this.#isFdOpen = false;
  }

  /** After the socket, which closes its own part. */
  close(): void {
    this.closeFd();
    native.unmap(this.#memory);
  }
}
