// Download of one package file: bounded silence, tried again when that may help, half a file never taken for a whole one. Control plane.

import { createWriteStream } from "node:fs";
import { basename, join } from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { BurrowError, type ErrorCode } from "../base/error.ts";
import { plainUrl } from "../ingest/conda/record.ts";

export interface DownloadOptions {
  readonly onBytes?: (bytes: number) => void;
  /** How long a server may be silent. */
  readonly stallMs?: number;
  readonly tries?: number;
  /** Before the second try; doubles. */
  readonly pauseMs?: number;
}

const STALL_MS = 30_000;
const TRIES = 3;
const PAUSE_MS = 500;

/** Fetches `url` into a file of its name in `folder`: the file's path. BURROW_ORIGIN, BURROW_TIMEOUT. */
export async function download(
  url: string,
  folder: string,
  options: DownloadOptions = {},
): Promise<string> {
  const path = join(folder, basename(new URL(url).pathname));
  for (let count = 1; ; count++) {
    try {
      await fetchOnce(url, path, options);
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

async function fetchOnce(url: string, path: string, options: DownloadOptions): Promise<void> {
  const stallMs = options.stallMs ?? STALL_MS;
  const abort = new AbortController();
  let timer = setTimeout(() => abort.abort(), stallMs);
  const fail = (code: ErrorCode, what: string, isTransient: boolean, cause?: unknown) =>
    new BurrowError(code, `can't download the package: ${what}`, {
      cause,
      class: isTransient ? "transient" : "permanent",
      // Without passwords and tokens: errors end up in logs.
      context: { url: plainUrl(url) },
    });
  const counted = async function* (chunks: AsyncIterable<Uint8Array>) {
    let bytes = 0;
    for await (const chunk of chunks) {
      clearTimeout(timer);
      timer = setTimeout(() => abort.abort(), stallMs);
      bytes += chunk.length;
      options.onBytes?.(bytes);
      yield chunk;
    }
  };
  try {
    const response = await fetch(url, { signal: abort.signal });
    if (!response.ok || response.body === null) {
      await response.body?.cancel();
      const mayHelp = response.status >= 500 || response.status === 429;
      throw fail("BURROW_ORIGIN", `HTTP status ${response.status}`, mayHelp);
    }
    await pipeline(Readable.fromWeb(response.body as never), counted, createWriteStream(path));
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
  }
}
