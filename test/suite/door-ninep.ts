// NinepDoor: a 9P server as a door, asked as Linux's client asks: walk to a fid, one request, clunk. Tests only.

import { Errno } from "../../lib/base/errno.ts";
import { AT_REMOVEDIR, QidType, SetattrBit, Type } from "../../lib/wire/ninep/type.ts";
import {
  type Change,
  type Door,
  direntType,
  type Facts,
  fileType,
  type Path,
  parentOf,
} from "./door.ts";
import { attributesOf, type Fields, type NinepClient, qidAt } from "./ninep-client.ts";

const QID_BYTES = 13;
/** A directory is read by parts, so that going on is tried. */
const LIST_BYTES = 512;

export class NinepDoor implements Door {
  readonly name: string;
  readonly #client: NinepClient;
  readonly #root: number;
  readonly #open = new Set<number>();
  /** Whether the last walk's end is one. */
  #isDirectory = true;

  /** `root`: a fid of the view's root. */
  constructor(name: string, client: NinepClient, root: number) {
    this.name = name;
    this.#client = client;
    this.#root = root;
  }

  /** The reply's body, or -errno. */
  #call(type: number, fields: Fields): Buffer | number {
    const { errno, body } = this.#client.call(type, fields);
    return errno === 0 ? body : -errno;
  }

  /** 0 or -errno. */
  #done(type: number, fields: Fields): number {
    const outcome = this.#call(type, fields);
    return typeof outcome === "number" ? outcome : 0;
  }

  /** A new fid of a path. */
  #walk(path: Path): number {
    const fid = this.#client.nextFid();
    const body = this.#call(Type.walk, { fid: this.#root, otherFid: fid, names: path });
    if (typeof body === "number") return body;
    const done = body.readUInt16LE(0);
    const type = done === 0 ? QidType.directory : qidAt(body, 2 + (done - 1) * QID_BYTES).type;
    this.#isDirectory = (type & QidType.directory) !== 0;
    if (done === path.length) return fid;
    return this.#isDirectory ? -Errno.ENOENT : -Errno.ENOTDIR;
  }

  #at<T>(path: Path, action: (fid: number) => T): T | number {
    const fid = this.#walk(path);
    if (fid < 0) return fid;
    const outcome = action(fid);
    this.#client.clunk(fid);
    return outcome;
  }

  #inParent(path: Path, action: (fid: number, name: string) => number): number {
    const { parent, name } = parentOf(path);
    return this.#at(parent, (fid) => (this.#isDirectory ? action(fid, name) : -Errno.ENOTDIR));
  }

  stat(path: Path): Facts | number {
    return this.#at(path, (fid) => this.fstat(fid));
  }

  /** Of a walked fid as well. */
  fstat(fid: number): Facts | number {
    const body = this.#call(Type.getattr, { fid, mask: 0x7ff });
    if (typeof body === "number") return body;
    const { mode, uid, gid, nlink, size, mtimeSec, mtimeNs, qid } = attributesOf(body);
    const facts = { type: fileType(mode), mode: mode & 0o7777, uid, gid, nlink, size };
    return { ...facts, mtimeSec, mtimeNs, id: `${qid.path}` };
  }

  readlink(path: Path): string | number {
    return this.#at(path, (fid) => {
      const body = this.#call(Type.readlink, { fid });
      return typeof body === "number" ? body : body.toString("latin1", 2);
    });
  }

  list(path: Path) {
    return this.#at(path, (fid) => {
      const facts = this.fstat(fid);
      // No client reads a directory that is none.
      if (typeof facts === "number" || facts.type !== "directory") return -Errno.ENOTDIR;
      const opened = this.#done(Type.lopen, { fid });
      if (opened < 0) return opened;
      const found: { name: string; type: Facts["type"] }[] = [];
      for (let offset = 0; ; ) {
        const some = this.#client.readdir(fid, offset, LIST_BYTES);
        if (typeof some === "number") return some;
        if (some.length === 0) break;
        found.push(...some.map(({ name, type }) => ({ name, type: direntType(type) })));
        offset = some.at(-1)!.offset;
      }
      return found.filter(({ name }) => name !== "." && name !== "..");
    });
  }

  listXattrs(path: Path): string[] | number {
    const value = this.getXattr(path, "");
    return typeof value === "number" ? value : value.split("\0").slice(0, -1);
  }

  /** With an empty name the list of names. */
  getXattr(path: Path, name: string): string | number {
    return this.#at(path, (fid) => {
      const otherFid = this.#client.nextFid();
      const body = this.#call(Type.xattrwalk, { fid, otherFid, name });
      if (typeof body === "number") return body;
      const bytes = this.#client.readAll(otherFid);
      this.#client.clunk(otherFid);
      if (bytes.length !== Number(body.readBigUInt64LE(0))) throw new Error("xattr: another size");
      return bytes.toString("latin1");
    });
  }

  setXattr(path: Path, name: string, value: string, flags: number): number {
    return this.#setXattr(path, name, Buffer.from(value, "latin1"), flags);
  }

  /** Linux, fs/9p/xattr.c: no bytes in place of what is there. */
  removeXattr(path: Path, name: string): number {
    return this.#setXattr(path, name, Buffer.alloc(0), 2);
  }

  #setXattr(path: Path, name: string, bytes: Buffer, flags: number): number {
    const fid = this.#walk(path);
    if (fid < 0) return fid;
    const made = this.#done(Type.xattrcreate, { fid, name, length: bytes.length, flags });
    const written = made === 0 && bytes.length > 0 ? this.#client.write(fid, bytes) : 0;
    const clunked = this.#client.clunk(fid);
    return made || Math.min(written, 0) || clunked;
  }

  open(path: Path, flags: number): number {
    const fid = this.#walk(path);
    return fid < 0 ? fid : this.#keep(fid, this.#done(Type.lopen, { fid, flags }));
  }

  create(path: Path, flags: number, mode: number): number {
    const { parent, name } = parentOf(path);
    const fid = this.#walk(parent);
    if (fid < 0) return fid;
    if (!this.#isDirectory) return this.#keep(fid, -Errno.ENOTDIR);
    const how = { flags: flags | 0o200, mode, gid: process.getgid!() };
    return this.#keep(fid, this.#done(Type.lcreate, { fid, name, ...how }));
  }

  #keep(fid: number, failed: number): number {
    if (failed < 0) this.#client.clunk(fid);
    else this.#open.add(fid);
    return failed < 0 ? failed : fid;
  }

  read(fid: number, offset: number, count: number): Buffer | number {
    const parts: Buffer[] = [];
    let at = 0;
    do {
      const most = Math.min(count - at, this.#client.msize - 24);
      const body = this.#call(Type.read, { fid, offset: offset + at, count: most });
      if (typeof body === "number") return body;
      const bytes = body.subarray(4, 4 + body.readUInt32LE(0));
      parts.push(bytes);
      at += bytes.length;
      if (bytes.length === 0) break;
    } while (at < count);
    return Buffer.concat(parts);
  }

  write(fid: number, offset: number, bytes: Uint8Array): number {
    const most = this.#client.msize - 24;
    let done = 0;
    do {
      const part = bytes.subarray(done, done + most);
      const wrote = this.#client.write(fid, part, offset + done);
      if (wrote < 0) return wrote;
      done += wrote;
    } while (done < bytes.length);
    return done;
  }

  fsync(fid: number): number {
    return this.#done(Type.fsync, { fid });
  }

  truncate(fid: number, size: number): number {
    return this.#set(fid, { size });
  }

  close(handle: number): void {
    this.#open.delete(handle);
    this.#client.clunk(handle);
  }

  change(path: Path, change: Change): number {
    return this.#at(path, (fid) => this.#set(fid, change));
  }

  #set(fid: number, { mode, uid, gid, size, timeSec }: Change): number {
    const times = SetattrBit.atime | SetattrBit.mtime | SetattrBit.atimeSet | SetattrBit.mtimeSet;
    const mask =
      (mode === undefined ? 0 : SetattrBit.mode) |
      (uid === undefined ? 0 : SetattrBit.uid) |
      (gid === undefined ? 0 : SetattrBit.gid) |
      (size === undefined ? 0 : SetattrBit.size) |
      (timeSec === undefined ? 0 : times);
    return this.#done(Type.setattr, {
      fid,
      mask,
      mode: mode ?? 0,
      uid: uid ?? 0,
      gid: gid ?? 0,
      length: size ?? 0,
      atimeSec: timeSec ?? 0,
      mtimeSec: timeSec ?? 0,
    });
  }

  mkdir(path: Path, mode: number): number {
    const gid = process.getgid!();
    return this.#inParent(path, (fid, name) => this.#done(Type.mkdir, { fid, name, mode, gid }));
  }

  symlink(path: Path, target: string): number {
    const gid = process.getgid!();
    return this.#inParent(path, (fid, name) =>
      this.#done(Type.symlink, { fid, name, otherName: target, gid }),
    );
  }

  link(path: Path, newPath: Path): number {
    return this.#at(path, (otherFid) =>
      this.#inParent(newPath, (fid, name) => this.#done(Type.link, { fid, otherFid, name })),
    );
  }

  unlink(path: Path): number {
    return this.#inParent(path, (fid, name) => this.#done(Type.unlinkat, { fid, name }));
  }

  rmdir(path: Path): number {
    const flags = AT_REMOVEDIR;
    return this.#inParent(path, (fid, name) => this.#done(Type.unlinkat, { fid, name, flags }));
  }

  rename(path: Path, newPath: Path): number {
    return this.#inParent(path, (fid, name) =>
      this.#inParent(newPath, (otherFid, otherName) =>
        this.#done(Type.renameat, { fid, name, otherFid, otherName }),
      ),
    );
  }

  dispose(): void {
    for (const handle of [...this.#open]) this.close(handle);
  }
}
