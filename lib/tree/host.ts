// HostTree: a directory, or a single file, of the host served beneath its FD: every walk is one component from an
// O_PATH FD, symlinks are never followed, ".." never asked for. Data plane, but for open and take (control).
//
// Read-only, each mutation is EROFS here, and where the process may make mounts the kernel refuses writes as well.
// Writable, what donated FDs do is bounded by the file system alone, so give it one with a quota (upper.ts).

import { Errno } from "../base/errno.ts";
import {
  S_IFBLK,
  S_IFDIR,
  S_IFIFO,
  S_IFLNK,
  S_IFMT,
  S_IFREG,
  S_IFSOCK,
} from "../base/file-types.ts";
import { OPEN_FDS_MAX } from "../base/limits.ts";
import { type Name, nameOf } from "../base/name.ts";
import { openOwnFds } from "../sys/fence.ts";
import { HostFd } from "../sys/host-fd.ts";
import {
  hostFs,
  O_DIRECTORY,
  O_NOATIME,
  O_NOFOLLOW,
  O_PATH,
  STAT_FIELDS,
  STATFS_FIELDS,
  StatField,
  StatFsField,
} from "../sys/hostfs.ts";
import { native } from "../sys/native.ts";
import { FdShare } from "./fd-share.ts";
import { fillAttr } from "./host-attr.ts";
import { HostDirectories } from "./host-directory.ts";
import { HostHandles } from "./host-handles.ts";
import { type HostNode, HostNodes, type HostParts } from "./host-nodes.ts";
import * as special from "./host-special.ts";
import { NO_SPECIAL_FILES, type SpecialFiles } from "./host-special.ts";
import * as write from "./host-write.ts";
import * as xattr from "./host-xattr.ts";
import { NODE_JOURNAL_BYTES, NodeJournal } from "./node-journal.ts";
import {
  type Attr,
  type CreateRequest,
  type DirentSink,
  type Ino,
  O_RDONLY,
  type OpenResult,
  type SetAttrRequest,
  type SocketTree,
  type StatFs,
} from "./tree.ts";

/** All FALLOC_FL_* there are: the system call takes 32 bits, a message has 64. */
const ALLOCATE_MODES = 0x7f;

export interface HostOptions {
  readonly isReadOnly: boolean;
  /** A symlink at the path itself is not followed: it is what is served. */
  readonly isItself?: boolean;
  /** Nothing when missing. */
  readonly special?: SpecialFiles;
  /** What an overlay changes, in a directory of the host: its character devices are whiteouts. */
  readonly isUpper?: boolean;
  /** A tmpfs of ours that is attached nowhere, whose device nodes are kept as host-devices.ts says. */
  readonly isScratch?: boolean;
}

export class HostTree implements SocketTree {
  readonly isReadOnly: boolean;
  readonly #special: SpecialFiles;
  readonly isStateless = false;
  readonly isScratch: boolean;
  readonly rootIno: Ino;
  readonly #parts: HostParts;
  readonly #directories: HostDirectories;
  readonly #space = new Float64Array(STATFS_FIELDS);
  #isDisposed = false;

  private constructor(parts: HostParts, rootIno: Ino, options: HostOptions) {
    this.#parts = parts;
    this.#directories = new HostDirectories(parts.nodes, parts.stat, parts.share);
    this.rootIno = rootIno;
    this.isReadOnly = options.isReadOnly;
    this.#special = options.special ?? NO_SPECIAL_FILES;
    this.isScratch = options.isScratch === true;
  }

  /**
   * The tree at a path of the host, as people write it; symlinks in it are followed, as a bind mount does. -errno of
   * open(2), -EPERM for a block device. Control plane, before the process gives up /proc.
   */
  static open(path: string, options: HostOptions): HostTree | number {
    const flags = options.isItself === true ? O_PATH | O_NOFOLLOW : O_PATH;
    const fd = native.openAt(-1, nameOf(path), flags, 0);
    if (fd < 0) return fd;
    const clone = hostFs.cloneMount(fd, options.isReadOnly);
    if (clone >= 0) native.closeFd(fd);
    return HostTree.take(new HostFd(clone >= 0 ? clone : fd), options);
  }

