// An HTTP origin on loopback over a directory, which can be told to lie, truncate, stall or refuse: pitfalls B5 to B7.

import fs from "node:fs";
import http, { type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo, Socket } from "node:net";

export type Fault =
  | "none"
  | "flip" // one bit of the body
  | "short-body" // Content-Length of the whole, half of it sent, then the connection ends
  | "short-range" // a well-formed answer to a shorter range
  | "long-body"
  | "wrong-range" // Content-Range of other bytes
  | "whole" // 200 with everything in answer to a range
  | "gzip" // a content-encoding that was not asked for
  | "redirect"
  | "stall-headers"
  | "stall-body"
  | "slow" // a byte now and then
  | "503"
  | "429"
  | "404"
  | "403"
  | "reset";

/** What stands before a server's files: gives the file that is asked for and headers for its answer, or answers itself. */
export type Front = (
  request: IncomingMessage,
  response: ServerResponse,
) => Promise<{ path: string; headers: Readonly<Record<string, string>> } | undefined>;

export class OriginServer {
  readonly url: string;
  /** What to do to the next requests: by path, default "none". */
  fault: (path: string, count: number) => Fault = () => "none";
  /** Delay before each answer. */
  delayMs = 0;
  /** What 429 and 503 ask for; undefined: 429 for 50 ms, 503 for none. */
  retryAfterS: number | undefined;
  /** Requests that were under way at once, at most. */
  mostAtOnce = 0;
  #atOnce = 0;
  /** GET and HEAD requests by path. */
  readonly requests: { path: string; range: string; method: string }[] = [];
  readonly #server: http.Server;
  readonly #sockets = new Set<Socket>();
  readonly #root: string;
  readonly #front: Front | undefined;

  private constructor(root: string, server: http.Server, front: Front | undefined) {
    this.#root = root;
    this.#front = front;
    this.#server = server;
    this.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    server.on("connection", (socket) => {
      this.#sockets.add(socket);
      socket.once("close", () => this.#sockets.delete(socket));
    });
    server.on("request", (request, response) => this.#handle(request, response));
  }

  static async start(root: string, front?: Front): Promise<OriginServer> {
    const server = http.createServer();
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    return new OriginServer(root, server, front);
  }

  /** Requests for objects below a folder. */
  count(folder: string): number {
    return this.requests.filter(({ path }) => path.startsWith(`${folder}/`)).length;
  }

  /** The same, and one that is sent again or goes on where it broke off, as to a slow machine, once. */
  countOnce(folder: string): number {
    const those = this.requests.filter(({ path }) => path.startsWith(`${folder}/`));
    return new Set(those.map(({ path, range }) => `${path} ${range.split("-")[1] ?? ""}`)).size;
  }

  /** Ends all connections. */
  hangUp(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  async close(): Promise<void> {
    const closed = new Promise((resolve) => this.#server.close(resolve));
    this.hangUp();
    await closed;
  }

  #handle(request: IncomingMessage, response: ServerResponse): void {
    const path = decodeURIComponent((request.url ?? "/").slice(1).split("?")[0]!);
    const { range = "" } = request.headers;
    this.requests.push({ path, range, method: request.method ?? "" });
    this.mostAtOnce = Math.max(this.mostAtOnce, ++this.#atOnce);
    response.once("close", () => this.#atOnce--);
    const fault = this.fault(path, this.requests.filter((seen) => seen.path === path).length);
    setTimeout(() => void this.#answer(request, response, path, fault), this.delayMs);
  }

  async #answer(
    request: IncomingMessage,
    response: ServerResponse,
    path: string,
    fault: Fault,
  ): Promise<void> {
    if (fault === "stall-headers") return;
    if (fault === "reset") {
      request.socket.resetAndDestroy();
      return;
    }
    if (/^\d+$/.test(fault)) {
      const { retryAfterS = fault === "429" ? 0.05 : undefined } = this;
      const isBusy = fault === "429" || fault === "503";
      if (isBusy && retryAfterS !== undefined) response.setHeader("retry-after", retryAfterS);
      response.writeHead(Number(fault)).end();
      return;
    }
    if (fault === "redirect") {
      response.writeHead(302, { location: `/${path}` }).end();
      return;
    }
    const found = this.#front ? await this.#front(request, response) : { path, headers: {} };
    if (found === undefined) return;
    for (const [name, value] of Object.entries(found.headers)) response.setHeader(name, value);
    let fd: number;
    try {
      fd = fs.openSync(`${this.#root}/${found.path}`, "r");
    } catch {
      response.writeHead(404).end();
      return;
    }
    this.#serve(request, response, fd, fault);
    fs.closeSync(fd);
  }

  #serve(request: IncomingMessage, response: ServerResponse, fd: number, fault: Fault): void {
    const range = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? "");
    const size = fs.fstatSync(fd).size;
    const isRange = range !== null && fault !== "whole";
    const first = isRange ? Number(range[1]) : 0;
    let end = isRange ? Math.min(Number(range[2] || size) + 1, size) : size;
    if (first > 0 && first >= size) {
      response.writeHead(416, { "content-range": `bytes */${size}` }).end();
      return;
    }
    if (fault === "short-range") end = first + Math.floor((end - first) / 2);
    let body = Buffer.alloc(end - first);
    fs.readSync(fd, body, 0, body.length, first);
    const shift = fault === "wrong-range" ? 1 : 0;
    const headers: Record<string, string | number> = { "content-length": body.length };
    if (isRange) headers["content-range"] = `bytes ${first + shift}-${end - 1 + shift}/${size}`;
    if (fault === "gzip") headers["content-encoding"] = "gzip";
    if (fault === "flip" && body.length > 0) body[body.length >> 1]! ^= 1;
    if (fault === "long-body") {
      // Without a length, so that nothing cuts it.
      delete headers["content-length"];
      body = Buffer.concat([body, Buffer.from("more")]);
    }
    response.writeHead(isRange ? 206 : 200, headers);
    if (request.method === "HEAD") return void response.end();
    if (fault === "short-body") {
      response.write(body.subarray(0, body.length >> 1), () => request.socket.destroy());
    } else if (fault === "stall-body" || fault === "slow") {
      response.write(body.subarray(0, body.length >> 1));
      if (fault === "slow") this.#drip(response, body, body.length >> 1);
    } else {
      response.end(body);
    }
  }

  #drip(response: ServerResponse, body: Buffer, at: number): void {
    if (response.destroyed || at >= body.length) return void response.end();
    response.write(body.subarray(at, at + 1));
    setTimeout(() => this.#drip(response, body, at + 1), 50).unref();
  }
}
