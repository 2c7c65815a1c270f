// LisafsDoor: a gofer as a door, asked over a LISAFS connection as the sentry asks: walk, one message, close. Tests only.

import { Errno } from "../../lib/base/errno.ts";
import { native } from "../../lib/sys/native.ts";
import { SetAttr } from "../../lib/tree/tree.ts";
import type { Request } from "../../lib/wire/lisafs/message.ts";
import { Mid } from "../../lib/wire/lisafs/mid.ts";
import {
  type Change,
  type Door,
  direntType,
  type Facts,
  fileType,
  O_TRUNC,
  type Path,
  parentOf,
} from "./door.ts";
import { close, type Inode, inodeAt, list, type Stat, statAt } from "./lisafs-calls.ts";
import type { LisafsClient, Reply } from "./lisafs-client.ts";

const INODE_BYTES = 152;
const XATTR_MAX_BYTES = 65_535;
const READ_MAX_BYTES = 1 << 20;
const NO_ID = 0xffff_ffff;
const AT_REMOVEDIR = 0x200;

interface Opened {
  /** -1, or what was donated: a sentry writes through it. */
  readonly hostFd: number;
}

export class LisafsDoor implements Door {
  readonly name: string;
  readonly #client: LisafsClient;
  readonly #open = new Map<number, Opened>();
  /** Whether the last walk's end is one. */
  #isDirectory = true;

  constructor(name: string, client: LisafsClient) {
    this.name = name;
    this.#client = client;
  }

