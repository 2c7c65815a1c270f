// The daemon's figures over HTTP, for who collects them: on a loopback address or a unix socket, nowhere else. Control plane.

import fs from "node:fs";
import http from "node:http";
import net from "node:net";
import { BurrowError } from "../base/error.ts";
import { EXPOSITION_TYPE } from "./exposition.ts";

/** How long a collector may be connected, from its request's first byte to the answer's last, and how many there may be. */
const REQUEST_MS = 5_000;
const CONNECTIONS_MAX = 16;
/** The daemon's user and root; who else is to collect, chgrp(1) and chmod(1) say. */
const SOCKET_MODE = 0o600;

export type MetricsAddress =
  | { readonly path: string }
  | { readonly host: string; readonly port: number };

/** "unix:/PATH" or "tcp:127.0.0.1:9464", "tcp:[::1]:9464". BURROW_USAGE. */
export function parseMetricsAddress(text: string): MetricsAddress {
  const path = /^unix:(\/[^\0]{1,106})$/.exec(text)?.[1];
  if (path !== undefined) return { path };
  const match = /^tcp:(?:\[([0-9a-f:]+)\]|([0-9.]+)):(\d{1,5})$/i.exec(text);
  const host = match?.[1] ?? match?.[2] ?? "";
  const port = Number(match?.[3]);
  if (isLoopback(host) && port > 0 && port < 65_536) return { host, port };
  const what = `"${text}" is no place for metrics: say unix:/PATH, or tcp:127.0.0.1:PORT`;
  throw new BurrowError("BURROW_USAGE", `--metrics: ${what}`);
}

/** How a node is used is nobody's business on another machine. */
function isLoopback(host: string): boolean {
  return host === "::1" || (net.isIPv4(host) && host.startsWith("127."));
}

/** Whether all users of this machine can ask there, and not only those who may open a socket. */
export function isOpenToAll(address: MetricsAddress): boolean {
  return "port" in address;
}

export class MetricsServer {
  readonly #server: http.Server;
  readonly #address: MetricsAddress;

  /** `text` is called for each request. */
  constructor(address: MetricsAddress, text: () => string) {
    this.#address = address;
    const settings = { requestTimeout: REQUEST_MS, headersTimeout: REQUEST_MS };
    const served = new WeakSet<net.Socket>();
    this.#server = http.createServer(settings, (request, response) => {
      // One answer a connection: what a client sends ahead of its reading would have us keep an answer for each.
      if (served.has(request.socket)) return;
      served.add(request.socket);
      const { status, body } = answer(request, text);
      const length = Buffer.byteLength(body);
      const headers = {
        "content-type": EXPOSITION_TYPE,
        "content-length": length,
        connection: "close",
      };
      response.writeHead(status, status === 405 ? { ...headers, allow: "GET, HEAD" } : headers);
      response.end(request.method === "HEAD" ? "" : body);
    });
    this.#server.maxConnections = CONNECTIONS_MAX;
    this.#server.on("connection", (socket: net.Socket) => {
      const timer = setTimeout(() => socket.destroy(), REQUEST_MS);
      socket.once("close", () => clearTimeout(timer));
    });
  }

  /** BURROW_DAEMON when the address can't be had. */
  listen(): Promise<void> {
    const address = this.#address;
    // One that a killed daemon left: who holds the cache's lock may have its place.
    if ("path" in address && fs.lstatSync(address.path, { throwIfNoEntry: false })?.isSocket())
      fs.rmSync(address.path);
    return new Promise((resolve, reject) => {
      this.#server.once("error", (cause) => {
        const where = "path" in address ? address.path : `${address.host}:${address.port}`;
        reject(
          new BurrowError("BURROW_DAEMON", "can't serve metrics there", {
            cause,
            context: { address: where },
          }),
        );
      });
      this.#server.listen(address, () => {
        if ("path" in address) fs.chmodSync(address.path, SOCKET_MODE);
        resolve();
      });
    });
  }

  close(): void {
    this.#server.close();
    this.#server.closeAllConnections();
  }
}

function answer(
  { method, url = "", headers }: http.IncomingMessage,
  text: () => string,
): { status: number; body: string } {
  if (method !== "GET" && method !== "HEAD") return { status: 405, body: "GET only\n" };
  // A page in a browser of this machine may have its own name lead here: it says that name.
  const host = (headers.host ?? "").replace(/:\d*$/, "").replace(/^\[(.*)\]$/, "$1");
  const isOurs = host === "" || host === "localhost" || isLoopback(host);
  if (!isOurs) return { status: 403, body: "ask by address\n" };
  if (url.split("?")[0] !== "/metrics") return { status: 404, body: "metrics are at /metrics\n" };
  return { status: 200, body: text() };
}
