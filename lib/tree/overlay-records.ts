// OverlayRecords: how an overlay keeps its upper: four directories in the root of a file system that is its own, and a record, a
// symlink, for each inode that was copied up. All of an overlay's state is there, so that another server can go on with it.
// docs/format/upper.md. Data plane, but for open (control).

import { Errno } from "../base/errno.ts";
import { DT_DIR, S_IFDIR, S_IFMT } from "../base/file-types.ts";
import type { Name } from "../base/name.ts";
import { Attr, CreateRequest, type Ino } from "./tree.ts";
import type { Upper } from "./upper.ts";

/** What is kept of an inode that was copied up. */
export interface OverlayRecord {
  /** Inode number in the upper's file system. */
  readonly hostIno: number;
  readonly lower: Ino;
  /** Its attributes alone are here: the bytes are below. */
  readonly isMetadata: boolean;
  /** Names of the lower inode, of several, that were taken away or that the upper has now. */
  readonly hidden: number;
}

const WHOLE = "d";
const METADATA = "m";
const TARGET_MAX = 64;

export class OverlayRecords {
  /** Names as they are seen: whiteouts are character devices 0:0, as of Linux's overlayfs. */
  readonly tree: Ino;
  /** Where inodes are made ready before they get their name, and taken apart after they lost it. */
  readonly work: Ino;
  /** Copies of inodes with several names below, by the lower inode's number. */
  readonly links: Ino;
  /** Whether the tree was made now: it has neither the times of what it is over nor its xattrs. */
  readonly isNew: boolean;
  readonly #meta: Ino;
  readonly #upper: Upper;
  readonly #byHostIno = new Map<number, OverlayRecord>();
  readonly #request = new CreateRequest();
  #worked = 0;

  private constructor(upper: Upper, directories: readonly Ino[], isNew: boolean) {
    this.#upper = upper;
    this.isNew = isNew;
    [this.tree, this.#meta, this.work, this.links] = directories as [Ino, Ino, Ino, Ino];
    this.#request.uid = this.#request.gid = 0xffffffff;
  }

  /** Makes the directories, or finds them; read() comes next. `mode` and owner are those of a new tree. -errno. */
  static open(upper: Upper, root: CreateRequest): OverlayRecords | number {
    const directories: Ino[] = [];
    const own = new CreateRequest();
    own.mode = 0o700;
    own.uid = own.gid = 0xffffffff;
    let isNew = false;
    for (const name of ["tree", "meta", "work", "links"] as Name[]) {
      let ino = upper.lookup(upper.rootIno, name);
      if (ino === -Errno.ENOENT) {
        const isTree = name === "tree";
        ino = upper.mkdir(upper.rootIno, name, isTree ? root : own);
        isNew ||= isTree;
      }
      if (ino < 0) return ino;
      directories.push(ino as Ino);
    }
    return new OverlayRecords(upper, directories, isNew);
  }

  /** Reads what an earlier server left, and clears what it left half way: it must have ended. -errno. */
  read(): number {
    const loaded = this.#load();
    if (loaded < 0) return loaded;
    const swept = this.#sweep();
    return swept < 0 ? swept : this.#clearWork();
  }

  /** Inodes of the upper that nobody sees: its root, the four directories less the tree, and the records. */
  get hiddenInodes(): number {
    return 4 + this.#byHostIno.size;
  }

  #load(): number {
    const names = this.#names(this.#meta);
    if (typeof names === "number") return names;
    const out = Buffer.alloc(TARGET_MAX);
    for (const name of names) {
      const ino = this.#upper.lookup(this.#meta, name);
      if (ino < 0) return ino;
      const length = this.#upper.readlink(ino as Ino, out);
      this.#upper.release(ino as Ino);
      const record = parse(Number(name), out.toString("latin1", 0, Math.max(0, length)));
      if (record === undefined) return -Errno.EIO;
      this.#byHostIno.set(record.hostIno, record);
    }
    return 0;
  }

  /** Removes records of inodes that are gone, as a server that was killed leaves them: their numbers may be another's one day. */
  #sweep(): number {
    const unseen = new Set(this.#byHostIno.keys());
    for (const top of [this.tree, this.work, this.links]) {
      const failed = this.#markBelow(top, unseen);
      if (failed < 0) return failed;
    }
    for (const hostIno of unseen) this.remove(hostIno);
    return 0;
  }

