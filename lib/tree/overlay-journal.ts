// OverlayJournal: the live inodes of an overlay as they stand in memory that outlives the server: a row for each, with the inodes
// of both sides and the directory that it lies in. The upper keeps its own journal beside it. Data plane.

import { CONTROL_FDS_MAX } from "../base/limits.ts";
import type { Ino } from "./tree.ts";

/** A row: six doubles, of 64 bytes. An Ino of 0 is a free row. */
const ROW_BYTES = 64;
const ROW_FIELDS = ROW_BYTES / 8;
const Field = { ino: 0, upper: 1, lower: 2, parent: 3, isUnlinked: 4, isMetadata: 5 } as const;
/** Before the rows: how many were ever used, and the last Ino that was given. */
const HEAD_BYTES = 64;
const Head = { used: 0, lastIno: 1 } as const;
/** Control FDs, open files and directories, and the directories above them; what is past it is lost with its server. */
const ROWS_MAX = 4 * CONTROL_FDS_MAX;

export const OVERLAY_JOURNAL_BYTES = HEAD_BYTES + ROWS_MAX * ROW_BYTES;

export interface OverlayRow {
  readonly row: number;
  readonly ino: Ino;
  readonly upper: Ino;
  readonly lower: Ino;
  /** 0: none. */
  readonly parent: number;
  readonly isUnlinked: boolean;
  /** Of one without a name, for which the upper has no record. */
  readonly isMetadata: boolean;
}

export class OverlayJournal {
  readonly #fields: Float64Array;
  readonly #free: number[] = [];

  constructor(memory: Uint8Array) {
    this.#fields = new Float64Array(memory.buffer, memory.byteOffset, OVERLAY_JOURNAL_BYTES / 8);
  }

  /** The last Ino that was given, so that none is given twice. */
  get lastIno(): number {
    return this.#fields[Head.lastIno]!;
  }
  set lastIno(ino: number) {
    this.#fields[Head.lastIno] = ino;
  }

  /** A free row, or -1 when there is none: then the inode is kept by no journal. */
  take(): number {
    const row = this.#free.pop() ?? this.#fields[Head.used]!;
    if (row >= ROWS_MAX) return -1;
    if (row === this.#fields[Head.used]!) this.#fields[Head.used] = row + 1;
    return row;
  }

  /** The Ino last: a row that a kill left half written is free. */
  put({ row, ino, upper, lower, parent, isUnlinked, isMetadata }: OverlayRow): void {
    const at = HEAD_BYTES / 8 + row * ROW_FIELDS;
    this.#fields[at + Field.ino] = 0;
    this.#fields[at + Field.upper] = upper;
    this.#fields[at + Field.lower] = lower;
    this.#fields[at + Field.parent] = parent;
    this.#fields[at + Field.isUnlinked] = isUnlinked ? 1 : 0;
    this.#fields[at + Field.isMetadata] = isMetadata ? 1 : 0;
    this.#fields[at + Field.ino] = ino;
  }

  remove(row: number): void {
    this.#fields[HEAD_BYTES / 8 + row * ROW_FIELDS + Field.ino] = 0;
    this.#free.push(row);
  }

  /** The rows that a predecessor left; the others are free from now on. */
  restore(): OverlayRow[] {
    const rows: OverlayRow[] = [];
    const used = Math.min(this.#fields[Head.used]!, ROWS_MAX);
    for (let row = 0; row < used; row++) {
      const at = HEAD_BYTES / 8 + row * ROW_FIELDS;
      const ino = this.#fields[at + Field.ino]! as Ino;
      if (ino === 0) {
        this.#free.push(row);
        continue;
      }
      const upper = this.#fields[at + Field.upper]! as Ino;
      const lower = this.#fields[at + Field.lower]! as Ino;
      const parent = this.#fields[at + Field.parent]!;
      rows.push({
        row,
        ino,
        upper,
        lower,
        parent,
        isUnlinked: this.#fields[at + Field.isUnlinked] === 1,
        isMetadata: this.#fields[at + Field.isMetadata] === 1,
      });
    }
    return rows;
  }
}
