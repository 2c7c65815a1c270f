// BodyTurns: how much of all bodies is taken in one turn of the loop. Left alone, libuv reads each socket up to 32 times before it looks at
// the next, 64 KiB each, so where several bodies come as fast as a link carries them 16 MiB are copied before anything else is
// heard: 50 ms. Control plane.

/** A MiB takes some 3 ms: it is copied twice, mostly to memory that wasn't touched yet. */
const TURN_BYTES = 512 * 1024;

/** A stream, as one that is flowing knows it. */
export interface Flowing {
  pause(): unknown;
  resume(): unknown;
}

export class BodyTurns {
  readonly #paused = new Set<Flowing>();
  #bytes = 0;

  /** So much has come of a body: beyond a turn's share it pauses until the next one, and then brings what one read has. */
  took(body: Flowing, bytes: number): void {
    if (this.#bytes === 0) setImmediate(() => this.#next());
    this.#bytes += bytes;
    if (this.#bytes < TURN_BYTES || this.#paused.has(body)) return;
    this.#paused.add(body);
    body.pause();
  }

  #next(): void {
    const paused = [...this.#paused];
    this.#paused.clear();
    this.#bytes = 0;
    for (const body of paused) body.resume();
  }
}
