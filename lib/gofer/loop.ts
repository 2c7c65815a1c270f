// Loop: the data plane's one thread: waits for channels, sockets and the daemon, and has each request run. It owns every
// connection, and ends when the last one is gone. docs/design/0001-threads.md says why one thread. Data plane.

import { Errno, MISS } from "../base/errno.ts";
import {
  CHANNELS_PER_CONNECTION_MAX,
  CONNECTIONS_MAX,
  PARKED_BYTES_MAX,
  WAIT_WORDS_MAX,
} from "../base/limits.ts";
import type { Mailbox } from "../cache/mailbox.ts";
import { Count, counters, countFor } from "../serve/counters.ts";
import { answerError, dispatch, type LogLine } from "../serve/dispatch.ts";
import { type ChannelFds, Connection, type ConnectionHost } from "../serve/lisafs/connection.ts";
import { ConnectionJournal } from "../serve/lisafs/journal.ts";
import { Park, type Parked, waitOf } from "../serve/park.ts";
import { TRACED_MISS, trace } from "../serve/trace.ts";
import {
  addSocket,
  armSocket,
  createWait,
  dropSocket,
  nextEvent,
  requestBytes,
  WaitEvent,
} from "../sys/wait.ts";
import { CHANNEL_HEADER_BYTES, type Channel } from "../transport/channel.ts";
import type { Communicator } from "../transport/communicator.ts";
import type { Socket } from "../transport/socket.ts";
import type { Tree } from "../tree/tree.ts";

/** How the loop tells the stub what to keep and drop. */
export interface Keeper {
  keepChannel(connection: number, channel: number, fds: ChannelFds): void;
  /** The FDs of a connection's journal, borrowed. */
  keepJournal(connection: number, memoryFd: number, watchFd: number): void;
  drop(connection: number): void;
}

/** Whose connections are served: one sandbox, of one or of many that a loop has. */
export interface Sandbox {
  readonly keeper: Keeper;
  readonly log: LogLine;
  /** A parked request is answered EIO after this long without a word of the daemon's. */
  readonly missDeadlineMs: number;
  /** Its mounts, those without a connection among them: with them goes how its channels' memory is laid out, in any server of it. */
  readonly mountCount: number;
  /** Channels that each of its connections may have open. */
  readonly channelsMax: number;
  /** Where what it does is counted; undefined: in the process's own. */
  readonly counters: Float64Array | undefined;
}

/** What the stub has kept of a connection: ours from here on. */
export interface Legacy {
  readonly memoryFd: number;
  readonly watchFd: number;
  readonly channels: readonly (ChannelFds & { readonly number: number })[];
}

/** Times a request whose blob vanishes between answer and re-run is run again before it is EIO. */
const RERUNS_MAX = 8;

interface Served {
  readonly sandbox: Sandbox;
  /** Of a connection that may miss. */
  readonly mailbox: Mailbox | undefined;
}

export class Loop implements ConnectionHost {
  readonly #park = new Park();
  readonly #served = new Map<Connection, Served>();
  readonly #channels: ({ connection: Connection; channel: Channel } | undefined)[] = [];
  readonly #sockets: (Socket | undefined)[] = [];
  readonly #mailboxes: Mailbox[] = [];
  /** Sockets of others than clients, by their slots. */
  readonly #watched = new Map<number, () => void>();
  readonly #legacies: { readonly connection: Connection; readonly legacy: Legacy }[] = [];
  #isOver = false;
  #reruns = 0;

  constructor() {
    createWait();
  }

