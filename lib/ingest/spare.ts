// Spare: memory that is needed again and again, for one source after the other. Fresh memory costs its pages, and V8's collector
// counts it: buffers for each of many small archives have it run far more often than what they hold is worth. Control plane.

/** Buffers of one size, of which one that was given back is kept. */
export class Spare {
  readonly #bytes: number;
  #kept: Buffer | undefined;

  constructor(bytes: number) {
    this.#bytes = bytes;
  }

  /** The caller's own until it is given back, which may never be. What is in it is anything. */
  take(): Buffer {
    const kept = this.#kept;
    this.#kept = undefined;
    return kept ?? Buffer.allocUnsafeSlow(this.#bytes);
  }

  /** Gives back what was taken: nobody reads or writes it any more. */
  give(buffer: Buffer): void {
    this.#kept = buffer;
  }
}
