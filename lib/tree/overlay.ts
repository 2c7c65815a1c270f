// OverlayTree: a writable tree over an immutable one, as Linux's overlayfs is: changes go to an upper, which is a file system of the
// query's own; what isn't changed stays below, and is donated from there. docs/design/0017-overlay.md. Data plane, but for open.

import { Errno } from "../base/errno.ts";
import { S_IFDIR, S_IFLNK, S_IFMT, S_IFREG } from "../base/file-types.ts";
import { checkName, type Name } from "../base/name.ts";
import { abandonCopy, dressRoot, ensureData, ensureUpper, keepTimes } from "./overlay-copy.ts";
import { makeNode } from "./overlay-create.ts";
import { readdir } from "./overlay-directory.ts";
import { OverlayFiles } from "./overlay-files.ts";
import { OVERLAY_JOURNAL_BYTES, OverlayJournal } from "./overlay-journal.ts";
import { link, rename, unlink } from "./overlay-names.ts";
import { hasUpperData, NONE, type OverlayNode, OverlayNodes } from "./overlay-nodes.ts";
import { attrOfNode, findNode, type OverlayParts } from "./overlay-parts.ts";
import { OverlayRecords } from "./overlay-records.ts";
import { restoreNodes } from "./overlay-restore.ts";
import {
  Attr,
  CreateRequest,
  type DirentSink,
  type Ino,
  O_RDONLY,
  O_TRUNC,
  type OpenResult,
  SetAttr,
  type SetAttrRequest,
  StatFs,
  type Tree,
  UNKNOWN_HANDLE,
  type WritableTree,
} from "./tree.ts";
import type { Upper } from "./upper.ts";

export interface OverlayOptions {
  /** Inodes that the upper may have for the sandbox: see upperInodes. Infinity: what its file system has. */
  readonly inodes: number;
  /** Another server still serves it: takeOver() comes when that has ended, before anything else. */
  readonly isServed?: boolean;
}

/** Directories of the upper's own, and what is in `work` for a moment. */
const OWN_INODES = 16;

/** Inodes that an upper's file system needs for so many of the sandbox's: each may have a record. */
export function upperInodes(inodes: number): number {
  return 2 * inodes + OWN_INODES;
}

export class OverlayTree implements WritableTree {
  readonly isReadOnly = false;
  readonly isStateless = false;
  readonly rootIno: Ino;
  readonly #parts: OverlayParts;
  readonly #root: OverlayNode;
  /** Of a predecessor's, until the tree settles. */
  #restored: OverlayNode[] = [];
  #isDisposed = false;

  private constructor(parts: OverlayParts, root: OverlayNode) {
    this.#parts = parts;
    this.#root = root;
    this.rootIno = root.ino;
  }

  /** An overlay of a stateless tree and an upper, empty or as an earlier one left it. Takes both; -errno takes neither. */
  static open(lower: Tree, upper: Upper, options: OverlayOptions): OverlayTree | number {
    const { inodes, isServed } = options;
    const attr = new Attr();
    const failed = lower.getattr(lower.rootIno, attr);
    if (failed < 0) return failed;
    const request = Object.assign(new CreateRequest(), {
      mode: attr.mode & 0o7777,
      uid: attr.uid,
      gid: attr.gid,
    });
    const records = OverlayRecords.open(upper, request);
    if (typeof records === "number") return records;
    const read = isServed === true ? 0 : records.read();
    if (read < 0) return read;
    const files = new OverlayFiles(lower, upper);
    const nodes = new OverlayNodes(upper, (node) => abandonCopy(parts, node));
    const parts: OverlayParts = {
      lower,
      upper,
      nodes,
      records,
      files,
      inodes,
      attr,
      space: new StatFs(),
    };
    const root = nodes.add({
      type: S_IFDIR,
      upper: records.tree,
      lower: lower.rootIno,
      lowerLinks: 0,
      record: undefined,
      parent: undefined,
      name: "" as Name,
    });
    const dressed = records.isNew ? dressRoot(parts, root, attr) : 0;
    if (dressed < 0) return dressed;
    return new OverlayTree(parts, root);
  }

