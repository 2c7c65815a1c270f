// HTTP bodies as streams: bounded silence, passwords out of the URL and into a header, errors that say whether another try may help.
// For packages and repodata, which are large and verified by their readers; the store has a client of its own. Control plane.

import { setTimeout as sleep } from "node:timers/promises";
import { BurrowError, type ErrorCode } from "../base/error.ts";

export interface FetchOptions {
  /** What errors say can't be downloaded: "the package". */
  readonly what: string;
  /** The URL as errors may show it: without passwords and tokens, since errors end up in logs. */
  readonly shownUrl: string;
  readonly headers?: Readonly<Record<string, string>>;
  /** How long a server may be silent. */
  readonly stallMs?: number;
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
  /** Before the second try; doubles. */
  readonly pauseMs?: number;
}

const STALL_MS = 30_000;
const TRIES = 3;
const PAUSE_MS = 500;

/**
 * Asks for a URL and hands the answer to `use`, whose end is the end of the request. BURROW_ORIGIN, BURROW_TIMEOUT; errors of
 * `use` and of the operating system are passed on.
 */
export async function withAnswer<T>(
  url: string,
  options: FetchOptions,
  use: (answer: Answer) => Promise<T>,
): Promise<T> {
  const stallMs = options.stallMs ?? STALL_MS;
  const abort = new AbortController();
  let timer = setTimeout(() => abort.abort(), stallMs);
  const fail = (code: ErrorCode, why: string, isTransient: boolean, cause?: unknown) =>
    new BurrowError(code, `can't download ${options.what}: ${why}`, {
      cause,
      class: isTransient ? "transient" : "permanent",
      context: { url: options.shownUrl },
    });
  const watched = async function* (chunks: AsyncIterable<Uint8Array>) {
    let bytes = 0;
    for await (const chunk of chunks) {
      clearTimeout(timer);
      timer = setTimeout(() => abort.abort(), stallMs);
      bytes += chunk.length;
      if (options.maxBytes !== undefined && bytes > options.maxBytes) {
        throw fail("BURROW_ORIGIN", `it has more than ${options.maxBytes} bytes`, false);
      }
      yield chunk;
    }
  };
  try {
    const { plain, headers } = splitSecret(url);
    const response = await fetch(plain, {
      signal: abort.signal,
      headers: { ...headers, ...options.headers },
    });
    const { status } = response;
    if (!(options.statuses ?? [200]).includes(status)) {
      await response.body?.cancel();
      throw fail("BURROW_ORIGIN", `HTTP status ${status}`, status >= 500 || status === 429);
    }
    const body = watched((response.body ?? []) as AsyncIterable<Uint8Array>);
    return await use({ status, headers: response.headers, body });
  } catch (cause) {
    if (cause instanceof BurrowError) throw cause;
    if (abort.signal.aborted) {
      throw fail("BURROW_TIMEOUT", `the server was silent for ${stallMs / 1000} s`, true);
    }
    const isOurs = typeof (cause as NodeJS.ErrnoException).syscall === "string";
    if (isOurs) throw cause;
    throw fail("BURROW_ORIGIN", "the connection failed", true, cause);
  } finally {
    clearTimeout(timer);
    abort.abort(); // a body that nobody read to its end holds a socket
  }
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
      await sleep((options.pauseMs ?? PAUSE_MS) * 2 ** (count - 1));
    }
  }
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
