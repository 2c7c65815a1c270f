// BlobReader: the blobs of one snapshot as the gofer reads them: whole ones by a host FD to donate, large ones that are
// still filling by block. A block is read only after the daemon said that it is verified and present; presence belongs to
// one partial file, by its unique name, so it can never be newer than its data. Data plane.

import { Errno } from "../base/errno.ts";
import { BLOCK_BYTES, DONATE_MAX_BYTES } from "../base/limits.ts";
import type { LocalObjects } from "../store/objects.ts";
import { native } from "../sys/native.ts";
import type { Answer, Mailbox } from "./mailbox.ts";
import { TouchedRows } from "./touches.ts";

/** Neither follow a link nor wait for a FIFO: the loop has one thread. man open(2). */
const O_NOFOLLOW = 0o400000;
const O_NONBLOCK = 0o4000;
/** Tries to open a file that the daemon is about to evict: it holds its lease for some microseconds. */
const OPEN_TRIES = 4;
/** Failures to open a blob that the daemon is asked about. */
const HELPED: readonly number[] = [
  -Errno.EAGAIN,
  -Errno.EIO,
  -Errno.ENOTDIR,
  -Errno.ELOOP,
  -Errno.EACCES,
];

/** Where a blob stands in its snapshot's index. */
export interface BlobPlace {
  /** Row in the blob table. */
  readonly row: number;
  /** The index's bytes and the offset of the blob's digest in them. */
  readonly bytes: Uint8Array;
  readonly digestOffset: number;
  readonly size: number;
}

/** A large blob with open files: the FD of the whole blob, or of one partial file and the blocks known in it. */
interface Large {
  users: number;
  readonly blocks: number;
  isWhole: boolean;
  /** -1 until something was read: a client that took the donated FD never asks. */
  fd: number;
  partialName: string;
  present: Uint8Array;
  /** Blocks that were read. */
  touched: Uint8Array;
}

/** Folders of the cache, by FDs that a reader takes; -errno where there is none. */
export interface BlobFolders {
  /** Of large blobs on their way. */
  readonly partialFd: number;
  /** The daemon's lazy mount. */
  readonly lazyFd: number;
}

const NONE = new Uint8Array(0);
/** Whole blobs that came along with answers and weren't taken yet: of requests that are run again in a moment. */
const HANDED_MAX = 64;

export class BlobReader {
  readonly #snapshot: number;
  readonly #objects: LocalObjects;
  #partialFd: number;
  readonly #mailbox: Mailbox;
  /** The daemon's lazy mount, ours; -1: it has none. */
  #lazyFd: number;
  /** By row: the lazy file that the daemon has just named, "" for none. */
  readonly #lazyNames = new Map<number, string>();
  readonly #large = new Map<number, Large>();
  readonly #handed = new Map<number, number>();
  readonly #touched = new TouchedRows();

  /** `snapshot` is the number by which the daemon knows the snapshot in this view (docs/protocol/mailbox.md). Takes objects and folders. */
  constructor(snapshot: number, objects: LocalObjects, folders: BlobFolders, mailbox: Mailbox) {
    this.#snapshot = snapshot;
    this.#objects = objects;
    this.#partialFd = folders.partialFd;
    this.#mailbox = mailbox;
    this.#lazyFd = folders.lazyFd;
  }

  /**
   * A host FD of the blob, the caller's own: of all of it, or of a lazy file; MISS when it was asked for and the request must wait;
   * -EAGAIN when it is not here and too large to wait for: then acquire it and read by block.
   */
  open(place: BlobPlace): number {
    const fd = this.#openWhole(place);
    // What is read by block is touched so.
    const isUnseen = fd >= 0 || place.size <= DONATE_MAX_BYTES || this.#lazyFd >= 0;
    if (isUnseen && this.#touched.isFirst(place.row)) this.#tell(place.row, 0, 0, fd >= 0);
    if (fd >= 0) return fd;
    if (fd !== -Errno.ENOENT && fd !== -Errno.ESTALE) return fd;
    if (place.size > DONATE_MAX_BYTES) return this.#openLazy(place.row);
    return this.#mailbox.askBlob(this.#snapshot, place.row, this);
  }

  #tell(row: number, first: number, count: number, isLocal: boolean): void {
    const { touches } = this.#mailbox;
    touches.add(this.#snapshot, row, first, count, isLocal);
    if (touches.isFull) this.#mailbox.sendTouches();
  }

  /** Blocks [first, last] of a large blob are read: those of them tell that weren't yet. */
  #touchBlocks(row: number, large: Large, first: number, last: number, isLocal: boolean): void {
    if (large.touched === NONE) large.touched = new Uint8Array(large.blocks);
    let from = first;
    while (from <= last && large.touched[from] === 1) from++;
    if (from > last) return;
    large.touched.fill(1, from, last + 1);
    this.#tell(row, from, last + 1 - from, isLocal);
  }

  /** Whether the whole blob is on this node. Asks nobody. */
  isHere(place: BlobPlace): boolean {
    const fd = this.#objects.openDigest(place.bytes, place.digestOffset, place.size);
    if (fd >= 0) native.closeFd(fd);
    return fd >= 0;
  }

