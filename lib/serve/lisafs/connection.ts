// Connection: the session of one mount over its socket and channels: which tree, which FDIDs, which memory. All of a
// connection's state belongs to the data-plane thread. LISAFS: connection.go. Data plane.

import { Errno } from "../../base/errno.ts";
import { CHANNEL_WINDOW_BYTES } from "../../base/limits.ts";
import { native } from "../../sys/native.ts";
import { Channel, makeFdSocket } from "../../transport/channel.ts";
import type { Communicator, RequestSink } from "../../transport/communicator.ts";
import { Socket } from "../../transport/socket.ts";
import type { Tree } from "../../tree/tree.ts";
import { FdTable } from "./fd-table.ts";

/** What a connection needs of the process that it lives in. */
export interface ConnectionHost {
  /** Channels that each connection may open: at least 1. */
  readonly channelsMax: number;
  /** Runs or parks a request. */
  dispatch(connection: Connection, from: Communicator, mid: number, payloadBytes: number): void;
  /** A channel was opened: the loop must know it by its slot. */
  addChannel(connection: Connection, channel: Channel): void;
  /** The FDs of a new channel, to be kept by the stub for a successor. Borrowed. */
  keepChannel(connection: Connection, channel: number, memoryFd: number, socketFd: number): void;
  /** The connection ended and freed all it held. */
  ended(connection: Connection): void;
}

export class Connection implements RequestSink {
  /** Position among the sandbox's mounts. */
  readonly index: number;
  readonly tree: Tree;
  readonly isReadOnly: boolean;
  readonly fds: FdTable;
  readonly channels: Channel[] = [];
  isOpen = true;
  readonly #host: ConnectionHost;
  #socket: Socket | undefined;
  #memoryFd = -1;
  /** Channels opened so far, ended ones too: a window is never used twice. */
  #openedCount = 0;
  readonly #pair = new Int32Array(2);

  constructor(index: number, tree: Tree, isReadOnly: boolean, host: ConnectionHost) {
    this.index = index;
    this.tree = tree;
    this.isReadOnly = isReadOnly;
    this.fds = new FdTable(tree);
    this.#host = host;
  }

  /** Starts to serve a connected stream socket, which it takes: the socket's wait slot or -errno. */
  listen(socketFd: number): Socket | number {
    const socket = Socket.open(socketFd, this);
    if (typeof socket !== "number") this.#socket = socket;
    return socket;
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
    if (number >= this.#host.channelsMax) return -Errno.ENOMEM;
    if (this.#memoryFd < 0) {
      const bytes = this.#host.channelsMax * CHANNEL_WINDOW_BYTES;
      const memoryFd = native.memfd("burrow-channels", bytes);
      if (memoryFd < 0) return memoryFd;
      this.#memoryFd = memoryFd;
    }
    const made = makeFdSocket(this.#pair);
    if (made < 0) return made;
    const serverFd = this.#pair[0]!;
    const clientFd = this.#pair[1]!;
    const offset = number * CHANNEL_WINDOW_BYTES;
    const channel = Channel.open(this.#memoryFd, offset, serverFd);
    if (typeof channel === "number") {
      native.closeFd(serverFd);
      native.closeFd(clientFd);
      return channel;
    }
    this.#openedCount++;
    this.channels.push(channel);
    this.#host.addChannel(this, channel);
    this.#host.keepChannel(this, number, this.#memoryFd, serverFd);
    to.donate(this.#memoryFd, false);
    to.donate(clientFd, true);
    return offset;
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
    this.tree.dispose();
    this.#host.ended(this);
  }
}
