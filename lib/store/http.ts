// A store below an HTTP prefix, read only. node:http and not fetch: nothing is decoded or followed behind our
// back, and the sockets are ours to close. An answer is taken only if it is exactly what was asked for; both
// deadlines (headers, silence in a body) are our own. Control plane.

import http, { type IncomingMessage } from "node:http";
import https from "node:https";
import { BurrowError, type ErrorClass } from "../base/error.ts";
import {
  type Backend,
  type ByteRange,
  backendError,
  checkPath,
  type GetOptions,
  throwIfAborted,
  timeoutError,
  WHOLE_MAX_BYTES,
} from "./store.ts";

export interface HttpOptions {
  /** From the request to the end of the headers, connecting included. */
  readonly headerMs?: number;
  /** Longest silence within a body. */
  readonly stallMs?: number;
  /** Sockets to the origin at once. */
  readonly sockets?: number;
}

const HEADER_MS = 10_000;
const STALL_MS = 5_000;
const SOCKETS = 16;
/** A server without ranges answers 200 with everything: taken and cut when it is no longer than this. */
const SLICE_MAX_BYTES = 1024 * 1024;
/** The longest Retry-After that is believed. */
const RETRY_AFTER_MAX_MS = 30_000;

type Context = Record<string, string | number>;

/** A backend below `prefix` ("http://host/path" or https). No request is made yet. */
export function httpBackend(prefix: string, options: HttpOptions = {}): Backend {
  return new HttpBackend(prefix, options);
}

class HttpBackend implements Backend {
  readonly origin: string;
  readonly #base: URL;
  readonly #agent: http.Agent;
  readonly #headerMs: number;
  readonly #stallMs: number;

  constructor(prefix: string, options: HttpOptions) {
    this.origin = prefix;
    this.#base = new URL(prefix.endsWith("/") ? prefix : `${prefix}/`);
    this.#headerMs = options.headerMs ?? HEADER_MS;
    this.#stallMs = options.stallMs ?? STALL_MS;
    const settings = { keepAlive: true, maxSockets: options.sockets ?? SOCKETS };
    this.#agent = this.#isSecure() ? new https.Agent(settings) : new http.Agent(settings);
  }

