// Bodies over HTTP, or from S3, as streams: bounded silence and slowness, passwords out of the URL and into a header, errors that say whether another
// try may help.
// For packages and repodata, which are large and verified by their readers; the store has a client of its own for HTTP, and lends its
// one for S3. Control plane.

import { setTimeout as sleep } from "node:timers/promises";
import { BurrowError, type ErrorCode } from "../base/error.ts";
import { isS3 } from "../store/s3-place.ts";
import { reasonOf } from "../store/unreachable.ts";
import { s3Answer } from "./s3-answer.ts";

export interface FetchOptions {
  /** What errors say can't be downloaded: "the package". */
  readonly what: string;
  /** The URL as errors may show it: without passwords and tokens, since errors end up in logs. */
  readonly shownUrl: string;
  readonly headers?: Readonly<Record<string, string>>;
  /** How long a server may be silent. */
  readonly stallMs?: number;
  /** What a server must send in each `ms`, so that no drip lasts for ever. */
  readonly floor?: { readonly bytes: number; readonly ms: number };
  /** Statuses that `use` gets to see; others are errors. 200 when missing. */
  readonly statuses?: readonly number[];
  /** A body that is longer is cut off with an error. */
  readonly maxBytes?: number;
}

export interface Answer {
  readonly status: number;
  readonly headers: Headers;
  readonly body: AsyncIterable<Uint8Array>;
}

export interface RetryOptions {
  /** Requests in all. */
  readonly tries?: number;
  /** Before the second try, or half of it: jittered; doubles. */
  readonly pauseMs?: number;
}

const STALL_MS = 30_000;
const TRIES = 3;
const PAUSE_MS = 500;
/** The longest Retry-After that is believed. */
const RETRY_AFTER_MAX_MS = 30_000;

/**
 * Asks for a URL and hands the answer to `use`, whose end is the end of the request. BURROW_ORIGIN, BURROW_TIMEOUT; errors of
 * `use` and of the operating system are passed on.
 */
export async function withAnswer<T>(
  url: string,
  options: FetchOptions,
  use: (answer: Answer) => Promise<T>,
): Promise<T> {
  const fail = downloadFailure(options);
  const watch = new Watch(options);
  const bounded = async function* (chunks: AsyncIterable<Uint8Array>) {
    let bytes = 0;
    for await (const chunk of chunks) {
      watch.saw(chunk.length);
      bytes += chunk.length;
      if (options.maxBytes !== undefined && bytes > options.maxBytes) {
        throw fail("BURROW_ORIGIN", `it has more than ${options.maxBytes} bytes`, false);
      }
      yield chunk;
    }
  };
  try {
    const ask = isS3(url) ? askS3 : askHttp;
    const { status, headers, body } = await ask(url, options, watch);
    return await use({ status, headers, body: bounded(body) });
  } catch (cause) {
    if (cause instanceof BurrowError) throw cause;
    if (watch.why !== undefined) throw fail("BURROW_TIMEOUT", watch.why, true);
    const isOurs = typeof (cause as NodeJS.ErrnoException).syscall === "string";
    if (isOurs) throw cause;
    // What fetch() raises says nothing itself.
    const reason = reasonOf(cause instanceof Error ? (cause.cause ?? cause) : cause);
    const isTransient = reason.class === "transient";
    throw fail("BURROW_ORIGIN", `the connection failed${reason.text}`, isTransient, reason.cause);
  } finally {
    watch.end();
  }
}

async function askHttp(url: string, options: FetchOptions, watch: Watch): Promise<Answer> {
  const { plain, headers } = splitSecret(url);
  const response = await fetch(plain, {
    signal: watch.signal,
    headers: { ...headers, ...options.headers },
  });
  const { status } = response;
  if (!(options.statuses ?? [200]).includes(status)) {
    await response.body?.cancel();
    const isTransient = status >= 500 || status === 429;
    throw new BurrowError(
      "BURROW_ORIGIN",
      `can't download ${options.what}: HTTP status ${status}`,
      {
        class: isTransient ? "transient" : "permanent",
        context: { url: options.shownUrl, ...waitOf(response.headers.get("retry-after")) },
      },
    );
  }
  const body = (response.body ?? []) as AsyncIterable<Uint8Array>;
  return { status, headers: response.headers, body };
}

