// What a command prints, held for its caller, up to a bound. Control plane.

import { Writable } from "node:stream";
import { BurrowError } from "../base/error.ts";

/** Takes all that comes; past the bound it keeps nothing more, and says so once. */
export class Collected extends Writable {
  readonly #maxBytes: number;
  readonly #onOver: () => void;
  readonly #chunks: Buffer[] = [];
  #bytes = 0;

  constructor(maxBytes: number, onOver: () => void) {
    super();
    this.#maxBytes = maxBytes;
    this.#onOver = onOver;
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: () => void): void {
    const wasOver = this.#bytes > this.#maxBytes;
    this.#bytes += chunk.length;
    if (this.#bytes <= this.#maxBytes) this.#chunks.push(chunk);
    else if (!wasOver) this.#onOver();
    done();
  }

  /** BURROW_CAPTURE when there was more than is kept. */
  check(): void {
    if (this.#bytes <= this.#maxBytes) return;
    const what = `the command printed more than ${this.#maxBytes} bytes`;
    throw new BurrowError("BURROW_CAPTURE", `${what}: give it a stream, or raise outputMaxBytes`);
  }

  text(): string {
    return Buffer.concat(this.#chunks).toString("utf8");
  }
}
