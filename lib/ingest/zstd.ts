// zstd's format by the system's library, in this process: a program of its own costs a small archive more than decompressing it, and
// any archive two copies of all its bytes through pipes. Control plane.

import { Errno } from "../base/errno.ts";
import { BurrowError } from "../base/error.ts";
import { native, type ZstdContext } from "../sys/native.ts";
import type { ByteSource } from "./byte-source.ts";
import { Spare } from "./spare.ts";

/** 128 MiB: what `zstd --ultra -22` makes, and the most that conda takes. It is what the largest packages may cost in memory. */
const WINDOW_LOG_MAX = 27;
const INPUT_BYTES = 256 * 1024;
/** Other work has its turn after this many bytes without one: a little input may be very much output. */
const TURN_BYTES = 16 << 20;

const inputs = new Spare(INPUT_BYTES);
const NOTHING = Buffer.alloc(0);

/** The content of `source`, which it owns; undefined where the system has no libzstd. `damaged` makes the error of what is no zstd data. */
export function zstdBytes(
  source: ByteSource,
  damaged: (why: string) => BurrowError,
): ByteSource | undefined {
  const context = native.openZstd(WINDOW_LOG_MAX);
  if (context === -Errno.ENOSYS) return undefined;
  if (typeof context !== "number") return new ZstdBytes(source, damaged, context);
  throw new BurrowError("BURROW_IO", "there is no memory for a decompressor", { errno: -context });
}

class ZstdBytes implements ByteSource {
  readonly #input: ByteSource;
  readonly #damaged: (why: string) => BurrowError;
  readonly #counts = new Uint32Array(2);
  #context: ZstdContext | undefined;
  #buffer: Buffer | undefined = inputs.take();
  /** What came of the input and wasn't taken. */
  #rest: Uint8Array = NOTHING;
  #isEmpty = true;
  /** Whether all that was taken is whole frames. */
  #isWhole = false;
  #isReading = false;
  #hasEnded = false;
  #sinceTurn = 0;

  constructor(input: ByteSource, damaged: (why: string) => BurrowError, context: ZstdContext) {
    this.#input = input;
    this.#damaged = damaged;
    this.#context = context;
  }

  read(into: Buffer): number | Promise<number> {
    if (this.#hasEnded) return 0;
    if (this.#sinceTurn >= TURN_BYTES) return this.#later(into);
    const count = this.#step(into);
    return count > 0 ? count : this.#later(into);
  }

  close(): void {
    this.#input.close();
    if (this.#context !== undefined) native.closeZstd(this.#context);
    this.#context = undefined;
    this.#rest = NOTHING;
    // A read under way goes on in it.
    if (this.#buffer !== undefined && !this.#isReading) inputs.give(this.#buffer);
    this.#buffer = undefined;
  }

  async #later(into: Buffer): Promise<number> {
    if (this.#sinceTurn >= TURN_BYTES) {
      await new Promise((resolve) => setImmediate(resolve));
      this.#sinceTurn = 0;
    }
    for (;;) {
      const count = this.#step(into);
      if (count > 0) return count;
      if (!(await this.#more())) break;
    }
    if (this.#isEmpty) throw this.#damaged("it is empty");
    if (!this.#isWhole) throw this.#damaged("it ends too soon");
    this.#hasEnded = true;
    this.close();
    return 0;
  }

  /** What the input at hand gives: 0 when there must be more of it. */
  #step(into: Buffer): number {
    if (this.#context === undefined) throw new Error("the decompressor was closed");
    const result = native.stepZstd(this.#context, this.#rest, into, this.#counts);
    if (result < 0) throw this.#failure(result);
    const [taken = 0, made = 0] = this.#counts;
    if (taken + made > 0) this.#isWhole = result === 0;
    this.#rest = this.#rest.subarray(taken);
    this.#sinceTurn += made;
    return made;
  }

  /** Reads of the input: false at its end. */
  async #more(): Promise<boolean> {
    const buffer = this.#buffer;
    if (buffer === undefined) throw new Error("the decompressor was closed");
    this.#isReading = true;
    const count = await this.#input.read(buffer);
    this.#isReading = false;
    this.#sinceTurn = 0;
    this.#rest = buffer.subarray(0, count);
    if (count > 0) this.#isEmpty = false;
    return count > 0;
  }

  #failure(result: number): BurrowError {
    if (result === -Errno.ERANGE) return this.#damaged("its window is over 128 MiB");
    if (result !== -Errno.ENOMEM) return this.#damaged("it is no zstd data, or damaged");
    return new BurrowError("BURROW_IO", "there is no memory to decompress it", { errno: -result });
  }
}
