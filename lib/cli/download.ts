// Download of one package file: bounded bytes, silence and slowness, tried again when that may help, half a file never taken for a
// whole one. Control plane.

import { createWriteStream, rmSync, statSync } from "node:fs";
import { basename, join } from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { BurrowError, type ErrorCode } from "../base/error.ts";
import { PACKAGE_MAX_BYTES } from "../base/limits.ts";
import { ioError } from "../cache/directory.ts";
import { plainUrl } from "../ingest/conda/record.ts";

export interface DownloadOptions {
  /** Bytes of the file so far, those of an earlier try included. */
  readonly onBytes?: (bytes: number) => void;
  /** Bytes that the file has, as a lock or repodata says: no other number is taken. */
  readonly size?: number;
  /** Most bytes that are taken when `size` is missing; PACKAGE_MAX_BYTES when this is, too. */
  readonly maxBytes?: number;
  /** How long a server may be silent. */
  readonly stallMs?: number;
  /** A server must send `slowBytes` in each `slowMs`, so that no drip lasts for ever. */
  readonly slowMs?: number;
  readonly slowBytes?: number;
  readonly tries?: number;
  /** Before the second try; doubles. */
  readonly pauseMs?: number;
  /** The file to write, in place of one of the URL's name in `folder`. */
  readonly path?: string;
  /** Goes on behind what the file has. Only for who compares the hash of the whole afterwards. */
  readonly resume?: boolean;
}

const STALL_MS = 30_000;
/** 17 kB/s: a package of 100 MB may take 95 minutes. */
const SLOW_MS = 60_000;
const SLOW_BYTES = 1024 * 1024;
const TRIES = 3;
const PAUSE_MS = 500;

/** Fetches `url` into a file: its path. BURROW_ORIGIN, BURROW_TIMEOUT, BURROW_DIGEST_MISMATCH (another size), BURROW_NO_SPACE. */
export async function download(
  url: string,
  folder: string,
  options: DownloadOptions = {},
): Promise<string> {
  const path = options.path ?? join(folder, basename(new URL(url).pathname));
  if (options.resume !== true) rmSync(path, { force: true });
  for (let count = 1; ; count++) {
    try {
      await new Attempt(url, path, options).run();
      return path;
    } catch (error) {
      const isWorthIt = error instanceof BurrowError && error.code === "BURROW_ORIGIN";
      if (!isWorthIt || error.class !== "transient" || count >= (options.tries ?? TRIES)) {
        throw error;
      }
      await sleep((options.pauseMs ?? PAUSE_MS) * 2 ** (count - 1));
    }
  }
}

/** One request and its body. */
class Attempt {
  readonly #url: string;
  readonly #path: string;
  readonly #options: DownloadOptions;
  readonly #abort = new AbortController();
  /** Why we gave up, in words, once we did. */
  #late: string | undefined;
  #bytes = 0;

  constructor(url: string, path: string, options: DownloadOptions) {
    this.#url = url;
    this.#path = path;
    this.#options = options;
  }

