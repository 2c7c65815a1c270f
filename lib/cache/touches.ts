// Touches: what of a view's snapshots was read first, and whether it was on this node by then: the daemon hears of each file, and each
// range of a large one that is read by block, once. A bit a row keeps the hit as it was; what isn't sent yet is a few words each in one
// bounded table. docs/design/0023-touches.md. Data plane.

import { TOUCH_WORDS, TOUCHES_MAX, TOUCHES_PER_FRAME } from "../base/limits.ts";

/** What one mailbox has to tell. */
export class TouchTable {
  /** TOUCH_WORDS each, as the frame has them; made with the first. */
  #words = new Uint32Array(0);
  #count = 0;
  #noted = 0;
  #isWanted = true;
  readonly #startMs = performance.now();

  /** Those that aren't sent yet. */
  get count(): number {
    return this.#count;
  }

  /** Whether a frame of them is full: whoever can sends it. */
  get isFull(): boolean {
    return this.#count === TOUCHES_PER_FRAME;
  }

  get words(): Uint32Array {
    return this.#words;
  }

  /** The daemon has said whether it wants to hear of them; until it has they are kept. */
  want(isWanted: boolean): void {
    this.#isWanted = isWanted;
    if (!isWanted) this.clear();
  }

  /** Those that there are were sent. */
  clear(): void {
    this.#count = 0;
  }

  /** Blocks [first, first + count) of a row's blob, or all of it when count is 0. What finds no room is not told. */
  add(snapshot: number, row: number, first: number, count: number, isLocal: boolean): void {
    if (!this.#isWanted || this.isFull || this.#noted === TOUCHES_MAX) return;
    if (this.#words.length === 0) this.#words = new Uint32Array(TOUCHES_PER_FRAME * TOUCH_WORDS);
    const at = this.#count++ * TOUCH_WORDS;
    this.#noted++;
    this.#words[at] = snapshot | (isLocal ? LOCAL_TOUCH : 0);
    this.#words[at + 1] = row;
    this.#words[at + 2] = first;
    this.#words[at + 3] = count;
    this.#words[at + 4] = performance.now() - this.#startMs;
  }
}

/** Beside the snapshot's number, of what was on this node when it was first read. */
export const LOCAL_TOUCH = 0x8000_0000;

/** Whether each row of one snapshot was touched. */
export class TouchedRows {
  #bits = new Uint32Array(32);

  /** Whether this is the first time: it is told only once. */
  isFirst(row: number): boolean {
    const at = row >>> 5;
    const bit = 1 << (row & 31);
    if (at >= this.#bits.length) this.#grow(at);
    if ((this.#bits[at]! & bit) !== 0) return false;
    this.#bits[at]! |= bit;
    return true;
  }

  /** The row is one of an index: its table bounds this one. */
  #grow(at: number): void {
    const bits = new Uint32Array(Math.max(at + 1, 2 * this.#bits.length));
    bits.set(this.#bits);
    this.#bits = bits;
  }
}
