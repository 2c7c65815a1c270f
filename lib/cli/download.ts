// Download of one package file: bounded bytes, silence and slowness, tried again when that may help, half a file never taken for a
// whole one. Control plane.

import { createWriteStream, rmSync, statSync } from "node:fs";
import { basename, join } from "node:path";
import { pipeline } from "node:stream/promises";
import { PACKAGE_MAX_BYTES } from "../base/limits.ts";
import { plainUrl } from "../ingest/conda/record.ts";
import {
  type Answer,
  downloadFailure,
  type RetryOptions,
  withAnswer,
  withRetries,
} from "../ingest/fetch-stream.ts";
import { ioError } from "../store/node-error.ts";

export interface DownloadOptions extends RetryOptions {
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
  /** The file to write, in place of one of the URL's name in `folder`. */
  readonly path?: string;
  /** Goes on behind what the file has. Only for who compares the hash of the whole afterwards. */
  readonly resume?: boolean;
}

/** 17 kB/s: a package of 100 MB may take 95 minutes. */
const SLOW_MS = 60_000;
const SLOW_BYTES = 1024 * 1024;

/** What errors say can't be downloaded: without passwords and tokens, since they end up in logs. */
function shown(url: string) {
  return { what: "the package", shownUrl: plainUrl(url) };
}

/** Fetches `url` into a file: its path. BURROW_BAD_LOCK for a URL without a file's name; BURROW_ORIGIN, BURROW_TIMEOUT, BURROW_DIGEST_MISMATCH (another size), BURROW_NO_SPACE. */
export async function download(
  url: string,
  folder: string,
  options: DownloadOptions = {},
): Promise<string> {
  const name = basename(new URL(url).pathname);
  if (name === "")
    throw downloadFailure(shown(url))("BURROW_BAD_LOCK", "its URL names no file", false);
  const path = options.path ?? join(folder, name);
  if (options.resume !== true) rmSync(path, { force: true });
  await withRetries(() => attempt(url, path, options), options);
  return path;
}

/** One request and its body. */
async function attempt(url: string, path: string, options: DownloadOptions): Promise<void> {
  const { size, stallMs, slowMs = SLOW_MS, slowBytes = SLOW_BYTES } = options;
  const from = options.resume === true ? sizeOf(path, size) : 0;
  if (size !== undefined && from === size && size > 0) return;
  const request = {
    ...shown(url),
    headers: {
      "accept-encoding": "identity", // what is hashed is the file itself
      ...(from > 0 ? { range: `bytes=${from}-` } : {}),
    },
    ...(stallMs === undefined ? {} : { stallMs }),
    floor: { bytes: slowBytes, ms: slowMs },
    statuses: [200, 206, 416],
  };
  try {
    await withAnswer(url, request, (answer) =>
      new Reception(url, path, options).take(answer, from),
    );
  } catch (cause) {
    const { code, syscall } = cause as NodeJS.ErrnoException;
    const isOfFile = typeof syscall === "string" && code?.startsWith("E") === true;
    throw isOfFile ? ioError("can't write a download", path, cause) : cause;
  }
}

/** One answer on its way into the file, checked for its length. */
class Reception {
  readonly #path: string;
  readonly #options: DownloadOptions;
  readonly #maxBytes: number;
  readonly #fail: ReturnType<typeof downloadFailure>;
  /** Of the file so far. */
  #bytes = 0;

  constructor(url: string, path: string, options: DownloadOptions) {
    this.#path = path;
    this.#options = options;
    this.#maxBytes = options.maxBytes ?? PACKAGE_MAX_BYTES;
    this.#fail = downloadFailure(shown(url));
  }

  async take(answer: Answer, from: number): Promise<void> {
    if (isWhole(answer, from)) return;
    const isRest = this.#isRest(answer, from);
    this.#bytes = isRest ? from : 0;
    this.#checkLength(answer.headers);
    const file = createWriteStream(this.#path, { flags: isRest ? "a" : "w" });
    await pipeline(this.#counted(answer.body), file);
    const { size } = this.#options;
    if (size === undefined || this.#bytes === size) return;
    const what = `the connection ended after ${this.#bytes} of ${size} bytes`;
    throw this.#fail("BURROW_ORIGIN", what, true);
  }

  /** Whether the body goes on at `from`; what we have of a file that changed meanwhile is dropped. */
  #isRest({ status, headers }: Answer, from: number): boolean {
    if (status === 200) return false;
    if (from === 0) throw this.#fail("BURROW_ORIGIN", `HTTP status ${status}`, false);
    if (status === 206 && headers.get("content-range")?.startsWith(`bytes ${from}-`)) return true;
    rmSync(this.#path, { force: true });
    const what = "the server did not send the rest of what was begun";
    throw this.#fail("BURROW_ORIGIN", what, true);
  }

  /** Refuses a body that is announced as another than it must be, before a byte of it is taken. */
  #checkLength(headers: Headers): void {
    const length = headers.get("content-length");
    const isPlain = headers.get("content-encoding") === null;
    if (length !== null && isPlain && /^\d{1,15}$/.test(length)) {
      const { size } = this.#options;
      const announced = this.#bytes + Number(length);
      if (size !== undefined && announced !== size) throw this.#wrongSize(size, announced);
      this.#checkMost(announced);
    }
  }

  async *#counted(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
    for await (const chunk of chunks) {
      this.#bytes += chunk.length;
      this.#checkMost(this.#bytes);
      this.#options.onBytes?.(this.#bytes);
      yield chunk;
    }
  }

  #checkMost(bytes: number): void {
    const { size } = this.#options;
    if (size !== undefined && bytes > size) throw this.#wrongSize(size, bytes);
    if (size !== undefined || bytes <= this.#maxBytes) return;
    rmSync(this.#path, { force: true });
    const what = `it is over ${this.#maxBytes} bytes, the most for a package whose size no lock says`;
    throw this.#fail("BURROW_ORIGIN", what, false);
  }

  #wrongSize(size: number, got: number) {
    rmSync(this.#path, { force: true });
    const what = `it has ${size} bytes by the lock, and the server sends ${got} or more`;
    return this.#fail("BURROW_DIGEST_MISMATCH", what, false);
  }
}

/** Whether the server says that what we have is all there is. RFC 9110 section 15.5.17. */
function isWhole({ status, headers }: Answer, from: number): boolean {
  return from > 0 && status === 416 && headers.get("content-range") === `bytes */${from}`;
}

/** Bytes that a file has; none, and the file gone, when it has more than it may. */
function sizeOf(path: string, max: number | undefined): number {
  const size = statSync(path, { throwIfNoEntry: false })?.size ?? 0;
  if (max === undefined || size <= max) return size;
  rmSync(path, { force: true });
  return 0;
}
