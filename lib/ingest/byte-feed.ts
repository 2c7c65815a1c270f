// ByteFeed: the bytes of a source, asked for by length. What has come is given at once, so that a parser waits for its source and
// never for a promise of bytes that are there. All that comes passes through one buffer. Control plane.

import { hasLanes } from "../store/lanes.ts";
import type { ByteSource } from "./byte-source.ts";
import { Spare } from "./spare.ts";

/** Of the buffer, at first: what is asked for in one piece, and twice what a pipe holds; or what is gathered to be hashed at once. */
const BUFFER_BYTES = (hasLanes ? 6 : 2) << 20;
/** What is left lies at the buffer's start again when there is less room than this behind it. */
const ROOM_BYTES = 512 << 10;
/** Asked for at once: what is wrong with an archive's start is found before what comes long after it. */
const READ_BYTES = 256 << 10;

const NOTHING = Buffer.alloc(0);
const buffers = new Spare(BUFFER_BYTES);

export class ByteFeed {
  /** Bytes that came, taken or not. */
  byteCount = 0;
  readonly #source: ByteSource;
  readonly #onBytes: (chunk: Buffer) => Error | undefined;
  #buffer = buffers.take();
  /** What came and wasn't taken lies between these. */
  #start = 0;
  #end = 0;
  #hasEnded = false;
  #isReading = false;
  /** What is wrong behind the bytes that wait. */
  #failure: { readonly cause: unknown } | undefined;

  /** The feed owns the source. `onBytes` sees what comes, as it comes; its error is that of the feed. */
  constructor(source: ByteSource, onBytes: (chunk: Buffer) => Error | undefined) {
    this.#source = source;
    this.#onBytes = onBytes;
  }

  /** Bytes that wait to be taken. */
  get buffered(): number {
    return this.#end - this.#start;
  }

  /** The bytes that wait. Read-only, and good until more() or fill() is called. */
  get window(): Buffer {
    return this.#buffer.subarray(this.#start, this.#end);
  }

  /** Exactly `length` bytes, or undefined when so many haven't come. Read-only, and good until more() is called. */
  take(length: number): Buffer | undefined {
    return length > this.#end - this.#start ? undefined : this.takeSome(length);
  }

  /** At most `max` bytes: none when nothing has come. Read-only, and good until more() is called. */
  takeSome(max: number): Buffer {
    const start = this.#start;
    this.#start = Math.min(this.#end, start + max);
    return this.#buffer.subarray(start, this.#start);
  }

  /**
   * Waits until more has come: false at the end. Throws the source's error, in its place behind the bytes that came before it.
   * `wanted`: how many bytes are to lie in one piece.
   */
  async more(wanted = 0): Promise<boolean> {
    if (this.#failure !== undefined) throw this.#failure.cause;
    return await this.#read(wanted);
  }

  /** Waits until at least `length` bytes wait, or all there are before the end or an error, which more() then tells. */
  async fill(length: number): Promise<void> {
    try {
      while (this.buffered < length && this.#failure === undefined)
        if (!(await this.#read(length))) return;
    } catch (cause) {
      this.#failure = { cause };
    }
  }

  async #read(wanted: number): Promise<boolean> {
    if (this.#hasEnded) return false;
    this.#makeRoom(wanted);
    const reading = this.#source.read(this.#buffer.subarray(this.#end, this.#end + READ_BYTES));
    let count = reading as number;
    if (typeof reading !== "number") {
      this.#isReading = true;
      count = await reading;
      this.#isReading = false;
    }
    if (count === 0) this.#hasEnded = true;
    if (this.#hasEnded) return false;
    const error = this.#onBytes(this.#buffer.subarray(this.#end, this.#end + count));
    if (error !== undefined) {
      this.#hasEnded = true;
      this.#source.close();
      throw error;
    }
    this.#end += count;
    this.byteCount += count;
    return true;
  }

  /** What was taken is no longer good. */
  close(): void {
    this.#hasEnded = true;
    this.#source.close();
    // A read under way goes on in it.
    if (!this.#isReading && this.#buffer.length === BUFFER_BYTES) buffers.give(this.#buffer);
    this.#buffer = NOTHING;
    this.#start = 0;
    this.#end = 0;
  }

  #makeRoom(wanted: number): void {
    const { buffered } = this;
    const isLarge = Math.max(wanted, buffered) + ROOM_BYTES > this.#buffer.length;
    const isNear = this.#buffer.length - this.#end < Math.max(ROOM_BYTES, wanted - buffered);
    if (buffered > 0 && !isLarge && !isNear) return;
    const target = isLarge
      ? Buffer.allocUnsafeSlow(Math.max(wanted, 2 * buffered) + ROOM_BYTES)
      : this.#buffer;
    this.#buffer.copy(target, 0, this.#start, this.#end);
    this.#buffer = target;
    this.#start = 0;
    this.#end = buffered;
  }
}
