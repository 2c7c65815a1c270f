// Holds: while a start is helped no ask for a part of a large blob of its snapshots begins to stream the rest, in short requests between those
// that somebody waits for: the start has it whole in a few long ones, when nobody waits for anything. Control plane.

import type { Digest } from "../base/digest.ts";

/** Of one start, until it is disposed of. */
export interface Hold extends Disposable {
  /** A large blob is wanted in part. */
  note(snapshot: Digest, row: number): void;
  /** Those that are. */
  rows(snapshot: Digest): ReadonlySet<number>;
  /** Nothing else is left to do. */
  due(): void;
}

export class Holds {
  readonly #holds = new Set<Hold>();
  #due = 0;

  /** Whether anything is to come that waits for its time alone. */
  get areDue(): boolean {
    return this.#due > 0;
  }

  /** Notes that a large blob is asked for in part: whether there is a start that will have it whole. */
  note(snapshot: Digest, row: number): boolean {
    for (const hold of this.#holds) hold.note(snapshot, row);
    return [...this.#holds].some((hold) => hold.rows(snapshot).has(row));
  }

  /** Of a start over these snapshots. */
  begin(snapshots: Iterable<Digest>): Hold {
    const rows = new Map([...snapshots].map((each) => [each, new Set<number>()]));
    let isDue = false;
    const hold: Hold = {
      note: (snapshot, row) => void rows.get(snapshot)?.add(row),
      rows: (snapshot) => rows.get(snapshot) ?? new Set(),
      due: () => {
        const isWaited = [...rows.values()].some(({ size }) => size > 0);
        if (isDue || !isWaited) return;
        isDue = true;
        this.#due++;
      },
      [Symbol.dispose]: () => {
        if (isDue) this.#due--;
        isDue = false;
        this.#holds.delete(hold);
      },
    };
    this.#holds.add(hold);
    return hold;
  }
}