  /** Learns what the server that has ended left (isServed): 0 or -errno. */
  takeOver(): number {
    return this.#parts.records.read();
  }

  /** The tree that changes go to, which is of the host. */
  get upper(): Upper {
    return this.#parts.upper;
  }

  // For a successor: the upper's journal, and behind it the overlay's own.

  get journalBytes(): number {
    return this.upper.journalBytes + OVERLAY_JOURNAL_BYTES;
  }

  takeJournal(memory: Uint8Array, isResumed: boolean): void {
    const { upper } = this;
    upper.takeJournal(memory.subarray(0, upper.journalBytes), isResumed);
    const journal = new OverlayJournal(memory.subarray(upper.journalBytes));
    if (isResumed) this.#restored = restoreNodes(this.#parts, journal, this.#root);
    else this.#parts.nodes.takeJournal(journal);
  }

  settle(): void {
    for (const node of this.#restored.splice(0)) this.#parts.nodes.release(node);
    this.upper.settle();
  }

  reopen(ino: Ino, isDirectory: boolean, access: number): number {
    const node = this.#node(ino);
    if (node === undefined) return -Errno.EIO;
    if (isDirectory) return this.opendir(ino);
    const { upper, lower, files } = this.#parts;
    const isUpper = hasUpperData(node);
    const handle = isUpper
      ? upper.reopen(node.upper, false, access)
      : (lower.reopen?.(node.lower, false, access, UNKNOWN_HANDLE) ?? -Errno.EIO);
    return handle < 0 ? handle : files.take(node, isUpper, handle);
  }

  /** Bounds the FDs of the upper's inodes and files: EMFILE past it. */
  limitFds(max: number): void {
    this.#parts.upper.limitFds(max);
  }

  /** Inodes that the client holds, and open files. */
  get inodeCount(): number {
    return this.#parts.nodes.count;
  }

  get fileCount(): number {
    return this.#parts.files.count;
  }

  /** The lower inode that has the bytes of a regular file; 0: the upper has them. */
  dataBelow(ino: Ino): number {
    const node = this.#node(ino);
    return node === undefined || hasUpperData(node) ? 0 : node.lower;
  }

  #node(ino: Ino): OverlayNode | undefined {
    return this.#parts.nodes.get(ino);
  }

