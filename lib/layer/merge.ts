// Merge: an ordered stack of layers to the entries of one snapshot. Later layers win; whiteouts and opaque directories are
// resolved here, at build time, so that a lookup never sees a layer. overlayfs.rst is the model. Control plane.

import type { BlobRef } from "../base/blob.ts";
import { digestAt } from "../base/digest.ts";
import { SYMLINK_MAX_BYTES, TREE_DEPTH_MAX } from "../base/limits.ts";
import { checkName, compareNames } from "../base/name.ts";
import type { LayerEntry } from "./entry.ts";
import { refuse, XATTR_LIST_MAX_BYTES, XATTR_VALUE_MAX_BYTES } from "./entry-check.ts";
import {
  Blob,
  Inode,
  OPAQUE_XATTR,
  S_IFCHR,
  S_IFDIR,
  S_IFIFO,
  S_IFLNK,
  S_IFMT,
  S_IFREG,
} from "./format.ts";
import type { Index } from "./index.ts";

export interface StackedLayer {
  readonly entries: Iterable<LayerEntry>;
  /** Where its root lies in the snapshot: a latin1 path without slashes at its ends; "" for the root. */
  readonly at: string;
}

interface Node {
  entry: LayerEntry;
  children: Map<string, Node> | undefined;
}

/**
 * The entries of the merged tree, directories before what is in them. Within a layer their order means nothing: each says
 * what its path is, and one path twice is a mistake. Throws BURROW_BAD_INDEX for that and for a file as a parent.
 */
export function* mergeLayers(layers: readonly StackedLayer[]): Iterable<LayerEntry> {
  const root = directory("");
  for (const [number, { entries, at }] of layers.entries()) {
    const added = new Set<Node>();
    // A directory's path is a prefix of those below it, so this order has it first: opaque ones clear what is older only.
    const sorted = [...entries].sort((left, right) => compareNames(left.path, right.path));
    let previous: string | undefined;
    for (const entry of sorted) {
      if (entry.path === previous) refuse(entry.path, "the same path twice");
      previous = entry.path;
      put(root, at === "" ? entry : moved(entry, at), `${number}`, added);
    }
  }
  yield* flatten(root);
}

/** The entry of a layer whose root lies at `at`. */
function moved(entry: LayerEntry, at: string): LayerEntry {
  return { ...entry, path: entry.path === "" ? at : `${at}/${entry.path}` };
}

function directory(path: string): Node {
  const entry: LayerEntry = {
    type: "directory",
    path,
    mode: 0o755,
    uid: 0,
    gid: 0,
    mtimeSec: 0,
    mtimeNs: 0,
  };
  return { entry, children: new Map() };
}

function put(root: Node, entry: LayerEntry, layer: string, added: Set<Node>): void {
  if (entry.path === "") {
    if (entry.type !== "directory") refuse("", "the root is no directory");
    if (entry.opaque === true) root.children?.clear();
    root.entry = resolved(entry, layer);
    return;
  }
  const names = entry.path.split("/");
  const last = names.pop()!;
  let parent = root;
  for (const [i, name] of names.entries()) {
    let next = parent.children!.get(name);
    if (next?.children === undefined) {
      if (next !== undefined && added.has(next)) {
        refuse(entry.path, "a file is its parent");
      }
      next = directory(names.slice(0, i + 1).join("/"));
      parent.children!.set(name, next);
    }
    parent = next;
  }
  if (entry.type === "whiteout") {
    parent.children!.delete(last);
    return;
  }
  const known = parent.children!.get(last);
  const isMerged =
    entry.type === "directory" && known?.children !== undefined && entry.opaque !== true;
  const node: Node = {
    entry: resolved(entry, layer),
    children: entry.type === "directory" ? (isMerged ? known.children : new Map()) : undefined,
  };
  added.add(node);
  parent.children!.set(last, node);
}

/** The entry as a snapshot has it: not opaque, and its hard links apart from those of other layers. */
function resolved(entry: LayerEntry, layer: string): LayerEntry {
  if (entry.type === "file" && entry.linkGroup)
    return { ...entry, linkGroup: `${layer}:${entry.linkGroup}` };
  if (entry.type === "directory" && entry.opaque === true) return { ...entry, opaque: false };
  return entry;
}

function* flatten(node: Node): Iterable<LayerEntry> {
  yield node.entry;
  if (node.children !== undefined)
    for (const child of node.children.values()) yield* flatten(child);
}

/**
 * The entries of an index, directories before what is in them: what writeIndex made it of, with hard links grouped by number.
 * Throws BURROW_BAD_INDEX for one that contradicts itself; a hostile one can't make it go in circles or without end.
 */
export function* entriesOf(index: Index): Iterable<LayerEntry> {
  yield* entriesBelow(index, 1, "", 0, new Uint8Array(index.inodeCount + 1));
}

function* entriesBelow(
  index: Index,
  ino: number,
  path: string,
  depth: number,
  seen: Uint8Array,
): Iterable<LayerEntry> {
  const row = index.row(ino);
  const entry = entryAt(index, row, ino, path);
  yield entry;
  if (entry.type !== "directory") return;
  // A directory has one name.
  if (seen[ino] !== 0 || depth > TREE_DEPTH_MAX) corrupt(path);
  seen[ino] = 1;
  const first = index.firstDirent(row);
  if (first < 0) corrupt(path);
  const end = first + index.field(row, Inode.b);
  for (let dirent = first; dirent < end; dirent++) {
    const name = index.direntName(dirent);
    const child = index.direntIno(dirent);
    if (child <= 0 || checkName(name) < 0) corrupt(path);
    yield* entriesBelow(index, child, path === "" ? name : `${path}/${name}`, depth + 1, seen);
  }
}

function corrupt(path: string): never {
  refuse(path, "the index contradicts itself");
}

const text = new Uint8Array(XATTR_VALUE_MAX_BYTES);

function entryAt(index: Index, row: number, ino: number, path: string): LayerEntry {
  const mode = index.field(row, Inode.mode);
  const xattrs = xattrsAt(index, row, path);
  const isOpaque = xattrs.delete(OPAQUE_XATTR);
  const common = {
    path,
    mode: mode & 0o7777,
    uid: index.field(row, Inode.uid),
    gid: index.field(row, Inode.gid),
    mtimeSec: index.mtimeAt(row),
    mtimeNs: index.field(row, Inode.mtimeNs),
    ...(xattrs.size > 0 ? { xattrs } : {}),
  };
  switch (mode & S_IFMT) {
    case S_IFDIR:
      return { ...common, type: "directory", ...(isOpaque ? { opaque: true } : {}) };
    case S_IFLNK: {
      const length = index.readlink(row, text.subarray(0, SYMLINK_MAX_BYTES));
      if (length < 0) corrupt(path);
      return {
        ...common,
        type: "symlink",
        target: Buffer.from(text.buffer, 0, length).toString("latin1"),
      };
    }
    case S_IFREG: {
      const blob = blobAt(index, row, path);
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

function xattrsAt(index: Index, row: number, path: string): Map<string, string> {
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

function blobAt(index: Index, inode: number, path: string): BlobRef {
  const blob = index.field(inode, Inode.a);
  const row = index.blobRow(blob);
  if (row < 0 || index.blobSize(blob) !== index.sizeAt(inode)) corrupt(path);
  const blocks = Array.from({ length: index.blockCount(blob) }, (_, k) =>
    index.blockDigest(blob, k),
  );
  return { digest: digestAt(index.bytes, row + Blob.digest), size: index.blobSize(blob), blocks };
}
