// SnapshotTree: one immutable snapshot as a tree. Walk, stat, readdir and readlink are answered from the mapped index:
// no I/O and nothing allocated. Inode numbers are rows of the index, so the tree is stateless. Data plane.

import { StatxWord } from "../base/attr.ts";
import { digestAt } from "../base/digest.ts";
import { Errno } from "../base/errno.ts";
import { S_IFDIR, S_IFMT, S_IFREG } from "../base/file-types.ts";
import { BLOCK_BYTES, BLOCK_DIGESTS_OVER_BYTES, DONATE_MAX_BYTES } from "../base/limits.ts";
import type { Name } from "../base/name.ts";
import type { BlobPlace, BlobReader } from "../cache/blocks.ts";
import { Inode } from "../layer/format.ts";
import type { Index } from "../layer/index.ts";
import { openAnew } from "../sys/fence.ts";
import { native } from "../sys/native.ts";
import type { ExplainedTree } from "./explanation.ts";
import {
  type Attr,
  type DirentSink,
  type Ino,
  O_RDONLY,
  type OpenResult,
  type StatFs,
  type Tree,
  UNKNOWN_HANDLE,
} from "./tree.ts";

/** Inode numbers of the snapshots of one view: number * 2^32 + row. */
export const SNAPSHOT_INO_STEP = 2 ** 32;
const BLOCK_SIZE = 4096;
const TWO_32 = 2 ** 32;
/** Fields of an inode's row in words. */
const SIZE = Inode.size >> 2;
const MODE = Inode.mode >> 2;
const NLINK = Inode.nlink >> 2;
const UID = Inode.uid >> 2;
const GID = Inode.gid >> 2;
const MTIME = Inode.mtimeSec >> 2;
const MTIME_NS = Inode.mtimeNs >> 2;

/** Size in bytes, by its halves, and blocks of 512 bytes. */
function setSize(words: Uint32Array, low: number, high: number): void {
  words[StatxWord.size] = low;
  words[StatxWord.size + 1] = high;
  const isSmall = high === 0 && low <= 0x7fff_fe00;
  words[StatxWord.blocks] = isSmall ? (low + 511) >>> 9 : Math.ceil((high * TWO_32 + low) / 512);
  words[StatxWord.blocks + 1] = isSmall ? 0 : Math.floor((high * TWO_32 + low) / (512 * TWO_32));
}

function setTime(words: Uint32Array, at: number, low: number, high: number, ns: number): void {
  words[at] = low;
  words[at + 1] = high;
  words[at + 2] = ns;
}
/** Handle of an open file of at most DONATE_MAX_BYTES, which was donated: nothing to give back. */
const SMALL = 0;
/** Handle of a larger one, which is read by block unless its client took the whole that was donated: the reader counts it. */
const LARGE = 1;

interface MutablePlace {
  row: number;
  bytes: Uint8Array;
  digestOffset: number;
  size: number;
}

export class SnapshotTree implements Tree, ExplainedTree {
  readonly isReadOnly = true;
  readonly isStateless = true;
  readonly rootIno: Ino;
  /** Device number: grafts differ by it, so (ino, dev) is unique in a view. */
  readonly devMinor: number;
  readonly #index: Index;
  readonly #blobs: BlobReader;
  readonly #number: number;
  readonly #inoBase: number;
  readonly #place: MutablePlace;
  #emptyFd: number;
  #bytesInAll = -1;

  /** `number`: its place among the snapshots of a view, 0 for the base. */
  constructor(number: number, index: Index, blobs: BlobReader) {
    this.#index = index;
    this.#blobs = blobs;
    this.#number = number;
    this.#inoBase = number * SNAPSHOT_INO_STEP;
    this.devMinor = number + 1;
    this.rootIno = (this.#inoBase + 1) as Ino;
    this.#place = { row: 0, bytes: index.bytes, digestOffset: 0, size: 0 };
    this.#emptyFd = openEmpty();
  }

  #row(ino: Ino): number {
    return this.#index.row(ino - this.#inoBase);
  }

  lookup(dir: Ino, name: Name): number {
    const row = this.#row(dir);
    if (row < 0) return row;
    const found = this.#index.lookup(row, name);
    return found < 0 ? found : this.#inoBase + found;
  }

  acquire(ino: Ino): number {
    const row = this.#row(ino);
    return row < 0 ? row : 0;
  }

  release(): void {}

