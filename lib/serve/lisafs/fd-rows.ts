// FdRows: the FDIDs of a connection as they stand in memory that outlives the server: a row each. A successor reads them and knows
// what its client holds. docs/protocol/adopt.md, section 8. Data plane.

import { CONTROL_FDS_MAX, OPEN_DIRS_MAX, OPEN_FDS_MAX } from "../../base/limits.ts";

/** Fields of a row, doubles. An FDID of 0 is a free row. */
const Field = {
  fdid: 0,
  ino: 1,
  handle: 2,
  kindAndAccess: 3,
  cookie: 4,
  start: 5,
  tag: 6,
} as const;
const FIELDS = 7;
/** Before the rows: the next FDID, and how many rows were ever used. */
const Head = { nextFdid: 0, used: 1 } as const;
const HEAD_FIELDS = 8;
const ACCESS_STEP = 4;
const ROWS = CONTROL_FDS_MAX + OPEN_FDS_MAX + OPEN_DIRS_MAX;

export const FD_ROWS_BYTES = (HEAD_FIELDS + ROWS * FIELDS) * 8;

export interface FdRow {
  readonly fdid: number;
  readonly ino: number;
  readonly handle: number;
  readonly kind: number;
  readonly access: number;
  readonly cookie: number;
}

export class FdRows {
  readonly #words: Float64Array;
  readonly #free: number[] = [];
  #used: number;

  /** Over memory from `start` on, zeros or a predecessor's. */
  constructor(memory: ArrayBuffer, start: number) {
    this.#words = new Float64Array(memory, start, FD_ROWS_BYTES / 8);
    this.#used = Math.min(this.#words[Head.used]!, ROWS);
  }

  /** The FDID that comes next; 0 in new memory. */
  get nextFdid(): number {
    return this.#words[Head.nextFdid]!;
  }

  set nextFdid(fdid: number) {
    this.#words[Head.nextFdid] = fdid;
  }

  /** A row for an FDID, -1 when there is none left: the tables' own bounds come first. The FDID is written last: till then it is free. */
  put(fdid: number, ino: number, handle: number, kind: number, access: number): number {
    const row = this.#free.pop() ?? this.#use();
    if (row < 0) return row;
    const at = HEAD_FIELDS + row * FIELDS;
    const words = this.#words;
    words[at + Field.ino] = ino;
    words[at + Field.handle] = handle;
    words[at + Field.kindAndAccess] = kind + access * ACCESS_STEP;
    words[at + Field.cookie] = 0;
    words[at + Field.tag] = 0;
    words[at + Field.fdid] = fdid;
    return row;
  }

  #use(): number {
    if (this.#used === ROWS) return -1;
    this.#words[Head.used] = this.#used + 1;
    return this.#used++;
  }

  setCookie(row: number, cookie: number): void {
    if (row >= 0) this.#words[HEAD_FIELDS + row * FIELDS + Field.cookie] = cookie;
  }

  /**
   * Where the listing that the request `tag` asks for starts: at `cookie`, but where a predecessor went on for the same request, whose
   * answer nobody got.
   */
  startOf(row: number, tag: number, cookie: number): number {
    if (row < 0) return cookie;
    const at = HEAD_FIELDS + row * FIELDS;
    if (this.#words[at + Field.tag] === tag) return this.#words[at + Field.start]!;
    this.#words[at + Field.start] = cookie;
    this.#words[at + Field.tag] = tag;
    return cookie;
  }

  setHandle(row: number, handle: number): void {
    if (row >= 0) this.#words[HEAD_FIELDS + row * FIELDS + Field.handle] = handle;
  }

  remove(row: number): void {
    if (row < 0) return;
    this.#words[HEAD_FIELDS + row * FIELDS + Field.fdid] = 0;
    this.#free.push(row);
  }

  /** Gives each row that a predecessor left, and learns which are free. Once, before anything else. */
  forEach(take: (row: number, fd: FdRow) => void): void {
    const words = this.#words;
    for (let row = 0; row < this.#used; row++) {
      const at = HEAD_FIELDS + row * FIELDS;
      const fdid = words[at + Field.fdid]!;
      if (fdid === 0) {
        this.#free.push(row);
        continue;
      }
      const kindAndAccess = words[at + Field.kindAndAccess]!;
      take(row, {
        fdid,
        ino: words[at + Field.ino]!,
        handle: words[at + Field.handle]!,
        kind: kindAndAccess % ACCESS_STEP,
        access: Math.floor(kindAndAccess / ACCESS_STEP),
        cookie: words[at + Field.cookie]!,
      });
    }
  }
}
