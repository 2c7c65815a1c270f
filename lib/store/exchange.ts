// One HTTP request and its answer, strictly: node:http and not fetch, so that nothing is decoded or followed behind our back, and the
// sockets are ours to close. An answer is taken only if it is exactly what was asked for; all deadlines (headers, silence in a body
// that comes or goes) are our own, and stand while this process doesn't listen. What http.ts and the S3 client have in common. Control plane.

import http, { type IncomingMessage } from "node:http";
import https from "node:https";
import { BurrowError, type ErrorClass } from "../base/error.ts";
import { Patience } from "../sys/attended.ts";
import { watchAttempts } from "./addresses.ts";
import { dropIdle } from "./agents.ts";
import { BodyTurns } from "./body-turns.ts";
import { type ByteRange, backendError, timeoutError, tooShort } from "./store.ts";
import { Turnstile } from "./turnstile.ts";
import { isHangUp, unreachable, watchStage } from "./unreachable.ts";

export interface ExchangeOptions {
  /** From the request to the end of the headers, connecting included; of an upload, from the last piece that was taken. */
  readonly headerMs?: number;
  /** Longest silence within a body; and how long it may be slower than a floor. */
  readonly stallMs?: number;
  /** Sockets to the origin at once. */
  readonly sockets?: number;
}

export const HEADER_MS = 10_000;
export const STALL_MS = 5_000;
export const SOCKETS = 16;
/** A body that comes slower than this is as good as none: what an ask wants would not be here by its deadline (pitfalls D11). */
const FLOOR_BYTES_PER_S = 4096;
/** A server without ranges answers 200 with everything: taken and cut when it is no longer than this. */
const SLICE_MAX_BYTES = 1024 * 1024;
/** The longest Retry-After that is believed. */
const RETRY_AFTER_MAX_MS = 30_000;
/** Of all bodies together: they share a loop. */
const TURNS = new BodyTurns();
/** Requests that begin in one turn of the loop: each takes it 1 to 2.5 ms, and those ahead of a start come together. */
const BEGINNING = new Turnstile(2);
/** A body goes out in such pieces; each must be taken within the deadline. */
const PIECE_BYTES = 256 * 1024;

/** Facts that errors carry: the object and where it lies. */
export type Facts = Readonly<Record<string, string | number>>;

export interface Exchange {
  /** Host, port, path and method as they go over the wire. */
  readonly request: https.RequestOptions;
  readonly body?: Uint8Array;
  readonly headerMs: number;
  readonly signal: AbortSignal | undefined;
  readonly facts: Facts;
}

/** Sends a request: its answer, once the headers are there. The body is the caller's to read or destroy. */
export async function exchange(of: Exchange): Promise<IncomingMessage> {
  await BEGINNING.pass();
  // While it stood in line nobody heard of it.
  if (of.signal?.aborted) throw timeoutError("gave up waiting for the origin", of.facts);
  return await sent(of, false);
}