  getattr(ino: Ino, out: Attr): number {
    const index = this.#index;
    const local = ino - this.#inoBase;
    const row = index.row(local);
    if (row < 0) return row;
    const from = index.words;
    const to = out.words;
    const mode = from[row + MODE]!;
    to[StatxWord.blockSize] = BLOCK_SIZE;
    to[StatxWord.mode] = mode;
    to[StatxWord.nlink] = from[row + NLINK]!;
    to[StatxWord.uid] = from[row + UID]!;
    to[StatxWord.gid] = from[row + GID]!;
    to[StatxWord.rdevMajor] = 0;
    to[StatxWord.rdevMinor] = 0;
    to[StatxWord.devMajor] = 0;
    to[StatxWord.devMinor] = this.devMinor;
    to[StatxWord.ino] = local | 0;
    to[StatxWord.ino + 1] = this.#number;
    if ((mode & S_IFMT) === S_IFDIR) setSize(to, BLOCK_SIZE, 0);
    else setSize(to, from[row + SIZE]!, from[row + SIZE + 1]!);
    const low = from[row + MTIME]!;
    const high = from[row + MTIME + 1]!;
    const ns = from[row + MTIME_NS]!;
    setTime(to, StatxWord.atimeSec, low, high, ns);
    setTime(to, StatxWord.ctimeSec, low, high, ns);
    setTime(to, StatxWord.mtimeSec, low, high, ns);
    return 0;
  }

  fgetattr(ino: Ino, _handle: number, out: Attr): number {
    return this.getattr(ino, out);
  }

  readlink(ino: Ino, out: Uint8Array): number {
    const row = this.#row(ino);
    return row < 0 ? row : this.#index.readlink(row, out);
  }

  opendir(ino: Ino): number {
    const row = this.#row(ino);
    if (row < 0) return row;
    const first = this.#index.firstDirent(row);
    return first < 0 ? first : 0;
  }

  readdir(ino: Ino, _handle: number, cookie: number, sink: DirentSink): number {
    const index = this.#index;
    const row = this.#row(ino);
    if (row < 0) return row;
    const first = index.firstDirent(row);
    if (first < 0) return first;
    const count = index.field(row, Inode.b);
    let at = cookie;
    while (at < count) {
      const child = index.direntIno(first + at);
      const name = index.direntName(first + at);
      if (child < 0 || name === "") return -Errno.EIO;
      const type = index.direntType(first + at);
      if (!sink(this.#inoBase + child, this.devMinor, type, name)) break;
      at++;
    }
    return at;
  }

  closedir(): void {}

  /** The blob of a regular file's row into the one place record; -EIO when the index contradicts itself. */
  #locate(row: number): BlobPlace | number {
    const index = this.#index;
    const mode = index.field(row, Inode.mode);
    if ((mode & S_IFMT) === S_IFDIR) return -Errno.EISDIR;
    if ((mode & S_IFMT) !== S_IFREG) return -Errno.ENXIO;
    const place = this.#place;
    place.row = index.field(row, Inode.a);
    place.digestOffset = index.blobRow(place.row);
    if (place.digestOffset < 0) return place.digestOffset;
    const size = index.sizeAt(row);
    place.size = size;
    if (index.blobSize(place.row) !== size) return -Errno.EIO;
    // What a large file costs is bounded by the digests in the index, not by the size that it claims; of one without any, which a pinned
    // object may be, by the daemon: it answers for no other, and until it does a file costs nothing.
    const blocks = index.blockCount(place.row);
    const isCut = size > BLOCK_DIGESTS_OVER_BYTES && blocks > 0;
    return isCut && blocks !== Math.ceil(size / BLOCK_BYTES) ? -Errno.EIO : place;
  }

  open(ino: Ino, flags: number, out: OpenResult): number {
    if (flags !== O_RDONLY) return -Errno.EROFS;
    const row = this.#row(ino);
    if (row < 0) return row;
    const place = this.#locate(row);
    if (typeof place === "number") return place;
    if (place.size === 0) return this.#openEmpty(out);
    const fd = this.#blobs.open(place);
    if (fd < 0 && fd !== -Errno.EAGAIN) return fd;
    out.handle = place.size > DONATE_MAX_BYTES ? LARGE : SMALL;
    out.hostFd = fd < 0 ? -1 : fd;
    out.ownsFd = true;
    return out.handle === LARGE ? this.#blobs.acquire(place) : 0;
  }

  /** Empty files need no blob: one empty, sealed memfd serves them all, O_RDONLY as any other donated file. */
  #openEmpty(out: OpenResult): number {
    if (this.#emptyFd < 0) return this.#emptyFd;
    out.handle = SMALL;
    out.hostFd = this.#emptyFd;
    out.ownsFd = false;
    return 0;
  }

  read(ino: Ino, handle: number, offset: number, out: Uint8Array): number {
    const row = this.#row(ino);
    if (row < 0) return row;
    const place = this.#locate(row);
    if (typeof place === "number") return place;
    if (offset >= place.size || out.length === 0) return 0;
    const rest = place.size - offset;
    const wanted = rest < out.length ? out.subarray(0, rest) : out;
    return handle === LARGE
      ? this.#blobs.read(place, offset, wanted)
      : this.#readWhole(place, offset, wanted);
  }

  /** PRead of a small file that was donated: a client that did not take the FD, or lost it. MISS when it was evicted since. */
  #readWhole(place: BlobPlace, offset: number, out: Uint8Array): number {
    const fd = this.#blobs.open(place);
    if (fd < 0) return fd;
    const got = native.preadFd(fd, out, offset);
    native.closeFd(fd);
    return got;
  }