  /** The tree beneath an O_PATH or mount FD, which it takes, whatever comes of it. -errno. Control plane. */
  static take(root: HostFd, options: HostOptions): HostTree | number {
    const stat = new Float64Array(STAT_FIELDS);
    const failed = hostFs.statNode(root.borrow(), stat);
    const procFd = openOwnFds();
    const isServed = (stat[StatField.mode]! & S_IFMT) !== S_IFBLK;
    if (failed < 0 || procFd < 0 || !isServed) {
      root[Symbol.dispose]();
      if (procFd >= 0) native.closeFd(procFd);
      return failed < 0 ? failed : procFd < 0 ? procFd : -Errno.EPERM;
    }
    const share = new FdShare();
    const nodes = new HostNodes(share, options.isUpper === true || options.isScratch === true);
    const files = new HostHandles(OPEN_FDS_MAX, share);
    const parts = { nodes, files, share, procFd, stat };
    const rootIno = nodes.take(root.take(), stat) as Ino;
    return new HostTree(parts, rootIno, options);
  }

  /** Bounds the FDs of live inodes, open files and open directories together: EMFILE past it. */
  limitFds(max: number): void {
    this.#parts.share.max = max;
  }

  /** The FD of the root, for a stub that keeps it for a successor. Borrowed; the tree closes it. */
  get rootFd(): number {
    return this.#parts.nodes.get(this.rootIno)?.fd ?? -Errno.EBADF;
  }

  /** Whether a client may reach sockets of the host by it. */
  get hasSockets(): boolean {
    return this.#special.connectsSockets || this.#special.bindsSockets;
  }

  /** Whether the root is a directory; else it is a file. */
  get isDirectory(): boolean {
    return this.#parts.nodes.get(this.rootIno)?.type === S_IFDIR;
  }

  /** Live inodes and open files: each holds one FD. */
  get inodeCount(): number {
    return this.#parts.nodes.count;
  }

  get fileCount(): number {
    return this.#parts.files.count;
  }

  /** -ENOENT, -ENOTDIR; -EPERM for a block device of the host (lisafs-wire section 5); -EMFILE. */
  lookup(dir: Ino, name: Name): number {
    const { nodes, stat } = this.#parts;
    const parent = nodes.get(dir);
    if (parent === undefined) return -Errno.EBADF;
    const fd = hostFs.lookupAt(parent.fd, name, stat);
    if (fd < 0) return fd;
    if ((stat[StatField.mode]! & S_IFMT) === S_IFBLK) {
      native.closeFd(fd);
      return -Errno.EPERM;
    }
    return nodes.take(fd, stat);
  }

  acquire(ino: Ino): number {
    const node = this.#parts.nodes.get(ino);
    if (node === undefined) return -Errno.EBADF;
    node.references++;
    return 0;
  }

  /** The root outlives its references: it goes with the tree. */
  release(ino: Ino): void {
    const node = this.#parts.nodes.get(ino);
    if (node === undefined) return;
    if (ino === this.rootIno && node.references === 1) return;
    this.#parts.nodes.release(node);
  }

  getattr(ino: Ino, out: Attr): number {
    const { nodes, stat } = this.#parts;
    const node = nodes.get(ino);
    if (node === undefined) return -Errno.EBADF;
    const failed = hostFs.statNode(node.fd, stat);
    if (failed < 0) return failed;
    fillAttr(stat, node, out);
    return 0;
  }

  /** Without a system call: the last one's statx(2) stands in the scratch. */
  attrOfFound(ino: Ino, out: Attr): number {
    const { nodes, stat } = this.#parts;
    const node = nodes.get(ino);
    if (node === undefined || node.hostIno !== stat[StatField.ino]!) return this.getattr(ino, out);
    fillAttr(stat, node, out);
    return 0;
  }

  fgetattr(ino: Ino, _handle: number, out: Attr): number {
    return this.getattr(ino, out);
  }

  readlink(ino: Ino, out: Uint8Array): number {
    const node = this.#parts.nodes.get(ino);
    if (node === undefined) return -Errno.EBADF;
    return node.type === S_IFLNK ? hostFs.readlinkFd(node.fd, out) : -Errno.EINVAL;
  }