/** `isAgain`: it met the end of a connection once already. */
function sent(of: Exchange, isAgain: boolean): Promise<IncomingMessage> {
  const { request: options, body, headerMs, signal, facts } = of;
  return new Promise((resolve, reject) => {
    const send = options.protocol === "https:" ? https.request : http.request;
    const request = send(options);
    const stage = watchStage(request);
    watchAttempts(request);
    const onAbort = () => request.destroy(timeoutError("gave up waiting for the origin", facts));
    const onSilence = () => {
      // It stood idle, and nobody is at its other end.
      if (request.reusedSocket) dropIdleOf(options);
      request.destroy(timeoutError(`no answer within ${headerMs} ms${stage()}`, facts));
    };
    const patience = new Patience(headerMs, onSilence);
    let isSettled = false;
    const settle = () => {
      isSettled = true;
      patience.end();
      signal?.removeEventListener("abort", onAbort);
    };
    signal?.addEventListener("abort", onAbort, { once: true });
    request.once("response", (response) => {
      settle();
      // Answered before it was told all: that socket is of no more use.
      if (!request.writableEnded) response.once("close", () => request.destroy());
      resolve(response);
    });
    request.on("error", (cause) => {
      // The other end gave it up while it stood idle: nobody has seen the request, which says nothing of the origin (RFC 9112, 9.3.1).
      const isStray = request.reusedSocket && !isSettled && isHangUp(cause);
      settle();
      if (isStray && !isAgain && signal?.aborted !== true) {
        dropIdleOf(options);
        return resolve(sent(of, true));
      }
      reject(cause instanceof BurrowError ? cause : unreachable(cause, facts));
    });
    const sendFrom = (at: number) => {
      if (isSettled) return;
      if (body === undefined || at >= body.length) return void request.end();
      request.write(body.subarray(at, at + PIECE_BYTES), () => {
        patience.renew();
        sendFrom(at + PIECE_BYTES);
      });
    };
    sendFrom(0);
  });
}

function dropIdleOf({ agent }: https.RequestOptions): void {
  if (agent instanceof http.Agent) dropIdle(agent);
}

export interface BodyPlan {
  /** Bytes the body must have; undefined when only maxBytes bounds it. */
  readonly exact: number | undefined;
  readonly maxBytes: number;
  /** Exactly the range that was asked for. */
  readonly isRange?: boolean;
  /** Part of a whole body that was asked for. */
  readonly slice?: ByteRange;
}

/** Judges status and headers: what the body must be, or an error. pitfalls B7. */
function planBody(
  response: IncomingMessage,
  range: ByteRange | undefined,
  maxBytes: number,
  context: Facts,
): BodyPlan {
  const encoding = response.headers["content-encoding"];
  // Of another answer the body is a page for people.
  const isObject = response.statusCode === 200 || response.statusCode === 206;
  if (isObject && encoding !== undefined && encoding !== "identity") {
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
    // A range that was answered as if it were the whole looks like this, too: no proof that the object is short.
    if (range.offset + range.length > length) throw lie(`${length} bytes as the whole`, context);
    return { exact: length, maxBytes: length, slice: range };
  }
  const got = response.headers["content-range"] ?? "";
  const whole =
    response.statusCode === 206 || response.statusCode === 416 ? wholeOf(got) : undefined;
  if (whole !== undefined && range.offset + range.length > whole) throw tooShort(whole, context);
  if (response.statusCode !== 206) throw statusError(response, context);
  const expected = `bytes ${range.offset}-${range.offset + range.length - 1}/`;
  if (!got.startsWith(expected)) throw lie(`Content-Range "${got}", not "${expected}…"`, context);
  if (length !== undefined && length !== range.length) {
    throw lie(`Content-Length ${length} for a range of ${range.length} bytes`, context);
  }
  return { exact: range.length, maxBytes: range.length, isRange: true };
}

export interface ObjectRead {
  readonly range: ByteRange | undefined;
  /** Of a whole object. */
  readonly maxBytes: number;
  readonly stallMs: number;
  readonly signal: AbortSignal | undefined;
  readonly facts: Facts;
  /** Hears how many bytes came, while they come. */
  readonly onBytes?: ((bytes: number) => void) | undefined;
}

/** The bytes that were asked for, out of the answer. Throws for any other answer; the response is the caller's to destroy then. */
export async function readObject(response: IncomingMessage, read: ObjectRead): Promise<Buffer> {
  const { range, maxBytes, stallMs, signal, facts, onBytes } = read;
  const plan = planBody(response, range, maxBytes, facts);
  if (onBytes !== undefined) response.on("data", (piece: Buffer) => onBytes(piece.length));
  const body = await readBody(response, plan, stallMs, signal, facts);
  const { slice } = plan;
  return slice ? body.subarray(slice.offset, slice.offset + slice.length) : body;
}

