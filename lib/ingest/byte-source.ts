// ByteSource: bytes that are asked for, and come into memory of who asks, which is used again and again: new buffers for all that is
// read of an archive would cost more than reading it, in pages to clear and turns of the garbage collector. Control plane.

import fs from "node:fs";
import { Readable } from "node:stream";
import { promisify } from "node:util";

export interface ByteSource {
  /**
   * Bytes into the start of `into`, which isn't empty: how many, at once where they are there; 0 at the end. One at a time.
   * Throws or rejects with what is wrong.
   */
  read(into: Buffer): number | Promise<number>;
  /** Gives up what it holds. A read under way ends with an error or bytes. */
  close(): void;
}

/** What a stream that is made of a source reads at once. */
const STREAM_BYTES = 256 * 1024;

const readAt = promisify(fs.read);

/** The bytes of a stream, which it owns from now on. */
export function sourceOf(stream: Readable): ByteSource {
  return new StreamBytes(stream);
}

class StreamBytes implements ByteSource {
  readonly #stream: Readable;
  readonly #chunks: AsyncIterator<Uint8Array>;
  /** What came and wasn't taken. */
  #rest: Uint8Array | undefined;

  constructor(stream: Readable) {
    this.#stream = stream;
    // An error that comes before the first read is told by that.
    stream.on("error", () => {});
    this.#chunks = stream[Symbol.asyncIterator]() as AsyncIterator<Uint8Array>;
  }

  read(into: Buffer): number | Promise<number> {
    return this.#rest === undefined ? this.#next(into) : this.#take(this.#rest, into);
  }

  close(): void {
    this.#stream.destroy();
  }

  async #next(into: Buffer): Promise<number> {
    for (;;) {
      const { value, done } = await this.#chunk();
      if (done) return 0;
      if (value.length > 0) return this.#take(value, into);
    }
  }

  async #chunk(): Promise<IteratorResult<Uint8Array>> {
    try {
      return await this.#chunks.next();
    } catch (cause) {
      const isClosed =
        cause instanceof Error && "code" in cause && cause.code === "ERR_STREAM_PREMATURE_CLOSE";
      throw isClosed ? new Error("the source was closed before its end", { cause }) : cause;
    }
  }

  #take(chunk: Uint8Array, into: Buffer): number {
    const count = Math.min(chunk.length, into.length);
    into.set(count < chunk.length ? chunk.subarray(0, count) : chunk);
    this.#rest = count < chunk.length ? chunk.subarray(count) : undefined;
    return count;
  }
}

/** A stream of a source's bytes, which owns it. */
export function streamOf(source: ByteSource): Readable {
  const read = async () => {
    const into = Buffer.allocUnsafeSlow(STREAM_BYTES);
    return into.subarray(0, await source.read(into));
  };
  return new Readable({
    read() {
      read().then(
        (bytes) => this.push(bytes.length === 0 ? null : bytes),
        (error: Error) => this.destroy(error),
      );
    },
    destroy(error, done) {
      source.close();
      done(error);
    },
  });
}

/** Where bytes lie in a file; to its end when there is no length. */
export interface FileRange {
  readonly start: number;
  readonly length?: number;
}

/** The bytes of a file, from when they are first asked for. A file that ends before its range is an early end, no error. */
export class FileBytes implements ByteSource {
  readonly #path: string;
  #offset: number;
  #left: number;
  #fd: number | undefined;
  #isReading = false;
  #isClosed = false;

  constructor(
    path: string,
    { start, length = Number.POSITIVE_INFINITY }: FileRange = { start: 0 },
  ) {
    this.#path = path;
    this.#offset = start;
    this.#left = length;
  }

  async read(into: Buffer): Promise<number> {
    const length = Math.min(into.length, this.#left);
    if (length === 0) return 0;
    if (this.#isClosed) throw new Error("the file was closed");
    this.#fd ??= fs.openSync(this.#path, fs.constants.O_RDONLY);
    this.#isReading = true;
    try {
      const { bytesRead } = await readAt(this.#fd, into, 0, length, this.#offset);
      this.#offset += bytesRead;
      this.#left -= bytesRead;
      return bytesRead;
    } finally {
      this.#isReading = false;
      if (this.#isClosed) this.#close();
    }
  }

  close(): void {
    this.#isClosed = true;
    // Closed under a read, its number could mean another file by the time a thread gets to it.
    if (!this.#isReading) this.#close();
  }

  #close(): void {
    if (this.#fd !== undefined) fs.closeSync(this.#fd);
    this.#fd = undefined;
  }
}
