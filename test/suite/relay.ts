// A place on loopback before a web server: for each client that connects it connects to the server, and what passes between the two is its
// user's affair. Test support.

import net, { type AddressInfo, type Socket } from "node:net";

export class Relay {
  readonly url: string;
  readonly #server: net.Server;
  readonly #sockets = new Set<Socket>();

  readonly #port: number;

  private constructor(server: net.Server, port: number) {
    this.#server = server;
    this.#port = port;
    this.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  }

  /** Stands before the server at `url`. */
  static async start(url: string): Promise<Relay> {
    const server = net.createServer();
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    return new Relay(server, Number(new URL(url).port));
  }

  /** Has each client, and the connection to the server that is its own, be given to `meet`. Once, before the first client comes. */
  serve(meet: (client: Socket, server: Socket) => void): void {
    this.#server.on("connection", (client) => {
      const server = net.connect(this.#port, "127.0.0.1");
      this.#hold(client);
      this.#hold(server);
      meet(client, server);
    });
  }

  async close(): Promise<void> {
    const closed = new Promise((resolve) => this.#server.close(resolve));
    for (const socket of this.#sockets) socket.destroy();
    await closed;
  }

  #hold(socket: Socket): void {
    this.#sockets.add(socket);
    // Its close follows.
    socket.on("error", () => undefined);
    socket.once("close", () => this.#sockets.delete(socket));
  }
}
