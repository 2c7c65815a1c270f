// ByteFeed: the bytes of a stream, asked for by length. What has come is given at once, so that a parser waits for its source and
// never for a promise of bytes that are there. Holds at most what was asked for, and a little that came ahead. Control plane.

import type { Readable } from "node:stream";

/** The source is held up once this much waits to be taken. */
const AHEAD_BYTES = 1 << 20;

export class ByteFeed {
  /** Bytes that came, taken or not. */
  byteCount = 0;
  /** Bytes that wait to be taken. */
  buffered = 0;
  readonly #source: Readable;
  readonly #onBytes: (chunk: Buffer) => Error | undefined;
  readonly #chunks: Buffer[] = [];
  /** Of the first chunk: what was taken of it. */
  #taken = 0;
  #hasEnded = false;
  #failure: unknown;
  #wake: (() => void) | undefined;

  /** The feed owns the source. `onBytes` sees what comes, as it comes; its error is that of the feed. */
  constructor(source: Readable, onBytes: (chunk: Buffer) => Error | undefined) {
    this.#source = source;
    this.#onBytes = onBytes;
    source.on("error", (error) => this.#end(error));
    source.on("end", () => this.#end(undefined));
    source.on("close", () => this.#end(new Error("the source was closed before its end")));
    source.on("data", (chunk: Buffer) => this.#push(chunk));
  }

  /**
   * Exactly `length` bytes, or undefined when so many haven't come. A view of what came when they lie in one piece: read-only, and
   * good for as long as the caller likes.
   */
  take(length: number): Buffer | undefined {
    if (length > this.buffered) return undefined;
    const first = this.#chunks[0];
    if (first === undefined || this.#taken + length <= first.length) return this.takeSome(length);
    const bytes = Buffer.allocUnsafe(length);
    for (let at = 0; at < length; ) at += this.takeSome(length - at).copy(bytes, at);
    return bytes;
  }

  /** At most `max` bytes, as many as lie in one piece: none when nothing has come. */
  takeSome(max: number): Buffer {
    const first = this.#chunks[0];
    if (first === undefined) return Buffer.alloc(0);
    const start = this.#taken;
    const end = Math.min(first.length, start + max);
    this.buffered -= end - start;
    this.#taken = end;
    if (end === first.length) {
      this.#chunks.shift();
      this.#taken = 0;
    }
    return first.subarray(start, end);
  }

  /** Waits until more has come: false at the end. Throws the source's error, in its place behind the bytes that came before it. */
  async more(): Promise<boolean> {
    const { byteCount } = this;
    while (this.byteCount === byteCount && !this.#hasEnded) {
      this.#source.resume();
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    if (this.byteCount > byteCount) return true;
    if (this.#failure !== undefined) throw this.#failure;
    return false;
  }

  close(): void {
    this.#end(undefined);
    this.#source.destroy();
  }

  #push(chunk: Buffer): void {
    if (this.#hasEnded || chunk.length === 0) return;
    const error = this.#onBytes(chunk);
    if (error !== undefined) {
      this.#end(error);
      this.#source.destroy();
      return;
    }
    this.#chunks.push(chunk);
    this.buffered += chunk.length;
    this.byteCount += chunk.length;
    if (this.buffered > AHEAD_BYTES) this.#source.pause();
    this.#wake?.();
  }

  /** The first end is the one that counts. */
  #end(error: unknown): void {
    if (this.#hasEnded) return;
    this.#hasEnded = true;
    this.#failure = error;
    this.#wake?.();
  }
}
