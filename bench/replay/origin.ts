// Origin: what benches have behind HTTP in the place of a store or a channel far away. In this process: whoever asks must be in another.

import { once } from "node:events";
import fs from "node:fs";
import http from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";

/** Bytes of an object, from `first` up to `end`. */
export interface Sent {
  readonly path: string;
  readonly first: number;
  readonly end: number;
}

/** A web server with ranges over folders by their first path component; each answer may be delayed. */
export class Origin {
  delayMs = 0;
  requests = 0;
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

  begin(delayMs: number): void {
    this.delayMs = delayMs;
    this.requests = 0;
    this.sent.length = 0;
  }

  close(): void {
    this.#server.closeAllConnections();
    this.#server.close();
  }

  #answer(request: http.IncomingMessage, response: http.ServerResponse): void {
    const [, folder = "", ...rest] = new URL(request.url ?? "/", "http://x").pathname.split("/");
    this.requests++;
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
    else fs.createReadStream(path, { start, end: end - 1 }).pipe(response);
  }
}