  close(ino: Ino, handle: number): void {
    if (handle !== LARGE) return;
    const row = this.#row(ino);
    if (row > 0) this.#blobs.release(this.#index.field(row, Inode.a));
  }

  /** Counts again an open large file of a predecessor's. */
  reopen(ino: Ino, _isDirectory: boolean, _access: number, handle: number): number {
    const row = this.#row(ino);
    if (row < 0 || handle === SMALL) return row < 0 ? row : handle;
    const place = this.#locate(row);
    if (typeof place === "number") return place;
    if (handle === UNKNOWN_HANDLE && place.size <= DONATE_MAX_BYTES) return SMALL;
    this.#blobs.acquire(place);
    return LARGE;
  }

  statfs(_ino: Ino, out: StatFs): number {
    if (this.#bytesInAll < 0) {
      this.#bytesInAll = 0;
      for (let row = 0; row < this.#index.blobCount; row++) {
        this.#bytesInAll += this.#index.blobSize(row);
      }
    }
    out.blockSize = BLOCK_SIZE;
    out.blocks = Math.ceil(this.#bytesInAll / BLOCK_SIZE);
    out.blocksFree = 0;
    out.blocksAvailable = 0;
    out.files = this.#index.inodeCount;
    out.filesFree = 0;
    out.nameLength = 255;
    return 0;
  }

  getxattr(ino: Ino, name: string, out: Uint8Array): number {
    const row = this.#row(ino);
    if (row < 0) return row;
    for (let at = this.#index.nextXattr(row, -1); at >= 0; at = this.#index.nextXattr(row, at)) {
      if (this.#index.xattrName(at) === name) return this.#index.xattrValue(at, out);
    }
    return -Errno.ENODATA;
  }

  listxattr(ino: Ino, out: Uint8Array): number {
    const row = this.#row(ino);
    if (row < 0) return row;
    let length = 0;
    for (let at = this.#index.nextXattr(row, -1); at >= 0; at = this.#index.nextXattr(row, at)) {
      const name = this.#index.xattrName(at);
      if (length + name.length + 1 > out.length) return -Errno.ERANGE;
      for (let i = 0; i < name.length; i++) out[length++] = name.charCodeAt(i);
      out[length++] = 0;
    }
    return length;
  }

  // For who explains a file.

  numberOf(ino: Ino): number {
    return ino - this.#inoBase;
  }

  digestOf(ino: Ino): string | undefined {
    const row = this.#row(ino);
    const place = row < 0 ? row : this.#locate(row);
    return typeof place === "number" ? undefined : digestAt(place.bytes, place.digestOffset);
  }

  isHere(ino: Ino): boolean {
    const row = this.#row(ino);
    const place = row < 0 ? row : this.#locate(row);
    return typeof place !== "number" && (place.size === 0 || this.#blobs.isHere(place));
  }

  dispose(): void {
    this.#blobs.dispose();
    if (this.#emptyFd >= 0) native.closeFd(this.#emptyFd);
    this.#emptyFd = -1;
  }
}

/** An empty, sealed memfd, O_RDONLY; -errno. Made ahead: later the process may have no /proc. */
function openEmpty(): number {
  const memory = native.memfd("burrow-empty", 0);
  if (memory < 0) return memory;
  const fd = openAnew(memory, O_RDONLY);
  native.closeFd(memory);
  return fd;
}
