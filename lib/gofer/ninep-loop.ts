// NinepLoop: the one thread of a 9P server: waits for clients, sockets and the daemon, and gives each session its turns. It ends when
// the process that started it is gone, or when it has nobody to serve any more. Data-plane rules.

import { Errno } from "../base/errno.ts";
import {
  CONTROL_FDS_MAX,
  NINEP_ATTRIBUTE_BYTES_MAX,
  NINEP_FIDS_MAX,
  NINEP_FIRST_BYTES,
  NINEP_HOST_FDS_MAX,
  NINEP_PLACES_MAX,
  NINEP_REFUSED_MAX,
  NINEP_SESSIONS_MAX,
  OTHER_FDS_MAX,
} from "../base/limits.ts";
import { Count, counters } from "../serve/counters.ts";
import type { LogLine } from "../serve/ninep/dispatch.ts";
import type { FidLimits } from "../serve/ninep/fid-table.ts";
import { type ParkedRequest, Session, type SessionHost } from "../serve/ninep/session.ts";
import type { ServedView } from "../serve/ninep/view.ts";
import { Park, type Waiting, waitOf } from "../serve/park.ts";
import { native } from "../sys/native.ts";
import { addSocket, armSocket, createWait, dropSocket, nextEvent, WaitEvent } from "../sys/wait.ts";
import { Stream } from "../transport/stream.ts";

/** Of accept(2): there is no FD, or no memory, for one more. Who connected waits on. */
const NO_ROOM: readonly number[] = [Errno.EMFILE, Errno.ENFILE, Errno.ENOBUFS, Errno.ENOMEM];
/** When that is tried again: the socket says all the time that somebody waits. */
const ACCEPT_AGAIN_MS = 100;

export interface NinepLoopOptions {
  /** The first is what an empty aname picks. */
  readonly views: readonly ServedView[];
  readonly log: LogLine;
  /** A parked request is answered EIO after this long without a word of the daemon's. */
  readonly missDeadlineMs: number;
  /** RLIMIT_NOFILE of this process. */
  readonly fdLimit: number;
  /** A client that has not said its version after this long is disconnected. */
  readonly helloMs: number;
  /** Why whoever connected by this FD may not be served; undefined: they may. */
  readonly refusalOf: (fd: number) => string | undefined;
}

export class NinepLoop implements SessionHost {
  readonly log: LogLine;
  readonly #options: NinepLoopOptions;
  readonly #park = new Park<ParkedRequest>();
  /** By the wait slot of the socket. */
  readonly #sessions = new Map<number, Session>();
  /** Sessions with more to do at once. */
  readonly #busy = new Set<Session>();
  /** Those that have not said their version, and until when they may. */
  readonly #hellos = new Map<Session, number>();
  /** Listening sockets, by their slots. */
  readonly #listeners = new Map<number, number>();
  /** Slots of those that accept nobody until then. */
  readonly #resting = new Map<number, number>();
  #leaderSlot = -1;
  #isOver = false;
  #refusedCount = 0;

  constructor(options: NinepLoopOptions) {
    this.#options = options;
    this.log = options.log;
    createWait(true);
    for (const { mailbox } of options.views) {
      if (mailbox === undefined) continue;
      mailbox.onAnswer = (ticket, errno) => this.#wake(ticket, errno);
      mailbox.onWorking = (ticket) => this.#park.renew(ticket, options.missDeadlineMs);
    }
  }

  /** Accepts clients of a listening socket that doesn't block, which it takes: 0 or -errno. */
  listen(fd: number): number {
    const slot = addSocket(fd);
    if (slot < 0) return slot;
    this.#listeners.set(slot, fd);
    return 0;
  }