  async run(): Promise<void> {
    const { size, resume, slowMs = SLOW_MS, slowBytes = SLOW_BYTES } = this.#options;
    const from = resume === true ? sizeOf(this.#path, size) : 0;
    this.#bytes = from;
    if (size !== undefined && from === size && size > 0) return;
    let seen = from;
    const slow = setInterval(() => {
      if (this.#bytes - seen < slowBytes) {
        this.#giveUp(`the server sent ${this.#bytes - seen} bytes in ${slowMs / 1000} s`);
      }
      seen = this.#bytes;
    }, slowMs);
    try {
      await this.#fetch(from);
    } catch (cause) {
      if (cause instanceof BurrowError) throw cause;
      if (this.#late !== undefined) throw this.#error("BURROW_TIMEOUT", this.#late, true);
      const isOurs = typeof (cause as NodeJS.ErrnoException).syscall === "string";
      const isOfFile = isOurs && (cause as NodeJS.ErrnoException).code?.startsWith("E") === true;
      if (isOfFile) throw ioError("can't write a download", this.#path, cause);
      throw this.#error("BURROW_ORIGIN", "the connection failed", true, cause);
    } finally {
      clearInterval(slow);
    }
  }

  async #fetch(from: number): Promise<void> {
    const stallMs = this.#options.stallMs ?? STALL_MS;
    const giveUp = () => this.#giveUp(`the server was silent for ${stallMs / 1000} s`);
    let silence = setTimeout(giveUp, stallMs);
    const bounded = async function* (this: Attempt, chunks: AsyncIterable<Uint8Array>) {
      for await (const chunk of chunks) {
        clearTimeout(silence);
        silence = setTimeout(giveUp, stallMs);
        this.#take(chunk.length);
        yield chunk;
      }
    }.bind(this);
    try {
      const headers = {
        "accept-encoding": "identity", // what is hashed is the file itself
        ...(from > 0 ? { range: `bytes=${from}-` } : {}),
      };
      const response = await fetch(this.#url, { signal: this.#abort.signal, headers });
      if (this.#isWhole(response, from)) return void (await response.body?.cancel());
      const isRest = this.#checkStatus(response, from);
      if (response.body === null || !response.ok) {
        await response.body?.cancel();
        throw this.#refusal(response.status);
      }
      this.#bytes = isRest ? from : 0;
      this.#checkLength(response);
      const file = createWriteStream(this.#path, { flags: isRest ? "a" : "w" });
      await pipeline(Readable.fromWeb(response.body as never), bounded, file);
      const { size } = this.#options;
      if (size === undefined || this.#bytes === size) return;
      const what = `the connection ended after ${this.#bytes} of ${size} bytes`;
      throw this.#error("BURROW_ORIGIN", what, true);
    } finally {
      clearTimeout(silence);
    }
  }

  /** Whether the server says that what we have is all there is. RFC 9110 section 15.5.17. */
  #isWhole(response: Response, from: number): boolean {
    if (response.status !== 416 || from === 0) return false;
    return response.headers.get("content-range") === `bytes */${from}`;
  }

  /** Whether the body goes on at `from`; what we have of a file that changed meanwhile is dropped. */
  #checkStatus(response: Response, from: number): boolean {
    const isRest =
      response.status === 206 &&
      response.headers.get("content-range")?.startsWith(`bytes ${from}-`) === true;
    const isOdd = response.status === 206 || response.status === 416;
    if (from === 0 || isRest || !isOdd) return isRest;
    rmSync(this.#path, { force: true });
    const what = "the server did not send the rest of what was begun";
    throw this.#error("BURROW_ORIGIN", what, true);
  }

  /** Refuses a body that is announced as another than it must be, before a byte of it is taken. */
  #checkLength(response: Response): void {
    const length = response.headers.get("content-length");
    const isPlain = response.headers.get("content-encoding") === null;
    if (length === null || !isPlain || !/^\d{1,15}$/.test(length)) return;
    const { size } = this.#options;
    const announced = this.#bytes + Number(length);
    if (size !== undefined && announced !== size) throw this.#wrongSize(size, announced);
    if (size === undefined && announced > this.#maxBytes) throw this.#tooLarge();
  }

  #take(count: number): void {
    this.#bytes += count;
    const { size, onBytes } = this.#options;
    if (size !== undefined && this.#bytes > size) throw this.#wrongSize(size, this.#bytes);
    if (size === undefined && this.#bytes > this.#maxBytes) throw this.#tooLarge();
    onBytes?.(this.#bytes);
  }

  get #maxBytes(): number {
    return this.#options.maxBytes ?? PACKAGE_MAX_BYTES;
  }

  #giveUp(why: string): void {
    this.#late ??= why;
    this.#abort.abort();
  }

  #refusal(status: number): BurrowError {
    const mayHelp = status >= 500 || status === 429;
    return this.#error("BURROW_ORIGIN", `HTTP status ${status}`, mayHelp);
  }

  #wrongSize(size: number, got: number): BurrowError {
    rmSync(this.#path, { force: true });
    const what = `it has ${size} bytes by the lock, and the server sends ${got} or more`;
    return this.#error("BURROW_DIGEST_MISMATCH", what, false);
  }

  #tooLarge(): BurrowError {
    rmSync(this.#path, { force: true });
    const what = `it is over ${this.#maxBytes} bytes, the most for a package whose size no lock says`;
    return this.#error("BURROW_ORIGIN", what, false);
  }

  #error(code: ErrorCode, what: string, isTransient: boolean, cause?: unknown): BurrowError {
    return new BurrowError(code, `can't download the package: ${what}`, {
      cause,
      class: isTransient ? "transient" : "permanent",
      // Without passwords and tokens: errors end up in logs.
      context: { url: plainUrl(this.#url) },
    });
  }
}

/** Bytes that a file has; none, and the file gone, when it has more than it may. */
function sizeOf(path: string, max: number | undefined): number {
  const size = statSync(path, { throwIfNoEntry: false })?.size ?? 0;
  if (max === undefined || size <= max) return size;
  rmSync(path, { force: true });
  return 0;
}
