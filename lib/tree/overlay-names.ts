// What an overlay does to names. Each change is one step of the upper's file system where there is one: a name is there, or is
// hidden by a whiteout, or not, whenever the server is killed. Data plane.

import { Errno } from "../base/errno.ts";
import { S_IFDIR, S_IFMT } from "../base/file-types.ts";
import type { Name } from "../base/name.ts";
import { ensureDirectory, ensureUpper } from "./overlay-copy.ts";
import { isWithin, NONE, type OverlayNode } from "./overlay-nodes.ts";
import { findNode, keepRecord, linksOf, lowerName, type OverlayParts } from "./overlay-parts.ts";
import { DT_WHT, S_IFWHT } from "./shown-types.ts";
import { Attr, type Ino } from "./tree.ts";

const RENAME_NOREPLACE = 1;
const RENAME_EXCHANGE = 2;
const facts = new Attr();

/** What the upper itself has under a name. */
const Entry = { none: 0, whiteout: 1, inode: 2 } as const;

/** One of Entry, or -errno. */
function entryOf(parts: OverlayParts, dir: OverlayNode, name: Name): number {
  if (dir.upper === NONE) return Entry.none;
  const found = parts.upper.lookup(dir.upper, name);
  if (found === -Errno.ENOENT) return Entry.none;
  if (found < 0) return found;
  const failed = parts.upper.getattr(found as Ino, facts);
  parts.upper.release(found as Ino);
  if (failed < 0) return failed;
  return (facts.mode & S_IFMT) === S_IFWHT ? Entry.whiteout : Entry.inode;
}

/** Whether a directory shows no names: 1, 0 or -errno. */
function isEmpty(parts: OverlayParts, node: OverlayNode): number {
  let isBare = 1;
  if (node.lower !== NONE) {
    const end = parts.lower.readdir(node.lower, 0, 0, (_ino, _dev, _type, name) => {
      const entry = entryOf(parts, node, name as Name);
      if (entry !== Entry.whiteout) isBare = entry < 0 ? entry : 0;
      return isBare === 1;
    });
    if (end < 0) return end;
  }
  if (isBare !== 1 || node.upper === NONE) return isBare;
  const handle = parts.upper.opendirQuietly(node.upper);
  if (handle < 0) return handle;
  const end = parts.upper.readdir(node.upper, handle, 0, (_ino, _dev, type) => {
    if (type !== DT_WHT) isBare = 0;
    return isBare === 1;
  });
  parts.upper.closedir(node.upper, handle);
  return end < 0 ? end : isBare;
}

/** Makes a directory ready to get a name that nobody sees in it: 1 when a whiteout stands there, 0, or -errno. */
export function freeName(parts: OverlayParts, dir: OverlayNode, name: Name): number {
  const taken = findNode(parts, dir, name);
  if (typeof taken !== "number") {
    parts.nodes.release(taken);
    return -Errno.EEXIST;
  }
  if (taken !== -Errno.ENOENT) return taken;
  const failed = ensureDirectory(parts, dir);
  if (failed < 0) return failed;
  const entry = entryOf(parts, dir, name);
  return entry < 0 ? entry : entry === Entry.whiteout ? 1 : 0;
}

/** Gives what was made in `work` its name, in the place of a whiteout. */
export function overWhiteout(
  parts: OverlayParts,
  made: Name,
  dir: OverlayNode,
  name: Name,
  isDirectory: boolean,
): number {
  const { upper, records } = parts;
  const flags = isDirectory ? RENAME_EXCHANGE : 0;
  const failed = upper.rename(records.work, made, dir.upper, name, flags);
  if (failed < 0 || !isDirectory) return failed;
  upper.unlink(records.work, made, false);
  return 0;
}

/**
 * A name of an inode of several below is seen no more there: it was covered or taken away. The inode is in the upper. A count that
 * can't be kept is too high for the next server, which costs room and no file.
 */
function hideLowerName(parts: OverlayParts, node: OverlayNode): void {
  const record = { ...node.record!, hidden: node.record!.hidden + 1 };
  if (keepRecord(parts, node, record) < 0) parts.nodes.setRecord(node, record);
}

/** Has the upper itself have this name of a node, which may be one of several below. */
function ensureName(parts: OverlayParts, dir: OverlayNode, name: Name, node: OverlayNode): number {
  const failed = ensureUpper(parts, node);
  if (failed < 0 || node.lowerLinks <= 1) return failed;
  const entry = entryOf(parts, dir, name);
  if (entry !== Entry.none) return Math.min(entry, 0);
  const linked = parts.upper.link(dir.upper, name, node.upper);
  if (linked < 0) return linked;
  parts.upper.release(node.upper);
  hideLowerName(parts, node);
  return 0;
}

