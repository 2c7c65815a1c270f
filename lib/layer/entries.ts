// Entries: what the rows of an index say, as LayerEntry values; the reverse of the writer. Checked, since an index may lie. Control
// plane.

import type { BlobRef } from "../base/blob.ts";
import { digestAt } from "../base/digest.ts";
import { S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT, S_IFREG } from "../base/file-types.ts";
import { SYMLINK_MAX_BYTES, TREE_DEPTH_MAX } from "../base/limits.ts";
import { checkName } from "../base/name.ts";
import type { LayerEntry } from "./entry.ts";
import { refuse, XATTR_LIST_MAX_BYTES, XATTR_VALUE_MAX_BYTES } from "./entry-check.ts";
import { Blob, IMPLIED_XATTR, Inode, OPAQUE_XATTR } from "./format.ts";
import type { Index } from "./index.ts";

/** A directory that entriesOf is in: which of its dirents comes next. */
interface Frame {
  readonly path: string;
  readonly end: number;
  dirent: number;
}

/**
 * The entries of an index, directories before what is in them: what writeIndex made it of, with hard links grouped by number.
 * Throws BURROW_BAD_INDEX for one that contradicts itself; a hostile one can't make it go in circles or without end.
 */
export function* entriesOf(index: Index): Iterable<LayerEntry> {
  const seen = new Uint8Array(index.inodeCount + 1);
  const stack: Frame[] = [];
  const blobs = new Map<number, BlobRef>();
  let direntsLeft = index.direntCount;
  const enter = (ino: number, path: string) => {
    // A directory has one name.
    if (seen[ino] !== 0 || stack.length > TREE_DEPTH_MAX) corrupt(path);
    seen[ino] = 1;
    const row = index.row(ino);
    const first = index.firstDirent(row);
    if (first < 0) corrupt(path);
    const count = index.field(row, Inode.b);
    direntsLeft -= count;
    if (direntsLeft < 0) corrupt(path); // each dirent is one directory's
    stack.push({ path, dirent: first, end: first + count });
  };
  yield entryAt(index, index.row(1), 1, "", blobs);
  enter(1, "");
  while (stack.length > 0) {
    const frame = stack[stack.length - 1]!;
    if (frame.dirent === frame.end) {
      stack.pop();
      continue;
    }
    const dirent = frame.dirent++;
    const name = index.direntName(dirent);
    const ino = index.direntIno(dirent);
    if (ino <= 0 || checkName(name) < 0) corrupt(frame.path);
    const path = frame.path === "" ? name : `${frame.path}/${name}`;
    const entry = entryAt(index, index.row(ino), ino, path, blobs);
    yield entry;
    if (entry.type === "directory") enter(ino, path);
  }
}

/** The first of them: the root. */
export function rootEntry(index: Index): LayerEntry {
  return entryAt(index, index.row(1), 1, "", new Map());
}

/** Throws BURROW_BAD_INDEX, with the path that contradicts the rest. */
export function corrupt(path: string): never {
  refuse(path, "the index contradicts itself");
}

const text = new Uint8Array(XATTR_VALUE_MAX_BYTES);

function entryAt(
  index: Index,
  row: number,
  ino: number,
  path: string,
  blobs: Map<number, BlobRef>,
): LayerEntry {
  const mode = index.field(row, Inode.mode);
  const plain = {
    path,
    mode: mode & 0o7777,
    uid: index.field(row, Inode.uid),
    gid: index.field(row, Inode.gid),
    mtimeSec: index.mtimeAt(row),
    mtimeNs: index.field(row, Inode.mtimeNs),
  };
  const xattrs = index.field(row, Inode.xattr) === 0 ? undefined : xattrsAt(index, row, path);
  const isOpaque = xattrs?.delete(OPAQUE_XATTR) === true;
  const isImplied = xattrs?.delete(IMPLIED_XATTR) === true;
  const common = xattrs !== undefined && xattrs.size > 0 ? { ...plain, xattrs } : plain;
  switch (mode & S_IFMT) {
    case S_IFDIR: {
      const implied = isImplied ? { implied: true } : {};
      return { ...common, type: "directory", ...(isOpaque ? { opaque: true } : {}), ...implied };
    }
    case S_IFLNK:
      return { ...common, type: "symlink", target: targetAt(index, row, path) };
    case S_IFREG: {
      const blob = blobAt(index, row, path, blobs);
      const isLinked = index.field(row, Inode.nlink) > 1;
      return { ...common, type: "file", blob, ...(isLinked ? { linkGroup: String(ino) } : {}) };
    }
    case S_IFIFO:
      return { ...common, type: "fifo" };
    case S_IFCHR:
      return { ...common, type: "whiteout" };
    default:
      return corrupt(path);
  }
}

/** A symlink's target, latin1. Throws BURROW_BAD_INDEX. */
export function targetAt(index: Index, row: number, path: string): string {
  const length = index.readlink(row, text.subarray(0, SYMLINK_MAX_BYTES));
  const target = length <= 0 ? "" : Buffer.from(text.buffer, 0, length).toString("latin1");
  if (target === "" || target.includes("\0")) corrupt(path);
  return target;
}

/** The extended attributes of the inode at a row, marks included, latin1. Throws BURROW_BAD_INDEX. */
export function xattrsAt(index: Index, row: number, path: string): Map<string, string> {
  const xattrs = new Map<string, string>();
  let listBytes = 0;
  for (let at = index.nextXattr(row, -1); at >= 0; at = index.nextXattr(row, at)) {
    const length = index.xattrValue(at, text);
    const name = index.xattrName(at);
    listBytes += name.length + 1;
    const isTooLong = length < 0 || listBytes > XATTR_LIST_MAX_BYTES;
    if (isTooLong || name === "" || xattrs.has(name)) corrupt(path);
    xattrs.set(name, Buffer.from(text.buffer, 0, length).toString("latin1"));
  }
  return xattrs;
}

/** The blob of the regular file whose inode is at a row. Throws BURROW_BAD_INDEX with `path`. */
export function blobOf(index: Index, row: number, path: string): BlobRef {
  return blobAt(index, row, path, new Map());
}

/** A file's blob, one object for all files that have it: block digests may be many. */
function blobAt(index: Index, inode: number, path: string, blobs: Map<number, BlobRef>): BlobRef {
  const blob = index.field(inode, Inode.a);
  const row = index.blobRow(blob);
  if (row < 0 || index.blobSize(blob) !== index.sizeAt(inode)) corrupt(path);
  let ref = blobs.get(blob);
  if (ref === undefined) {
    const count = index.blockCount(blob);
    const blocks = Array.from({ length: count }, (_, k) => index.blockDigest(blob, k));
    const digest = digestAt(index.bytes, row + Blob.digest);
    ref = { digest, size: index.blobSize(blob), blocks };
    blobs.set(blob, ref);
  }
  return ref;
}
