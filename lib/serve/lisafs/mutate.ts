// Everything that changes names but OpenCreateAt and BindAt: MkdirAt, MknodAt, SymlinkAt, LinkAt, UnlinkAt, RenameAt(2).
// lisafs-wire section 4.3. Data plane.

import { Errno } from "../../base/errno.ts";
import {
  S_IFBLK,
  S_IFCHR,
  S_IFDIR,
  S_IFIFO,
  S_IFMT,
  S_IFREG,
  S_IFSOCK,
} from "../../base/file-types.ts";
import { SYMLINK_MAX_BYTES } from "../../base/limits.ts";
import { checkName, type Name } from "../../base/name.ts";
import { CreateRequest, type Ino, isWritable, type WritableTree } from "../../tree/tree.ts";
import type { Cursor } from "../../wire/cursor.ts";
import type { Request } from "../../wire/lisafs/message.ts";
import { putInode } from "../../wire/lisafs/statx.ts";
import type { Connection } from "./connection.ts";
import { attr, type Handler, preparedMode } from "./handler.ts";
import { Replay } from "./journal.ts";

/** man inode(7). */
const DEVICES: readonly number[] = [S_IFCHR, S_IFBLK];
const NEVER_MADE: readonly number[] = [S_IFIFO, S_IFDIR, S_IFSOCK];
const AT_REMOVEDIR = 0x200;
/** RENAME_NOREPLACE | RENAME_EXCHANGE. RENAME_WHITEOUT makes a device node: refused. man renameat2(2). */
const RENAME_FLAGS = 3;
const RENAME_EXCHANGE = 2;

const created = new CreateRequest();
/** The directory that checkTarget found. */
let directory = 0 as Ino;

/** The writable tree and `directory`, when the request may change a name there; else undefined and `refusal`. */
let refusal = 0;
function target(connection: Connection, request: Request): WritableTree | undefined {
  const { tree } = connection;
  if (connection.isReadOnly || !isWritable(tree)) {
    refusal = -Errno.EROFS;
    return undefined;
  }
  const ino = connection.fds.control(request.fd);
  refusal = ino < 0 ? ino : checkName(request.name);
  if (refusal < 0) return undefined;
  directory = ino as Ino;
  created.mode = request.mode & 0o7777;
  created.uid = request.uid;
  created.gid = request.gid;
  return tree;
}

/** The same for a request that makes a name: a refused one leaves none, so what its answer takes is asked for first. */
function targetOfNew(connection: Connection, request: Request): WritableTree | undefined {
  const tree = target(connection, request);
  if (tree === undefined) return undefined;
  refusal = connection.fds.roomForControl();
  return refusal < 0 ? undefined : tree;
}

/** Answers with the Inode of a new name: `ino` comes with one reference, or is -errno. */
function putCreated(connection: Connection, ino: number, reply: Cursor): number {
  if (ino < 0) return ino;
  const failed = connection.tree.getattr(ino as Ino, attr);
  if (failed < 0) {
    connection.tree.release(ino as Ino);
    return failed;
  }
  const fdid = connection.fds.mintControl(ino as Ino);
  return fdid < 0 ? fdid : putInode(reply, fdid, attr);
}

export const mkdirAt: Handler = (connection, request, reply, from) => {
  const tree = targetOfNew(connection, request);
  if (tree === undefined) return refusal;
  const name = request.name as Name;
  const replay = connection.begin(from);
  const ino =
    replay === Replay.done ? tree.lookup(directory, name) : tree.mkdir(directory, name, created);
  return putCreated(connection, connection.finish(replay, ino, Errno.EEXIST), reply);
};

/**
 * Regular files, and devices where the tree makes them: for FIFOs and sockets EPERM makes the sentry keep a synthetic node of its own. A
 * symlink, or what is no type, is EINVAL as of mknod(2), which the sentry hands on. Devices are for root, but for whiteouts, which anybody
 * may make: these sentries don't ask for CAP_MKNOD (gVisor: sys_file.go mknodat, until 2024 at least).
 */
