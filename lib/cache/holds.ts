// Holds: while a start is helped no ask for a part of a large blob of its snapshots begins to stream the rest, in short requests between those
// that somebody waits for: the start has it whole in a few long ones, when nobody waits for anything. Control plane.

import type { Digest } from "../base/digest.ts";

/** A snapshot as an origin has it: what one origin can't bring, another may. */
export interface HeldSnapshot {
  readonly snapshot: Digest;
  readonly origin: string;
}

/** Of one start, until it is disposed of. */
export interface Hold extends Disposable {
  /** A large blob is wanted in part: whether the start will have it whole. */
  note(of: HeldSnapshot, row: number): boolean;
  /** Those that are. */
  rows(of: HeldSnapshot): ReadonlySet<number>;
  /** Nothing else is left to do: whether anything was noted. */
  due(): boolean;
  /** It takes no more: whatever else is asked for in part is streamed again. */
  close(): void;
  /** Of those of a snapshot it will have these alone. */
  keep(of: HeldSnapshot, rows: readonly number[]): void;
}

export class Holds {
  readonly #holds = new Set<Hold>();
  #due = 0;

  /** Whether anything is to come that waits for its time alone. */
  get areDue(): boolean {
    return this.#due > 0;
  }

  /** Notes that a large blob is asked for in part: whether there is a start that will have it whole. */
  note(of: HeldSnapshot, row: number): boolean {
    let isHeld = false;
    for (const hold of this.#holds) isHeld = hold.note(of, row) || isHeld;
    return isHeld;
  }

  /** Of a start over these snapshots. */
  begin(snapshots: Iterable<HeldSnapshot>): Hold {
    const noted = new Map([...snapshots].map((each) => [keyOf(each), new Set<number>()]));
    let isDue = false;
    let isClosed = false;
    const hold: Hold = {
      note: (of, row) => {
        const rows = noted.get(keyOf(of));
        if (!isClosed) rows?.add(row);
        return rows?.has(row) === true;
      },
      rows: (of) => noted.get(keyOf(of)) ?? new Set(),
      due: () => {
        const isWaited = [...noted.values()].some(({ size }) => size > 0);
        if (isDue || !isWaited) return isWaited;
        isDue = true;
        this.#due++;
        return true;
      },
      close: () => {
        isClosed = true;
      },
      keep: (of, rows) => void noted.set(keyOf(of), new Set(rows)),
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

/** A digest has no space. */
const keyOf = ({ snapshot, origin }: HeldSnapshot) => `${snapshot} ${origin}`;
