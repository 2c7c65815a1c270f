// OverlayNodes: the live inodes of an overlay: each one the lower tree's, the upper's, or both, when it was copied up. One inode is
// one node while it lives, whichever side it was found on, and its Ino stays through a copy-up. Data plane.

import { S_IFDIR } from "../base/file-types.ts";
import type { Name } from "../base/name.ts";
import type { OverlayJournal } from "./overlay-journal.ts";
import type { OverlayRecord } from "./overlay-records.ts";
import type { Attr, Ino } from "./tree.ts";
import type { Upper } from "./upper.ts";

/** No inode of that side. Inode numbers start at 1. */
export const NONE = 0 as Ino;

/** A copy of a file's bytes that waits for some of them: it goes on when its request is run again. */
export interface CopyJob {
  readonly lowerHandle: number;
  readonly upperHandle: number;
  /** Bytes to copy, and how many were. */
  readonly length: number;
  /** Its attributes when it began: writing the bytes is no change of its times. */
  readonly times: Attr;
  done: number;
}

export interface OverlayNode {
  readonly ino: Ino;
  references: number;
  /** S_IFMT of its mode. */
  readonly type: number;
  /** With a reference of the upper tree; NONE: nothing of it was changed. */
  upper: Ino;
  /** The inode that it was, or whose names it is merged with; NONE: it was made here. */
  readonly lower: Ino;
  /** Names that the lower tree has for it. More than one: its copy lies in the index of links. */
  readonly lowerLinks: number;
  /** What the upper keeps of how it came up; undefined while it is the lower tree's alone, and of what was made here. */
  record: OverlayRecord | undefined;
  /** Where a directory, or a file that may be copied up to its place, lies; each counts as a reference of `parent`. */
  parent: OverlayNode | undefined;
  name: Name;
  /** In the journal; -1: it stands in none. */
  row: number;
  /** It has no name left: a copy of it gets none either, and what is kept of it is kept here alone. */
  isUnlinked: boolean;
  copy: CopyJob | undefined;
}

export interface NewNode {
  readonly type: number;
  readonly upper: Ino;
  readonly lower: Ino;
  readonly lowerLinks: number;
  readonly record: OverlayRecord | undefined;
  readonly parent: OverlayNode | undefined;
  readonly name: Name;
}

/** Whether the bytes of a regular file are the upper's: else they are read from below. */
export function hasUpperData(node: OverlayNode): boolean {
  return node.upper !== NONE && node.record?.isMetadata !== true;
}

export class OverlayNodes {
  readonly #upper: Upper;
  readonly #drop: (node: OverlayNode) => void;
  readonly #byIno = new Map<number, OverlayNode>();
  readonly #byUpper = new Map<number, OverlayNode>();
  readonly #byLower = new Map<number, OverlayNode>();
  #last = 0;
  #journal: OverlayJournal | undefined;

  /** `drop` gives up what a node holds besides: its unfinished copy. */
  constructor(upper: Upper, drop: (node: OverlayNode) => void) {
    this.#upper = upper;
    this.#drop = drop;
  }

  get count(): number {
    return this.#byIno.size;
  }

  get(ino: Ino): OverlayNode | undefined {
    return this.#byIno.get(ino);
  }

  ofUpper(upper: Ino): OverlayNode | undefined {
    return this.#byUpper.get(upper);
  }

  ofLower(lower: Ino): OverlayNode | undefined {
    return this.#byLower.get(lower);
  }

  /** A node with one reference. It takes over the reference on `upper`. */
  add(fields: NewNode): OverlayNode {
    const ino = ++this.#last as Ino;
    const row = this.#journal?.take() ?? -1;
    if (this.#journal !== undefined) this.#journal.lastIno = ino;
    const node = this.restore({ ...fields, ino, row, isUnlinked: false });
    this.#note(node);
    return node;
  }

  /** A node as a journal has it, with one reference. It takes over the reference on `upper`. */
  restore(fields: NewNode & { ino: Ino; row: number; isUnlinked: boolean }): OverlayNode {
    const node: OverlayNode = { ...fields, references: 1, copy: undefined };
    if (node.parent !== undefined) node.parent.references++;
    this.#byIno.set(node.ino, node);
    if (node.upper !== NONE) this.#byUpper.set(node.upper, node);
    if (node.lower !== NONE) this.#byLower.set(node.lower, node);
    return node;
  }

  /** Keeps from now on what a successor needs of each node. The root, which is there already, needs nothing. */
  takeJournal(journal: OverlayJournal): void {
    this.#journal = journal;
    this.#last = Math.max(this.#last, journal.lastIno);
  }

  #note(node: OverlayNode): void {
    if (node.row < 0) return;
    const { row, ino, upper, lower, isUnlinked, record } = node;
    const parent = node.parent?.ino ?? 0;
    const isMetadata = record?.isMetadata === true;
    this.#journal?.put({ row, ino, upper, lower, parent, isUnlinked, isMetadata });
  }

  /** The node has no name left. */
  setUnlinked(node: OverlayNode): void {
    node.isUnlinked = true;
    this.#note(node);
  }

  /** Another record of a node that was copied up. */
  setRecord(node: OverlayNode, record: OverlayRecord): void {
    node.record = record;
    this.#note(node);
  }

  /** The node was copied up: takes over the reference on `upper`. A file needs its place no more. */
  setUpper(node: OverlayNode, upper: Ino, record: OverlayRecord): void {
    node.upper = upper;
    node.record = record;
    this.#byUpper.set(upper, node);
    if (node.type !== S_IFDIR) this.setParent(node, undefined, node.name);
    else this.#note(node);
  }

  setParent(node: OverlayNode, parent: OverlayNode | undefined, name: Name): void {
    const old = node.parent;
    if (parent !== undefined) parent.references++;
    node.parent = parent;
    node.name = name;
    this.#note(node);
    if (old !== undefined) this.release(old);
  }

  /** Gives back one reference; with the last one the node's parent may go as well. */
  release(node: OverlayNode): void {
    let next: OverlayNode | undefined = node;
    while (next !== undefined && --next.references === 0) {
      const gone: OverlayNode = next;
      next = gone.parent;
      this.#drop(gone);
      this.#byIno.delete(gone.ino);
      if (gone.row >= 0) this.#journal?.remove(gone.row);
      if (gone.lower !== NONE) this.#byLower.delete(gone.lower);
      if (gone.upper !== NONE) {
        this.#byUpper.delete(gone.upper);
        this.#upper.release(gone.upper);
      }
    }
  }

  /** Gives up what all nodes hold. */
  dispose(): void {
    for (const node of this.#byIno.values()) this.#drop(node);
    this.#byIno.clear();
  }
}

/** Whether a directory is `top` or lies below it. */
export function isWithin(directory: OverlayNode, top: OverlayNode): boolean {
  for (let at: OverlayNode | undefined = directory; at !== undefined; at = at.parent) {
    if (at === top) return true;
  }
  return false;
}
