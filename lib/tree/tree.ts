// Tree: the one filesystem contract, in inode numbers, under every front end. Data plane: methods return
// a number, >= 0 for a result, < 0 for -errno, MISS (-4096) when bytes are not on this node yet.
//
// MISS may only be returned before any side effect: the request is parked and run again from the start.
// Concurrency guarantee of every method: none needed. All calls come from the one data-plane thread.

import { Attr } from "../base/attr.ts";
import type { Name } from "../base/name.ts";

export { Attr };

/** A file's identity in a tree: > 0, < 2^53, stable for the life of the tree. */
export type Ino = number & { readonly __brand: "Ino" };

/** Result of open: a handle for read, write and close, and a host FD to donate or -1. */
export class OpenResult {
  /** >= 0, chosen by the tree; 0 where the tree needs none (a donated file that is read natively). */
  handle = 0;
  /**
   * Number of a host FD to donate, or -1. When ownsFd the caller closes it after the donation (or on any
   * failure before it); otherwise the tree keeps it and the caller only borrows it for the send.
   */
  hostFd = -1;
  ownsFd = false;
}

/** Result of statfs. Sizes in blocks of blockSize. */
export class StatFs {
  blockSize = 4096;
  blocks = 0;
  blocksFree = 0;
  blocksAvailable = 0;
  files = 0;
  filesFree = 0;
  nameLength = 255;
}

/** What setattr changes: bits of LISAFS SetStat's mask (STATX_*). */
export const SetAttr = {
  mode: 0x2,
  uid: 0x8,
  gid: 0x10,
  atime: 0x20,
  mtime: 0x40,
  size: 0x200,
} as const;

/** Arguments of setattr and its outcome. nsec may be UTIME_NOW (0x3fffffff). One object is reused. */
export class SetAttrRequest {
  mask = 0;
  mode = 0;
  uid = 0;
  gid = 0;
  size = 0;
  atimeSec = 0;
  atimeNs = 0;
  mtimeSec = 0;
  mtimeNs = 0;
  /** Out: the bits that failed and the last errno (positive); 0 and 0 when all went well. */
  failureMask = 0;
  failureErrno = 0;
}

/** Who owns a created file, and its permission bits. uid or gid 0xffffffff: leave as created. */
export class CreateRequest {
  mode = 0;
  uid = 0;
  gid = 0;
  /** Which device mknod makes. */
  rdevMajor = 0;
  rdevMinor = 0;
}

/** Takes one dentry during readdir; false when it has no room (the dentry is offered again next time). */
export type DirentSink = (ino: number, devMinor: number, type: number, name: string) => boolean;

/** Access modes and flags of open, Linux's values. Only O_ACCMODE and O_TRUNC reach a tree. */
export const O_RDONLY = 0;
export const O_WRONLY = 1;
export const O_RDWR = 2;
export const O_ACCMODE = 3;
export const O_TRUNC = 0o1000;

/** Of reopen, for who doesn't know what a predecessor's tree called it. */
export const UNKNOWN_HANDLE = -1;

/** What every tree can do: enough for a read-only one. */
export interface Tree {
  /** Every mutating call gives EROFS. */
  readonly isReadOnly: boolean;
  /**
   * Inode numbers are a function of the tree's content alone: acquire and release are no-ops, and a front
   * end may use an Ino as its FDID without a table.
   */
  readonly isStateless: boolean;
  readonly rootIno: Ino;

  /**
   * Ino of a child, with one reference taken for the caller (see release); -ENOENT, -ENOTDIR. `name` has
   * passed checkName.
   */
  lookup(dir: Ino, name: Name): number;
  /** One more reference on a live inode: 0 or -EBADF. */
  acquire(ino: Ino): number;
  /** Gives back one reference of lookup, acquire or a creating call. */
  release(ino: Ino): void;

  /** Fills `out`: 0, -EBADF for an unknown ino, -EIO. */
  getattr(ino: Ino, out: Attr): number;
  /**
   * As getattr, of the inode that the call right before on this tree, a lookup or create, has given: what that learned of it is as true.
   * Where a tree has none, getattr does.
   */
  attrOfFound?(ino: Ino, out: Attr): number;
  /** Attributes of an open file, by its handle. */
  fgetattr(ino: Ino, handle: number, out: Attr): number;
  /** Copies a symlink's target: its bytes, -EINVAL when it is no symlink, -ERANGE when it does not fit. */
  readlink(ino: Ino, out: Uint8Array): number;

  /** Opens a directory for readdir: a handle >= 0, or -ENOTDIR, -EMFILE. */
  opendir(ino: Ino): number;
  /**
   * Offers dentries from the position `cookie` (0 is the start) to the sink, without "." and "..": the new
   * cookie, equal to the old one at the end. Unlinked names may be missed or seen, others come exactly once.
   */
  readdir(ino: Ino, handle: number, cookie: number, sink: DirentSink): number;
  closedir(ino: Ino, handle: number): void;

