// What a job in a sandbox prints, held: bounded, and for a terminal of ours without control characters. Control plane.

import { Transform, type TransformCallback, Writable } from "node:stream";
import { StringDecoder } from "node:string_decoder";
import { BurrowError } from "../base/error.ts";
import { shown } from "./output.ts";

/** Passes a bounded number of bytes. */
export class Bound extends Transform {
  #left: number;

  constructor(maxBytes: number) {
    super();
    this.#left = maxBytes;
  }

  override _transform(chunk: Buffer, _encoding: BufferEncoding, done: TransformCallback): void {
    this.#left -= chunk.length;
    if (this.#left < 0) done(new BurrowError("BURROW_CAPTURE", "the job printed too much"));
    else done(null, chunk);
  }
}

/** A line longer than this is shown in parts. */
const LINE_CHARS = 8 * 1024;

/**
 * Writes what comes, line by line, as it may be shown, up to a number of characters; then says once that there is more, and takes
 * the rest without a word: a job that prints for ever fills no log, and isn't stopped by it.
 */
export class Murmur extends Writable {
  readonly #decoder = new StringDecoder("utf8");
  readonly #write: (text: string) => void;
  #left: number;
  #line = "";

  constructor(write: (text: string) => void, maxChars: number) {
    super();
    this.#write = write;
    this.#left = maxChars;
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: () => void): void {
    if (this.#left > 0) this.#take(this.#decoder.write(chunk));
    done();
  }

  override _final(done: () => void): void {
    if (this.#line !== "") this.#say(`${this.#line}\n`);
    done();
  }

  #take(text: string): void {
    const lines = (this.#line + text).split("\n");
    const last = lines.pop()!;
    for (const line of lines) this.#say(`${line}\n`);
    this.#line = last.length <= LINE_CHARS ? last : "";
    if (this.#line === "") this.#say(last);
  }

  #say(text: string): void {
    if (this.#left <= 0) return;
    this.#write(shown(text.slice(0, this.#left)));
    this.#left -= text.length;
    if (this.#left <= 0) this.#write("\nburrow: the job prints more than is shown\n");
  }
}
