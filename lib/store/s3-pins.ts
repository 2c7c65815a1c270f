// Reads of one state of an object on S3: asked for by its version, or on condition of its ETag, and compared with what the answer says of
// itself, since not every service heeds conditions. Another state is BURROW_STALE, never bytes. Control plane.

import { hash } from "node:crypto";
import type { IncomingHttpHeaders } from "node:http";
import type { Digest } from "../base/digest.ts";
import type { BurrowError } from "../base/error.ts";
import { type Facts, lie } from "./exchange.ts";
import { digestOf } from "./hash.ts";
import { type ObjectPin, staleError } from "./store.ts";

/** What a request of a pinned object says beside its key. */
export function pinned(pin: ObjectPin): { ifMatch: string; versionId?: string } {
  const { versionId, etag } = pin;
  return { ifMatch: `"${etag}"`, ...(versionId === undefined ? {} : { versionId }) };
}

/** An ETag without its quotes. */
export function bareTag(tag: string): string {
  return tag.replace(/^"(.*)"$/s, "$1");
}

/** What it means that a pinned object was refused: gone, replaced, or replaced by a shorter one is BURROW_STALE. */
export function pinnedError(error: BurrowError, facts: Facts): BurrowError {
  const { status } = error.context;
  if (status === 412) return staleError("it was replaced", facts);
  if (error.class === "notFound") return staleError("it is gone", facts);
  return status === 416 ? staleError("it is shorter", facts) : error;
}

/** Throws BURROW_STALE for the answer of another state than the pinned one. */
export function checkPin(headers: IncomingHttpHeaders, pin: ObjectPin, facts: Facts): void {
  const { etag } = headers;
  if (etag === undefined) throw lie("an object without its ETag", facts);
  if (bareTag(etag) !== pin.etag) throw staleError("it has another ETag", facts);
  const total = /\/(\d+)$/.exec(headers["content-range"] ?? "")?.[1];
  if (total !== undefined && Number(total) !== pin.size)
    throw staleError(`it has ${total} bytes`, facts);
}

/** undefined where the machine's rules (FIPS) have no MD5. */
function md5Of(bytes: Uint8Array): string | undefined {
  try {
    return hash("md5", bytes, "hex");
  } catch {
    return undefined;
  }
}

/** Objects whose bytes were not what their ETag says, and are remembered until they come again. */
const DOUBTED_MAX = 256;
const MD5 = /^[0-9a-f]{32}$/;

/**
 * Of an object that was uploaded in one piece the ETag is the MD5 of its bytes, mostly: not where it is encrypted with keys of its own, and
 * not on every service. So bytes that don't fit are asked for again, and believed when they come twice the same.
 */
export class TagSums {
  readonly #doubted = new Map<string, Digest>();

  /** Throws a transient error for bytes that don't fit the ETag, once. */
  check(bytes: Uint8Array, pin: ObjectPin, headers: IncomingHttpHeaders, facts: Facts): void {
    const isKeyed =
      /^aws:kms/.test(String(headers["x-amz-server-side-encryption"] ?? "")) ||
      headers["x-amz-server-side-encryption-customer-algorithm"] !== undefined;
    if (isKeyed || !MD5.test(pin.etag) || [pin.etag, undefined].includes(md5Of(bytes))) return;
    const key = `${facts["key"]} ${pin.versionId ?? ""} ${pin.etag}`;
    const sum = digestOf(bytes);
    const before = this.#doubted.get(key);
    this.#doubted.delete(key);
    if (before === sum) return;
    if (this.#doubted.size >= DOUBTED_MAX) this.#doubted.clear();
    this.#doubted.set(key, sum);
    throw lie("bytes that are not those of its ETag", facts);
  }
}
