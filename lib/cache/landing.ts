// Landing: small blobs whose bytes are here and verified, and which the disk hasn't made durable yet. They are given out from memory
// meanwhile, so that nobody who waits for bytes waits for an fsync. docs/design/0034-landing.md. Control plane.

import { setTimeout as sleep } from "node:timers/promises";
import type { Digest } from "../base/digest.ts";

interface Landed {
  readonly content: Uint8Array;
  readonly written: Promise<void>;
}

export class Landing {
  readonly #maxBytes: number;
  readonly #blobs = new Map<Digest, Landed>();
  #bytes = 0;

  /** maxBytes 0: nothing lands. */
  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  get blobs(): number {
    return this.#blobs.size;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** Whether so many bytes more may be on their way to the disk. */
  takes(bytes: number): boolean {
    return this.#maxBytes > 0 && this.#bytes + bytes <= this.#maxBytes;
  }

  /** A verified blob, which nobody changes, until `written` has ended: whatever becomes of it, it doesn't reject. */
  add(digest: Digest, content: Uint8Array, written: Promise<void>): void {
    const landed = { content, written };
    this.#blobs.set(digest, landed);
    this.#bytes += content.length;
    void written.then(() => {
      this.#bytes -= content.length;
      if (this.#blobs.get(digest) === landed) this.#blobs.delete(digest);
    });
  }

  /** The content of a blob; undefined when it isn't here. */
  get(digest: Digest): Uint8Array | undefined {
    return this.#blobs.get(digest)?.content;
  }

  has(digest: Digest): boolean {
    return this.#blobs.has(digest);
  }

  /** Waits so long at most until a blob isn't here any more. */
  async endedWithin(digest: Digest, ms: number): Promise<void> {
    const written = this.#blobs.get(digest)?.written;
    if (written === undefined) return;
    const timer = new AbortController();
    const late = sleep(ms, undefined, { signal: timer.signal }).catch(() => undefined);
    await Promise.race([written, late]);
    timer.abort();
  }

  /** Resolves when a blob isn't here any more; of all of them without a digest. */
  async ended(digest?: Digest): Promise<void> {
    if (digest !== undefined) await this.#blobs.get(digest)?.written;
    else await Promise.all([...this.#blobs.values()].map(({ written }) => written));
  }
}