  /** Takes all inodes below a directory from `unseen`. One directory is held a level: a wide tree must not cost all FDs. */
  #markBelow(top: Ino, unseen: Set<number>): number {
    const upper = this.#upper;
    const levels: { readonly ino: Ino; readonly below: Name[] }[] = [];
    upper.acquire(top);
    let next: number = top;
    let failed = 0;
    do {
      if (next > 0) {
        const below: Name[] = [];
        levels.push({ ino: next as Ino, below });
        failed = this.#mark(next as Ino, unseen, below);
      }
      const { ino, below } = levels.at(-1)!;
      const name = failed < 0 || unseen.size === 0 ? undefined : below.pop();
      next = name === undefined ? 0 : upper.lookup(ino, name);
      if (next < 0) failed = next;
      if (name === undefined) upper.release(levels.pop()!.ino);
    } while (levels.length > 0);
    return failed;
  }

  /** Takes a directory's inodes from `unseen`, and adds the names of its directories to `below`. */
  #mark(directory: Ino, unseen: Set<number>, below: Name[]): number {
    const handle = this.#upper.opendirQuietly(directory);
    if (handle < 0) return handle;
    const end = this.#upper.readdir(directory, handle, 0, (hostIno, _dev, type, name) => {
      unseen.delete(hostIno);
      if (type === DT_DIR) below.push(name as Name);
      return true;
    });
    this.#upper.closedir(directory, handle);
    return Math.min(0, end);
  }

  #names(directory: Ino): Name[] | number {
    const handle = this.#upper.opendirQuietly(directory);
    if (handle < 0) return handle;
    const names: Name[] = [];
    const end = this.#upper.readdir(directory, handle, 0, (_ino, _dev, _type, name) => {
      names.push(name as Name);
      return true;
    });
    this.#upper.closedir(directory, handle);
    return end < 0 ? end : names;
  }

  get(hostIno: number): OverlayRecord | undefined {
    return this.#byHostIno.get(hostIno);
  }

  /** Writes a record in the place of any older one, whole or not at all. -errno. */
  put(record: OverlayRecord): number {
    const { hostIno, lower, isMetadata, hidden } = record;
    const text = `${isMetadata ? METADATA : WHOLE}${lower}.${hidden}`;
    const name = this.workName();
    const ino = this.#upper.symlink(this.work, name, text, this.#request);
    if (ino < 0) return ino;
    this.#upper.release(ino as Ino);
    const failed = this.#upper.rename(this.work, name, this.#meta, `${hostIno}` as Name, 0);
    if (failed < 0) {
      this.#upper.unlink(this.work, name, false);
      return failed;
    }
    this.#byHostIno.set(hostIno, record);
    return 0;
  }

  /** The inode is gone, or will be: another may have its number then. */
  remove(hostIno: number): void {
    if (!this.#byHostIno.delete(hostIno)) return;
    this.#upper.unlink(this.#meta, `${hostIno}` as Name, false);
  }

  /** A new name for `work`. */
  workName(): Name {
    return `${++this.#worked}` as Name;
  }

  /** Clears what a server that was killed left in `work`. */
  #clearWork(): number {
    const names = this.#names(this.work);
    if (typeof names === "number") return names;
    const attr = new Attr();
    for (const name of names) {
      const ino = this.#upper.lookup(this.work, name);
      if (ino < 0) continue;
      this.#upper.getattr(ino as Ino, attr);
      this.remove(attr.ino);
      this.discard(ino as Ino, name, (attr.mode & S_IFMT) === S_IFDIR);
      this.#upper.release(ino as Ino);
    }
    return 0;
  }

  /** Removes an inode from `work`; a directory with the whiteouts that are all it may hold. */
  discard(ino: Ino, name: Name, isDirectory: boolean): number {
    const failed = isDirectory ? this.clear(ino) : 0;
    return failed < 0 ? failed : this.#upper.unlink(this.work, name, isDirectory);
  }

  /** Removes the whiteouts of a directory of the upper. */
  clear(directory: Ino): number {
    const names = this.#names(directory);
    if (typeof names === "number") return names;
    for (const name of names) {
      const failed = this.#upper.unlink(directory, name, false);
      if (failed < 0) return failed;
    }
    return 0;
  }
}

/** The record in a symlink's text, or undefined. */
function parse(hostIno: number, text: string): OverlayRecord | undefined {
  const dot = text.indexOf(".");
  const kind = text[0];
  const lower = Number(text.slice(1, dot));
  const hidden = Number(text.slice(dot + 1));
  const isKnown = kind === WHOLE || kind === METADATA;
  const isNumber = [hostIno, lower, hidden].every((value) => Number.isSafeInteger(value));
  if (!isKnown || dot < 2 || !isNumber || lower <= 0) return undefined;
  return { hostIno, lower: lower as Ino, isMetadata: kind === METADATA, hidden };
}
