// What fetch-stream.ts asks of HTTP, asked of S3: the same statuses and headers, with the store's client. Control plane.

import type { IncomingMessage } from "node:http";
import { BurrowError } from "../base/error.ts";
import { s3Client } from "../store/s3-client.ts";
import { parseS3 } from "../store/s3-place.ts";

export interface S3Question {
  /** Of HTTP: range and if-none-match are asked for; a copy without an ETag is fetched again. */
  readonly headers: Readonly<Record<string, string>>;
  /** Statuses that are answers, and no errors. */
  readonly statuses: readonly number[];
  readonly stallMs: number;
  readonly signal: AbortSignal;
}

export interface S3Answer {
  readonly status: number;
  readonly headers: Headers;
  readonly body: AsyncIterable<Uint8Array>;
}

/** Asks for the object that an s3:// URL names. Throws as the store's client does: BURROW_ORIGIN, BURROW_TIMEOUT, BURROW_USAGE. */
export async function s3Answer(url: string, question: S3Question): Promise<S3Answer> {
  const { bucket, prefix: key, settings } = parseS3(url);
  const { headers, statuses, stallMs, signal } = question;
  const { endpoint } = settings;
  const facts = { bucket, key, ...(endpoint === undefined ? {} : { endpoint }) };
  const { message, isOpen, error } = await s3Client(settings).read(
    { bucket, key, range: headers["range"], ifNoneMatch: headers["if-none-match"] },
    { headerMs: stallMs, stallMs, signal, facts },
  );
  const status = message.statusCode ?? 0;
  if (error !== undefined) {
    // A missing object may be an answer; a missing bucket, or keys that nobody knows, never.
    const isOfObject = !/^(NoSuchBucket|InvalidAccessKeyId|SignatureDoesNotMatch)$/.test(
      String(error.context["code"]),
    );
    if (!statuses.includes(status) || !isOfObject) throw error;
  }
  const encoding = message.headers["content-encoding"] ?? "";
  if (isOpen && !["", "identity", "aws-chunked"].includes(encoding)) {
    message.destroy();
    const what = `the object is stored with Content-Encoding "${encoding}": store it without`;
    throw new BurrowError("BURROW_ORIGIN", what, { context: facts });
  }
  return {
    status,
    headers: new Headers(Object.entries(message.headers).map(([k, v]) => [k, String(v)])),
    body: isOpen ? bodyOf(message, signal) : nothing(),
  };
}

async function* nothing(): AsyncGenerator<Uint8Array> {}

/** A body that ends with the signal, and whose reader sees a break as an error. */
async function* bodyOf(message: IncomingMessage, signal: AbortSignal): AsyncGenerator<Uint8Array> {
  const onAbort = () => {
    if (!message.readableEnded) message.destroy(new Error("the request was given up"));
  };
  signal.addEventListener("abort", onAbort, { once: true });
  if (signal.aborted) onAbort();
  try {
    yield* message as AsyncIterable<Uint8Array>;
    if (!message.complete) throw new Error("the body broke off");
  } finally {
    if (!message.readableEnded) message.destroy();
  }
}
