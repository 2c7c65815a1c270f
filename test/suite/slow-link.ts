// A link on loopback between a client and a web server that carries so many bytes a second from the server, those of all connections
// together, in the order in which they come; or nothing. Test support.

import net, { type AddressInfo, type Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";

const PART_BYTES = 8 * 1024;

export class SlowLink {
  readonly url: string;
  bytesPerSecond: number;
  /** Carries nothing, and says nothing. */
  isDark = false;
  readonly #server: net.Server;
  readonly #sockets = new Set<Socket>();
  #freeMs = 0;

  private constructor(server: net.Server, bytesPerSecond: number) {
    this.#server = server;
    this.bytesPerSecond = bytesPerSecond;
    this.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  }

  /** Stands before the server at `url`. */
  static async start(url: string, bytesPerSecond: number): Promise<SlowLink> {
    const server = net.createServer();
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const link = new SlowLink(server, bytesPerSecond);
    server.on("connection", (client) => link.#accept(client, Number(new URL(url).port)));
    return link;
  }

  async close(): Promise<void> {
    const closed = new Promise((resolve) => this.#server.close(resolve));
    for (const socket of this.#sockets) socket.destroy();
    await closed;
  }

  #accept(client: Socket, port: number): void {
    const server = net.connect(port, "127.0.0.1");
    for (const socket of [client, server]) {
      this.#sockets.add(socket);
      socket.on("error", () => undefined);
      socket.once("close", () => this.#sockets.delete(socket));
    }
    // Not the other way round: what the server has sent is on its way yet.
    client.once("close", () => server.destroy());
    client.pipe(server);
    void this.#carry(server, client);
  }

  async #carry(from: Socket, to: Socket): Promise<void> {
    try {
      for await (const bytes of from as AsyncIterable<Buffer>)
        for (let at = 0; at < bytes.length; at += PART_BYTES)
          await this.#send(bytes.subarray(at, at + PART_BYTES), to);
    } catch {
      // It was closed.
    }
    to.end();
  }

  async #send(part: Buffer, to: Socket): Promise<void> {
    while (this.isDark && !to.destroyed) await sleep(20);
    const now = performance.now();
    this.#freeMs = Math.max(now, this.#freeMs) + (part.length * 1000) / this.bytesPerSecond;
    await sleep(this.#freeMs - now);
    to.write(part);
  }
}
