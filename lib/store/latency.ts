// Latencies: how long the requests of late took, by how much they asked for, and from that how long one is waited for before it is
// sent a second time. Control plane.

/** Requests of a size that are remembered, and how many there must be before they say something. */
const KEPT = 100;
const ENOUGH = 20;
/** Sizes: up to each of these bytes, and more. */
const SIZES = [64 * 1024, 512 * 1024, 2 * 1024 * 1024];
/** No less than this: below it the machine is what is slow. */
const FLOOR_MS = 25;
/** While too little is known: to an answer, and for each byte of it. On a slow link, or with a CPU that many share, a long one takes its time. */
const UNKNOWN_MS = 1_000;
const UNKNOWN_BYTES_PER_MS = 1_000;
const QUANTILE = 0.95;

export class Latencies {
  readonly #rings = [...SIZES, Infinity].map(() => ({ took: new Float64Array(KEPT), count: 0 }));

  note(bytes: number, tookMs: number): void {
    const ring = this.#ringOf(bytes);
    ring.took[ring.count++ % KEPT] = tookMs;
  }

  /** Milliseconds that 95% of such requests took at most; what is reckoned for one while few were made. */
  patienceMs(bytes: number): number {
    const { took, count } = this.#ringOf(bytes);
    if (count < ENOUGH) return UNKNOWN_MS + bytes / UNKNOWN_BYTES_PER_MS;
    const known = took.slice(0, Math.min(count, KEPT)).sort();
    return Math.max(FLOOR_MS, known[Math.ceil(QUANTILE * known.length) - 1]!);
  }

  #ringOf(bytes: number) {
    return this.#rings[SIZES.findIndex((size) => bytes <= size)] ?? this.#rings.at(-1)!;
  }
}