  /** The reply's payload, -errno; what was donated is closed. */
  #call(mid: number, fields: Partial<Request>, data?: Uint8Array): Buffer | number {
    const { errno, payload, fds } = this.#client.call(mid, fields, data);
    for (const fd of fds) native.closeFd(fd);
    return errno === 0 ? payload : -errno;
  }

  /** 0 or -errno. */
  #done(mid: number, fields: Partial<Request>): number {
    const outcome = this.#call(mid, fields);
    return typeof outcome === "number" ? outcome : 0;
  }

  /** A control FD of a path, the root's for none; -errno. */
  #walk(path: Path): number {
    this.#isDirectory = true;
    if (path.length === 0) return this.#client.rootFd;
    const payload = this.#call(Mid.Walk, { fd: this.#client.rootFd, names: [...path] });
    if (typeof payload === "number") return payload;
    const inodes: Inode[] = [];
    for (let i = 0; i < payload.readUInt16LE(1); i++) {
      inodes.push(inodeAt(payload, 3 + i * INODE_BYTES));
    }
    const isWhole = inodes.length === path.length;
    const last = isWhole ? inodes.pop() : inodes.at(-1);
    close(this.#client, ...inodes.map(({ fd }) => fd));
    const isDirectory = last === undefined || fileType(last.stat.mode) === "directory";
    this.#isDirectory = isDirectory;
    if (isWhole) return last!.fd;
    return isDirectory ? -Errno.ENOENT : -Errno.ENOTDIR;
  }

  #at<T>(path: Path, action: (fd: number) => T): T | number {
    const fd = this.#walk(path);
    if (fd < 0) return fd;
    const outcome = action(fd);
    if (path.length > 0) close(this.#client, fd);
    return outcome;
  }

  #inParent(path: Path, action: (fd: number, name: string) => number): number {
    const { parent, name } = parentOf(path);
    return this.#at(parent, (fd) => (this.#isDirectory ? action(fd, name) : -Errno.ENOTDIR));
  }

  /** As #done of a message that answers with an inode. */
  #made(mid: number, fields: Partial<Request>): number {
    const payload = this.#call(mid, fields);
    if (typeof payload === "number") return payload;
    close(this.#client, inodeAt(payload, 0).fd);
    return 0;
  }

  stat(path: Path): Facts | number {
    return this.#at(path, (fd) => this.fstat(fd));
  }

  /** Of a control FD as well. */
  fstat(fd: number): Facts | number {
    const payload = this.#call(Mid.FStat, { fd });
    return typeof payload === "number" ? payload : factsOf(statAt(payload, 0));
  }

  readlink(path: Path): string | number {
    return this.#at(path, (fd) => {
      const payload = this.#call(Mid.ReadLinkAt, { fd });
      return typeof payload === "number" ? payload : payload.toString("latin1", 2);
    });
  }

  list(path: Path) {
    return this.#at(path, (fd) => {
      const facts = this.fstat(fd);
      // A sentry opens no directory that is none.
      if (typeof facts === "number" || facts.type !== "directory") return -Errno.ENOTDIR;
      const opened = this.#call(Mid.OpenAt, { fd });
      if (typeof opened === "number") return opened;
      const handle = Number(opened.readBigUInt64LE(0));
      const found = list(this.#client, handle, 512);
      close(this.#client, handle);
      return found.map(({ name, type }) => ({ name, type: direntType(type) }));
    });
  }

  listXattrs(path: Path): string[] | number {
    return this.#at(path, (fd) => {
      const payload = this.#call(Mid.FListXattr, { fd, count: XATTR_MAX_BYTES });
      if (typeof payload === "number") return payload;
      const names: string[] = [];
      for (let i = 0, at = 2; i < payload.readUInt16LE(0); i++) {
        const end = at + 2 + payload.readUInt16LE(at);
        names.push(payload.toString("latin1", at + 2, end));
        at = end;
      }
      return names;
    });
  }

  getXattr(path: Path, name: string): string | number {
    return this.#at(path, (fd) => {
      const payload = this.#call(Mid.FGetXattr, { fd, name, count: XATTR_MAX_BYTES });
      return typeof payload === "number" ? payload : payload.toString("latin1", 2);
    });
  }

  setXattr(path: Path, name: string, value: string, flags: number): number {
    return this.#at(path, (fd) => this.#done(Mid.FSetXattr, { fd, name, otherName: value, flags }));
  }

  removeXattr(path: Path, name: string): number {
    return this.#at(path, (fd) => this.#done(Mid.FRemoveXattr, { fd, name }));
  }

  open(path: Path, flags: number): number {
    return this.#at(path, (fd) => {
      const reply = this.#client.call(Mid.OpenAt, { fd, flags });
      return this.#keep(reply, 0, flags);
    });
  }

  create(path: Path, flags: number, mode: number): number {
    return this.#inParent(path, (fd, name) => {
      const owner = { uid: process.getuid!(), gid: process.getgid!() };
      const reply = this.#client.call(Mid.OpenCreateAt, { fd, name, flags, mode, ...owner });
      if (reply.errno === 0) close(this.#client, inodeAt(reply.payload, 0).fd);
      return this.#keep(reply, INODE_BYTES, flags);
    });
  }

  /** The open FD in a reply. What was donated has what the messages say. */
  #keep({ errno, payload, fds }: Reply, at: number, flags: number): number {
    if (errno !== 0) return -errno;
    const handle = Number(payload.readBigUInt64LE(at));
    let hostFd = fds[0] ?? -1;
    this.#open.set(handle, { hostFd });
    if (hostFd >= 0 && (flags & ~O_TRUNC) === 0) {
      this.#checkDonated(handle, hostFd);
      native.closeFd(hostFd);
      hostFd = -1;
    }
    this.#open.set(handle, { hostFd });
    return handle;
  }

  #checkDonated(handle: number, hostFd: number): void {
    const out = Buffer.alloc(8192);
    const got = native.preadFd(hostFd, out, 0);
    const said = this.read(handle, 0, out.length);
    if (typeof said === "number" || !said.equals(out.subarray(0, got)))
      throw new Error(`${this.name}: a donated FD has other bytes than PRead`);
  }

  read(fd: number, offset: number, count: number): Buffer | number {
    const parts: Buffer[] = [];
    let at = 0;
    do {
      const most = Math.min(count - at, READ_MAX_BYTES);
      const payload = this.#call(Mid.PRead, { fd, offset: offset + at, count: most });
      if (typeof payload === "number") return payload;
      const bytes = payload.subarray(8);
      parts.push(bytes);
      at += bytes.length;
      if (bytes.length === 0) break;
    } while (at < count);
    return Buffer.concat(parts);
  }

  /** At odd offsets through what was donated, as a sentry does that has it. */
  write(fd: number, offset: number, bytes: Uint8Array): number {
    const hostFd = this.#open.get(fd)?.hostFd ?? -1;
    if (hostFd >= 0 && offset % 2 === 1) return native.pwriteFd(hostFd, bytes, offset);
    const payload = this.#call(Mid.PWrite, { fd, offset }, bytes);
    return typeof payload === "number" ? payload : Number(payload.readBigUInt64LE(0));
  }

  fsync(fd: number): number {
    return this.#done(Mid.FSync, { fds: [fd] });
  }

  truncate(fd: number, size: number): number {
    return this.#set(fd, { size });
  }

  close(handle: number): void {
    const { hostFd } = this.#open.get(handle)!;
    if (hostFd >= 0) native.closeFd(hostFd);
    this.#open.delete(handle);
    close(this.#client, handle);
  }

  change(path: Path, change: Change): number {
    return this.#at(path, (fd) => this.#set(fd, change));
  }

  #set(fd: number, { mode, uid, gid, size, timeSec }: Change): number {
    const mask =
      (mode === undefined ? 0 : SetAttr.mode) |
      (uid === undefined ? 0 : SetAttr.uid) |
      (gid === undefined ? 0 : SetAttr.gid) |
      (size === undefined ? 0 : SetAttr.size) |
      (timeSec === undefined ? 0 : SetAttr.atime | SetAttr.mtime);
    const times = { atimeSec: timeSec ?? 0, mtimeSec: timeSec ?? 0 };
    const owner = { uid: uid ?? NO_ID, gid: gid ?? NO_ID };
    const payload = this.#call(Mid.SetStat, {
      fd,
      mask,
      mode: mode ?? 0,
      length: size ?? 0,
      ...owner,
      ...times,
    });
    if (typeof payload === "number") return payload;
    return -payload.readUInt32LE(4);
  }

  mkdir(path: Path, mode: number): number {
    const owner = { uid: process.getuid!(), gid: process.getgid!() };
    return this.#inParent(path, (fd, name) =>
      this.#made(Mid.MkdirAt, { fd, name, mode, ...owner }),
    );
  }

  symlink(path: Path, target: string): number {
    const owner = { uid: process.getuid!(), gid: process.getgid!() };
    return this.#inParent(path, (fd, name) =>
      this.#made(Mid.SymlinkAt, { fd, name, otherName: target, ...owner }),
    );
  }

  link(path: Path, newPath: Path): number {
    return this.#at(path, (otherFd) =>
      this.#inParent(newPath, (fd, name) => this.#made(Mid.LinkAt, { fd, otherFd, name })),
    );
  }

  unlink(path: Path): number {
    return this.#inParent(path, (fd, name) => this.#done(Mid.UnlinkAt, { fd, name }));
  }

  rmdir(path: Path): number {
    const flags = AT_REMOVEDIR;
    return this.#inParent(path, (fd, name) => this.#done(Mid.UnlinkAt, { fd, name, flags }));
  }

  rename(path: Path, newPath: Path): number {
    return this.#inParent(path, (fd, name) =>
      this.#inParent(newPath, (otherFd, otherName) =>
        this.#done(Mid.RenameAt2, { fd, name, otherFd, otherName }),
      ),
    );
  }

  dispose(): void {
    for (const handle of [...this.#open.keys()]) this.close(handle);
  }
}

function factsOf(stat: Stat): Facts {
  const { nlink, uid, gid, size, mtimeSec, mtimeNs } = stat;
  return {
    type: fileType(stat.mode),
    mode: stat.mode & 0o7777,
    nlink,
    uid,
    gid,
    size,
    mtimeSec,
    mtimeNs,
    id: `${stat.devMajor}:${stat.devMinor}:${stat.ino}`,
  };
}
