// Connection: the session of one mount over its socket and channels: which tree, which FDIDs, which memory. All of a
// connection's state belongs to the data-plane thread. LISAFS: connection.go. Data plane.

import { Errno } from "../../base/errno.ts";
import { CHANNEL_JOURNAL_BYTES, CHANNEL_WINDOW_BYTES } from "../../base/limits.ts";
import { native } from "../../sys/native.ts";
import { Channel, makeFdSocket, takeStaleFds } from "../../transport/channel.ts";
import type { Communicator, RequestSink } from "../../transport/communicator.ts";
import { Socket } from "../../transport/socket.ts";
import type { Tree } from "../../tree/tree.ts";
import { FdTable } from "./fd-table.ts";
import { type ConnectionJournal, Replay } from "./journal.ts";

/** Of a channel: the memory (its connection's), and the two ends of its FD socket. */
export interface ChannelFds {
  readonly memoryFd: number;
  readonly serverFd: number;
  readonly clientFd: number;
}

/** What a connection needs of the process that it lives in. */
export interface ConnectionHost {
  /** Windows that a connection's channel memory has room for, in whichever server: at least 1. */
  windowsOf(connection: Connection): number;
  /** Channels that a connection may open, at most its windows: at least 1. */
  channelsOf(connection: Connection): number;
  /** Runs or parks a request. */
  dispatch(connection: Connection, from: Communicator, mid: number, payloadBytes: number): void;
  /** A channel was opened: the loop must know it by its slot. */
  addChannel(connection: Connection, channel: Channel): void;
  /** The FDs of a new channel, to be kept by the stub for a successor. Borrowed. */
  keepChannel(connection: Connection, channel: number, fds: ChannelFds): void;
  /** The connection ended and freed all it held. */
  ended(connection: Connection): void;
}

export class Connection implements RequestSink {
  /** Position among the sandbox's mounts. */
  readonly index: number;
  readonly tree: Tree;
  readonly isReadOnly: boolean;
  /** The root as a directory of the host's kernel, which the client gets with Mount and works on by itself; -1: it asks for everything. */
  readonly directFd: number;
  readonly fds: FdTable;
  readonly channels: Channel[] = [];
  readonly journal: ConnectionJournal | undefined;
  isOpen = true;
  readonly #host: ConnectionHost;
  #socket: Socket | undefined;
  #memoryFd = -1;
  /** Channels opened so far, ended ones too: a window is never used twice. */
  #openedCount = 0;
  readonly #pair = new Int32Array(2);

  /** Takes the journal: undefined when nobody is to take up the connection; and `directFd`. */
  constructor(
    index: number,
    tree: Tree,
    isReadOnly: boolean,
    host: ConnectionHost,
    journal?: ConnectionJournal,
    directFd = -1,
  ) {
    this.index = index;
    this.tree = tree;
    this.isReadOnly = isReadOnly;
    this.directFd = directFd;
    this.fds = new FdTable(tree, journal?.rows);
    this.journal = journal;
    this.#host = host;
  }

  /** Starts to serve a connected stream socket, which it takes: the socket's wait slot or -errno. */
  listen(socketFd: number): Socket | number {
    const socket = Socket.open(socketFd, this, this.journal?.socket);
    if (typeof socket !== "number") this.#socket = socket;
    return socket;
  }

  /** Takes up what a predecessor knew of the tree and gave to the client: how many FDIDs are lost. */
  restore(): number {
    const { tree, journal } = this;
    if (journal === undefined) return 0;
    tree.takeJournal?.(journal.treeMemory(tree), journal.isResumed);
    const lost = journal.isResumed ? this.fds.restore() : 0;
    tree.settle?.();
    return lost;
  }