/** A node has one name less: without any, nothing of it is kept but for who holds it. */
function lostName(parts: OverlayParts, node: OverlayNode): void {
  const { upper, records, nodes } = parts;
  if (node.upper !== NONE) {
    if (upper.getattr(node.upper, facts) < 0 || linksOf(node, facts.nlink) > 0) return;
    if (node.lowerLinks > 1) upper.unlink(records.links, `${node.lower}` as Name, false);
    records.remove(facts.ino);
  }
  nodes.setUnlinked(node);
}

/** Tree.unlink. */
export function unlink(
  parts: OverlayParts,
  dir: OverlayNode,
  name: Name,
  isDirectory: boolean,
): number {
  const node = findNode(parts, dir, name);
  if (typeof node === "number") return node;
  const result = unlinkNode(parts, dir, name, node, isDirectory);
  if (result === 0) lostName(parts, node);
  parts.nodes.release(node);
  return result;
}

function unlinkNode(
  parts: OverlayParts,
  dir: OverlayNode,
  name: Name,
  node: OverlayNode,
  isDirectory: boolean,
): number {
  if (isDirectory !== (node.type === S_IFDIR)) return isDirectory ? -Errno.ENOTDIR : -Errno.EISDIR;
  if (isDirectory) {
    const empty = isEmpty(parts, node);
    if (empty !== 1) return empty < 0 ? empty : -Errno.ENOTEMPTY;
  }
  const isBelow = lowerName(parts, dir, name) >= 0;
  let failed = isBelow ? ensureDirectory(parts, dir) : 0;
  const entry = failed < 0 ? failed : entryOf(parts, dir, name);
  if (entry < 0) return entry;
  if (entry === Entry.none) {
    if (node.lowerLinks > 1) failed = ensureUpper(parts, node);
    if (failed === 0) failed = parts.upper.whiteout(dir.upper, name);
    if (failed === 0 && node.lowerLinks > 1) hideLowerName(parts, node);
    return failed;
  }
  if (isBelow) return replaceByWhiteout(parts, dir, name, node);
  failed = parts.upper.unlink(dir.upper, name, isDirectory);
  return failed === -Errno.ENOTEMPTY ? takeAway(parts, dir, name, node) : failed;
}

/** Removes a directory that whiteouts are left in: first its name, or what they hide would be seen when the server is killed. */
function takeAway(parts: OverlayParts, dir: OverlayNode, name: Name, node: OverlayNode): number {
  const { upper, records } = parts;
  const old = records.workName();
  const failed = upper.rename(dir.upper, name, records.work, old, 0);
  if (failed === 0) records.discard(node.upper, old, true);
  return failed;
}

function replaceByWhiteout(
  parts: OverlayParts,
  dir: OverlayNode,
  name: Name,
  node: OverlayNode,
): number {
  const { upper, records } = parts;
  const made = records.workName();
  let failed = upper.whiteout(records.work, made);
  if (failed < 0) return failed;
  const isDirectory = node.type === S_IFDIR;
  failed = upper.rename(records.work, made, dir.upper, name, isDirectory ? RENAME_EXCHANGE : 0);
  if (failed < 0) upper.unlink(records.work, made, false);
  else if (isDirectory) records.discard(node.upper, made, true);
  return failed;
}

/** Tree.link. */
export function link(
  parts: OverlayParts,
  dir: OverlayNode,
  name: Name,
  target: OverlayNode,
): number {
  const { upper, records } = parts;
  const isHidden = freeName(parts, dir, name);
  if (isHidden < 0) return isHidden;
  if (target.type === S_IFDIR) return -Errno.EPERM;
  const failed = ensureUpper(parts, target);
  if (failed < 0) return failed;
  const made = records.workName();
  const linked =
    isHidden === 1
      ? upper.link(records.work, made, target.upper)
      : upper.link(dir.upper, name, target.upper);
  if (linked < 0) return linked;
  upper.release(target.upper);
  const placed = isHidden === 1 ? overWhiteout(parts, made, dir, name, false) : 0;
  if (placed < 0) {
    upper.unlink(records.work, made, false);
    return placed;
  }
  target.references++;
  return target.ino;
}

interface Move {
  readonly from: OverlayNode;
  readonly oldName: Name;
  readonly source: OverlayNode;
  readonly to: OverlayNode;
  readonly newName: Name;
  readonly target: OverlayNode | undefined;
}

