// InfoTree: a directory of files that a server makes up when they are read: what it knows of itself and of its view. Grafted into a view;
// stateless, read-only. Data plane.

import { Errno } from "../base/errno.ts";
import { DT_REG, S_IFDIR, S_IFREG } from "../base/file-types.ts";
import type { Name } from "../base/name.ts";
import { SNAPSHOT_INO_STEP } from "./snapshot.ts";
import type { Attr, DirentSink, Ino, OpenResult, StatFs, Tree } from "./tree.ts";

/** One file. Its size is fixed, since clients believe what getattr said before they read. */
export interface InfoFile {
  readonly name: Name;
  readonly sizeBytes: number;
  /** Its content now, sizeBytes long. */
  readonly render: () => Uint8Array;
}

const DIRECTORY_MODE = S_IFDIR | 0o555;
const FILE_MODE = S_IFREG | 0o444;
const BLOCK_BYTES = 512;
/** The root's row; files have those behind it. */
const ROOT = 1;

export class InfoTree implements Tree {
  readonly isReadOnly = true;
  readonly isStateless = true;
  readonly rootIno: Ino;
  readonly devMinor: number;
  readonly #files: readonly InfoFile[];
  readonly #inoBase: number;
  readonly #madeSec: number;
  /** What was rendered when a file was last read from its start. */
  readonly #rendered: (Uint8Array | undefined)[] = [];

  /** `number`: its place among the snapshots of a view. `madeSec`: the time that all of it has, since 1970. */
  constructor(number: number, files: readonly InfoFile[], madeSec: number) {
    this.#files = files;
    this.#inoBase = number * SNAPSHOT_INO_STEP;
    this.#madeSec = madeSec;
    this.devMinor = number + 1;
    this.rootIno = (this.#inoBase + ROOT) as Ino;
  }

  /** The number of a file; -1 of the root, below that of nothing. */
  #at(ino: Ino): number {
    const at = ino - this.#inoBase - ROOT - 1;
    return at >= -1 && at < this.#files.length ? at : Number.NEGATIVE_INFINITY;
  }

  lookup(dir: Ino, name: Name): number {
    const at = this.#at(dir);
    if (at !== -1) return at < 0 ? -Errno.EBADF : -Errno.ENOTDIR;
    const found = this.#files.findIndex((file) => file.name === name);
    return found < 0 ? -Errno.ENOENT : this.rootIno + 1 + found;
  }

  acquire(ino: Ino): number {
    return this.#at(ino) < -1 ? -Errno.EBADF : 0;
  }

  release(): void {}

  getattr(ino: Ino, out: Attr): number {
    const at = this.#at(ino);
    if (at < -1) return -Errno.EBADF;
    const size = at < 0 ? 0 : this.#files[at]!.sizeBytes;
    out.mode = at < 0 ? DIRECTORY_MODE : FILE_MODE;
    out.nlink = at < 0 ? 2 : 1;
    out.uid = 0;
    out.gid = 0;
    out.ino = ino;
    out.devMajor = 0;
    out.devMinor = this.devMinor;
    out.rdevMajor = 0;
    out.rdevMinor = 0;
    out.blockSize = 4096;
    out.size = size;
    out.blocks = Math.ceil(size / BLOCK_BYTES);
    out.atimeSec = this.#madeSec;
    out.atimeNs = 0;
    out.mtimeSec = this.#madeSec;
    out.mtimeNs = 0;
    out.ctimeSec = this.#madeSec;
    out.ctimeNs = 0;
    return 0;
  }

  fgetattr(ino: Ino, _handle: number, out: Attr): number {
    return this.getattr(ino, out);
  }

  readlink(ino: Ino): number {
    return this.#at(ino) < -1 ? -Errno.EBADF : -Errno.EINVAL;
  }

  opendir(ino: Ino): number {
    const at = this.#at(ino);
    if (at === -1) return 0;
    return at < 0 ? -Errno.EBADF : -Errno.ENOTDIR;
  }

  readdir(ino: Ino, _handle: number, cookie: number, sink: DirentSink): number {
    const failed = this.opendir(ino);
    if (failed < 0) return failed;
    let at = cookie;
    for (; at < this.#files.length; at++) {
      if (!sink(this.rootIno + 1 + at, this.devMinor, DT_REG, this.#files[at]!.name)) break;
    }
    return at;
  }

  closedir(): void {}

  open(ino: Ino, flags: number, out: OpenResult): number {
    if (flags !== 0) return -Errno.EROFS;
    const at = this.#at(ino);
    if (at < 0) return at === -1 ? -Errno.EISDIR : -Errno.EBADF;
    out.handle = 0;
    out.hostFd = -1;
    return 0;
  }

  /** From its start a file is what it is now; what is read behind that is of the same moment, whoever reads. */
  read(ino: Ino, _handle: number, offset: number, out: Uint8Array): number {
    const at = this.#at(ino);
    if (at < 0) return at === -1 ? -Errno.EISDIR : -Errno.EBADF;
    if (offset === 0) this.#rendered[at] = this.#files[at]!.render();
    this.#rendered[at] ??= this.#files[at]!.render();
    const part = this.#rendered[at]!.subarray(offset, offset + out.length);
    out.set(part);
    return part.length;
  }

  close(): void {}

  reopen(ino: Ino, _isDirectory: boolean, _access: number, handle: number): number {
    return this.#at(ino) < -1 ? -Errno.EBADF : Math.max(0, handle);
  }

  statfs(_ino: Ino, out: StatFs): number {
    out.blockSize = 4096;
    out.blocks = 0;
    out.blocksFree = 0;
    out.blocksAvailable = 0;
    out.files = 1 + this.#files.length;
    out.filesFree = 0;
    out.nameLength = 255;
    return 0;
  }

  getxattr(ino: Ino): number {
    return this.#at(ino) < -1 ? -Errno.EBADF : -Errno.ENODATA;
  }

  listxattr(ino: Ino): number {
    return this.#at(ino) < -1 ? -Errno.EBADF : 0;
  }

  dispose(): void {}
}
