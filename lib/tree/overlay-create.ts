// How an overlay makes an inode: in the upper's own directory, or aside and then over the whiteout that hides a name of the lower tree. Data plane.

import { Errno } from "../base/errno.ts";
import { S_IFDIR, S_ISGID } from "../base/file-types.ts";
import { checkName, type Name } from "../base/name.ts";
import { freeName, overWhiteout } from "./overlay-names.ts";
import { NONE, type OverlayNode } from "./overlay-nodes.ts";
import { type OverlayParts, roomForInode } from "./overlay-parts.ts";
import { CreateRequest, type Ino } from "./tree.ts";

const inherited = new CreateRequest();

/** What is asked for under a name of a directory. */
export interface NewInode {
  readonly dir: Ino;
  readonly name: Name;
  /** S_IF*. */
  readonly type: number;
  readonly request: CreateRequest;
}

/** Has `make` make an inode of the upper: the node of it, under the name asked for; -errno. */
export function makeNode(
  parts: OverlayParts,
  { dir, name, type, request }: NewInode,
  make: (at: Ino, as: Name, asked: CreateRequest) => number,
): OverlayNode | number {
  const { records, upper, nodes } = parts;
  const parent = nodes.get(dir);
  if (parent === undefined) return -Errno.EBADF;
  const bad = checkName(name);
  const isHidden = bad < 0 ? bad : freeName(parts, parent, name);
  if (isHidden < 0) return isHidden;
  const full = roomForInode(parts);
  if (full < 0) return full;
  const as = isHidden === 1 ? records.workName() : name;
  const asked = isHidden === 1 ? inheriting(parts, parent, type, request) : request;
  if (typeof asked === "number") return asked;
  const ino = make(isHidden === 1 ? records.work : parent.upper, as, asked);
  if (ino < 0) return ino;
  const isDirectory = type === S_IFDIR;
  const placed = isHidden === 1 ? overWhiteout(parts, as, parent, name, isDirectory) : 0;
  if (placed < 0) {
    upper.unlink(records.work, as, isDirectory);
    upper.release(ino as Ino);
    return placed;
  }
  return nodes.add({
    type,
    upper: ino as Ino,
    lower: NONE,
    lowerLinks: 0,
    record: undefined,
    parent: isDirectory ? parent : undefined,
    name,
  });
}

/**
 * What is asked for of an inode that is made elsewhere and moved to this directory, which has an upper: a set-group-id directory gives
 * its group to all in it, and the bit to directories. man inode(7); of what is made at its place HostTree sees to that.
 * Scratch of the next call's, or the request itself; -errno.
 */
function inheriting(
  { upper, attr }: OverlayParts,
  dir: OverlayNode,
  type: number,
  request: CreateRequest,
): CreateRequest | number {
  const failed = upper.getattr(dir.upper, attr);
  if (failed < 0) return failed;
  if ((attr.mode & S_ISGID) === 0) return request;
  const { mode, uid } = request;
  inherited.uid = uid;
  inherited.gid = attr.gid;
  inherited.mode = type === S_IFDIR ? mode | S_ISGID : mode;
  return inherited;
}
