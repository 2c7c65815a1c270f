// HostNodes: the live inodes of a host tree, each an O_PATH FD with a count of references. One file is one node while
// it lives: nodes are keyed by the host's (device, inode number), which the FD pins. Data plane.
//
// Two mounts of one directory beneath the root are one node, reached through the mount that was walked first.

import { assert } from "../base/assert.ts";
import { Errno } from "../base/errno.ts";
import { S_IFMT } from "../base/file-types.ts";
import { CONTROL_FDS_MAX } from "../base/limits.ts";
import { hostFs, StatField } from "../sys/hostfs.ts";
import { native } from "../sys/native.ts";
import { FdShare } from "./fd-share.ts";
import type { HostHandles } from "./host-handles.ts";
import type { NodeJournal } from "./node-journal.ts";
import { shownType } from "./shown-types.ts";
import type { Ino } from "./tree.ts";

/**
 * Slots of nodes. An Ino is a generation times this, plus the slot: found without a map, and never used again for
 * another file, since each use of a slot is a new generation (2^37 of them). A power of two: see SLOT_MASK.
 */
const SLOTS = CONTROL_FDS_MAX;
const SLOT_MASK = SLOTS - 1;
/**
 * Device numbers we mint. One stands for a device of the host and the 11 upper bits of an inode number, so that
 * (ino, devMinor) is exact where inode numbers pass 2^53 (overlayfs with xino, some network file systems).
 */
const DEVICES_MAX = 4096;

/** A live inode. Borrow it within one call: the object is used again for another file after release. */
export interface HostNode {
  ino: Ino;
  /** O_PATH; -1 in a free slot. */
  fd: number;
  references: number;
  /** S_IFMT of its mode as it is shown: never changes while the FD pins the inode. */
  type: number;
  /** Low 53 bits of the host's inode number, and the number of our device: Attr's ino and devMinor. */
  hostIno: number;
  devMinor: number;
}

interface Device {
  readonly major: number;
  readonly minor: number;
  readonly inoHigh: number;
  readonly nodes: Map<number, HostNode>;
}

/** What the functions that work on a host tree share. */
export interface HostParts {
  readonly nodes: HostNodes;
  /** Open files. */
  readonly files: HostHandles;
  /** What both, and open directories, may hold of FDs. */
  readonly share: FdShare;
  /** FD of /proc/self/fd, kept from before a chroot: O_PATH FDs are reopened through it. */
  readonly procFd: number;
  /** Scratch, filled and used within one call. */
  readonly stat: Float64Array;
}

export class HostNodes {
  readonly #slots: HostNode[] = [];
  readonly #free: number[] = [];
  /** By devMinor; 0 is never used. */
  readonly #devices: (Device | undefined)[] = [undefined];
  #count = 0;
  #journal: NodeJournal | undefined;
  readonly #share: FdShare;
  /** Of an overlay's upper or a tmpfs of ours, which keeps devices and whiteouts by other types. */
  readonly isUpper: boolean;
  readonly #restored: HostNode[] = [];

  constructor(share = new FdShare(), isUpper = false) {
    this.#share = share;
    this.isUpper = isUpper;
    assert((SLOTS & SLOT_MASK) === 0, "CONTROL_FDS_MAX is a power of two");
  }

  /** Live nodes, each one FD. */
  get count(): number {
    return this.#count;
  }

  /** Whether one more node has room. Ask before a side effect that ends in one. */
  get hasRoom(): boolean {
    return this.#count < SLOTS && this.#share.hasRoom(1);
  }

  get(ino: Ino): HostNode | undefined {
    const node = this.#slots[ino & SLOT_MASK];
    return node !== undefined && node.ino === ino && node.references > 0 ? node : undefined;
  }

  /**
   * The Ino of the inode behind an O_PATH FD with these attributes, with one more reference. Takes the FD, whatever
   * comes of it. -EMFILE when there is no room, -EOVERFLOW past DEVICES_MAX.
   */
  take(fd: number, stat: Float64Array): number {
    const devMinor = this.deviceOf(
      stat[StatField.devMajor]!,
      stat[StatField.devMinor]!,
      stat[StatField.inoHigh]!,
    );
    const hostIno = stat[StatField.ino]!;
    const nodes = this.#devices[devMinor < 0 ? 0 : devMinor]?.nodes;
    const known = nodes?.get(hostIno);
    if (nodes === undefined || known !== undefined || !this.hasRoom) {
      native.closeFd(fd);
      if (nodes === undefined) return devMinor;
      if (known === undefined) return -Errno.EMFILE;
      known.references++;
      return known.ino;
    }
    const node = this.#slots[this.#free.pop() ?? -1] ?? this.#addSlot();
    node.ino = (node.ino + SLOTS) as Ino;
    this.#fill(node, fd, stat, devMinor);
    this.#journal?.put(node.ino & SLOT_MASK, node.ino, hostIno, fd);
    return node.ino;
  }

