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
  #net: net.Server | undefined;
  /** That listened before. */
  readonly #earlier: Promise<void>[] = [];
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
  }

  get connections(): number {
    return this.#crowd.size;
  }

  /** Those of them that named a mount. */
  get gofers(): number {
    return this.#crowd.size - this.#strangers.size;
  }

  /**
   * On a path, or an FD that listens already and is this server's from now on: a unix socket's, or it rejects before anyone is heard. Where
   * it listened before it doesn't any more; who is connected stays.
   */
  listen(where: { readonly path: string } | { readonly fd: number }): Promise<void> {
    // First of all: with its end goes the name that it had bound, whoever's that is by then.
    if (this.#net !== undefined) this.#earlier.push(closed(this.#net));
    const server = net.createServer((socket) => this.#accept(socket));
    this.#net = undefined;
    return new Promise((resolve, reject) => {
      server.once("error", reject);
      server.listen({ ...where, backlog: 511 }, () => {
        server.removeListener("error", reject);
        // Of a unix socket that came as an FD it knows no name.
        const isUnix = typeof (server.address() ?? "") === "string";
        if (!isUnix) {
          server.close(() => reject(notOurs("is no unix socket")));
          return;
        }
        this.#net = server;
        resolve();
      });
    });
  }

  /** Takes no more connections, ends those there are, and removes the socket. */
  async close(): Promise<void> {
    const ends = this.#net === undefined ? [] : [closed(this.#net)];
    for (const connection of this.#connections) connection.close();
    await Promise.all([...this.#earlier, ...ends]);
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

/** Resolves when a server listens no more and all who connected are gone. */
function closed(server: net.Server): Promise<void> {
  return new Promise((resolve) => server.close(() => resolve()));
}
