// FdTable: the FDIDs of one connection. Over a stateless tree a control FDID is the inode's number and needs no entry:
// Walk allocates nothing, Close is free, a hostile client can't fill a table. Otherwise FDIDs count up from 1 and are
// never reused. Control and open FDs share one number space. LISAFS: connection.go insertFD. Data plane.

import { Errno } from "../../base/errno.ts";
import { CONTROL_FDS_MAX, OPEN_DIRS_MAX, OPEN_FDS_MAX } from "../../base/limits.ts";
import type { Ino, Tree } from "../../tree/tree.ts";
import type { FdRow, FdRows } from "./fd-rows.ts";

export const FdKind = { control: 0, file: 1, directory: 2, socket: 3 } as const;
export type FdKind = (typeof FdKind)[keyof typeof FdKind];

export interface Fd {
  readonly kind: FdKind;
  /** LOST: a predecessor's inode that can't be had any more. */
  readonly ino: Ino;
  /** The tree's handle of an open file, directory or bound socket. */
  readonly handle: number;
  /** O_ACCMODE of an open file. */
  readonly access: number;
  /** Position of an open directory: setCookie changes it. */
  cookie: number;
  /** Where it stands in what outlives the server; -1: nowhere. */
  readonly row: number;
}

/** Ino of an FDID whose inode a successor doesn't find: each use of it is EIO. */
const LOST = 0 as Ino;

/** FDIDs of open FDs of a stateless tree start here: no inode number reaches it. */
const OPEN_FDID_START = 2 ** 52;

export class FdTable {
  readonly #tree: Tree;
  readonly #fds = new Map<number, Fd>();
  #nextFdid: number;
  readonly #rows: FdRows | undefined;
  #controlCount = 0;
  #fileCount = 0;
  #directoryCount = 0;

  /** With the rows of a predecessor restore() comes first. */
  constructor(tree: Tree, rows?: FdRows) {
    this.#tree = tree;
    this.#rows = rows;
    this.#nextFdid = tree.isStateless ? OPEN_FDID_START : 1;
  }

  /** Takes up the FDIDs that a predecessor had given, once the tree has its inodes: how many are lost, and answer EIO. */
  restore(): number {
    const rows = this.#rows;
    if (rows === undefined) return 0;
    this.#nextFdid = Math.max(this.#nextFdid, rows.nextFdid);
    let lost = 0;
    rows.forEach((row, fd) => {
      if (!this.#restore(row, fd)) lost++;
    });
    return lost;
  }

  #restore(row: number, { fdid, ino, handle, kind, access, cookie }: FdRow): boolean {
    const tree = this.#tree;
    const isKnown = tree.isStateless || tree.acquire(ino as Ino) === 0;
    const isOpen = kind !== FdKind.control;
    let reopened = handle;
    if (isKnown && isOpen) {
      const again = tree.reopen?.(ino as Ino, kind === FdKind.directory, access, handle);
      reopened = again ?? (tree.isStateless ? handle : -Errno.EIO);
      if (reopened >= 0) this.#rows!.setHandle(row, reopened);
      else if (!tree.isStateless) tree.release(ino as Ino);
    }
    const isLost = !isKnown || (isOpen && reopened < 0);
    const kept = { kind: kind as FdKind, ino: isLost ? LOST : (ino as Ino), access, cookie, row };
    this.#fds.set(fdid, { ...kept, handle: reopened });
    if (kind === FdKind.control) this.#controlCount++;
    else if (kind === FdKind.directory) this.#directoryCount++;
    else this.#fileCount++;
    return !isLost;
  }

  /** A control FDID for an inode whose reference the table takes over; -EMFILE gives the reference back. */
  mintControl(ino: Ino): number {
    if (this.#tree.isStateless) return ino;
    const room = this.roomForControl();
    if (room < 0) {
      this.#tree.release(ino);
      return room;
    }
    this.#controlCount++;
    return this.#insert(FdKind.control, ino, 0, 0);
  }

  /** Whether the FDID of what is about to be made has room: 0 or -EMFILE, before the name is there. */
  roomForControl(): number {
    const isFull = !this.#tree.isStateless && this.#controlCount >= CONTROL_FDS_MAX;
    return isFull ? -Errno.EMFILE : 0;
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
    return this.#insert(kind, ino, handle, access);
  }

  #insert(kind: FdKind, ino: Ino, handle: number, access: number): number {
    const fdid = this.#nextFdid++;
    let row = -1;
    if (this.#rows !== undefined) {
      this.#rows.nextFdid = this.#nextFdid;
      row = this.#rows.put(fdid, ino, handle, kind, access);
    }
    this.#fds.set(fdid, { kind, ino, handle, access, cookie: 0, row });
    return fdid;
  }

  /** Where the listing of an open directory by the request `tag` starts. */
  startOf(fd: Fd, tag: number): number {
    return this.#rows?.startOf(fd.row, tag, fd.cookie) ?? fd.cookie;
  }

  /** Where an open directory goes on. */
  setCookie(fd: Fd, cookie: number): void {
    fd.cookie = cookie;
    this.#rows?.setCookie(fd.row, cookie);
  }

  /** Ino of a control FDID; -EBADF when unknown, -EINVAL for an open FD. LISAFS: connection.go lookupControlFD. */
  control(fdid: number): number {
    if (this.#tree.isStateless && fdid > 0 && fdid < OPEN_FDID_START) return fdid;
    const fd = this.#fds.get(fdid);
    if (fd === undefined) return -Errno.EBADF;
    if (fd.ino === LOST) return -Errno.EIO;
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
    if (fd === undefined || fd.ino === LOST) return undefined;
    return fd.kind === FdKind.file || fd.kind === FdKind.directory ? fd : undefined;
  }

  /** The bound socket of an FDID, or undefined: then errnoOfOpen says why. */
  socket(fdid: number): Fd | undefined {
    const fd = this.#fds.get(fdid);
    return fd?.kind === FdKind.socket ? fd : undefined;
  }

  /** Why open() gave nothing: -EINVAL for an FD of another kind, -EBADF for an unknown one. */
  errnoOfOpen(fdid: number): number {
    const fd = this.#fds.get(fdid);
    if (fd !== undefined) return fd.ino === LOST ? -Errno.EIO : -Errno.EINVAL;
    return this.liveControl(fdid) > 0 ? -Errno.EINVAL : -Errno.EBADF;
  }

  /** Closes an FDID. Unknown ones are ignored, as the protocol asks. */
  close(fdid: number): void {
    const fd = this.#fds.get(fdid);
    if (fd === undefined) return;
    this.#fds.delete(fdid);
    this.#rows?.remove(fd.row);
    this.#free(fd);
  }

  #free(fd: Fd): void {
    const isLost = fd.ino === LOST;
    if (fd.kind === FdKind.control) {
      this.#controlCount--;
    } else if (fd.kind === FdKind.directory) {
      this.#directoryCount--;
      if (!isLost) this.#tree.closedir(fd.ino, fd.handle);
    } else {
      this.#fileCount--;
      if (!isLost) this.#tree.close(fd.ino, fd.handle);
    }
    if (!isLost && !this.#tree.isStateless) this.#tree.release(fd.ino);
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