export const mknodAt: Handler = (connection, request, reply, from) => {
  const tree = targetOfNew(connection, request);
  if (tree === undefined) return refusal;
  const type = request.mode & S_IFMT || S_IFREG;
  if (type !== S_IFREG && !DEVICES.includes(type))
    return NEVER_MADE.includes(type) ? -Errno.EPERM : -Errno.EINVAL;
  const isWhiteout = type === S_IFCHR && request.major === 0 && request.minor === 0;
  if (type !== S_IFREG && !isWhiteout && request.uid !== 0) return -Errno.EPERM;
  const mode = preparedMode(tree, directory, request.mode & 0o7777);
  if (mode < 0) return mode;
  created.mode = type | mode;
  created.rdevMajor = request.major;
  created.rdevMinor = request.minor;
  const name = request.name as Name;
  const replay = connection.begin(from);
  const ino =
    replay === Replay.done ? tree.lookup(directory, name) : tree.mknod(directory, name, created);
  return putCreated(connection, connection.finish(replay, ino, Errno.EEXIST), reply);
};

export const symlinkAt: Handler = (connection, request, reply, from) => {
  const tree = targetOfNew(connection, request);
  if (tree === undefined) return refusal;
  const text = request.otherName;
  if (text.length === 0) return -Errno.ENOENT;
  if (text.length > SYMLINK_MAX_BYTES) return -Errno.ENAMETOOLONG;
  if (text.includes("\0")) return -Errno.EINVAL;
  const name = request.name as Name;
  const replay = connection.begin(from);
  const ino =
    replay === Replay.done
      ? tree.lookup(directory, name)
      : tree.symlink(directory, name, text, created);
  return putCreated(connection, connection.finish(replay, ino, Errno.EEXIST), reply);
};

export const linkAt: Handler = (connection, request, reply, from) => {
  const tree = targetOfNew(connection, request);
  if (tree === undefined) return refusal;
  const linked = connection.fds.control(request.otherFd);
  if (linked < 0) return linked;
  const name = request.name as Name;
  const replay = connection.begin(from);
  const ino =
    replay === Replay.done
      ? tree.lookup(directory, name)
      : tree.link(directory, name, linked as Ino);
  return putCreated(connection, connection.finish(replay, ino, Errno.EEXIST), reply);
};

export const unlinkAt: Handler = (connection, request, _reply, from) => {
  const tree = target(connection, request);
  if (tree === undefined) return refusal;
  if ((request.flags & ~AT_REMOVEDIR) !== 0) return -Errno.EINVAL;
  const replay = connection.begin(from);
  if (replay === Replay.done) return 0;
  const isDirectory = request.flags === AT_REMOVEDIR;
  const outcome = tree.unlink(directory, request.name as Name, isDirectory);
  return connection.finish(replay, outcome, Errno.ENOENT);
};

export const renameAt: Handler = (connection, request, _reply, from) => {
  const tree = target(connection, request);
  if (tree === undefined) return refusal;
  const newDirectory = connection.fds.control(request.otherFd);
  if (newDirectory < 0) return newDirectory;
  const bad = checkName(request.otherName);
  if (bad < 0) return bad;
  if ((request.flags & ~RENAME_FLAGS) !== 0) return -Errno.EINVAL;
  const oldName = request.name as Name;
  const newName = request.otherName as Name;
  const replay = connection.begin(from);
  if (replay === Replay.done) return 0;
  // An exchange that was made would be unmade.
  if (replay === Replay.unknown && (request.flags & RENAME_EXCHANGE) !== 0) return -Errno.EIO;
  const { flags } = request;
  const outcome = tree.rename(directory, oldName, newDirectory as Ino, newName, flags);
  return connection.finish(replay, outcome, Errno.ENOENT);
};
