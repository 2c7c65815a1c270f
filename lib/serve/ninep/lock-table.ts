// LockTable: the record locks of one view, which its clients hold against each other: POSIX's, by ranges of bytes. They are kept here
// and nowhere else, so whoever reaches the files otherwise doesn't see them. diod, protocol.md, lock; man fcntl(2). Data plane.

import type { Ino } from "../../tree/tree.ts";

/** Ranges of one view: past them a lock is refused. */
const RANGES_MAX = 65_536;

/** Who holds a lock: locks of one owner replace each other. */
export interface LockOwner {
  /** The session; any object that is it alone. */
  readonly session: object;
  readonly client: string;
  readonly process: number;
}

export interface Range extends LockOwner {
  /** The fid that it was made by: it goes with it. */
  readonly fid: object;
  readonly isWrite: boolean;
  readonly start: number;
  /** Past the last byte; Infinity: to the end of the file. */
  readonly end: number;
}

function isSameOwner(one: LockOwner, other: LockOwner): boolean {
  return (
    one.session === other.session && one.client === other.client && one.process === other.process
  );
}

export class LockTable {
  readonly #ranges = new Map<Ino, Range[]>();
  #count = 0;

  get count(): number {
    return this.#count;
  }

  /** A range of another owner that a new one would have to wait for. */
  conflict(ino: Ino, wanted: Range): Range | undefined {
    return this.#ranges
      .get(ino)
      ?.find(
        (held) =>
          held.start < wanted.end &&
          wanted.start < held.end &&
          (held.isWrite || wanted.isWrite) &&
          !isSameOwner(held, wanted),
      );
  }

  /** Takes a range that conflicts with none; of the owner's own what lies in it is replaced. False when there are too many. */
  add(ino: Ino, wanted: Range): boolean {
    // What is replaced may be cut in two.
    if (this.#count + 2 > RANGES_MAX) return false;
    this.remove(ino, wanted, wanted.start, wanted.end);
    const held = this.#ranges.get(ino);
    if (held === undefined) this.#ranges.set(ino, [wanted]);
    else held.push(wanted);
    this.#count++;
    return true;
  }

  /** Gives back what an owner holds from `start` to `end`. False when that needs more ranges than there may be. */
  remove(ino: Ino, owner: LockOwner, start: number, end: number): boolean {
    const before = this.#ranges.get(ino) ?? [];
    const kept: Range[] = [];
    for (const held of before) {
      if (!isSameOwner(held, owner) || held.end <= start || end <= held.start) {
        kept.push(held);
        continue;
      }
      if (held.start < start) kept.push({ ...held, end: start });
      if (end < held.end) kept.push({ ...held, start: end });
    }
    if (this.#count + kept.length - before.length > RANGES_MAX) return false;
    this.#replace(ino, kept);
    return true;
  }

  /** Gives back all that was made by a fid. */
  releaseFid(ino: Ino, fid: object): void {
    const held = this.#ranges.get(ino);
    if (held === undefined) return;
    const kept = held.filter((range) => range.fid !== fid);
    this.#replace(ino, kept);
  }

  #replace(ino: Ino, kept: Range[]): void {
    this.#count += kept.length - (this.#ranges.get(ino)?.length ?? 0);
    if (kept.length === 0) this.#ranges.delete(ino);
    else this.#ranges.set(ino, kept);
  }
}