  async get(path: string, options: GetOptions = {}): Promise<Buffer> {
    const { range, signal } = options;
    if (range?.length === 0) return Buffer.alloc(0);
    const response = await this.#request("GET", path, range, signal);
    try {
      const context = this.#context(path);
      const plan = planBody(response, range, options.maxBytes ?? WHOLE_MAX_BYTES, context);
      const body = await readBody(response, plan, this.#stallMs, signal, context);
      return plan.slice
        ? body.subarray(plan.slice.offset, plan.slice.offset + plan.slice.length)
        : body;
    } catch (error) {
      response.destroy();
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

  #isSecure(): boolean {
    return this.#base.protocol === "https:";
  }

  #context(path: string): Context {
    return { path, origin: this.origin };
  }

  #request(
    method: string,
    path: string,
    range: ByteRange | undefined,
    signal: AbortSignal | undefined,
  ): Promise<IncomingMessage> {
    checkPath(path);
    throwIfAborted(signal, path, this.origin);
    const url = new URL(this.#base);
    url.pathname += path.split("/").map(encodeURIComponent).join("/");
    const headers: Record<string, string> = { "accept-encoding": "identity" };
    if (range) headers["range"] = `bytes=${range.offset}-${range.offset + range.length - 1}`;
    const context = this.#context(path);
    return new Promise((resolve, reject) => {
      const send = this.#isSecure() ? https.request : http.request;
      const request = send(url, { method, headers, agent: this.#agent });
      const onAbort = () =>
        request.destroy(timeoutError("gave up waiting for the origin", context));
      const timer = setTimeout(() => {
        request.destroy(timeoutError(`no answer within ${this.#headerMs} ms`, context));
      }, this.#headerMs);
      const settle = () => {
        clearTimeout(timer);
        signal?.removeEventListener("abort", onAbort);
      };
      signal?.addEventListener("abort", onAbort, { once: true });
      request.once("response", (response) => {
        settle();
        resolve(response);
      });
      request.on("error", (cause) => {
        settle();
        reject(
          cause instanceof BurrowError
            ? cause
            : backendError("transient", "the origin can't be reached", context, cause),
        );
      });
      request.end();
    });
  }
}

interface BodyPlan {
  /** Bytes the body must have; undefined when only maxBytes bounds it. */
  readonly exact: number | undefined;
  readonly maxBytes: number;
  /** Part of a whole body that was asked for. */
  readonly slice?: ByteRange;
}

/** Judges status and headers: what the body must be, or an error. pitfalls B7. */
function planBody(
  response: IncomingMessage,
  range: ByteRange | undefined,
  maxBytes: number,
  context: Context,
): BodyPlan {
  const encoding = response.headers["content-encoding"];
  if (encoding !== undefined && encoding !== "identity") {
    throw lie(`a body encoded as ${encoding}, which was not asked for`, context);
  }
  const length = contentLength(response);
  if (range === undefined) {
    if (response.statusCode !== 200) throw statusError(response, context);
    if (length !== undefined && length > maxBytes) {
      throw backendError("permanent", `${length} bytes, more than ${maxBytes}`, context);
    }
    return { exact: length, maxBytes };
  }
  if (response.statusCode === 200) {
    if (length === undefined || length > SLICE_MAX_BYTES) {
      throw lie("the whole object in answer to a range: the origin must serve ranges", context);
    }
    if (range.offset + range.length > length) throw beyond(length, context);
    return { exact: length, maxBytes: length, slice: range };
  }
  if (response.statusCode !== 206) throw statusError(response, context);
  const expected = `bytes ${range.offset}-${range.offset + range.length - 1}/`;
  const got = response.headers["content-range"] ?? "";
  if (!got.startsWith(expected)) throw lie(`Content-Range "${got}", not "${expected}…"`, context);
  if (length !== undefined && length !== range.length) {
    throw lie(`Content-Length ${length} for a range of ${range.length} bytes`, context);
  }
  return { exact: range.length, maxBytes: range.length };
}

/** Reads a body, which must end cleanly and be neither shorter nor longer than planned. */
function readBody(
  response: IncomingMessage,
  plan: BodyPlan,
  stallMs: number,
  signal: AbortSignal | undefined,
  context: Context,
): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const pieces: Buffer[] = [];
    let bytes = 0;
    const fail = (error: BurrowError) => {
      settle();
      response.destroy();
      reject(error);
    };
    const onStall = () => fail(timeoutError(`the body stalled for ${stallMs} ms`, context));
    const onAbort = () => fail(timeoutError("gave up in the middle of a body", context));
    let timer = setTimeout(onStall, stallMs);
    const settle = () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", onAbort);
    };
    if (signal?.aborted) return onAbort();
    signal?.addEventListener("abort", onAbort, { once: true });
    response.on("data", (piece: Buffer) => {
      bytes += piece.length;
      if (bytes > (plan.exact ?? plan.maxBytes)) return fail(lie("the body is too long", context));
      pieces.push(piece);
      clearTimeout(timer);
      timer = setTimeout(onStall, stallMs);
    });
    response.once("end", () => {
      if (!response.complete || (plan.exact !== undefined && bytes !== plan.exact)) {
        return fail(lie(`the body ended after ${bytes} bytes`, context));
      }
      settle();
      resolve(Buffer.concat(pieces, bytes));
    });
    // An aborted body raises "error" (ECONNRESET) and no "end".
    response.on("error", (cause) => {
      fail(backendError("transient", `the body broke off after ${bytes} bytes`, context, cause));
    });
    response.once("close", () => {
      if (!response.complete) fail(lie(`the body broke off after ${bytes} bytes`, context));
    });
  });
}

function contentLength(response: IncomingMessage): number | undefined {
  const text = response.headers["content-length"];
  return text === undefined ? undefined : Number(text);
}

/** A wrong answer of a server or of something in between; the next one may be right. */
function lie(message: string, context: Context): BurrowError {
  return backendError("transient", `the origin sent ${message}`, context);
}

function beyond(length: number, context: Context): BurrowError {
  return backendError("permanent", `the object ends at ${length}, before the range`, context);
}

function statusError(response: IncomingMessage, context: Context): BurrowError {
  const status = response.statusCode ?? 0;
  const facts: Context = { ...context, status };
  const retryAfterMs = retryAfter(response);
  if (retryAfterMs > 0) facts["retryAfterMs"] = retryAfterMs;
  return backendError(classOfStatus(status), `the origin answered ${status}`, facts);
}

/** A redirect is never followed: whoever can send one could as well split a file over two origins. */
function classOfStatus(status: number): ErrorClass {
  if (status === 404 || status === 410) return "notFound";
  if (status === 408 || status === 425 || status === 429) return "transient";
  return status < 400 || status >= 500 ? "transient" : "permanent";
}

/** Retry-After in seconds, as milliseconds; 0 when there is none. Dates are ignored: clocks differ. */
function retryAfter(response: IncomingMessage): number {
  const seconds = Number(response.headers["retry-after"]);
  return seconds > 0 ? Math.min(seconds * 1000, RETRY_AFTER_MAX_MS) : 0;
}