  /** Takes up a channel of a predecessor's, and its FDs, whatever comes of it: 0 or -errno. */
  adoptChannel(number: number, { memoryFd, serverFd, clientFd }: ChannelFds): number {
    if (this.#memoryFd < 0) this.#memoryFd = native.dupFd(memoryFd);
    native.closeFd(memoryFd);
    this.#openedCount = Math.max(this.#openedCount, number + 1);
    const channel = this.#openWindow(number, serverFd, true);
    if (typeof channel === "number") native.closeFd(serverFd);
    // While it is the client's turn it may be taking its FDs; else nobody does, and these go with a reply that never came.
    else if (channel.isOurTurn) takeStaleFds(clientFd);
    native.closeFd(clientFd);
    return typeof channel === "number" ? channel : 0;
  }

  /** As the journal's begin: nobody, where there is none. */
  begin(from: Communicator): Replay {
    return this.journal?.begin(from.requestTag) ?? Replay.fresh;
  }

  /**
   * After the change that begin spoke of, with its outcome: what to answer. `spent` is the errno of a change that was made already:
   * where a predecessor may have made it nobody knows which of the two it is, and it becomes EIO.
   */
  finish(replay: Replay, outcome: number, spent: number): number {
    if (outcome === -spent && replay === Replay.unknown) return -Errno.EIO;
    if (outcome >= 0) this.journal?.finish();
    return outcome;
  }

  #openWindow(number: number, serverFd: number, isResumed: boolean): Channel | number {
    const windows = this.#host.windowsOf(this) * CHANNEL_WINDOW_BYTES;
    const journalOffset = windows + number * CHANNEL_JOURNAL_BYTES;
    const offset = number * CHANNEL_WINDOW_BYTES;
    const journal = { number, journalOffset, isResumed };
    const channel = Channel.open(this.#memoryFd, offset, serverFd, journal);
    if (typeof channel === "number") return channel;
    this.channels.push(channel);
    this.#host.addChannel(this, channel);
    return channel;
  }

  get socket(): Socket | undefined {
    return this.#socket;
  }

  handle(from: Communicator, mid: number, payloadBytes: number): void {
    this.#host.dispatch(this, from, mid, payloadBytes);
  }

  /**
   * Opens one more channel and donates its memory and FD socket through `to`: the window's offset in the memory, or
   * -ENOMEM when there are enough (the client takes that quietly when it has got one; lisafs-wire section 2).
   */
  openChannel(to: Communicator): number {
    const number = this.#openedCount;
    if (number >= this.#host.channelsOf(this)) return -Errno.ENOMEM;
    if (this.#memoryFd < 0) {
      // The journals come after the windows: the client could map them too, and find in them what it said.
      const windows = this.#host.windowsOf(this);
      const bytes = windows * (CHANNEL_WINDOW_BYTES + CHANNEL_JOURNAL_BYTES);
      const memoryFd = native.memfd("burrow-channels", bytes);
      if (memoryFd < 0) return memoryFd;
      this.#memoryFd = memoryFd;
    }
    const made = makeFdSocket(this.#pair);
    if (made < 0) return made;
    const serverFd = this.#pair[0]!;
    const clientFd = this.#pair[1]!;
    const channel = this.#openWindow(number, serverFd, false);
    if (typeof channel === "number") {
      native.closeFd(serverFd);
      native.closeFd(clientFd);
      return channel;
    }
    this.#openedCount++;
    this.#host.keepChannel(this, number, { memoryFd: this.#memoryFd, serverFd, clientFd });
    to.donate(this.#memoryFd, false);
    to.donate(clientFd, true);
    return number * CHANNEL_WINDOW_BYTES;
  }

  /** A channel whose client broke the protocol or shut it down; the others go on. */
  dropChannel(channel: Channel): void {
    const at = this.channels.indexOf(channel);
    if (at < 0) return;
    this.channels.splice(at, 1);
    channel.close();
  }

  end(): void {
    if (!this.isOpen) return;
    this.isOpen = false;
    this.fds.clear();
    for (const channel of this.channels) channel.close();
    if (this.#memoryFd >= 0) native.closeFd(this.#memoryFd);
    this.#socket?.close();
    this.journal?.close();
    if (this.directFd >= 0) native.closeFd(this.directFd);
    this.tree.dispose();
    this.#host.ended(this);
  }

  /**
   * Frees what this process holds of the connection, as its end would, between two requests: another server takes it up. So the journal
   * goes first, before anything that is closed can be noted in it as the client's doing.
   */
  leave(): void {
    if (!this.isOpen) return;
    this.isOpen = false;
    this.journal?.close();
    for (const channel of this.channels) channel.close(true);
    if (this.#memoryFd >= 0) native.closeFd(this.#memoryFd);
    this.#socket?.close();
    if (this.directFd >= 0) native.closeFd(this.directFd);
    this.tree.dispose();
    this.#host.ended(this);
  }
}