  /** Opens a regular file (flags: O_ACCMODE | O_TRUNC): 0 with `out` filled, MISS, -EISDIR, -EROFS, … */
  open(ino: Ino, flags: number, out: OpenResult): number;
  /** Reads into `out`: bytes, fewer than asked only at the end of the file; MISS; -EIO. */
  read(ino: Ino, handle: number, offset: number, out: Uint8Array): number;
  close(ino: Ino, handle: number): void;

  statfs(ino: Ino, out: StatFs): number;
  /** Copies an xattr's value: its bytes, -ENODATA, -ERANGE. */
  getxattr(ino: Ino, name: string, out: Uint8Array): number;
  /** Copies the NUL-terminated names: bytes, -ERANGE. */
  listxattr(ino: Ino, out: Uint8Array): number;

  // Hot restart: a server's successor has a tree of its own over the same files. A tree that isn't stateless and has none of
  // these loses what was known of it.

  /** Bytes of memory that outlives the server which the tree wants. */
  readonly journalBytes?: number;
  /** Keeps in that memory what a successor needs; a predecessor's (isResumed) inodes are found again by it. Before any request. */
  takeJournal?(memory: Uint8Array, isResumed: boolean): void;
  /** Lets go of found inodes that nothing has acquired since takeJournal. */
  settle?(): void;
  /** Opens for a successor what its predecessor had opened as `handle`, or UNKNOWN_HANDLE, on an acquired ino: a handle or -errno. */
  reopen?(ino: Ino, isDirectory: boolean, access: number, handle: number): number;

  /** Frees all the tree holds. Idempotent. */
  dispose(): void;
}

/** What a writable tree adds. Created inodes come back with one reference, as from lookup. */
export interface WritableTree extends Tree {
  readonly isReadOnly: false;
  setattr(ino: Ino, handle: number, request: SetAttrRequest): number;
  write(ino: Ino, handle: number, offset: number, bytes: Uint8Array): number;
  fsync(ino: Ino, handle: number): number;
  /** As fsync, of an open directory: the names in it. */
  fsyncdir(ino: Ino, handle: number): number;
  allocate(ino: Ino, handle: number, mode: number, offset: number, length: number): number;
  /** Creates exclusively and opens: the Ino, with `out` filled; -EEXIST. */
  create(dir: Ino, name: Name, request: CreateRequest, flags: number, out: OpenResult): number;
  mkdir(dir: Ino, name: Name, request: CreateRequest): number;
  symlink(dir: Ino, name: Name, target: string, request: CreateRequest): number;
  /**
   * Regular files, and devices where they can do no harm (S_IFMT in request.mode): else -EPERM, for which the sentry keeps a FIFO or
   * socket of its own.
   */
  mknod(dir: Ino, name: Name, request: CreateRequest): number;
  link(dir: Ino, name: Name, target: Ino): number;
  unlink(dir: Ino, name: Name, isDirectory: boolean): number;
  /** flags: RENAME_NOREPLACE 1, RENAME_EXCHANGE 2; others -EINVAL. */
  rename(oldDir: Ino, oldName: Name, newDir: Ino, newName: Name, flags: number): number;
  setxattr(ino: Ino, name: string, value: Uint8Array, flags: number): number;
  removexattr(ino: Ino, name: string): number;
}

/** What a tree adds that lets a sandbox reach Unix sockets of the host. Each call says -EPERM where its policy does. */
export interface SocketTree extends Tree {
  /** A socket of a type (0: of its own) connected to the socket of an inode, the caller's: its FD, or -errno. Never waits. */
  connect(ino: Ino, sockType: number): number;
  /** Binds a socket of a type to a new name: the Ino, with `out` filled; -EEXIST. close() gives its handle back. */
  bind(dir: Ino, name: Name, sockType: number, request: CreateRequest, out: OpenResult): number;
  /** 0 or -errno, by a handle of bind. */
  listenOn(handle: number, backlog: number): number;
  /** The FD of the next peer, the caller's; -EAGAIN when there is none. */
  acceptOn(handle: number): number;
}

/** Attributes of the inode that the last call on a tree, a lookup or create, has given. */
export function attrOfFound(tree: Tree, ino: Ino, out: Attr): number {
  return tree.attrOfFound === undefined ? tree.getattr(ino, out) : tree.attrOfFound(ino, out);
}

export function hasSockets(tree: Tree): tree is SocketTree {
  return "connect" in tree;
}

export function isWritable(tree: Tree): tree is WritableTree {
  return !tree.isReadOnly;
}