/** Reads a body, which must end cleanly and be neither shorter nor longer than planned. */
export function readBody(
  response: IncomingMessage,
  plan: BodyPlan,
  stallMs: number,
  signal: AbortSignal | undefined,
  context: Facts,
): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    // Of a range, whose length is ours and not the server's word, pieces go straight to their place: none outlives the next.
    const whole = plan.isRange ? Buffer.allocUnsafeSlow(plan.exact ?? 0) : undefined;
    const pieces: Buffer[] = [];
    let bytes = 0;
    const fail = (error: BurrowError) => {
      settle();
      response.destroy();
      reject(error);
    };
    const onStall = () => fail(timeoutError(`the body stalled for ${stallMs} ms`, context));
    const onAbort = () => fail(timeoutError("gave up in the middle of a body", context));
    const patience = new Patience(stallMs, onStall);
    const ofWindow = { bytes: 0 };
    const floorBytes = (FLOOR_BYTES_PER_S * stallMs) / 1000;
    const judge = () => {
      const message = `the body came with less than ${FLOOR_BYTES_PER_S} bytes a second`;
      if (ofWindow.bytes < floorBytes) return fail(timeoutError(message, context));
      ofWindow.bytes = 0;
      window = new Patience(stallMs, judge);
    };
    let window = new Patience(stallMs, judge);
    const settle = () => {
      patience.end();
      window.end();
      signal?.removeEventListener("abort", onAbort);
    };
    if (signal?.aborted) return onAbort();
    signal?.addEventListener("abort", onAbort, { once: true });
    response.on("data", (piece: Buffer) => {
      bytes += piece.length;
      ofWindow.bytes += piece.length;
      if (bytes > (plan.exact ?? plan.maxBytes)) return fail(lie("the body is too long", context));
      if (whole === undefined) pieces.push(piece);
      else whole.set(piece, bytes - piece.length);
      patience.renew();
      TURNS.took(response, piece.length);
    });
    response.once("end", () => {
      if (!response.complete || (plan.exact !== undefined && bytes !== plan.exact)) {
        return fail(lie(`the body ended after ${bytes} bytes`, context));
      }
      settle();
      resolve(whole ?? Buffer.concat(pieces, bytes));
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

/** What Content-Range says of the length of the whole object; undefined where it doesn't. */
function wholeOf(contentRange: string): number | undefined {
  const text = /^bytes (?:\*|\d+-\d+)\/(\d+)$/.exec(contentRange)?.[1];
  return text === undefined ? undefined : Number(text);
}

/** A wrong answer of a server or of something in between; the next one may be right. */
export function lie(message: string, context: Facts): BurrowError {
  return backendError("transient", `the origin sent ${message}`, context);
}

export function statusError(response: IncomingMessage, context: Facts): BurrowError {
  const status = response.statusCode ?? 0;
  const facts: Record<string, string | number> = { ...context, status };
  const retryAfterMs = retryAfter(response);
  if (retryAfterMs > 0) facts["retryAfterMs"] = retryAfterMs;
  return backendError(classOfStatus(status), `the origin answered ${status}`, facts);
}

/** A redirect is never followed: whoever can send one could as well split a file over two origins. */
export function classOfStatus(status: number): ErrorClass {
  if (status === 404 || status === 410) return "notFound";
  if (status === 408 || status === 425 || status === 429) return "transient";
  return status < 400 || status >= 500 ? "transient" : "permanent";
}

/** Retry-After as milliseconds; 0 when there is none. A date is by the clock of who sent it, which its answer's Date says: this machine's may be another. */
export function retryAfter({ headers }: IncomingMessage): number {
  const text = headers["retry-after"] ?? "";
  const seconds = Number(text);
  const ms = Number.isNaN(seconds)
    ? Date.parse(text) - Date.parse(headers.date ?? "")
    : seconds * 1000;
  return ms > 0 ? Math.min(ms, RETRY_AFTER_MAX_MS) : 0;
}
