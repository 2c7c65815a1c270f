// A link on loopback between a client and a web server that carries so many bytes a second from the server, those of all connections
// together, in the order in which they come; or nothing. Test support.

import type { Socket } from "node:net";
import { Relay } from "./relay.ts";
import { sleep } from "./wait.ts";

const PART_BYTES = 8 * 1024;

export class SlowLink {
  bytesPerSecond: number;
  /** Carries nothing, and says nothing. */
  isDark = false;
  readonly #relay: Relay;
  #freeMs = 0;

  private constructor(relay: Relay, bytesPerSecond: number) {
    this.#relay = relay;
    this.bytesPerSecond = bytesPerSecond;
    relay.serve((client, server) => {
      // Not the other way round: what the server has sent is on its way yet.
      client.once("close", () => server.destroy());
      client.pipe(server);
      void this.#carry(server, client);
    });
  }

  /** Stands before the server at `url`. */
  static async start(url: string, bytesPerSecond: number): Promise<SlowLink> {
    return new SlowLink(await Relay.start(url), bytesPerSecond);
  }

  get url(): string {
    return this.#relay.url;
  }

  async close(): Promise<void> {
    await this.#relay.close();
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
