// FidTable: the fids of one 9P session and the places in trees that they stand for. A place knows how it was reached, which is what
// ".." and messages that name a file by its fid alone need; a tree is never asked for a parent, so none leads out of it. Data plane.

import { Errno } from "../../base/errno.ts";
import type { Name } from "../../base/name.ts";
import { native } from "../../sys/native.ts";
import type { Ino, Tree } from "../../tree/tree.ts";
import type { ServedView } from "./view.ts";

export const FidKind = { walked: 0, file: 1, directory: 2, xattr: 3, newXattr: 4 } as const;
export type FidKind = (typeof FidKind)[keyof typeof FidKind];

/** A file as it was walked to. Holds one reference on its inode and one on its parent. */
export interface Place {
  readonly ino: Ino;
  parent: Place | undefined;
  name: Name;
  references: number;
}

export interface Fid {
  readonly view: ServedView;
  /** Whom Tattach named: owner of what is created. */
  readonly uid: number;
  place: Place;
  kind: FidKind;
  /** The tree's, of an open file or directory. */
  handle: number;
  /** O_ACCMODE of an open file. */
  access: number;
  /** The blob of an open file, read without asking the tree again; -1: none. */
  hostFd: number;
  /** Of a directory: the tree's position and how many dentries were given up to it. */
  cookie: number;
  offset: number;
  /** Of an attribute: its value or list, or what is to be set. */
  bytes: Buffer | undefined;
  /** Of one to be set. */
  name: string;
  flags: number;
  written: number;
}

/** What one session may hold. */
export interface FidLimits {
  readonly fids: number;
  readonly places: number;
  /** Of stateful trees: places, each of which costs an FD at most, and open files and directories, each of which costs one. */
  readonly statefulPlaces: number;
  readonly statefulHandles: number;
  /** Blobs held open. */
  readonly hostFds: number;
  /** Bytes of attributes. */
  readonly attributeBytes: number;
}

export class FidTable {
  readonly #fids = new Map<number, Fid>();
  readonly #limits: FidLimits;
  #placeCount = 0;
  #statefulPlaceCount = 0;
  #statefulHandleCount = 0;
  #hostFdCount = 0;
  #attributeBytes = 0;

  constructor(limits: FidLimits) {
    this.#limits = limits;
  }

  get(fid: number): Fid | undefined {
    return this.#fids.get(fid);
  }

  get size(): number {
    return this.#fids.size;
  }

  /** Whether one more fid and so many places in a tree have room. Ask before a side effect that ends in one. */
  hasRoom(tree: Tree, places: number): boolean {
    return this.#fids.size < this.#limits.fids && this.hasPlaces(tree, places);
  }

  /** Whether so many places have room, for a fid that stays. */
  hasPlaces(tree: Tree, places: number): boolean {
    const { places: max, statefulPlaces } = this.#limits;
    const isStateful = !tree.isStateless;
    return (
      this.#placeCount + places <= max &&
      !(isStateful && this.#statefulPlaceCount + places > statefulPlaces)
    );
  }

  /** Whether one more file or directory of a tree may be open. Ask before the tree opens it. */
  hasHandleRoom(tree: Tree): boolean {
    return tree.isStateless || this.#statefulHandleCount < this.#limits.statefulHandles;
  }

  /** The fid is open now: the tree's handle goes with it. */
  setOpen(
    fid: Fid,
    kind: typeof FidKind.file | typeof FidKind.directory,
    handle: number,
    access: number,
  ): void {
    if (!fid.view.tree.isStateless) this.#statefulHandleCount++;
    fid.kind = kind;
    fid.handle = handle;
    fid.access = access;
    fid.cookie = 0;
    fid.offset = 0;
  }

  /** A place for an inode whose reference it takes over, with one reference for the caller. */
  makePlace(tree: Tree, ino: Ino, parent: Place | undefined, name: Name): Place {
    if (parent !== undefined) parent.references++;
    this.#placeCount++;
    if (!tree.isStateless) this.#statefulPlaceCount++;
    return { ino, parent, name, references: 1 };
  }

  /** Gives back one reference of a place, and what hangs on it. */
  releasePlace(tree: Tree, place: Place): void {
    for (let at: Place | undefined = place; at !== undefined; at = at.parent) {
      if (--at.references > 0) return;
      this.#placeCount--;
      if (!tree.isStateless) this.#statefulPlaceCount--;
      tree.release(at.ino);
    }
  }

  /** A fid at a place, whose reference it takes over. */
  insert(number: number, view: ServedView, uid: number, place: Place): Fid {
    const fid: Fid = {
      view,
      uid,
      place,
      kind: FidKind.walked,
      handle: -1,
      access: 0,
      hostFd: -1,
      cookie: 0,
      offset: 0,
      bytes: undefined,
      name: "",
      flags: 0,
      written: 0,
    };
    this.#fids.set(number, fid);
    return fid;
  }

  /** Moves a fid to another place, whose reference it takes over. */
  move(fid: Fid, place: Place): void {
    const old = fid.place;
    fid.place = place;
    this.releasePlace(fid.view.tree, old);
  }

  /** Keeps a blob's FD, which it takes, for reads; closed at once when there are enough: the tree is read then. */
  keepHostFd(fid: Fid, hostFd: number): void {
    if (this.#hostFdCount >= this.#limits.hostFds) {
      native.closeFd(hostFd);
      return;
    }
    this.#hostFdCount++;
    fid.hostFd = hostFd;
  }

  /** Gives a fid so many bytes for an attribute: 0 or -ENOMEM. */
  giveBytes(fid: Fid, bytes: number): number {
    if (this.#attributeBytes + bytes > this.#limits.attributeBytes) return -Errno.ENOMEM;
    this.#attributeBytes += bytes;
    fid.bytes = Buffer.alloc(bytes);
    return 0;
  }

  /** Frees a fid and all that it has. */
  remove(number: number): void {
    const fid = this.#fids.get(number);
    if (fid === undefined) return;
    this.#fids.delete(number);
    const { tree, locks } = fid.view;
    const { ino } = fid.place;
    const isOpen = fid.kind === FidKind.file || fid.kind === FidKind.directory;
    if (isOpen && !tree.isStateless) this.#statefulHandleCount--;
    if (fid.kind === FidKind.file) {
      if (fid.hostFd >= 0) {
        this.#hostFdCount--;
        native.closeFd(fid.hostFd);
      }
      locks.releaseFid(ino, fid);
      tree.close(ino, fid.handle);
    } else if (fid.kind === FidKind.directory) {
      tree.closedir(ino, fid.handle);
    }
    if (fid.bytes !== undefined) this.#attributeBytes -= fid.bytes.length;
    this.releasePlace(tree, fid.place);
  }

  /** Frees all. */
  clear(): void {
    for (const number of [...this.#fids.keys()]) this.remove(number);
  }
}
