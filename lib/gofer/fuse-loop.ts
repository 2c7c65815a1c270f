// FuseLoop: the one thread of a FUSE server: waits for the kernel's requests and the daemon. It ends when the mount is gone, or the
// process that started it. Data-plane rules.

import { Errno } from "../base/errno.ts";
import type { Mailbox } from "../cache/mailbox.ts";
import { Count, counters } from "../serve/counters.ts";
import type { LogLine } from "../serve/fuse/dispatch.ts";
import { type FuseHost, type FuseParked, FuseSession } from "../serve/fuse/session.ts";
import { Park, type Waiting, waitOf } from "../serve/park.ts";
import { native } from "../sys/native.ts";
import {
  addSocket,
  createWait,
  dropSocket,
  nextEvent,
  WaitEvent,
  watchSocket,
} from "../sys/wait.ts";
import type { Tree } from "../tree/tree.ts";

export interface FuseLoopOptions {
  readonly tree: Tree;
  readonly isReadOnly: boolean;
  /** The daemon's, of a tree that asks it. */
  readonly mailbox: Mailbox | undefined;
  readonly log: LogLine;
  /** A parked request is answered EIO after this long without a word of the daemon's. */
  readonly missDeadlineMs: number;
  /** Called once the mount can be used. */
  readonly onReady: () => void;
  /** The kernel opens files by itself: see FuseSession. */
  readonly isUnopened?: boolean;
}

export class FuseLoop implements FuseHost {
  readonly log: LogLine;
  readonly session: FuseSession;
  readonly #options: FuseLoopOptions;
  readonly #park = new Park<FuseParked>();
  readonly #slot: number;
  #leaderSlot = -1;
  #isLeaderGone = false;
  #isReady = false;

  /** Takes the tree, its mailbox, and an FD of /dev/fuse. `slot` < 0 afterwards: it can't be waited for. */
  constructor(device: number, options: FuseLoopOptions) {
    this.#options = options;
    this.log = options.log;
    createWait(true);
    const { tree, isReadOnly, mailbox } = options;
    native.setNonblock(device);
    this.session = new FuseSession(device, tree, isReadOnly, this, options.isUnopened);
    if (mailbox !== undefined) {
      mailbox.onAnswer = (ticket, errno) => this.#wake(ticket, errno);
      mailbox.onWorking = (ticket) => this.#park.renew(ticket, options.missDeadlineMs);
    }
    this.#slot = addSocket(device);
    if (this.#slot >= 0) watchSocket(this.#slot);
  }

  /** 0, or why the device can't be waited for. */
  get fault(): number {
    return Math.min(0, this.#slot);
  }

  /** Has the loop end when the peer of a socket, which says nothing, is gone. */
  endWith(socketFd: number): void {
    this.#leaderSlot = addSocket(socketFd);
  }

  /** Runs until the mount or the leader is gone, and frees the tree: whether the mount is gone. Blocks the thread. */
  run(): boolean {
    while (!this.session.isEnded && !this.#isLeaderGone) this.step(this.#timeoutMs());
    const isUnmounted = this.session.isEnded;
    this.dispose();
    return isUnmounted;
  }

  /** Waits for one event, for so long at most (ms; -1: no limit), and does what there is to do then. */
  step(timeoutMs: number): void {
    const event = nextEvent(-1, 0, timeoutMs);
    const slot = event - WaitEvent.socket;
    const { mailbox } = this.#options;
    if (slot === this.#slot) this.#turn();
    else if (slot >= 0 && slot === this.#leaderSlot) this.#isLeaderGone = true;
    else if (slot >= 0 && slot === mailbox?.slot) mailbox.advance();
    this.#tick();
    this.session.advance();
  }

  #turn(): void {
    this.session.turn();
    if (this.session.isEnded || !this.session.isReady || this.#isReady) return;
    this.#isReady = true;
    this.#options.onReady();
  }

  // Deadlines.

  #timeoutMs(): number {
    if (this.#park.size === 0) return -1;
    const now = performance.now();
    const left = this.#park.nextDeadlineMs - now;
    const wait = this.#options.mailbox?.waitMs(now) ?? -1;
    return Math.ceil(Math.max(0, wait < 0 ? left : Math.min(left, wait)));
  }

  #tick(): void {
    if (this.#park.size === 0) return;
    const now = performance.now();
    this.#options.mailbox?.tick(now);
    for (const late of this.#park.takeLate(now, this.#forget)) {
      counters[Count.parkedTimeouts]!++;
      this.session.wake(late, Errno.EIO);
    }
  }

  #wake(ticket: number, errno: number): void {
    for (const parked of this.#park.take(ticket)) {
      if (errno !== 0) counters[Count.failedFetches]!++;
      // All but that the file is another by now is news of the node, and none of the reader's.
      this.session.wake(parked, errno === 0 || errno === Errno.ESTALE ? errno : Errno.EIO);
    }
  }

  readonly #forget = (ticket: number): void => this.#options.mailbox?.forget(ticket);

  // FuseHost.

  park(parked: FuseParked): void {
    this.#park.add(this.#options.mailbox!.lastTicket, parked);
  }

  unpark(parked: FuseParked): void {
    this.#park.remove(parked, this.#forget);
  }

  wait(): Pick<Waiting, "sinceMs" | "deadlineMs"> {
    return waitOf(this.#options.missDeadlineMs);
  }

  /** Frees all but the FD. */
  dispose(): void {
    const { tree, mailbox } = this.#options;
    if (this.#slot >= 0) dropSocket(this.#slot);
    this.session.dispose();
    tree.dispose();
    mailbox?.dispose();
  }
}
