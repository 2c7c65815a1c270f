// What the functions of an overlay work on, and how they find an inode: the upper's names come first, a whiteout hides a name of
// the lower tree, and directories of both are merged. Data plane.

import { Errno } from "../base/errno.ts";
import { S_IFDIR, S_IFMT } from "../base/file-types.ts";
import type { Name } from "../base/name.ts";
import type { OverlayFiles } from "./overlay-files.ts";
import { NONE, type OverlayNode, type OverlayNodes } from "./overlay-nodes.ts";
import type { OverlayRecord, OverlayRecords } from "./overlay-records.ts";
import { S_IFWHT } from "./shown-types.ts";
import type { Attr, Ino, StatFs, Tree } from "./tree.ts";
import type { Upper } from "./upper.ts";

export interface OverlayParts {
  /** Stateless: its inode numbers need no reference. */
  readonly lower: Tree;
  readonly upper: Upper;
  readonly nodes: OverlayNodes;
  readonly records: OverlayRecords;
  readonly files: OverlayFiles;
  /** Inodes that the sandbox may have in the upper. */
  readonly inodes: number;
  /** Scratch, filled and used within one call. */
  readonly attr: Attr;
  readonly space: StatFs;
}

/** The node of a name, with a reference for the caller; -ENOENT, -ENOTDIR, -EIO. */
export function findNode(parts: OverlayParts, dir: OverlayNode, name: Name): OverlayNode | number {
  if (dir.type !== S_IFDIR) return -Errno.ENOTDIR;
  if (dir.upper !== NONE) {
    const found = parts.upper.lookup(dir.upper, name);
    if (found >= 0) return takeUpper(parts, found as Ino, dir, name);
    if (found !== -Errno.ENOENT) return found;
  }
  const below = lowerName(parts, dir, name);
  return below < 0 ? below : takeLower(parts, below as Ino, dir, name);
}

/** The inode that the lower tree has under a name of this directory, whether it is seen or not; -ENOENT. */
export function lowerName(parts: OverlayParts, dir: OverlayNode, name: Name): number {
  if (dir.lower === NONE || dir.isUnlinked) return -Errno.ENOENT;
  return parts.lower.lookup(dir.lower, name);
}

/** The node of an inode of the upper, whose reference is taken over; -ENOENT for a whiteout. */
function takeUpper(
  parts: OverlayParts,
  upper: Ino,
  dir: OverlayNode,
  name: Name,
): OverlayNode | number {
  const known = parts.nodes.ofUpper(upper);
  if (known !== undefined) {
    parts.upper.release(upper);
    known.references++;
    return known;
  }
  const { attr } = parts;
  const failed = parts.upper.getattr(upper, attr);
  const type = attr.mode & S_IFMT;
  if (failed < 0 || type === S_IFWHT) {
    parts.upper.release(upper);
    return failed < 0 ? failed : -Errno.ENOENT;
  }
  return addUpper(parts, upper, type, attr.ino, dir, name);
}

/** A node for an inode of the upper that has none. */
function addUpper(
  parts: OverlayParts,
  upper: Ino,
  type: number,
  hostIno: number,
  dir: OverlayNode,
  name: Name,
): OverlayNode {
  const record = parts.records.get(hostIno);
  const lower = record?.lower ?? NONE;
  const isDirectory = type === S_IFDIR;
  const parent = isDirectory ? dir : undefined;
  const lowerLinks = lower === NONE || isDirectory ? 0 : linksBelow(parts, lower);
  return parts.nodes.add({ type, upper, lower, lowerLinks, record, parent, name });
}

/** Names that the lower tree has for an inode of its own. */
export function linksBelow(parts: OverlayParts, lower: Ino): number {
  parts.lower.getattr(lower, parts.attr);
  return parts.attr.nlink;
}

/** The node of an inode of the lower tree, or of its copy where it has several names. */
function takeLower(
  parts: OverlayParts,
  lower: Ino,
  dir: OverlayNode,
  name: Name,
): OverlayNode | number {
  const known = parts.nodes.ofLower(lower);
  if (known !== undefined) {
    known.references++;
    return known;
  }
  const failed = parts.lower.getattr(lower, parts.attr);
  if (failed < 0) return failed;
  const type = parts.attr.mode & S_IFMT;
  const lowerLinks = type === S_IFDIR ? 0 : parts.attr.nlink;
  if (lowerLinks > 1) {
    const copy = parts.upper.lookup(parts.records.links, `${lower}` as Name);
    if (copy >= 0) return takeUpper(parts, copy as Ino, dir, name);
    if (copy !== -Errno.ENOENT) return copy;
  }
  const parent = lowerLinks > 1 ? undefined : dir;
  return parts.nodes.add({
    type,
    upper: NONE,
    lower,
    lowerLinks,
    record: undefined,
    parent,
    name,
  });
}

/** Keeps a record of a node that was copied up: beside it, or with the node alone when no name leads to it. -errno. */
export function keepRecord(parts: OverlayParts, node: OverlayNode, record: OverlayRecord): number {
  const failed = node.isUnlinked ? 0 : parts.records.put(record);
  if (failed === 0) parts.nodes.setRecord(node, record);
  return failed;
}

/** Device numbers of inodes that the upper alone has: those of a view are below. */
const UPPER_DEV_MINOR = 1024;

export function upperDevMinor(hostDevMinor: number): number {
  return UPPER_DEV_MINOR + hostDevMinor;
}

/** Attributes of a node: 0 or -errno. */
export function attrOfNode(parts: OverlayParts, node: OverlayNode, out: Attr): number {
  const { upper, lower } = parts;
  if (node.upper === NONE) {
    const failed = lower.getattr(node.lower, out);
    if (failed === 0 && node.isUnlinked) out.nlink = 0;
    return failed;
  }
  let { ino, devMinor, blocks } = { ino: 0, devMinor: 0, blocks: -1 };
  if (node.lower !== NONE) {
    const failed = lower.getattr(node.lower, out);
    if (failed < 0) return failed;
    ino = out.ino;
    devMinor = out.devMinor;
    if (node.record?.isMetadata === true) blocks = out.blocks;
  }
  const failed = upper.getattr(node.upper, out);
  if (failed < 0) return failed;
  out.nlink = linksOf(node, out.nlink);
  if (node.lower === NONE) {
    out.devMinor = upperDevMinor(out.devMinor);
    return 0;
  }
  out.ino = ino;
  out.devMinor = devMinor;
  if (blocks >= 0) out.blocks = blocks;
  return 0;
}

/**
 * Links of a node whose inode in the upper has so many. A merged directory has 1, which tells find(1) to look itself, as of Linux's
 * overlayfs; of a file with several names below, one is the index's, and those below that are still seen count.
 */
export function linksOf(node: OverlayNode, upperLinks: number): number {
  if (node.isUnlinked) return 0;
  if (node.type === S_IFDIR) return node.lower === NONE || upperLinks === 0 ? upperLinks : 1;
  if (node.lowerLinks <= 1) return upperLinks;
  return Math.max(0, upperLinks - 1) + node.lowerLinks - (node.record?.hidden ?? 0);
}

/** 0, or -ENOSPC when the sandbox has all the inodes that it may have. */
export function roomForInode(parts: OverlayParts): number {
  const { upper, space, records, inodes } = parts;
  if (inodes === Number.POSITIVE_INFINITY) return 0;
  const failed = upper.statfs(upper.rootIno, space);
  if (failed < 0 || space.files === 0) return failed;
  const used = space.files - space.filesFree - records.hiddenInodes;
  return used < inodes ? 0 : -Errno.ENOSPC;
}
