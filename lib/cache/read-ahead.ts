// ReadAhead: how far ahead of who reads a file in order its blocks are wanted. It sees what is asked for and fetches nothing. Control
// plane.

/**
 * Blocks that are fetched ahead of who reads in order: the link carries them while the last ones are verified, and read. The more, the longer
 * it has been so; when half of them are read the next are asked for.
 */
const AHEAD_BLOCKS = { least: 8, most: 32 };

export class ReadAhead {
  readonly #count: number;
  /** Where the last ask ended. */
  #readEnd = 0;
  /** How far ahead of that is fetched, in blocks, and how far it was asked for. */
  #ahead = 0;
  #aheadEnd = 0;

  /** Of a file of so many blocks. */
  constructor(count: number) {
    this.#count = count;
  }

  /** Blocks [first, end) are asked for: which [from, to) behind them are wanted by that; undefined: none yet. */
  next(first: number, end: number): { readonly from: number; readonly to: number } | undefined {
    // One block at the start says nothing of what is read next.
    const isInOrder = first === this.#readEnd && (first > 0 || end > 1);
    this.#readEnd = end;
    if (!isInOrder) this.#ahead = 0;
    // Who turned elsewhere may come back to where nothing was fetched.
    if (this.#ahead === 0) this.#aheadEnd = end;
    if (!isInOrder || this.#aheadEnd - end > this.#ahead / 2) return undefined;
    const { least, most } = AHEAD_BLOCKS;
    this.#ahead = Math.min(most, Math.max(least, 2 * this.#ahead));
    const from = Math.max(end, this.#aheadEnd);
    const to = Math.min(this.#count, end + this.#ahead);
    this.#aheadEnd = to;
    return from < to ? { from, to } : undefined;
  }
}
