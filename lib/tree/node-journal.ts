// NodeJournal: the live inodes of a host tree as they stand in memory that outlives the server: a row for each slot, with the
// file handle that finds the inode again whatever became of its names. Data plane.

import { CONTROL_FDS_MAX } from "../base/limits.ts";
import { HANDLE_BYTES, hostFs } from "../sys/hostfs.ts";

/** A row: Ino and the host's inode number as doubles, then the handle. An Ino of 0 is a free slot. */
const ROW_BYTES = 64;
const ROW_FIELDS = ROW_BYTES / 8;
/** Before the rows: how many slots were ever used. */
const HEAD_BYTES = 64;
const Field = { ino: 0, hostIno: 1 } as const;
const HANDLE_START = 16;

export const NODE_JOURNAL_BYTES = HEAD_BYTES + CONTROL_FDS_MAX * ROW_BYTES;

export class NodeJournal {
  readonly #bytes: Uint8Array;
  readonly #fields: Float64Array;

  constructor(memory: Uint8Array) {
    this.#bytes = memory;
    this.#fields = new Float64Array(memory.buffer, memory.byteOffset, NODE_JOURNAL_BYTES / 8);
  }

  /** A slot has a new inode: of a file system without handles it is lost with the server. */
  put(slot: number, ino: number, hostIno: number, fd: number): void {
    const at = HEAD_BYTES + slot * ROW_BYTES;
    const handle = this.#bytes.subarray(at + HANDLE_START, at + HANDLE_START + HANDLE_BYTES);
    if (hostFs.handleOf(fd, handle) < 0) return;
    if (this.#fields[0]! <= slot) this.#fields[0] = slot + 1;
    this.#fields[at / 8 + Field.hostIno] = hostIno;
    this.#fields[at / 8 + Field.ino] = ino;
  }

  remove(slot: number): void {
    this.#fields[(HEAD_BYTES + slot * ROW_BYTES) / 8 + Field.ino] = 0;
  }

  /**
   * Gives each inode of a predecessor's that is found on the mount of `rootFd`, by an O_PATH FD that `take` takes. Those that aren't
   * found are forgotten.
   */
  forEach(rootFd: number, take: (ino: number, hostIno: number, fd: number) => boolean): void {
    const used = Math.min(this.#fields[0]!, CONTROL_FDS_MAX);
    for (let slot = 0; slot < used; slot++) {
      const row = HEAD_BYTES / 8 + slot * ROW_FIELDS;
      const ino = this.#fields[row + Field.ino]!;
      if (ino === 0) continue;
      const start = row * 8 + HANDLE_START;
      const fd = hostFs.openHandle(rootFd, this.#bytes.subarray(start, start + HANDLE_BYTES));
      if (fd < 0 || !take(ino, this.#fields[row + Field.hostIno]!, fd)) this.remove(slot);
    }
  }
}