  #fill(node: HostNode, fd: number, stat: Float64Array, devMinor: number): void {
    node.fd = fd;
    node.references = 1;
    const type = stat[StatField.mode]! & S_IFMT;
    node.type = this.isUpper ? shownType(type) : type;
    node.hostIno = stat[StatField.ino]!;
    node.devMinor = devMinor;
    this.#devices[devMinor]!.nodes.set(node.hostIno, node);
    this.#count++;
    this.#share.held++;
  }

  /**
   * Keeps from now on what a successor needs to find each inode. A predecessor's (isResumed) that are found on the root's mount live
   * again, with one reference each, until settle. Before anything lives but the root and what every server looks up first, in one order.
   */
  takeJournal(journal: NodeJournal, isResumed: boolean, rootFd: number, stat: Float64Array): void {
    this.#journal = journal;
    if (!isResumed) return;
    journal.forEach(rootFd, (ino, hostIno, fd) => {
      const slot = ino & SLOT_MASK;
      const failed = hostFs.statNode(fd, stat);
      const devMinor = this.deviceOf(
        stat[StatField.devMajor]!,
        stat[StatField.devMinor]!,
        stat[StatField.inoHigh]!,
      );
      while (this.#slots.length <= slot) this.#addSlot();
      const node = this.#slots[slot]!;
      const isSame = failed === 0 && devMinor > 0 && stat[StatField.ino] === hostIno;
      if (!isSame || node.references > 0 || !this.hasRoom) {
        native.closeFd(fd);
        return false;
      }
      node.ino = ino as Ino;
      this.#fill(node, fd, stat, devMinor);
      this.#restored.push(node);
      return true;
    });
    this.#free.length = 0; // slots that were used before, and may be a predecessor's
    for (const [slot, node] of this.#slots.entries()) {
      if (node.references === 0) this.#free.push(slot);
    }
  }

  /** Lets go of a predecessor's inodes that nobody has acquired. */
  settle(): void {
    for (const node of this.#restored.splice(0)) this.release(node);
  }

  #addSlot(): HostNode {
    const ino = this.#slots.length as Ino;
    const node = { ino, fd: -1, references: 0, type: 0, hostIno: 0, devMinor: 0 };
    this.#slots.push(node);
    return node;
  }

  /** Our number of a host device and the upper bits of an inode number on it: stable while the tree lives. */
  deviceOf(major: number, minor: number, inoHigh: number): number {
    const devices = this.#devices;
    for (let i = 1; i < devices.length; i++) {
      const device = devices[i]!;
      if (device.minor === minor && device.inoHigh === inoHigh && device.major === major) return i;
    }
    if (devices.length > DEVICES_MAX) return -Errno.EOVERFLOW;
    return devices.push({ major, minor, inoHigh, nodes: new Map() }) - 1;
  }

  /** Our number of the device of `node` for an inode number with other upper bits (a dentry's). */
  siblingDevice(node: HostNode, inoHigh: number): number {
    const device = this.#devices[node.devMinor]!;
    if (device.inoHigh === inoHigh) return node.devMinor;
    return this.deviceOf(device.major, device.minor, inoHigh);
  }

  release(node: HostNode): void {
    node.references--;
    if (node.references > 0) return;
    native.closeFd(node.fd);
    this.#journal?.remove(node.ino & SLOT_MASK);
    node.fd = -1;
    this.#devices[node.devMinor]!.nodes.delete(node.hostIno);
    this.#free.push(node.ino & SLOT_MASK);
    this.#count--;
    this.#share.held--;
  }

  /** Closes all nodes, referenced or not. Idempotent. */
  dispose(): void {
    for (const node of this.#slots) {
      if (node.references === 0) continue;
      node.references = 1;
      this.release(node);
    }
  }
}