  /**
   * Serves a tree on a connected socket, which it takes: 0 or -errno. -EMFILE past CONNECTIONS_MAX: each has at least one
   * channel, or its client could not mount. Connections with a legacy are added before run().
   */
  add(
    sandbox: Sandbox,
    index: number,
    socketFd: number,
    tree: Tree,
    isReadOnly: boolean,
    mailbox?: Mailbox,
    legacy?: Legacy,
    directFd = -1,
  ): number {
    if (this.#served.size === CONNECTIONS_MAX) return -Errno.EMFILE;
    const journal =
      legacy === undefined
        ? ConnectionJournal.create(socketFd, tree)
        : ConnectionJournal.open(legacy.memoryFd, legacy.watchFd, tree);
    if (typeof journal === "number") return journal;
    if (!journal.isResumed) {
      sandbox.keeper.keepJournal(index, journal.memoryFd, journal.socket.watchFd);
    }
    journal.closeFd();
    const connection = new Connection(index, tree, isReadOnly, this, journal, directFd);
    const lost = connection.restore();
    if (lost > 0) sandbox.log(`mount ${index}: ${lost} FDs of the client are lost, and answer EIO`);
    const socket = connection.listen(socketFd);
    if (typeof socket === "number") return socket;
    if (legacy !== undefined) this.#legacies.push({ connection, legacy });
    this.#served.set(connection, { sandbox, mailbox });
    this.#sockets[socket.slot] = socket;
    countIn(sandbox);
    if (legacy === undefined) counters[Count.connections]!++;
    if (mailbox !== undefined) {
      this.#mailboxes.push(mailbox);
      // Before there was a wait to watch it it couldn't: a view that misses nothing would never be heard of.
      mailbox.connect(0);
      mailbox.onAnswer = (ticket, errno) => this.#wake(ticket, errno, mailbox);
      mailbox.onWorking = (ticket) => this.#park.renew(ticket, sandbox.missDeadlineMs);
    }
    return 0;
  }

  /** Calls `take` whenever a socket, which stays the caller's, has something to say or its peer is gone: a slot for unwatch, or -errno. */
  watch(socketFd: number, take: () => void): number {
    const slot = addSocket(socketFd);
    if (slot >= 0) this.#watched.set(slot, take);
    return slot;
  }

  unwatch(slot: number): void {
    if (this.#watched.delete(slot)) dropSocket(slot);
  }

  /** Has run() return between two requests, with all left as it is. */
  stop(): void {
    this.#isOver = true;
  }

  /** Ends a sandbox's connections; isLeft: another server takes them up. */
  drop(sandbox: Sandbox, isLeft: boolean): void {
    for (const [connection, served] of [...this.#served]) {
      if (served.sandbox !== sandbox) continue;
      if (isLeft) connection.leave();
      else connection.end();
    }
  }

  /** Connections that a sandbox has left. */
  countOf(sandbox: Sandbox): number {
    let count = 0;
    for (const served of this.#served.values()) if (served.sandbox === sandbox) count++;
    return count;
  }

  /** Takes up what predecessors left unanswered. */
  #resume(): void {
    for (const { connection, legacy } of this.#legacies.splice(0)) {
      const { log } = this.#served.get(connection)!.sandbox;
      for (const { number, ...fds } of legacy.channels) {
        const failed = connection.adoptChannel(number, fds);
        if (failed < 0) log(`mount ${connection.index}: a channel is lost: ${failed}`);
      }
      if (!connection.isOpen || connection.socket!.resume()) continue;
      log(`mount ${connection.index}: ended, since a message was being sent or received`);
      connection.end();
    }
  }

  /** Runs until every connection has ended, or, isKept, until it is told to. Blocks the thread. */
  run(isKept = false): void {
    this.#resume();
    let channel: Channel | undefined;
    while ((isKept || this.#served.size > 0) && !this.#isOver) {
      // The reply of the channel just served goes out in the same native call that waits for the next request.
      const replySlot = channel === undefined || channel.replyBytes < 0 ? -1 : channel.slot;
      const replyBytes = replySlot < 0 ? 0 : channel!.replyBytes;
      if (replySlot >= 0) channel!.replyBytes = -1;
      channel = undefined;
      const event = nextEvent(replySlot, replyBytes, this.#timeoutMs());
      if (event >= 0 && event < WaitEvent.socket) {
        const served = this.#channels[event]!;
        const bytes = requestBytes();
        const mid = served.channel.receive(bytes);
        if (mid >= 0) {
          this.dispatch(served.connection, served.channel, mid, bytes - CHANNEL_HEADER_BYTES);
        }
        if (served.connection.isOpen) channel = served.channel;
      } else if (event >= WaitEvent.closed && event < WaitEvent.ring) {
        this.#closeChannel(event - WaitEvent.closed);
      } else if (event >= WaitEvent.socket && event < WaitEvent.closed) {
        this.#advance(event - WaitEvent.socket);
      } else if (event === -Errno.ETIMEDOUT) {
        for (const mailbox of this.#mailboxes) mailbox.sendTouches();
      }
      if (this.#park.size > 0) this.#tick();
    }
    for (const mailbox of this.#mailboxes) mailbox.dispose();
  }

  #advance(slot: number): void {
    const take = this.#watched.get(slot);
    if (take !== undefined) {
      take();
      if (this.#watched.get(slot) === take) armSocket(slot, false);
      return;
    }
    const socket = this.#sockets[slot];
    if (socket !== undefined) {
      socket.advance();
      return;
    }
    for (const mailbox of this.#mailboxes) if (mailbox.slot === slot) mailbox.advance();
  }

  #closeChannel(slot: number): void {
    const served = this.#channels[slot];
    this.#channels[slot] = undefined;
    served?.connection.dropChannel(served.channel);
  }

  // ConnectionHost.

  /** The wait's words, less the doorbell, shared out: the first mounts must not leave the last without a channel. */
  windowsOf(connection: Connection): number {
    const { mountCount } = this.#served.get(connection)!.sandbox;
    const share = Math.floor((WAIT_WORDS_MAX - 1) / mountCount);
    return Math.min(CHANNELS_PER_CONNECTION_MAX, share);
  }

  channelsOf(connection: Connection): number {
    const { channelsMax } = this.#served.get(connection)!.sandbox;
    return Math.min(channelsMax, this.windowsOf(connection));
  }

  dispatch(connection: Connection, from: Communicator, mid: number, payloadBytes: number): void {
    const { sandbox, mailbox } = this.#served.get(connection)!;
    countIn(sandbox);
    if (dispatch(connection, from, mid, payloadBytes, sandbox.log) !== MISS) return;
    const start = from.payloadStart;
    this.#park.add(mailbox!.lastTicket, {
      connection,
      from,
      mid,
      payload: from.bytes.slice(start, start + Math.min(payloadBytes, PARKED_BYTES_MAX)),
      ...waitOf(sandbox.missDeadlineMs),
      place: mailbox!.lastPlace,
    });
  }

  addChannel(connection: Connection, channel: Channel): void {
    this.#channels[channel.slot] = { connection, channel };
  }

  keepChannel(connection: Connection, channel: number, fds: ChannelFds): void {
    this.#served.get(connection)!.sandbox.keeper.keepChannel(connection.index, channel, fds);
  }

  ended(connection: Connection): void {
    const { sandbox, mailbox } = this.#served.get(connection)!;
    this.#served.delete(connection);
    // Nothing may hold its channels, which are unmapped, or its socket's buffer of 2 MiB.
    for (const [slot, served] of this.#channels.entries()) {
      if (served?.connection === connection) this.#channels[slot] = undefined;
    }
    if (connection.socket !== undefined) this.#sockets[connection.socket.slot] = undefined;
    this.#park.drop(connection, (ticket) => mailbox?.forget(ticket));
    if (mailbox !== undefined) {
      this.#mailboxes.splice(this.#mailboxes.indexOf(mailbox), 1);
      mailbox.dispose();
    }
    sandbox.keeper.drop(connection.index);
  }

  // Parked requests.

  #timeoutMs(): number {
    if (this.#park.size === 0) return this.#quietMs();
    const now = performance.now();
    let wait = Math.max(0, this.#park.nextDeadlineMs - now);
    for (const mailbox of this.#mailboxes) {
      const next = mailbox.waitMs(now);
      if (next >= 0 && next < wait) wait = next;
    }
    return Math.ceil(wait);
  }

  /** Until touches are sent; -1: there are none. */
  #quietMs(): number {
    for (const mailbox of this.#mailboxes) if (mailbox.quietMs >= 0) return mailbox.quietMs;
    return -1;
  }

  #tick(): void {
    const now = performance.now();
    for (const mailbox of this.#mailboxes) mailbox.tick(now);
    const late = this.#park.takeLate(now, (ticket) => {
      for (const mailbox of this.#mailboxes) mailbox.forget(ticket);
    });
    for (const parked of late) {
      this.#countFor(parked);
      this.#note(parked, Errno.EIO);
      counters[Count.parkedTimeouts]!++;
      this.#fail(parked, Errno.EIO);
    }
  }

  /** The daemon answered: runs what waited for it again, from the start. */
  #wake(ticket: number, errno: number, mailbox: Mailbox): void {
    for (const parked of this.#park.take(ticket)) {
      this.#countFor(parked);
      this.#note(parked, errno);
      if (errno !== 0) {
        counters[Count.failedFetches]!++;
        // All but that the file is another by now is news of the node, and none of the sandbox's.
        this.#fail(parked, errno === Errno.ESTALE ? Errno.ESTALE : Errno.EIO);
        continue;
      }
      this.#rerun(parked, mailbox);
    }
  }

  /** What a request has waited for, from its ask on. */
  #note({ connection, sinceMs, place }: Parked, errno: number): void {
    if (trace === undefined || !this.#served.has(connection)) return;
    trace.note(TRACED_MISS, connection.index, -errno, sinceMs, place, 0, 0);
  }

  #rerun(parked: Parked, mailbox: Mailbox): void {
    const { connection, from, mid, payload } = parked;
    if (!connection.isOpen) return;
    const { log } = this.#served.get(connection)!.sandbox;
    from.bytes.set(payload, from.payloadStart);
    if (dispatch(connection, from, mid, payload.length, log) === MISS) {
      if (mailbox.lastPlace !== parked.place) {
        this.#goOn(parked, mailbox);
        return;
      }
      const isEndless = ++this.#reruns > RERUNS_MAX * (1 + this.#park.size);
      if (isEndless) this.#fail(parked, Errno.EIO);
      else this.#park.add(mailbox.lastTicket, parked);
      return;
    }
    this.#reruns = 0;
    this.#flush(parked);
  }

  /** A request that has got what it waited for and now waits for other bytes, as a copy-up does, has its time again. */
  #goOn(parked: Parked, mailbox: Mailbox): void {
    const { missDeadlineMs } = this.#served.get(parked.connection)!.sandbox;
    this.#park.add(mailbox.lastTicket, {
      ...parked,
      ...waitOf(missDeadlineMs),
      place: mailbox.lastPlace,
    });
  }

  /** Failing another of the same connection may have ended it: then its windows are gone. */
  #fail(parked: Parked, errno: number): void {
    if (!parked.connection.isOpen) return;
    answerError(parked.from, errno);
    this.#flush(parked);
  }

  #countFor({ connection }: Parked): void {
    const served = this.#served.get(connection);
    if (served !== undefined) countIn(served.sandbox);
  }

  /** A channel's late reply goes out at once: the loop's next wait answers another. */
  #flush({ from }: Parked): void {
    for (const served of this.#channels) if (served?.channel === from) served.channel.flush();
  }
}

/** Has what follows be counted for a sandbox. */
function countIn({ counters: own }: Sandbox): void {
  if (own !== undefined && own !== counters) countFor(own);
}