  opendir(ino: Ino): number {
    const { nodes, procFd } = this.#parts;
    const node = nodes.get(ino);
    if (node === undefined) return -Errno.EBADF;
    if (node.type !== S_IFDIR) return -Errno.ENOTDIR;
    if (!this.#directories.hasRoom) return -Errno.EMFILE;
    return this.#directories.take(hostFs.reopenFd(procFd, node.fd, O_RDONLY | O_DIRECTORY));
  }

  /** As opendir, but that listing it is no access of the sandbox's: its atime stays. man open(2), O_NOATIME. */
  opendirQuietly(ino: Ino): number {
    const { nodes, procFd } = this.#parts;
    const node = nodes.get(ino);
    if (node === undefined || !this.#directories.hasRoom) return this.opendir(ino);
    const fd = hostFs.reopenFd(procFd, node.fd, O_RDONLY | O_DIRECTORY | O_NOATIME);
    return fd === -Errno.EPERM ? this.opendir(ino) : this.#directories.take(fd);
  }

  readdir(ino: Ino, handle: number, cookie: number, sink: DirentSink): number {
    const node = this.#parts.nodes.get(ino);
    return node === undefined ? -Errno.EBADF : this.#directories.read(node, handle, cookie, sink);
  }

  closedir(_ino: Ino, handle: number): void {
    this.#directories.close(handle);
  }

  /**
   * Tree.open. The FD offered is the handle's own, with the access asked for. -EPERM for a device and, unless the options
   * allow it, a FIFO, which is never waited for; -ENXIO for a socket. -EAGAIN while a client holds a lease on the file.
   */
  open(ino: Ino, flags: number, out: OpenResult): number {
    const { nodes, files, procFd } = this.#parts;
    if (this.isReadOnly && flags !== O_RDONLY) return -Errno.EROFS;
    const node = nodes.get(ino);
    if (node === undefined) return -Errno.EBADF;
    const isFifo = node.type === S_IFIFO && this.#special.opensFifos;
    if (node.type !== S_IFREG && !isFifo) return -errnoOfOpening(node);
    if (!files.hasRoom) return -Errno.EMFILE;
    const fd = hostFs.reopenFd(procFd, node.fd, flags);
    if (fd < 0) return fd;
    out.handle = files.take(fd);
    out.hostFd = fd;
    out.ownsFd = false;
    return 0;
  }

  read(_ino: Ino, handle: number, offset: number, out: Uint8Array): number {
    const fd = this.#parts.files.get(handle);
    if (fd < 0) return fd;
    let done = native.preadFd(fd, out, offset);
    while (done > 0 && done < out.length) {
      const more = native.preadFd(fd, out.subarray(done), offset + done);
      if (more < 0) return more;
      if (more === 0) break;
      done += more;
    }
    return done;
  }

  close(_ino: Ino, handle: number): void {
    this.#parts.files.close(handle);
  }

  statfs(ino: Ino, out: StatFs): number {
    const node = this.#parts.nodes.get(ino);
    if (node === undefined) return -Errno.EBADF;
    const space = this.#space;
    const failed = hostFs.statfsFd(node.fd, space);
    if (failed < 0) return failed;
    out.blockSize = space[StatFsField.blockSize]!;
    out.blocks = space[StatFsField.blocks]!;
    out.blocksFree = space[StatFsField.blocksFree]!;
    out.blocksAvailable = space[StatFsField.blocksAvailable]!;
    out.files = space[StatFsField.files]!;
    out.filesFree = space[StatFsField.filesFree]!;
    out.nameLength = space[StatFsField.nameLength]!;
    return 0;
  }

  getxattr(ino: Ino, name: string, out: Uint8Array): number {
    return xattr.get(this.#parts, ino, name, out);
  }

  listxattr(ino: Ino, out: Uint8Array): number {
    return xattr.list(this.#parts, ino, out);
  }

  connect(ino: Ino, sockType: number): number {
    if (!this.#special.connectsSockets) return -Errno.EPERM;
    return special.connect(this.#parts, ino, sockType);
  }

  bind(dir: Ino, name: Name, sockType: number, request: CreateRequest, out: OpenResult): number {
    if (this.isReadOnly) return -Errno.EROFS;
    if (!this.#special.bindsSockets) return -Errno.EPERM;
    return special.bind(this.#parts, dir, name, sockType, request, out);
  }

  listenOn(handle: number, backlog: number): number {
    const fd = this.#parts.files.get(handle);
    return fd < 0 ? fd : hostFs.listenFd(fd, backlog);
  }

  acceptOn(handle: number): number {
    return special.accept(this.#parts, handle);
  }

  // For a successor. Slots that were freed lose their generation with a server, but FDIDs are never used again, and so no stale one
  // leads to the next inode of a slot.

  readonly journalBytes = NODE_JOURNAL_BYTES;

  takeJournal(memory: Uint8Array, isResumed: boolean): void {
    const { nodes, stat, procFd } = this.#parts;
    // Handles are opened by a real FD of the mount. A root that is a file has no inode but itself.
    const flags = O_RDONLY | O_DIRECTORY;
    const anchor = isResumed ? hostFs.reopenFd(procFd, this.rootFd, flags) : -1;
    nodes.takeJournal(new NodeJournal(memory), isResumed, anchor, stat);
    if (anchor >= 0) native.closeFd(anchor);
  }

  settle(): void {
    this.#parts.nodes.settle();
  }

  reopen(ino: Ino, isDirectory: boolean, access: number): number {
    const { nodes, files, procFd } = this.#parts;
    const node = nodes.get(ino);
    if (node === undefined || !files.hasRoom) return -Errno.EIO;
    if (isDirectory) return this.opendir(ino);
    return files.take(hostFs.reopenFd(procFd, node.fd, access));
  }

  /** Closes every FD the tree holds, in reverse order of birth. */
  dispose(): void {
    if (this.#isDisposed) return;
    this.#isDisposed = true;
    this.#directories.dispose();
    this.#parts.files.dispose();
    this.#parts.nodes.dispose();
    native.closeFd(this.#parts.procFd);
  }

  // What a WritableTree adds: EROFS when read-only. pitfalls.md E7.

  setattr(ino: Ino, handle: number, request: SetAttrRequest): number {
    return this.isReadOnly ? -Errno.EROFS : write.setattr(this.#parts, ino, handle, request);
  }

  write(_ino: Ino, handle: number, offset: number, bytes: Uint8Array): number {
    if (this.isReadOnly) return -Errno.EROFS;
    const fd = this.#parts.files.get(handle);
    return fd < 0 ? fd : native.pwriteFd(fd, bytes, offset);
  }

  fsync(_ino: Ino, handle: number): number {
    const fd = this.#parts.files.get(handle);
    return fd < 0 ? fd : hostFs.syncFd(fd);
  }

  fsyncdir(_ino: Ino, handle: number): number {
    return this.#directories.sync(handle);
  }

  /** Any mode of fallocate(2) that the file system has; -EOPNOTSUPP for others. A sentry sends mode 0 alone. */
  allocate(_ino: Ino, handle: number, mode: number, offset: number, length: number): number {
    if (this.isReadOnly) return -Errno.EROFS;
    if (mode > ALLOCATE_MODES) return -Errno.EOPNOTSUPP;
    const fd = this.#parts.files.get(handle);
    return fd < 0 ? fd : hostFs.allocateFd(fd, mode, offset, length);
  }

  create(dir: Ino, name: Name, request: CreateRequest, flags: number, out: OpenResult): number {
    return this.isReadOnly
      ? -Errno.EROFS
      : write.create(this.#parts, dir, name, request, flags, out);
  }

  mkdir(dir: Ino, name: Name, request: CreateRequest): number {
    return this.isReadOnly ? -Errno.EROFS : write.mkdir(this.#parts, dir, name, request);
  }

  symlink(dir: Ino, name: Name, target: string, request: CreateRequest): number {
    return this.isReadOnly ? -Errno.EROFS : write.symlink(this.#parts, dir, name, target, request);
  }

  mknod(dir: Ino, name: Name, request: CreateRequest): number {
    if (this.isReadOnly) return -Errno.EROFS;
    return write.mknod(this.#parts, dir, name, request, this.isScratch);
  }

  link(dir: Ino, name: Name, target: Ino): number {
    return this.isReadOnly ? -Errno.EROFS : write.link(this.#parts, dir, name, target);
  }

  unlink(dir: Ino, name: Name, isDirectory: boolean): number {
    return this.isReadOnly ? -Errno.EROFS : write.unlink(this.#parts, dir, name, isDirectory);
  }

  rename(oldDir: Ino, oldName: Name, newDir: Ino, newName: Name, flags: number): number {
    if (this.isReadOnly) return -Errno.EROFS;
    return write.rename(this.#parts, oldDir, oldName, newDir, newName, flags);
  }

  /** A whiteout: a character device 0:0, which hides a name of what lies below. Linux: overlayfs.rst. */
  whiteout(dir: Ino, name: Name): number {
    return this.isReadOnly ? -Errno.EROFS : write.whiteout(this.#parts, dir, name);
  }

  /** Moves a name and leaves a whiteout in its place, in one step. man renameat2(2). */
  renameLeavingWhiteout(oldDir: Ino, oldName: Name, newDir: Ino, newName: Name): number {
    if (this.isReadOnly) return -Errno.EROFS;
    return write.renameLeavingWhiteout(this.#parts, oldDir, oldName, newDir, newName);
  }

  setxattr(ino: Ino, name: string, value: Uint8Array, flags: number): number {
    return this.isReadOnly ? -Errno.EROFS : xattr.set(this.#parts, ino, name, value, flags);
  }

  removexattr(ino: Ino, name: string): number {
    return this.isReadOnly ? -Errno.EROFS : xattr.remove(this.#parts, ino, name);
  }
}

function errnoOfOpening(node: HostNode): number {
  if (node.type === S_IFDIR) return Errno.EISDIR;
  if (node.type === S_IFLNK) return Errno.EINVAL;
  return node.type === S_IFSOCK ? Errno.ENXIO : Errno.EPERM;
}