  /** Serves a connected socket, which it takes, whatever comes of it: 0 or -errno. */
  add(fd: number, refusal: string | undefined = undefined): number {
    const isRefused = refusal !== undefined;
    const isFull = isRefused
      ? this.#refusedCount >= NINEP_REFUSED_MAX
      : this.#sessions.size - this.#refusedCount >= NINEP_SESSIONS_MAX;
    if (isRefused || isFull) counters[Count.refused]!++;
    if (refusal !== undefined) this.log(`a client is refused: ${refusal}`);
    else if (isFull) this.log(`a client is refused: there are ${NINEP_SESSIONS_MAX} already`);
    const stream = isFull ? -Errno.EMFILE : Stream.open(fd, NINEP_FIRST_BYTES);
    if (typeof stream === "number") {
      native.closeFd(fd);
      return stream;
    }
    const session = new Session(stream, this.#limits(), isRefused ? Errno.EACCES : 0, this);
    this.#sessions.set(stream.slot, session);
    this.#hellos.set(session, performance.now() + this.#options.helloMs);
    if (isRefused) this.#refusedCount++;
    else counters[Count.connections]!++;
    return 0;
  }

  /** What one more client may hold: of what costs the process FDs, a share, so that there is one for the next. */
  #limits(): FidLimits {
    const kept = Math.min(OTHER_FDS_MAX, Math.floor(this.#options.fdLimit / 4));
    // A place is one FD at most, and a handle is one more.
    const fds = Math.min(CONTROL_FDS_MAX, Math.floor((this.#options.fdLimit - kept) / 2));
    const share = Math.floor(fds / (this.#sessions.size + 2));
    return {
      fids: NINEP_FIDS_MAX,
      places: NINEP_PLACES_MAX,
      statefulPlaces: share,
      statefulHandles: share,
      hostFds: NINEP_HOST_FDS_MAX,
      attributeBytes: NINEP_ATTRIBUTE_BYTES_MAX,
    };
  }

  /** Has the loop end when the peer of a socket, which says nothing, is gone. Without one it ends with its last session. */
  endWith(socketFd: number): void {
    this.#leaderSlot = addSocket(socketFd);
  }

  /** Runs until it has nobody to serve any more. Blocks the thread. */
  run(): void {
    const isLed = this.#leaderSlot >= 0;
    while (!this.#isOver && (isLed || this.#listeners.size > 0 || this.#sessions.size > 0)) {
      this.step(this.#timeoutMs());
    }
    this.dispose();
  }

  /** Waits for one event, for so long at most (ms; -1: no limit), and does what there is to do then. */
  step(timeoutMs: number): void {
    const event = nextEvent(-1, 0, timeoutMs);
    if (event >= WaitEvent.socket && event < WaitEvent.closed) {
      this.#advance(event - WaitEvent.socket);
    }
    for (const session of [...this.#busy]) this.#turn(session);
    this.#tick();
  }

  #advance(slot: number): void {
    const session = this.#sessions.get(slot);
    const listener = this.#listeners.get(slot);
    if (session !== undefined) this.#busy.add(session);
    else if (listener !== undefined) this.#accept(slot, listener);
    else if (slot === this.#leaderSlot) this.#isOver = true;
    else
      for (const { mailbox } of this.#options.views) if (mailbox?.slot === slot) mailbox.advance();
  }

  #accept(slot: number, listener: number): void {
    for (let i = 0; i < NINEP_SESSIONS_MAX; i++) {
      const fd = native.acceptPeer(listener);
      if (NO_ROOM.includes(-fd)) {
        this.#resting.set(slot, performance.now() + ACCEPT_AGAIN_MS);
        return;
      }
      if (fd < 0) break;
      this.add(fd, this.#options.refusalOf(fd));
    }
    armSocket(slot, false);
  }

  #turn(session: Session): void {
    if (!session.isOpen || !session.turn()) this.#busy.delete(session);
    if (session.isVersioned) this.#hellos.delete(session);
  }

  // Deadlines.

  #timeoutMs(): number {
    if (this.#busy.size > 0) return 0;
    if (!this.#isTimed) return -1;
    const now = performance.now();
    const ends = [...this.#hellos.values(), ...this.#resting.values()];
    const times: number[] = ends.map((at) => at - now);
    if (this.#park.size > 0) times.push(this.#park.nextDeadlineMs - now);
    for (const { mailbox } of this.#options.views) {
      const wait = mailbox?.waitMs(now) ?? -1;
      if (wait >= 0) times.push(wait);
    }
    return Math.ceil(Math.max(0, Math.min(...times)));
  }

  /** Whether anything is to be done at some time. */
  get #isTimed(): boolean {
    return this.#park.size + this.#hellos.size + this.#resting.size > 0;
  }

  #tick(): void {
    if (!this.#isTimed) return;
    const now = performance.now();
    for (const [slot, until] of this.#resting) {
      if (until > now) continue;
      this.#resting.delete(slot);
      armSocket(slot, false);
    }
    for (const [session, until] of this.#hellos) if (until <= now) session.end();
    for (const { mailbox } of this.#options.views) mailbox?.tick(now);
    for (const late of this.#park.takeLate(now, this.#forget)) {
      counters[Count.parkedTimeouts]!++;
      this.#answer(late, Errno.EIO);
    }
  }

  #wake(ticket: number, errno: number): void {
    for (const parked of this.#park.take(ticket)) {
      if (errno !== 0) counters[Count.failedFetches]!++;
      // All but that the file is another by now is news of the node, and none of the client's.
      this.#answer(parked, errno === 0 || errno === Errno.ESTALE ? errno : Errno.EIO);
    }
  }

  #answer(parked: ParkedRequest, errno: number): void {
    parked.connection.wake(parked, errno);
    this.#busy.add(parked.connection);
  }

  /** Tickets are of all mailboxes together, so the others don't know it. */
  readonly #forget = (ticket: number): void => {
    for (const { mailbox } of this.#options.views) mailbox?.forget(ticket);
  };

  // SessionHost.

  viewOf(aname: string): ServedView | undefined {
    let start = 0;
    while (aname.charCodeAt(start) === 0x2f) start++;
    const name = aname.slice(start);
    const { views } = this.#options;
    return name === "" ? views[0] : views.find((view) => view.name === name);
  }

  park(parked: ParkedRequest): void {
    this.#park.add(parked.view.mailbox!.lastTicket, parked);
  }

  unpark(parked: ParkedRequest): void {
    this.#park.remove(parked, this.#forget);
  }

  wait(): Pick<Waiting, "sinceMs" | "deadlineMs"> {
    return waitOf(this.#options.missDeadlineMs);
  }

  ended(session: Session): void {
    this.#sessions.delete(session.stream.slot);
    this.#busy.delete(session);
    this.#hellos.delete(session);
    if (session.refusal !== 0) this.#refusedCount--;
  }

  get sessionCount(): number {
    return this.#sessions.size;
  }

  /** Ends all sessions and frees all views. */
  dispose(): void {
    for (const session of [...this.#sessions.values()]) session.end();
    for (const [slot, fd] of this.#listeners) {
      dropSocket(slot);
      native.closeFd(fd);
    }
    this.#listeners.clear();
    for (const { tree, mailbox } of this.#options.views) {
      tree.dispose();
      mailbox?.dispose();
    }
  }
}