  /**
   * Opens a lazy file right after the daemon named it: it has the file open, so the kernel knows all that an open needs and asks
   * nobody. -EAGAIN where there is none.
   */
  #openLazy(row: number): number {
    if (this.#lazyFd < 0) return -Errno.EAGAIN;
    const name = this.#lazyNames.get(row);
    if (name === undefined) return this.#mailbox.askLazy(this.#snapshot, row, this);
    this.#lazyNames.delete(row);
    if (name === "") return -Errno.EAGAIN;
    const fd = native.openAt(this.#lazyFd, name, O_NOFOLLOW | O_NONBLOCK, 0);
    return fd < 0 ? -Errno.EAGAIN : fd;
  }

  learnLazy(row: number, name: string): void {
    this.#lazyNames.set(row, name);
  }

  /** Counts one open file of a large blob, whole or not: 0. Pairs with release. */
  acquire(place: BlobPlace): number {
    const known = this.#large.get(place.row);
    if (known !== undefined) {
      known.users++;
      return 0;
    }
    const blocks = Math.ceil(place.size / BLOCK_BYTES);
    this.#large.set(place.row, {
      users: 1,
      blocks,
      isWhole: false,
      fd: -1,
      partialName: "",
      present: NONE,
      touched: NONE,
    });
    return 0;
  }

  release(row: number): void {
    const large = this.#large.get(row);
    if (large === undefined || --large.users > 0) return;
    if (large.fd >= 0) native.closeFd(large.fd);
    this.#large.delete(row);
  }

  /** Reads a large blob: bytes, MISS, -EIO. `offset` + out.length lie within the blob. */
  read(place: BlobPlace, offset: number, out: Uint8Array): number {
    const large = this.#large.get(place.row);
    if (large === undefined) return -Errno.EBADF;
    const first = Math.floor(offset / BLOCK_BYTES);
    const last = Math.floor((offset + out.length - 1) / BLOCK_BYTES);
    for (let block = first; block <= last && !large.isWhole; block++) {
      if (large.present[block]) continue;
      const whole = this.#openWhole(place);
      if (whole >= 0) {
        this.#settle(large, whole);
        break;
      }
      this.#touchBlocks(place.row, large, first, last, false);
      return this.#mailbox.askBlocks(this.#snapshot, place.row, block, last - block + 1, this);
    }
    this.#touchBlocks(place.row, large, first, last, true);
    return readAll(large.fd, offset, out);
  }

  /**
   * A host FD of the whole blob, or -errno: -ENOENT also when it is being evicted, its disk fails or its folder is none, which the daemon
   * may help. Whatever keeps us from it, it is no news of the sandbox's own file.
   */
  #openWhole(place: BlobPlace): number {
    let fd = this.#handed.get(place.row) ?? -1;
    if (fd >= 0) {
      this.#handed.delete(place.row);
      return fd;
    }
    let tries = 0;
    do fd = this.#objects.openDigest(place.bytes, place.digestOffset, place.size);
    while (fd === -Errno.EAGAIN && ++tries < OPEN_TRIES);
    if (HELPED.includes(fd)) return -Errno.ENOENT;
    return fd === -Errno.EPERM ? -Errno.EIO : fd;
  }

  /** From now on the blob is read from its whole, sealed file. */
  #settle(large: Large, fd: number): void {
    if (large.fd >= 0) native.closeFd(large.fd);
    large.fd = fd;
    large.isWhole = true;
  }

  /** The mailbox brings the answer to askBlocks before the request is run again: 0 or -errno. */
  learn(row: number, first: number, count: number, answer: Answer): number {
    const { name, hostFd } = answer;
    if (name === "") {
      if (hostFd >= 0) this.#hand(row, hostFd);
      return 0;
    }
    const large = this.#large.get(row);
    if (large === undefined || large.isWhole || large.partialName === name) {
      if (hostFd >= 0) native.closeFd(hostFd);
      if (large === undefined || large.isWhole) return 0;
    } else {
      const fd = hostFd >= 0 ? hostFd : this.#openPartial(name);
      // It became whole, or its daemon died, since the answer was sent: the next run finds out.
      if (fd < 0) return fd === -Errno.ENOENT ? 0 : fd;
      if (large.fd >= 0) native.closeFd(large.fd);
      large.fd = fd;
      large.partialName = name;
      if (large.present === NONE) large.present = new Uint8Array(large.blocks);
      else large.present.fill(0);
    }
    large.present.fill(1, first, first + count);
    return 0;
  }

  #openPartial(name: string): number {
    if (this.#partialFd < 0) return this.#partialFd;
    return native.openAt(this.#partialFd, name, O_NOFOLLOW | O_NONBLOCK, 0);
  }

  /** Keeps a whole blob that isn't in the cache directory until the request that waits for it is run again. */
  #hand(row: number, fd: number): void {
    const older = this.#handed.get(row);
    if (older !== undefined) native.closeFd(older);
    this.#handed.delete(row);
    this.#handed.set(row, fd);
    for (const [oldest, held] of this.#handed) {
      if (this.#handed.size <= HANDED_MAX) break;
      native.closeFd(held);
      this.#handed.delete(oldest);
    }
  }

  dispose(): void {
    for (const fd of this.#handed.values()) native.closeFd(fd);
    this.#handed.clear();
    for (const large of this.#large.values()) if (large.fd >= 0) native.closeFd(large.fd);
    this.#large.clear();
    for (const fd of [this.#lazyFd, this.#partialFd]) if (fd >= 0) native.closeFd(fd);
    this.#lazyFd = this.#partialFd = -1;
    this.#objects.dispose();
  }
}

/** Reads exactly out.length bytes: fewer means that the file is shorter than its verified size: -EIO. */
function readAll(fd: number, offset: number, out: Uint8Array): number {
  let done = 0;
  while (done < out.length) {
    const got = native.preadFd(fd, done === 0 ? out : out.subarray(done), offset + done);
    if (got === -Errno.EINTR) continue;
    if (got <= 0) return -Errno.EIO;
    done += got;
  }
  return done;
}
