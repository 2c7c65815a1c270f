// NodeTable: from the kernel's node numbers to inodes of the tree. A node's number is its Ino, but that the root is 1 for the kernel: it
// changes places with whichever inode has that number. Of a stateless tree nothing is kept; of another, one reference for each node
// that the kernel knows and how often it was told of it, which is what it takes back by FORGET. man fuse(4). Data plane.

import type { Ino, Tree } from "../../tree/tree.ts";
import { ROOT_NODE } from "../../wire/fuse/message.ts";

/** Device numbers of a writable tree stand above the inode numbers of each, which makes one number of both. */
const DEVICE_STEP = 2 ** 41;

export class NodeTable {
  readonly #tree: Tree;
  readonly #told = new Map<Ino, number>();

  constructor(tree: Tree) {
    this.#tree = tree;
    tree.acquire(tree.rootIno);
  }

  inoOf(node: number): Ino {
    const { rootIno } = this.#tree;
    if (node === ROOT_NODE) return rootIno;
    return (node === rootIno ? ROOT_NODE : node) as Ino;
  }

  /** The number to tell the kernel of an inode, with the reference that a lookup or a creating call has taken. */
  tell(ino: Ino): number {
    if (!this.#tree.isStateless) {
      const told = this.#told.get(ino);
      if (told !== undefined) this.#tree.release(ino);
      this.#told.set(ino, (told ?? 0) + 1);
    }
    return this.nodeOf(ino);
  }

  nodeOf(ino: Ino): number {
    const { rootIno } = this.#tree;
    if (ino === rootIno) return ROOT_NODE;
    return ino === ROOT_NODE ? rootIno : ino;
  }

  /** The kernel takes so many tellings back: at none it knows the node no more. */
  forget(node: number, count: number): void {
    const ino = this.inoOf(node);
    const told = this.#told.get(ino);
    if (told === undefined) return;
    if (told > count) this.#told.set(ino, told - count);
    else if (this.#told.delete(ino)) this.#tree.release(ino);
  }

  /** Nodes of a tree that isn't stateless which the kernel knows, the root aside. */
  get size(): number {
    return this.#told.size;
  }

  /**
   * The inode number that stat(2) and readdir(3) say: one mount has one device, so it must be unique by itself. Numbers of snapshots are;
   * those of an overlay are together with their device.
   */
  shownIno(ino: number, devMinor: number): number {
    return this.#tree.isStateless || ino >= DEVICE_STEP ? ino : ino + devMinor * DEVICE_STEP;
  }

  dispose(): void {
    for (const ino of this.#told.keys()) this.#tree.release(ino);
    this.#told.clear();
    this.#tree.release(this.#tree.rootIno);
  }
}
