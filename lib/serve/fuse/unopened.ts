// Unopened: files and directories of a session that tells the kernel not to ask for opens: opened when they are first read, and kept for a
// while. Whatever is in here can be opened again, so that a server which follows a killed one needs nothing of it. Data plane.

import { FUSE_UNOPENED_MAX } from "../../base/limits.ts";
import type { Ino } from "../../tree/tree.ts";
import type { HandleTable, OpenFile } from "./handles.ts";
import type { FuseSession } from "./session.ts";

/** Opens what is at an inode: the number of its handle, MISS or -errno. */
export type Opening = (session: FuseSession, ino: Ino) => number;

export class Unopened {
  readonly #handles: HandleTable;
  /** Numbers of handles by inode: what was read last comes last. */
  readonly #known = new Map<Ino, number>();

  constructor(handles: HandleTable) {
    this.#handles = handles;
  }

  /** What is open of an inode, or is now: `open` gives a number of the table's, or MISS or -errno, which is returned then. */
  use(session: FuseSession, ino: Ino, open: Opening): OpenFile | number {
    const known = this.#known.get(ino);
    const number = known ?? open(session, ino);
    if (number < 0) return number;
    this.#known.delete(ino);
    this.#known.set(ino, number);
    if (this.#known.size > FUSE_UNOPENED_MAX) this.#drop();
    return this.#handles.get(number)!;
  }

  #drop(): void {
    for (const [ino, number] of this.#known) {
      this.#known.delete(ino);
      this.#handles.remove(number);
      return;
    }
  }
}
