// Directories of a host tree: listing by getdents64 through one bounded buffer. Cookies are ordinals, since a
// position of the host is 64 bits (a hash on ext4) and would not fit a number. Data plane.
//
// A dentry that another file system is mounted on is listed with the inode number beneath the mount, as by Linux.

import { latin1At } from "../base/bytes.ts";
import { OPEN_DIRS_MAX } from "../base/limits.ts";
import { DENTS_START, Dirent64, hostFs, StatField } from "../sys/hostfs.ts";
import { native } from "../sys/native.ts";
import type { FdShare } from "./fd-share.ts";
import { HostHandles } from "./host-handles.ts";
import type { HostNode, HostNodes } from "./host-nodes.ts";
import { shownType } from "./shown-types.ts";
import type { DirentSink } from "./tree.ts";

/** About 1,000 dentries of usual length a call: what glibc's readdir takes too. */
const BUFFER_BYTES = 32 * 1024;
const TWO_32 = 2 ** 32;
/** Bits of the upper word of an inode number that fit a number with the lower one. */
const HIGH_BITS = 21;
/** The position of a directory's start. */
const START = new Uint8Array(8);

export class HostDirectories {
  readonly #nodes: HostNodes;
  readonly #stat: Float64Array;
  readonly #handles: HostHandles;
  readonly #buffer = Buffer.alloc(BUFFER_BYTES);

  /** `stat` is the tree's scratch, `share` its FDs. */
  constructor(nodes: HostNodes, stat: Float64Array, share: FdShare) {
    this.#handles = new HostHandles(OPEN_DIRS_MAX, share);
    this.#nodes = nodes;
    this.#stat = stat;
  }

  get hasRoom(): boolean {
    return this.#handles.hasRoom;
  }

  /** A handle for a directory's FD, which it takes. */
  take(fd: number): number {
    return this.#handles.take(fd);
  }

  close(handle: number): void {
    this.#handles.close(handle);
  }

  /** fsync(2): the names are on the disk. */
  sync(handle: number): number {
    const fd = this.#handles.get(handle);
    return fd < 0 ? fd : hostFs.syncFd(fd);
  }

  dispose(): void {
    this.#handles.dispose();
  }

  /**
   * Tree.readdir. Going on costs nothing; any cookie but 0 and the last one given rereads the directory up to it.
   * The sink must not list another directory of this tree.
   */
  read(node: HostNode, handle: number, cookie: number, sink: DirentSink): number {
    const fd = this.#handles.get(handle);
    if (fd < 0) return fd;
    const positions = this.#handles.positions;
    let position = positions[handle]!;
    let toSkip = 0;
    if (cookie !== position) {
      const failed = hostFs.seekDents(fd, START, 0);
      if (failed < 0) return failed;
      position = 0;
      toSkip = cookie;
    }
    // Until this call is through, the FD stands somewhere else than any cookie says.
    positions[handle] = -1;
    const buffer = this.#buffer;
    for (;;) {
      const bytes = hostFs.readDents(fd, buffer);
      if (bytes < 0) return bytes;
      if (bytes === 0) break;
      const end = DENTS_START + bytes;
      let before = 0;
      for (let at = DENTS_START; at < end; at += buffer.readUInt16LE(at + Dirent64.length)) {
        const name = nameAt(buffer, at);
        if (name !== "." && name !== "..") {
          if (toSkip > 0) toSkip--;
          else if (!this.#offer(node, fd, at, name, sink)) {
            const failed = hostFs.seekDents(fd, buffer, before);
            if (failed < 0) return failed;
            positions[handle] = position;
            return position;
          }
          position++;
        }
        before = at + Dirent64.next;
      }
    }
    // A cookie from before names were removed may lie past the end: it stays the end.
    const end = Math.max(position, cookie);
    // The end of an empty directory is no start: who begins again must see what was made since.
    positions[handle] = end === 0 ? -1 : end;
    return end;
  }

  #offer(node: HostNode, fd: number, at: number, name: string, sink: DirentSink): boolean {
    const buffer = this.#buffer;
    const high = buffer.readUInt32LE(at + Dirent64.ino + 4);
    const upper = high >>> HIGH_BITS;
    const ino = (high & ((1 << HIGH_BITS) - 1)) * TWO_32 + buffer.readUInt32LE(at + Dirent64.ino);
    const devMinor = this.#nodes.siblingDevice(node, upper);
    if (devMinor < 0) return true; // no number for it: left out, as a lookup of it fails
    const type = buffer[at + Dirent64.type]! || this.#typeOf(fd, name);
    // S_IFMT >> 12 is DT_*. <dirent.h> IFTODT
    const shown = this.#nodes.isUpper ? shownType(type << 12) >>> 12 : type;
    return sink(ino, devMinor, shown, name);
  }

  /** DT_* of a name on a file system whose getdents doesn't tell; 0 when it is gone. */
  #typeOf(fd: number, name: string): number {
    const child = hostFs.lookupAt(fd, name, this.#stat);
    if (child < 0) return 0;
    native.closeFd(child);
    return this.#stat[StatField.mode]! >>> 12;
  }
}

function nameAt(buffer: Buffer, record: number): string {
  const start = record + Dirent64.name;
  let end = start;
  while (buffer[end] !== 0) end++;
  return latin1At(buffer, start, end);
}