  lookup(dir: Ino, name: Name): number {
    const node = this.#node(dir);
    if (node === undefined) return -Errno.EBADF;
    const bad = checkName(name);
    if (bad < 0) return bad;
    const found = findNode(this.#parts, node, name);
    return typeof found === "number" ? found : found.ino;
  }

  acquire(ino: Ino): number {
    const node = this.#node(ino);
    if (node === undefined) return -Errno.EBADF;
    node.references++;
    return 0;
  }

  /** The root outlives its references: it goes with the tree. */
  release(ino: Ino): void {
    const node = this.#node(ino);
    if (node === undefined || (node === this.#root && node.references === 1)) return;
    this.#parts.nodes.release(node);
  }

  getattr(ino: Ino, out: Attr): number {
    const node = this.#node(ino);
    return node === undefined ? -Errno.EBADF : attrOfNode(this.#parts, node, out);
  }

  fgetattr(ino: Ino, _handle: number, out: Attr): number {
    return this.getattr(ino, out);
  }

  readlink(ino: Ino, out: Uint8Array): number {
    const node = this.#node(ino);
    if (node === undefined) return -Errno.EBADF;
    const { upper, lower } = this.#parts;
    return node.upper === NONE ? lower.readlink(node.lower, out) : upper.readlink(node.upper, out);
  }

  opendir(ino: Ino): number {
    const node = this.#node(ino);
    if (node === undefined) return -Errno.EBADF;
    if (node.type !== S_IFDIR) return -Errno.ENOTDIR;
    const { upper, files } = this.#parts;
    const handle = node.upper === NONE ? -1 : upper.opendir(node.upper);
    return handle < -1 ? handle : files.take(node, true, handle);
  }

  readdir(ino: Ino, handle: number, cookie: number, sink: DirentSink): number {
    const node = this.#node(ino);
    return node === undefined ? -Errno.EBADF : readdir(this.#parts, node, handle, cookie, sink);
  }

  closedir(_ino: Ino, handle: number): void {
    this.#parts.files.closeDirectory(handle);
  }

  /** To read, the file below until it was copied up; to write, the copy: MISS until it is whole, but for O_TRUNC. */
  open(ino: Ino, flags: number, out: OpenResult): number {
    const node = this.#node(ino);
    if (node === undefined) return -Errno.EBADF;
    if (node.type === S_IFDIR) return -Errno.EISDIR;
    if (node.type === S_IFLNK) return -Errno.EINVAL;
    const { upper, lower, files } = this.#parts;
    if (flags === O_RDONLY && !hasUpperData(node)) {
      const opened = lower.open(node.lower, flags, out);
      if (opened === 0) out.handle = files.take(node, false, out.handle);
      return opened;
    }
    if (flags !== O_RDONLY && node.type === S_IFREG) {
      const length = (flags & O_TRUNC) === 0 ? Number.POSITIVE_INFINITY : 0;
      const copied = ensureData(this.#parts, node, length);
      if (copied < 0) return copied;
    }
    const opened =
      node.upper === NONE
        ? lower.open(node.lower, O_RDONLY, out)
        : upper.open(node.upper, flags, out);
    if (opened === 0) out.handle = files.take(node, node.upper !== NONE, out.handle);
    return opened;
  }

  read(_ino: Ino, handle: number, offset: number, out: Uint8Array): number {
    return this.#parts.files.read(handle, offset, out);
  }

  close(_ino: Ino, handle: number): void {
    this.#parts.files.close(handle);
  }

  /** The upper's, which is what there is to write to. */
  statfs(_ino: Ino, out: StatFs): number {
    const { upper, records, inodes } = this.#parts;
    const failed = upper.statfs(upper.rootIno, out);
    if (failed < 0) return failed;
    if (inodes === Number.POSITIVE_INFINITY) return 0;
    const used = out.files - out.filesFree - records.hiddenInodes;
    out.files = inodes;
    out.filesFree = Math.max(0, inodes - used);
    return 0;
  }

  getxattr(ino: Ino, name: string, out: Uint8Array): number {
    const node = this.#node(ino);
    if (node === undefined) return -Errno.EBADF;
    const { upper, lower } = this.#parts;
    return node.upper === NONE
      ? lower.getxattr(node.lower, name, out)
      : upper.getxattr(node.upper, name, out);
  }

  listxattr(ino: Ino, out: Uint8Array): number {
    const node = this.#node(ino);
    if (node === undefined) return -Errno.EBADF;
    const { upper, lower } = this.#parts;
    return node.upper === NONE
      ? lower.listxattr(node.lower, out)
      : upper.listxattr(node.upper, out);
  }

  dispose(): void {
    if (this.#isDisposed) return;
    this.#isDisposed = true;
    this.#parts.nodes.dispose();
    this.#parts.files.dispose();
    this.#parts.upper.dispose();
    this.#parts.lower.dispose();
  }

  // What a WritableTree adds.

  /** Attributes of a lower inode take no bytes with them; a size does, up to it. */
  setattr(ino: Ino, handle: number, request: SetAttrRequest): number {
    const node = this.#node(ino);
    if (node === undefined) return -Errno.EBADF;
    const { upper, files } = this.#parts;
    const isSized = (request.mask & SetAttr.size) !== 0 && node.type === S_IFREG;
    const copied = isSized
      ? ensureData(this.#parts, node, request.size)
      : ensureUpper(this.#parts, node);
    if (copied < 0) return copied;
    const failed = upper.setattr(node.upper, Math.max(-1, files.upperHandle(handle)), request);
    if (failed === 0 && node.copy !== undefined) keepTimes(this.#parts, node, request);
    return failed;
  }

  write(ino: Ino, handle: number, offset: number, bytes: Uint8Array): number {
    const node = this.#node(ino);
    const own = this.#parts.files.upperHandle(handle);
    if (node === undefined || own < 0) return -Errno.EBADF;
    return this.#parts.upper.write(node.upper, own, offset, bytes);
  }

  fsync(ino: Ino, handle: number): number {
    const node = this.#node(ino);
    const own = this.#parts.files.upperHandle(handle);
    return node === undefined || own < 0 ? 0 : this.#parts.upper.fsync(node.upper, own);
  }

  /** What nothing was changed in has nothing to sync. Linux: fs/overlayfs/readdir.c, ovl_dir_fsync. */
  fsyncdir(ino: Ino, handle: number): number {
    const node = this.#node(ino);
    if (node === undefined) return -Errno.EBADF;
    const own = this.#parts.files.directoryHandle(handle);
    if (own === -Errno.ENOENT) return 0;
    return own < 0 ? own : this.#parts.upper.fsyncdir(node.upper, own);
  }

  allocate(ino: Ino, handle: number, mode: number, offset: number, length: number): number {
    const node = this.#node(ino);
    const own = this.#parts.files.upperHandle(handle);
    if (node === undefined || own < 0) return -Errno.EBADF;
    return this.#parts.upper.allocate(node.upper, own, mode, offset, length);
  }

  create(dir: Ino, name: Name, request: CreateRequest, flags: number, out: OpenResult): number {
    const { upper, files } = this.#parts;
    const made = makeNode(this.#parts, { dir, name, type: S_IFREG, request }, (at, as, asked) =>
      upper.create(at, as, asked, flags, out),
    );
    if (typeof made === "number") return made;
    out.handle = files.take(made, true, out.handle);
    return made.ino;
  }

  mkdir(dir: Ino, name: Name, request: CreateRequest): number {
    const { upper } = this.#parts;
    const made = makeNode(this.#parts, { dir, name, type: S_IFDIR, request }, (at, as, asked) =>
      upper.mkdir(at, as, asked),
    );
    return typeof made === "number" ? made : made.ino;
  }

  symlink(dir: Ino, name: Name, target: string, request: CreateRequest): number {
    const { upper } = this.#parts;
    const made = makeNode(this.#parts, { dir, name, type: S_IFLNK, request }, (at, as, asked) =>
      upper.symlink(at, as, target, asked),
    );
    return typeof made === "number" ? made : made.ino;
  }

  mknod(dir: Ino, name: Name, request: CreateRequest): number {
    const { upper } = this.#parts;
    const type = request.mode & S_IFMT;
    const made = makeNode(this.#parts, { dir, name, type, request }, (at, as, asked) =>
      upper.mknod(at, as, asked),
    );
    return typeof made === "number" ? made : made.ino;
  }

  link(dir: Ino, name: Name, target: Ino): number {
    const parent = this.#node(dir);
    const node = this.#node(target);
    if (parent === undefined || node === undefined) return -Errno.EBADF;
    const bad = checkName(name);
    return bad < 0 ? bad : link(this.#parts, parent, name, node);
  }

  unlink(dir: Ino, name: Name, isDirectory: boolean): number {
    const parent = this.#node(dir);
    if (parent === undefined) return -Errno.EBADF;
    const bad = checkName(name);
    return bad < 0 ? bad : unlink(this.#parts, parent, name, isDirectory);
  }

  rename(oldDir: Ino, oldName: Name, newDir: Ino, newName: Name, flags: number): number {
    const from = this.#node(oldDir);
    const to = this.#node(newDir);
    if (from === undefined || to === undefined) return -Errno.EBADF;
    const bad = checkName(oldName) || checkName(newName);
    return bad < 0 ? bad : rename(this.#parts, from, oldName, to, newName, flags);
  }

  setxattr(ino: Ino, name: string, value: Uint8Array, flags: number): number {
    const node = this.#node(ino);
    if (node === undefined) return -Errno.EBADF;
    const copied = ensureUpper(this.#parts, node);
    if (copied < 0) return copied;
    return this.#parts.upper.setxattr(node.upper, name, value, flags);
  }

  removexattr(ino: Ino, name: string): number {
    const node = this.#node(ino);
    if (node === undefined) return -Errno.EBADF;
    const copied = ensureUpper(this.#parts, node);
    return copied < 0 ? copied : this.#parts.upper.removexattr(node.upper, name);
  }
}
