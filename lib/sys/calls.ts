// Calls: a chain of system calls on files that a worker (native/addon/workers.c) makes, one after the other, at the price of one crossing: a disk
// that hangs holds up that thread and nothing else. The typed face of native/addon/calls.c. Control plane.

import { Errno } from "../base/errno.ts";
import { native } from "./native.ts";

/** As in native/addon/calls.c. */
const Op = {
  open: 0,
  close: 1,
  stat: 2,
  lstat: 3,
  pwrite: 4,
  pread: 5,
  fsync: 6,
  fchmod: 7,
  futimens: 8,
  setXattr: 9,
  getXattr: 10,
  rename: 11,
  unlink: 12,
  lease: 13,
  truncate: 14,
  syncRange: 15,
  mkdir: 16,
} as const;

/** When a call is made: unless one before it has failed, whatever has, or only if one has. */
const When = { ifWell: 0, always: 1, ifFailed: 2 } as const;
type When = (typeof When)[keyof typeof When];

/** Numbers that describe a call. */
const ROW = 7;

/** Where a call's result will be. */
export type Place = number & { readonly __place: never };
/** An FD: its number, or the place of the call that opens it. */
export type FdOf = { readonly at: Place } | number;

/** What STAT and LSTAT leave in a Float64Array(FACTS). */
export const Fact = {
  size: 0,
  mode: 1,
  mtimeSec: 2,
  mtimeNs: 3,
  links: 4,
  /** Of 512 bytes. */
  blocks: 5,
  atimeMs: 6,
  ctimeMs: 7,
} as const;
export const FACTS = 8;

/** What is left of a chain that was made: >= 0 or -errno by place; -ECANCELED of calls that weren't made. */
export type Results = Float64Array;

/** Every call but those said otherwise is made if none before it failed. */
export class Calls {
  readonly #rows: number[] = [];
  readonly #buffers: Uint8Array[] = [];
  /** Paths and names of attributes, each with a NUL behind it. */
  #names = "";
  #nameBytes = 0;
  readonly #facts: Float64Array[] = [];
  /** Whether failures of what is added count. */
  #counts = true;
  #when: When = When.ifWell;
  /** 1 + the place that what is added needs. */
  #needed = 0;

  get length(): number {
    return this.#rows.length / ROW;
  }

  /** What `add` adds is made whatever failed, and its failures don't count: the end of FDs. */
  always(add: (calls: this) => void): this {
    return this.#with(When.always, false, add);
  }

  /** Only if a call before has failed: what undoes. */
  ifFailed(add: (calls: this) => void): this {
    return this.#with(When.ifFailed, false, add);
  }

  /** If none before it failed, and its failures don't count: of several things each on its own. */
  optional(add: (calls: this) => void): this {
    return this.#with(When.ifWell, false, add);
  }

  /** O_CLOEXEC goes without saying. */
  open(path: string, flags: number, mode = 0): Place {
    return this.#add(Op.open, this.#path(path), flags, mode);
  }

  close(fd: FdOf): Place {
    return this.#add(Op.close, numberOf(fd));
  }

  stat(fd: FdOf, out: Float64Array): Place {
    return this.#add(Op.stat, numberOf(fd), this.#factsTo(out));
  }

  lstat(path: string, out: Float64Array): Place {
    return this.#add(Op.lstat, this.#path(path), this.#factsTo(out));
  }

  /** All of the bytes, or it fails. */
  pwrite(fd: FdOf, bytes: Uint8Array, offset: number): Place {
    return this.#add(Op.pwrite, numberOf(fd), this.#bytes(bytes), offset);
  }

  /** As much as there is: how much that was. */
  pread(fd: FdOf, out: Uint8Array, offset: number): Place {
    return this.#add(Op.pread, numberOf(fd), this.#bytes(out), offset);
  }

  fsync(fd: FdOf): Place {
    return this.#add(Op.fsync, numberOf(fd));
  }

  /**
   * Has all pages of it written back: errors as fsync tells them, without the journal's commit and the disk's flush. Of where they lie on
   * the disk it says nothing, and some file systems do nothing at all. man sync_file_range(2)
   */
  syncRange(fd: FdOf): Place {
    return this.#add(Op.syncRange, numberOf(fd));
  }

