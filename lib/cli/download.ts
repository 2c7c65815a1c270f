// Download of one package file: bounded silence, tried again when that may help, half a file never taken for a whole one. Control plane.

import { createWriteStream } from "node:fs";
import { basename, join } from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { plainUrl } from "../ingest/conda/record.ts";
import { type RetryOptions, withAnswer, withRetries } from "../ingest/fetch-stream.ts";

export interface DownloadOptions extends RetryOptions {
  readonly onBytes?: (bytes: number) => void;
  /** How long a server may be silent. */
  readonly stallMs?: number;
  /** What it should have: no more is taken. */
  readonly maxBytes?: number;
}

/** Fetches `url` into a file of its name in `folder`: the file's path. BURROW_ORIGIN, BURROW_TIMEOUT. */
export async function download(
  url: string,
  folder: string,
  options: DownloadOptions = {},
): Promise<string> {
  const path = join(folder, basename(new URL(url).pathname));
  const { onBytes, stallMs, maxBytes } = options;
  const counted = async function* (chunks: AsyncIterable<Uint8Array>) {
    let bytes = 0;
    for await (const chunk of chunks) {
      bytes += chunk.length;
      onBytes?.(bytes);
      yield chunk;
    }
  };
  const request = {
    what: "the package",
    shownUrl: plainUrl(url),
    ...(stallMs === undefined ? {} : { stallMs }),
    ...(maxBytes === undefined ? {} : { maxBytes }),
  };
  await withRetries(
    () =>
      withAnswer(url, request, ({ body }) =>
        pipeline(Readable.from(body), counted, createWriteStream(path)),
      ),
    options,
  );
  return path;
}
