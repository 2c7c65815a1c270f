// Server: takes connections on the daemon's socket. Any user of the node can connect, so all is bounded: connections and those of them
// that named no mount, and each user's share of both. Control plane.

import net from "node:net";
import { openFilesLimit } from "../sys/open-files.ts";
import { peerProcess, peerUser } from "../sys/peer.ts";
import { notOurs } from "./activation.ts";
import { Asks } from "./asks.ts";
import { Connection, type ConnectionContext } from "./connection.ts";
import { Crowd } from "./crowd.ts";

/** Gofers and tools connected at once, and what share of the process's FDs they may take: the cache and origins need some, too. */
const CONNECTIONS_MAX = 4096;
const FD_SHARE = 1 / 2;
/** Those of them that named no mount yet, and their share: a gofer says HELLO at once. */
const STRANGERS_MAX = 256;
const STRANGERS_SHARE = 1 / 4;

export class Server {
  readonly #context: ConnectionContext;
  readonly #net: net.Server;
  readonly #connections = new Set<Connection>();
  readonly #crowd: Crowd<Connection>;
  /** Connections that named no mount. */
  readonly #strangers: Crowd<Connection>;
  readonly #asks = new Asks();

  constructor(context: ConnectionContext) {
    this.#context = context;
    const max = Math.min(CONNECTIONS_MAX, Math.floor(openFilesLimit() * FD_SHARE));
    // Who is at work stays; of those that only stand there the one that stood longest goes.
    this.#crowd = new Crowd(max, "newest");
    this.#strangers = new Crowd(
      Math.min(STRANGERS_MAX, Math.ceil(max * STRANGERS_SHARE)),
      "oldest",
    );
    this.#net = net.createServer((socket) => this.#accept(socket));
  }

  get connections(): number {
    return this.#crowd.size;
  }

  /** Those of them that named a mount. */
  get gofers(): number {
    return this.#crowd.size - this.#strangers.size;
  }

  /** On a path, or an FD that listens already and is this server's from now on: a unix socket's, or it rejects before anyone is heard. */
  listen(where: { readonly path: string } | { readonly fd: number }): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#net.once("error", reject);
      this.#net.listen({ ...where, backlog: 511 }, () => {
        this.#net.removeListener("error", reject);
        // Of a unix socket that came as an FD it knows no name.
        const isUnix = typeof (this.#net.address() ?? "") === "string";
        if (isUnix) resolve();
        else this.#net.close(() => reject(notOurs("is no unix socket")));
      });
    });
  }

  /** Takes no more connections, ends those there are, and removes the socket. */
  close(): Promise<void> {
    return new Promise((resolve) => {
      this.#net.close(() => resolve());
      for (const connection of this.#connections) connection.close();
    });
  }

  #accept(socket: net.Socket): void {
    const user = peerUser(socket);
    const isOwner = user === 0 || user === process.geteuid?.();
    const places = this.#asks.placesOf(user, peerProcess(socket), isOwner);
    const connection = new Connection(this.#context, socket, isOwner, places, () => {
      this.#strangers.delete(user, connection);
    });
    this.#connections.add(connection);
    socket.once("close", () => {
      this.#connections.delete(connection);
      this.#crowd.delete(user, connection);
      this.#strangers.delete(user, connection);
    });
    this.#strangers.add(user, connection)?.close();
    this.#crowd.add(user, connection)?.close();
  }
}
