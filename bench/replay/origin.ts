// Origin: what benches have behind HTTP in the place of a store or a channel far away. In this process: whoever asks must be in another.

import { once } from "node:events";
import fs from "node:fs";
import http from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

/** Bytes of an object, from `first` up to `end`. */
export interface Sent {
  readonly path: string;
  readonly first: number;
  readonly end: number;
}

/** Of a body at once: half a millisecond of a link of 1 Gbit/s. */
const PART_BYTES = 64 * 1024;

/** A web server with ranges over folders by their first path component; each answer may be delayed, and all share one link. */
export class Origin {
  delayMs = 0;
  /** What the link carries; 0: whatever comes. */
  bitsPerSecond = 0;
  /** When the link will have carried what was given to it. */
  #freeMs = 0;
  requests = 0;
  /** Requests by the folder of a store that they are for. */
  readonly kinds: Record<string, number> = {};
  /** What was sent, whole objects too. */
  readonly sent: Sent[] = [];
  readonly #folders: Readonly<Record<string, string>>;
  readonly #server = http.createServer((request, response) => {
    setTimeout(() => this.#answer(request, response), this.delayMs);
  });

  constructor(folders: Readonly<Record<string, string>>) {
    this.#folders = folders;
  }

  async listen(): Promise<string> {
    this.#server.listen(0, "127.0.0.1");
    await once(this.#server, "listening");
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  begin(delayMs: number, bitsPerSecond = 0): void {
    this.delayMs = delayMs;
    this.bitsPerSecond = bitsPerSecond;
    this.requests = 0;
    for (const kind of Object.keys(this.kinds)) delete this.kinds[kind];
    this.sent.length = 0;
  }

  close(): void {
    this.#server.closeAllConnections();
    this.#server.close();
  }

  #answer(request: http.IncomingMessage, response: http.ServerResponse): void {
    const [, folder = "", ...rest] = new URL(request.url ?? "/", "http://x").pathname.split("/");
    this.requests++;
    const kind = rest[0] ?? folder;
    this.kinds[kind] = (this.kinds[kind] ?? 0) + 1;
    const path = join(this.#folders[folder] ?? "/nonexistent", ...rest);
    let size: number;
    try {
      ({ size } = fs.statSync(path));
    } catch {
      response.writeHead(404).end();
      return;
    }
    const range = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? "");
    const start = range === null ? 0 : Number(range[1]);
    const end = range === null ? size : Math.min(size, Number(range[2]) + 1);
    this.sent.push({ path: request.url ?? "", first: start, end });
    const headers = range && { "content-range": `bytes ${start}-${end - 1}/${size}` };
    response.writeHead(range ? 206 : 200, { ...headers, "content-length": end - start });
    if (request.method === "HEAD" || end === start) response.end();
    else {
      const options = { start, end: end - 1, highWaterMark: PART_BYTES };
      void this.#send(fs.createReadStream(path, options), response);
    }
  }

  /** A body, no faster than the link. */
  async #send(body: fs.ReadStream, response: http.ServerResponse): Promise<void> {
    for await (const part of body as AsyncIterable<Buffer>) {
      if (response.destroyed) return;
      if (this.bitsPerSecond > 0) {
        const now = performance.now();
        const tookMs = (part.length * 8_000) / this.bitsPerSecond;
        this.#freeMs = Math.max(now, this.#freeMs) + tookMs;
        // Timers have a millisecond: what is due sooner goes at once, and the sum is right.
        if (this.#freeMs - now >= 1) await sleep(this.#freeMs - now);
      }
      if (!response.write(part)) await once(response, "drain").catch(() => undefined);
    }
    response.end();
  }
}
