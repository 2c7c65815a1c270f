// FdTable: the FDIDs of one connection. Over a stateless tree a control FDID is the inode's number and needs no entry:
// Walk allocates nothing, Close is free, a hostile client can't fill a table. Otherwise FDIDs count up from 1 and are
// never reused. Control and open FDs share one number space. LISAFS: connection.go insertFD. Data plane.

import { Errno } from "../../base/errno.ts";
import { CONTROL_FDS_MAX, OPEN_DIRS_MAX, OPEN_FDS_MAX } from "../../base/limits.ts";
import type { Ino, Tree } from "../../tree/tree.ts";

export const FdKind = { control: 0, file: 1, directory: 2 } as const;
export type FdKind = (typeof FdKind)[keyof typeof FdKind];

export interface Fd {
  readonly kind: FdKind;
  readonly ino: Ino;
  /** The tree's handle of an open file or directory. */
  readonly handle: number;
  /** O_ACCMODE of an open file. */
  readonly access: number;
  /** Position of an open directory. */
  cookie: number;
}

/** FDIDs of open FDs of a stateless tree start here: no inode number reaches it. */
const OPEN_FDID_START = 2 ** 52;

export class FdTable {
  readonly #tree: Tree;
  readonly #fds = new Map<number, Fd>();
  #nextFdid: number;
  #controlCount = 0;
  #fileCount = 0;
  #directoryCount = 0;

  constructor(tree: Tree) {
    this.#tree = tree;
    this.#nextFdid = tree.isStateless ? OPEN_FDID_START : 1;
  }

  /** A control FDID for an inode whose reference the table takes over; -EMFILE gives the reference back. */
  mintControl(ino: Ino): number {
    if (this.#tree.isStateless) return ino;
    if (this.#controlCount >= CONTROL_FDS_MAX) {
      this.#tree.release(ino);
      return -Errno.EMFILE;
    }
    this.#controlCount++;
    return this.#insert({ kind: FdKind.control, ino, handle: 0, access: 0, cookie: 0 });
  }

  /** Whether one more open file or directory has room: 0 or -EMFILE. Ask before the tree opens it. */
  roomFor(kind: FdKind): number {
    const isFull =
      kind === FdKind.directory
        ? this.#directoryCount >= OPEN_DIRS_MAX
        : this.#fileCount >= OPEN_FDS_MAX;
    return isFull ? -Errno.EMFILE : 0;
  }

  /** An FDID for an open file or directory; takes a reference of its own on the inode. */
  mintOpen(kind: FdKind, ino: Ino, handle: number, access: number): number {
    if (!this.#tree.isStateless) this.#tree.acquire(ino);
    if (kind === FdKind.directory) this.#directoryCount++;
    else this.#fileCount++;
    return this.#insert({ kind, ino, handle, access, cookie: 0 });
  }

  #insert(fd: Fd): number {
    const fdid = this.#nextFdid++;
    this.#fds.set(fdid, fd);
    return fdid;
  }

  /** Ino of a control FDID; -EBADF when unknown, -EINVAL for an open FD. LISAFS: connection.go lookupControlFD. */
  control(fdid: number): number {
    if (this.#tree.isStateless && fdid > 0 && fdid < OPEN_FDID_START) return fdid;
    const fd = this.#fds.get(fdid);
    if (fd === undefined) return -Errno.EBADF;
    return fd.kind === FdKind.control ? fd.ino : -Errno.EINVAL;
  }

  /**
   * As control(), for messages that ask the tree nothing of the inode: over a stateless tree too, a number that is no inode's is
   * -EBADF.
   */
  liveControl(fdid: number): number {
    const ino = this.control(fdid);
    if (ino < 0 || !this.#tree.isStateless) return ino;
    return this.#tree.acquire(ino as Ino) < 0 ? -Errno.EBADF : ino;
  }

  /** The open FD of an FDID, or undefined: then errnoOfOpen says why. */
  open(fdid: number): Fd | undefined {
    const fd = this.#fds.get(fdid);
    return fd === undefined || fd.kind === FdKind.control ? undefined : fd;
  }

  /** Why open() gave nothing: -EINVAL for a control FD, -EBADF for an unknown one. */
  errnoOfOpen(fdid: number): number {
    return this.liveControl(fdid) > 0 ? -Errno.EINVAL : -Errno.EBADF;
  }

  /** Closes an FDID. Unknown ones are ignored, as the protocol asks. */
  close(fdid: number): void {
    const fd = this.#fds.get(fdid);
    if (fd === undefined) return;
    this.#fds.delete(fdid);
    this.#free(fd);
  }

  #free(fd: Fd): void {
    if (fd.kind === FdKind.control) {
      this.#controlCount--;
    } else if (fd.kind === FdKind.directory) {
      this.#directoryCount--;
      this.#tree.closedir(fd.ino, fd.handle);
    } else {
      this.#fileCount--;
      this.#tree.close(fd.ino, fd.handle);
    }
    if (!this.#tree.isStateless) this.#tree.release(fd.ino);
  }

  /** FDIDs with an entry. */
  get size(): number {
    return this.#fds.size;
  }

  /** Closes everything. */
  clear(): void {
    for (const fd of this.#fds.values()) this.#free(fd);
    this.#fds.clear();
  }
}