/** Tree.rename: NOREPLACE and EXCHANGE, not both. */
export function rename(
  parts: OverlayParts,
  from: OverlayNode,
  oldName: Name,
  to: OverlayNode,
  newName: Name,
  flags: number,
): number {
  const isKnown = flags === 0 || flags === RENAME_NOREPLACE || flags === RENAME_EXCHANGE;
  if (!isKnown) return -Errno.EINVAL;
  if (from.type !== S_IFDIR || to.type !== S_IFDIR) return -Errno.ENOTDIR;
  const source = findNode(parts, from, oldName);
  if (typeof source === "number") return source;
  const found = findNode(parts, to, newName);
  const target = typeof found === "number" ? undefined : found;
  const isBroken = typeof found === "number" && found !== -Errno.ENOENT;
  const move: Move = { from, oldName, source, to, newName, target };
  const result = isBroken ? found : renameNode(parts, move, flags);
  if (target !== undefined) parts.nodes.release(target);
  parts.nodes.release(source);
  return result;
}

function renameNode(parts: OverlayParts, move: Move, flags: number): number {
  const { from, source, to, target } = move;
  const isExchange = flags === RENAME_EXCHANGE;
  if (target !== undefined && flags === RENAME_NOREPLACE) return -Errno.EEXIST;
  if (target === undefined && isExchange) return -Errno.ENOENT;
  if (isWithin(to, source)) return -Errno.EINVAL;
  if (target !== undefined && isWithin(from, target)) {
    return isExchange ? -Errno.EINVAL : -Errno.ENOTEMPTY;
  }
  if (source === target) return 0;
  const refused = target === undefined || isExchange ? 0 : mayReplace(parts, source, target);
  if (refused < 0) return refused;
  let failed = ensureDirectory(parts, from);
  if (failed === 0) failed = ensureDirectory(parts, to);
  if (failed === 0) failed = ensureName(parts, from, move.oldName, source);
  if (failed < 0) return failed;
  return isExchange ? exchange(parts, move) : replace(parts, move);
}

/** The checks of rename(2) on what is in the way. */
function mayReplace(parts: OverlayParts, source: OverlayNode, target: OverlayNode): number {
  const isDirectory = source.type === S_IFDIR;
  if (isDirectory !== (target.type === S_IFDIR)) {
    return isDirectory ? -Errno.ENOTDIR : -Errno.EISDIR;
  }
  if (!isDirectory) return 0;
  const empty = isEmpty(parts, target);
  return empty === 1 ? 0 : Math.min(empty, 0) || -Errno.ENOTEMPTY;
}

function exchange(parts: OverlayParts, move: Move): number {
  const { from, oldName, source, to, newName } = move;
  const target = move.target!;
  let failed = ensureName(parts, to, newName, target);
  if (failed === 0) {
    failed = parts.upper.rename(from.upper, oldName, to.upper, newName, RENAME_EXCHANGE);
  }
  if (failed < 0) return failed;
  moved(parts, source, to, newName);
  moved(parts, target, from, oldName);
  return 0;
}

function moved(parts: OverlayParts, node: OverlayNode, to: OverlayNode, name: Name): void {
  if (node.type === S_IFDIR) parts.nodes.setParent(node, to, name);
}

/** Moves the source over what the upper has under the new name: nothing, a whiteout, or an inode that goes. */
function replace(parts: OverlayParts, move: Move): number {
  const { from, oldName, source, to, newName, target } = move;
  const { upper } = parts;
  const entry = entryOf(parts, to, newName);
  if (entry < 0) return entry;
  const isBelow = lowerName(parts, from, oldName) >= 0;
  if (target !== undefined && entry === Entry.none && target.lowerLinks > 1) {
    // A name of several below is covered.
    const failed = ensureUpper(parts, target);
    if (failed < 0) return failed;
  }
  let failed: number;
  if (source.type === S_IFDIR && entry === Entry.whiteout) {
    failed = replaceWhiteout(parts, move, isBelow);
  } else {
    failed = isBelow
      ? upper.renameLeavingWhiteout(from.upper, oldName, to.upper, newName)
      : upper.rename(from.upper, oldName, to.upper, newName, 0);
    if (failed === -Errno.ENOTEMPTY) {
      // The directory in the way has whiteouts: killed between the two steps, only that one is gone.
      failed = replaceByWhiteout(parts, to, newName, target!);
      if (failed === 0) failed = replaceWhiteout(parts, move, isBelow);
    }
  }
  if (failed < 0) return failed;
  moved(parts, source, to, newName);
  if (target === undefined) return 0;
  if (entry === Entry.none && target.lowerLinks > 1) hideLowerName(parts, target);
  lostName(parts, target);
  return 0;
}

/** A directory takes the place of a whiteout, which comes to its old name: it must stay there when it hides one below. */
function replaceWhiteout(parts: OverlayParts, move: Move, isBelow: boolean): number {
  const { from, oldName, to, newName } = move;
  const { upper } = parts;
  const failed = upper.rename(from.upper, oldName, to.upper, newName, RENAME_EXCHANGE);
  if (failed === 0 && !isBelow) upper.unlink(from.upper, oldName, false);
  return failed;
}