async function askS3(url: string, options: FetchOptions, watch: Watch): Promise<Answer> {
  const { headers = {}, statuses = [200], stallMs = STALL_MS, what, shownUrl } = options;
  try {
    return await s3Answer(url, { headers, statuses, stallMs, signal: watch.signal });
  } catch (cause) {
    if (!(cause instanceof BurrowError) || watch.why !== undefined) {
      throw new Error("the connection failed", { cause });
    }
    const { code, context, class: errorClass, message } = cause;
    // What isn't there is an error of the origin, as over HTTP: whoever can do without it asks for the status.
    throw new BurrowError(
      code === "BURROW_NOT_FOUND" ? "BURROW_ORIGIN" : code,
      `can't download ${what}: ${message}`,
      {
        class: errorClass === "transient" ? "transient" : "permanent",
        context: { url: shownUrl, ...context },
        cause: cause.cause,
      },
    );
  }
}

/** What a server asks to be waited for, in seconds; dates are ignored, since clocks differ. */
function waitOf(retryAfter: string | null): { retryAfterMs?: number } {
  const seconds = Number(retryAfter);
  return seconds > 0 ? { retryAfterMs: Math.min(seconds * 1000, RETRY_AFTER_MAX_MS) } : {};
}

/** Ends a request whose server is silent or slow for too long. */
class Watch {
  readonly #abort = new AbortController();
  readonly signal = this.#abort.signal;
  readonly #stallMs: number;
  readonly #slow: NodeJS.Timeout | undefined;
  #silence: NodeJS.Timeout;
  #bytes = 0;
  /** Why the request was ended, in words, once it was. */
  why: string | undefined;

  constructor({ stallMs = STALL_MS, floor }: FetchOptions) {
    this.#stallMs = stallMs;
    this.#silence = this.#awaitMore();
    if (floor === undefined) return;
    this.#slow = setInterval(() => {
      if (this.#bytes < floor.bytes) {
        this.#giveUp(`the server sent ${this.#bytes} bytes in ${floor.ms / 1000} s`);
      }
      this.#bytes = 0;
    }, floor.ms);
  }

  saw(bytes: number): void {
    this.#bytes += bytes;
    clearTimeout(this.#silence);
    this.#silence = this.#awaitMore();
  }

  /** Also ends the request: a body that nobody read to its end holds a socket. */
  end(): void {
    clearTimeout(this.#silence);
    clearInterval(this.#slow);
    this.#abort.abort();
  }

  #awaitMore(): NodeJS.Timeout {
    const why = `the server was silent for ${this.#stallMs / 1000} s`;
    return setTimeout(() => this.#giveUp(why), this.#stallMs);
  }

  #giveUp(why: string): void {
    this.why ??= why;
    this.#abort.abort();
  }
}

/** Makes errors of one download. */
export function downloadFailure(options: Pick<FetchOptions, "what" | "shownUrl">) {
  return (code: ErrorCode, why: string, isTransient: boolean, cause?: unknown) =>
    new BurrowError(code, `can't download ${options.what}: ${why}`, {
      cause,
      class: isTransient ? "transient" : "permanent",
      context: { url: options.shownUrl },
    });
}

/** Calls again after a transient BURROW_ORIGIN. Silence is not tried again: it has cost its time already. */
export async function withRetries<T>(call: () => Promise<T>, options: RetryOptions): Promise<T> {
  for (let count = 1; ; count++) {
    try {
      return await call();
    } catch (error) {
      const isWorthIt = error instanceof BurrowError && error.code === "BURROW_ORIGIN";
      if (!isWorthIt || error.class !== "transient" || count >= (options.tries ?? TRIES)) {
        throw error;
      }
      await sleep(pauseOf(error, (options.pauseMs ?? PAUSE_MS) * 2 ** (count - 1)));
    }
  }
}

/** Jittered, so that many who failed together don't come back together; no less than the server asked for. */
function pauseOf(error: BurrowError, pauseMs: number): number {
  const asked = Number(error.context["retryAfterMs"] ?? 0);
  return asked + (pauseMs * (1 + Math.random())) / 2;
}

/** fetch() refuses a URL with a password: it goes as the header that RFC 7617 has for it. */
function splitSecret(url: string): { plain: string; headers: Record<string, string> } {
  const parsed = new URL(url);
  if (parsed.username === "" && parsed.password === "") return { plain: url, headers: {} };
  const user = `${decodeURIComponent(parsed.username)}:${decodeURIComponent(parsed.password)}`;
  parsed.username = "";
  parsed.password = "";
  const authorization = `Basic ${Buffer.from(user).toString("base64")}`;
  return { plain: parsed.href, headers: { authorization } };
}
