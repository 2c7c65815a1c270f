// A store below an HTTP prefix, read only. exchange.ts has the request and what is taken as its answer. Control plane.

import type http from "node:http";
import { urlToHttpOptions } from "node:url";
import { BurrowError } from "../base/error.ts";
import { dropIdle, openAgent } from "./agents.ts";
import {
  type ExchangeOptions,
  exchange,
  type Facts,
  HEADER_MS,
  readBody,
  readObject,
  SOCKETS,
  STALL_MS,
  statusError,
} from "./exchange.ts";
import {
  type Backend,
  type ByteRange,
  checkPath,
  type GetOptions,
  throwIfAborted,
  WHOLE_MAX_BYTES,
} from "./store.ts";

/** The page of a refusal: for a longer one a new connection costs less. */
const PAGE_MAX_BYTES = 16 * 1024;

/** A backend below `prefix` ("http://host/path" or https). No request is made yet. BURROW_USAGE for one with a query. */
export function httpBackend(prefix: string, options: ExchangeOptions = {}): Backend {
  return new HttpBackend(prefix, options);
}

class HttpBackend implements Backend {
  readonly origin: string;
  readonly #base: URL;
  readonly #agent: http.Agent;
  readonly #headerMs: number;
  readonly #stallMs: number;

  constructor(prefix: string, options: ExchangeOptions) {
    this.origin = prefix;
    this.#base = new URL(prefix.endsWith("/") ? prefix : `${prefix}/`);
    refuseQuery(this.#base);
    this.#headerMs = options.headerMs ?? HEADER_MS;
    this.#stallMs = options.stallMs ?? STALL_MS;
    this.#agent = openAgent(this.#base.protocol === "https:", options.sockets ?? SOCKETS);
  }

  async get(path: string, options: GetOptions = {}): Promise<Buffer> {
    const { range, signal, onBytes } = options;
    if (range?.length === 0) return Buffer.alloc(0);
    if (options.isAnew === true) dropIdle(this.#agent);
    const response = await this.#request("GET", path, range, signal);
    try {
      const maxBytes = options.maxBytes ?? WHOLE_MAX_BYTES;
      const facts = this.#context(path);
      const stallMs = this.#stallMs;
      return await readObject(response, { range, maxBytes, stallMs, signal, facts, onBytes });
    } catch (error) {
      if ((response.statusCode ?? 0) < 400) response.destroy();
      else this.#leave(response, path);
      throw error;
    }
  }

  async has(path: string, signal?: AbortSignal): Promise<boolean> {
    const response = await this.#request("HEAD", path, undefined, signal);
    response.resume();
    if (response.statusCode === 200) return true;
    const error = statusError(response, this.#context(path));
    if (error.class === "notFound") return false;
    throw error;
  }

  close(): void {
    this.#agent.destroy();
  }

  /** Has the page of a refusal come, so that its connection serves on: who looks for a delta has been told that there is no whole object. */
  #leave(response: http.IncomingMessage, path: string): void {
    const plan = { exact: undefined, maxBytes: PAGE_MAX_BYTES };
    const page = readBody(response, plan, this.#stallMs, undefined, this.#context(path));
    page.catch(() => undefined); // it was destroyed
  }

  #context(path: string): Facts {
    return { path, origin: this.origin };
  }

  #request(
    method: string,
    path: string,
    range: ByteRange | undefined,
    signal: AbortSignal | undefined,
  ): Promise<http.IncomingMessage> {
    checkPath(path);
    throwIfAborted(signal, path, this.origin);
    const url = new URL(this.#base);
    url.pathname += path.split("/").map(encodeURIComponent).join("/");
    const headers: Record<string, string> = { "accept-encoding": "identity" };
    if (range) headers["range"] = `bytes=${range.offset}-${range.offset + range.length - 1}`;
    const request = { ...urlToHttpOptions(url), method, headers, agent: this.#agent };
    const facts = this.#context(path);
    return exchange({ request, headerMs: this.#headerMs, signal, facts });
  }
}

/** One that is signed ends its time while it is in use (pitfalls D2), would be in logs, and is of one object as a rule. */
function refuseQuery({ origin, pathname, search, hash }: URL): void {
  if (search === "" && hash === "") return;
  const what =
    "the address of a store or stage has no query (?…): for what needs rights use s3://, whose requests are each signed when they are made";
  const address = `${origin}${pathname}`;
  throw new BurrowError("BURROW_USAGE", what, { context: { origin: address } });
}
