// HandleTable: the files and directories that the kernel has open, by the numbers it knows them by. Data plane.

import { FUSE_HANDLES_MAX } from "../../base/limits.ts";
import { native } from "../../sys/native.ts";
import type { Ino, Tree } from "../../tree/tree.ts";

export interface OpenFile {
  readonly ino: Ino;
  readonly isDirectory: boolean;
  /** The tree's. */
  readonly handle: number;
  /** The blob of a file, read without asking the tree again; -1: none. */
  readonly hostFd: number;
  /** Of a directory: the tree's position and how many dentries, "." and ".." among them, were given up to it. */
  cookie: number;
  offset: number;
}

export class HandleTable {
  readonly #tree: Tree;
  readonly #open = new Map<number, OpenFile>();
  #next = 1;

  constructor(tree: Tree) {
    this.#tree = tree;
  }

  /** Ask before the tree opens something. */
  get hasRoom(): boolean {
    return this.#open.size < FUSE_HANDLES_MAX;
  }

  get size(): number {
    return this.#open.size;
  }

  /** Takes what the tree has opened, and the FD: its number. */
  add(ino: Ino, isDirectory: boolean, handle: number, hostFd: number): number {
    const number = this.#next++;
    this.#open.set(number, { ino, isDirectory, handle, hostFd, cookie: 0, offset: 0 });
    return number;
  }

  get(number: number): OpenFile | undefined {
    return this.#open.get(number);
  }

  /** Closes it, if it is open. */
  remove(number: number): void {
    const open = this.#open.get(number);
    if (open === undefined) return;
    this.#open.delete(number);
    if (open.isDirectory) this.#tree.closedir(open.ino, open.handle);
    else this.#tree.close(open.ino, open.handle);
    if (open.hostFd >= 0) native.closeFd(open.hostFd);
  }

  dispose(): void {
    for (const number of [...this.#open.keys()]) this.remove(number);
  }
}
