// PathDoor: a directory of this machine as a door: what a plain file system says, or a kernel's mount of something else. Tests only.

import fs, { type BigIntStats } from "node:fs";
import { Errno, fromNode } from "../../lib/base/errno.ts";
import { hostFs } from "../../lib/sys/hostfs.ts";
import { native } from "../../lib/sys/native.ts";
import { type Change, type Door, type Facts, fileType, type Path } from "./door.ts";

const LIST_MAX_BYTES = 65_536;

/** What node:fs does, or -errno. */
function tried<T>(action: () => T): T | number {
  try {
    return action();
  } catch (error) {
    return fromNode(error);
  }
}

export class PathDoor implements Door {
  readonly name: string;
  readonly #root: Buffer;
  readonly #isReadOnly: boolean;
  readonly #open = new Set<number>();
  readonly #umask = process.umask(0);

  /** `isReadOnly` has every change refused that a read-only mount refuses: for a directory that stands for one. */
  constructor(name: string, root: string, { isReadOnly = false } = {}) {
    this.name = name;
    this.#root = Buffer.from(root);
    this.#isReadOnly = isReadOnly;
  }

  #at(path: Path): Buffer {
    return Buffer.concat([
      this.#root,
      Buffer.from(path.map((name) => `/${name}`).join(""), "latin1"),
    ]);
  }

  /** Whether all above a path's last name are directories: 0 or -errno. */
  #walk(path: Path): number {
    for (let length = 1; length < path.length; length++) {
      const found = tried(() => fs.lstatSync(this.#at(path.slice(0, length))));
      if (typeof found === "number") return found;
      if (!found.isDirectory()) return -Errno.ENOTDIR;
    }
    return 0;
  }

  #do<T>(path: Path, action: (at: Buffer) => T): T | number {
    const failed = this.#walk(path);
    return failed < 0 ? failed : tried(() => action(this.#at(path)));
  }

  /** 0 for what gives nothing. */
  #alter(path: Path, action: (at: Buffer) => void, other: Path = []): number {
    const failed = this.#walk(path) || this.#walk(other);
    if (failed < 0) return failed;
    if (this.#isReadOnly) return -Errno.EROFS;
    const outcome = tried(() => action(this.#at(path)));
    return typeof outcome === "number" ? outcome : 0;
  }

  stat(path: Path): Facts | number {
    return this.#do(path, (at) => factsOf(fs.lstatSync(at, { bigint: true })));
  }

  readlink(path: Path): string | number {
    return this.#do(path, (at) => fs.readlinkSync(at, "buffer").toString("latin1"));
  }

  list(path: Path) {
    return this.#do(path, (at) => {
      if (fs.lstatSync(at).isSymbolicLink()) return -Errno.ENOTDIR;
      const names = fs.readdirSync(at, { encoding: "buffer", withFileTypes: true });
      return names.map((entry) => {
        // Node.js has the type of getdents in no number.
        const isFile = entry.isFile() ? ("file" as const) : ("other" as const);
        const isLink = entry.isSymbolicLink() ? ("symlink" as const) : isFile;
        const type = entry.isDirectory() ? ("directory" as const) : isLink;
        return { name: (entry.name as unknown as Buffer).toString("latin1"), type };
      });
    });
  }

  /** An FD for the calls that want one. */
  #with(path: Path, action: (fd: number) => number): number {
    return this.#do(path, (at) => {
      const fd = fs.openSync(at, fs.constants.O_RDONLY | fs.constants.O_NOFOLLOW);
      try {
        return action(fd);
      } finally {
        fs.closeSync(fd);
      }
    });
  }

  listXattrs(path: Path): string[] | number {
    const out = Buffer.alloc(LIST_MAX_BYTES);
    const length = this.#with(path, (fd) => hostFs.listXattr(fd, out));
    if (length < 0) return length;
    const names = out.toString("latin1", 0, length).split("\0");
    return names.filter((name) => name.startsWith("user."));
  }

  getXattr(path: Path, name: string): string | number {
    const out = Buffer.alloc(LIST_MAX_BYTES);
    const length = this.#with(path, (fd) => hostFs.getXattr(fd, name, out));
    return length < 0 ? length : out.toString("latin1", 0, length);
  }

  setXattr(path: Path, name: string, value: string, flags: number): number {
    if (this.#isReadOnly) return this.#alter(path, () => {});
    const bytes = Buffer.from(value, "latin1");
    return this.#with(path, (fd) => hostFs.setXattr(fd, name, bytes, flags));
  }

  removeXattr(path: Path, name: string): number {
    if (this.#isReadOnly) return this.#alter(path, () => {});
    return this.#with(path, (fd) => hostFs.removeXattr(fd, name));
  }

  open(path: Path, flags: number): number {
    return this.#opened(path, flags, 0);
  }

  create(path: Path, flags: number, mode: number): number {
    return this.#opened(path, flags | fs.constants.O_CREAT | fs.constants.O_EXCL, mode);
  }

  #opened(path: Path, flags: number, mode: number): number {
    if (this.#isReadOnly && flags !== fs.constants.O_RDONLY) {
      const failed = this.#walk(path);
      return failed < 0 ? failed : -Errno.EROFS;
    }
    const fd = this.#do(path, (at) => fs.openSync(at, flags | fs.constants.O_NOFOLLOW, mode));
    if (fd >= 0) this.#open.add(fd);
    return fd;
  }

  fstat(handle: number): Facts | number {
    return tried(() => factsOf(fs.fstatSync(handle, { bigint: true })));
  }

  read(handle: number, offset: number, bytes: number): Buffer | number {
    const out = Buffer.alloc(bytes);
    const got = native.preadFd(handle, out, offset);
    return got < 0 ? got : out.subarray(0, got);
  }

  write(handle: number, offset: number, bytes: Uint8Array): number {
    return native.pwriteFd(handle, bytes, offset);
  }

  fsync(handle: number): number {
    return hostFs.syncFd(handle);
  }

  truncate(handle: number, size: number): number {
    return hostFs.truncateFd(handle, size);
  }

  close(handle: number): void {
    this.#open.delete(handle);
    fs.closeSync(handle);
  }

  change(path: Path, { mode, uid, gid, size, timeSec }: Change): number {
    return this.#alter(path, (at) => {
      if (size !== undefined) fs.truncateSync(at, size);
      if (uid !== undefined || gid !== undefined) {
        const owner = fs.lstatSync(at);
        fs.lchownSync(at, uid ?? owner.uid, gid ?? owner.gid);
      }
      if (mode !== undefined) fs.chmodSync(at, mode);
      if (timeSec !== undefined) fs.lutimesSync(at, timeSec, timeSec);
    });
  }

  mkdir(path: Path, mode: number): number {
    return this.#alter(path, (at) => fs.mkdirSync(at, mode));
  }

  symlink(path: Path, target: string): number {
    return this.#alter(path, (at) => fs.symlinkSync(Buffer.from(target, "latin1"), at));
  }

  link(path: Path, newPath: Path): number {
    const found = this.stat(path); // link(2) looks its source up first
    if (typeof found === "number") return found;
    return this.#alter(newPath, (at) => fs.linkSync(this.#at(path), at));
  }

  unlink(path: Path): number {
    return this.#alter(path, (at) => fs.unlinkSync(at));
  }

  rmdir(path: Path): number {
    return this.#alter(path, (at) => fs.rmdirSync(at));
  }

  rename(path: Path, newPath: Path): number {
    return this.#alter(path, (at) => fs.renameSync(at, this.#at(newPath)), newPath);
  }

  dispose(): void {
    for (const fd of this.#open) fs.closeSync(fd);
    this.#open.clear();
    process.umask(this.#umask);
  }
}

function factsOf(stats: BigIntStats): Facts {
  const mode = Number(stats.mode);
  return {
    type: fileType(mode),
    mode: mode & 0o7777,
    nlink: Number(stats.nlink),
    uid: Number(stats.uid),
    gid: Number(stats.gid),
    size: Number(stats.size),
    mtimeSec: Number(stats.mtimeNs / 1_000_000_000n),
    mtimeNs: Number(stats.mtimeNs % 1_000_000_000n),
    id: `${stats.dev}:${stats.ino}`,
  };
}