  fchmod(fd: FdOf, mode: number): Place {
    return this.#add(Op.fchmod, numberOf(fd), mode);
  }

  /** Sets the mtime; sec < 0 sets the atime to 0 instead. */
  futimens(fd: FdOf, sec: number, nsec: number): Place {
    return this.#add(Op.futimens, numberOf(fd), sec, nsec);
  }

  setXattr(fd: FdOf, name: string, value: Uint8Array): Place {
    return this.#add(Op.setXattr, numberOf(fd), this.#path(name), this.#bytes(value));
  }

  getXattr(fd: FdOf, name: string, out: Uint8Array): Place {
    return this.#add(Op.getXattr, numberOf(fd), this.#path(name), this.#bytes(out));
  }

  rename(from: string, to: string): Place {
    return this.#add(Op.rename, this.#path(from), this.#path(to));
  }

  unlink(path: string): Place {
    return this.#add(Op.unlink, this.#path(path));
  }

  mkdir(path: string, mode: number): Place {
    return this.#add(Op.mkdir, this.#path(path), mode);
  }

  /** A write lease until it is closed: -EAGAIN when somebody else has the file; 0, too, where the kernel can't tell. */
  lease(fd: FdOf): Place {
    return this.#add(Op.lease, numberOf(fd));
  }

  truncate(fd: FdOf, size: number): Place {
    return this.#add(Op.truncate, numberOf(fd), size);
  }

  /** Has them made: resolves when the last has ended. What was given for reading and writing is the worker's until then. */
  run(): Promise<Results> {
    return new Promise((resolve, reject) => {
      const { length } = this;
      const table = new Float64Array(length * (ROW + 1) + this.#facts.length * FACTS);
      table.set(this.#rows);
      const results = table.subarray(length * ROW, length * (ROW + 1));
      const done = () => {
        for (const [i, out] of this.#facts.entries()) {
          const at = length * (ROW + 1) + i * FACTS;
          out.set(table.subarray(at, at + FACTS));
        }
        resolve(results);
      };
      const names = Buffer.from(this.#names === "" ? "\0" : this.#names);
      const begun = native.makeCalls(length, table, names, this.#buffers, done);
      // For want of a thread or memory, mostly: an error as Node.js's are.
      if (begun < 0) reject(Object.assign(new Error("no thread for calls"), { errno: begun }));
    });
  }

  /** As optional, and not if the call at a place failed or wasn't made. */
  needing(place: Place, add: (calls: this) => void): this {
    const before = this.#needed;
    this.#needed = place + 1;
    this.#with(this.#when, false, add);
    this.#needed = before;
    return this;
  }

  #with(when: When, counts: boolean, add: (calls: this) => void): this {
    const before = [this.#when, this.#counts] as const;
    [this.#when, this.#counts] = [when, counts];
    add(this);
    [this.#when, this.#counts] = before;
    return this;
  }

  #add(op: number, a: number, b = 0, c = 0): Place {
    this.#rows.push(op, a, b, c, this.#when, Number(this.#counts), this.#needed);
    return (this.length - 1) as Place;
  }

  #bytes(bytes: Uint8Array): number {
    return this.#buffers.push(bytes) - 1;
  }

  #factsTo(out: Float64Array): number {
    return (this.#facts.push(out) - 1) * FACTS;
  }

  #path(path: string): number {
    const at = this.#nameBytes;
    this.#names += `${path}\0`;
    this.#nameBytes += Buffer.byteLength(path) + 1;
    return at;
  }
}

/** The first failure of a chain: a positive errno, or 0. Places in `but` don't count. */
export function failureIn(results: Results, but: readonly Place[] = []): number {
  for (const [place, result] of results.entries()) {
    if (result < 0 && result !== -Errno.ECANCELED && !but.includes(place as Place)) return -result;
  }
  return 0;
}

function numberOf(fd: FdOf): number {
  return typeof fd === "number" ? fd : -1 - fd.at;
}
