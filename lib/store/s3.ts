// A store on S3, or on a service that speaks as S3 does: objects below a bucket's prefix, read by ranges, written whole. An upload is
// seen by nobody before the service has all of it. Control plane.

import {
  type ExchangeOptions,
  type Facts,
  HEADER_MS,
  lie,
  readObject,
  STALL_MS,
} from "./exchange.ts";
import { type RetryOptions, tries } from "./retry.ts";
import { Agents, type S3Call, type S3Client, s3Client } from "./s3-client.ts";
import { checkPin, pinned, pinnedError, TagSums } from "./s3-pins.ts";
import { parseS3, type S3Place } from "./s3-place.ts";
import {
  backendError,
  checkPath,
  type GetOptions,
  type SizedObject,
  throwIfAborted,
  WHOLE_MAX_BYTES,
  type WritableBackend,
} from "./store.ts";

/** What S3 takes in one request: 5 GiB. Packs have 32 MiB, and an index 4 GiB at most, so nothing needs parts. */
const PUT_MAX_BYTES = 5 * 1024 ** 3;
/** Objects whose ETag is remembered. */
const TAGS_MAX = 4096;
/** Pages of a list, of 1,000 keys each: a service that has more is one that goes round in circles. */
const PAGES_MAX = 100_000;

/** A backend below "s3://BUCKET/PREFIX". No request is made yet. BURROW_USAGE for what is no such address. */
export function s3Backend(
  origin: string,
  options: ExchangeOptions & RetryOptions = {},
): WritableBackend {
  return new S3Backend(origin, options);
}

class S3Backend implements WritableBackend {
  readonly origin: string;
  readonly #place: S3Place;
  readonly #client: S3Client;
  readonly #agents: Agents;
  readonly #options: ExchangeOptions & RetryOptions;
  readonly #tags = new Map<string, string>();
  readonly #sums = new TagSums();

  constructor(origin: string, options: ExchangeOptions & RetryOptions) {
    this.#place = parseS3(origin);
    this.origin = origin;
    this.#client = s3Client(this.#place.settings);
    this.#agents = new Agents(options.sockets);
    this.#options = options;
  }

  async get(path: string, options: GetOptions = {}): Promise<Buffer> {
    const { range, signal, onBytes } = options;
    const key = this.#key(path, signal);
    if (range?.length === 0) return Buffer.alloc(0);
    if (options.isAnew === true) this.#agents.dropIdle();
    const call = this.#call(key, signal);
    const text = range && `bytes=${range.offset}-${range.offset + range.length - 1}`;
    const { bucket } = this.#place;
    const { pin } = options;
    const asked = { bucket, key, range: text, ...(pin && pinned(pin)) };
    const { message, error } = await this.#client.read(asked, call);
    if (error !== undefined) throw pin === undefined ? error : pinnedError(error, call.facts);
    try {
      const { stallMs, facts } = call;
      if (pin !== undefined) checkPin(message.headers, pin, facts);
      else if (range !== undefined) this.#checkTag(path, message.headers.etag, facts);
      const maxBytes = options.maxBytes ?? WHOLE_MAX_BYTES;
      const read = { range, maxBytes, stallMs, signal, facts, onBytes };
      const bytes = await readObject(message, read);
      if (pin !== undefined && bytes.length === pin.size)
        this.#sums.check(bytes, pin, message.headers, facts);
      return bytes;
    } catch (cause) {
      message.destroy();
      throw cause;
    }
  }

  async has(path: string, signal?: AbortSignal): Promise<boolean> {
    const key = this.#key(path, signal);
    const { bucket } = this.#place;
    const { error } = await this.#client.head({ bucket, key }, this.#call(key, signal));
    if (error === undefined) return true;
    if (error.class === "notFound") return false;
    throw error;
  }

  async put(path: string, bytes: Uint8Array): Promise<void> {
    const key = this.#key(path, undefined);
    const call = this.#call(key, undefined);
    if (bytes.length > PUT_MAX_BYTES) {
      throw backendError("permanent", `${bytes.length} bytes, more than S3 takes`, call.facts);
    }
    this.#tags.delete(path);
    const { bucket } = this.#place;
    const { error } = await this.#client.write({ bucket, key }, bytes, call);
    if (error !== undefined) throw error;
  }

  async *list(folder: string): AsyncGenerator<string> {
    for await (const { path } of this.sizes(folder)) yield path;
  }

  async *sizes(folder: string): AsyncGenerator<SizedObject> {
    const prefix = `${this.#key(folder, undefined)}/`;
    const root = this.#place.prefix === "" ? 0 : this.#place.prefix.length + 1;
    const call = this.#call(prefix, undefined);
    let from: string | undefined;
    for (let count = 0; count < PAGES_MAX; count++) {
      const ask = () => this.#client.list(this.#place.bucket, prefix, from, call);
      const { objects, next } = await tries(ask, this.#options);
      for (const { key, ...facts } of objects) {
        if (!key.startsWith(prefix)) throw lie(`the key of another folder in a list`, call.facts);
        const path = key.slice(root);
        if (isPath(path)) yield { path, ...facts };
      }
      if (next === undefined) return;
      if (next === from) break;
      from = next;
    }
    throw backendError("permanent", "the list has no end", call.facts);
  }

  async remove(path: string): Promise<void> {
    const key = this.#key(path, undefined);
    this.#tags.delete(path);
    const { bucket } = this.#place;
    const { error } = await this.#client.remove({ bucket, key }, this.#call(key, undefined));
    if (error !== undefined && error.class !== "notFound") throw error;
  }

  close(): void {
    this.#agents.close();
  }

  #key(path: string, signal: AbortSignal | undefined): string {
    checkPath(path);
    throwIfAborted(signal, path, this.origin);
    const { prefix } = this.#place;
    return prefix === "" ? path : `${prefix}/${path}`;
  }

  #call(key: string, signal: AbortSignal | undefined): S3Call {
    const { bucket, settings } = this.#place;
    const { endpoint } = settings;
    const facts = { bucket, key, ...(endpoint === undefined ? {} : { endpoint }) };
    const { headerMs = HEADER_MS, stallMs = STALL_MS } = this.#options;
    return { headerMs, stallMs, signal, facts, agents: this.#agents };
  }

  /** Objects are written once: another ETag is another object, or one that is being replaced under us. */
  #checkTag(path: string, tag: string | undefined, facts: Facts): void {
    if (tag === undefined) return;
    const known = this.#tags.get(path);
    if (known === tag) return;
    if (known !== undefined) {
      this.#tags.delete(path); // the next try is of the new one alone
      throw lie("another ETag than for the range before: the object was replaced", facts);
    }
    if (this.#tags.size >= TAGS_MAX) this.#tags.clear();
    this.#tags.set(path, tag);
  }
}

/** Keys that are no path of a store's ("a//b", "folder/") are others' business. */
function isPath(key: string): boolean {
  try {
    checkPath(key);
    return true;
  } catch {
    return false;
  }
}
