// Merge: an ordered stack of layers to the entries of one snapshot. Later layers win; whiteouts and opaque directories are
// resolved here, at build time, so that a lookup never sees a layer. overlayfs.rst is the model. Control plane.

import type { BlobRef } from "../base/blob.ts";
import { type Digest, digestAt } from "../base/digest.ts";
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
  /** Number of the layer that its entry is of. */
  layer: number;
}

/** A layer on its way into the tree: where its root lies and which it is. */
interface Place {
  readonly at: string;
  readonly layer: number;
}

/**
 * The entries of the merged tree, directories before what is in them. Within a layer their order means nothing: each says
 * what its path is, and one path twice is a mistake. Throws BURROW_BAD_INDEX for that and for a file as a parent.
 */
export function* mergeLayers(layers: readonly StackedLayer[]): Iterable<LayerEntry> {
  const root = directory("", -1);
  for (const [layer, { entries, at }] of layers.entries()) {
    const list = [...entries];
    if (list.length === 0) continue;
    const place = { at, layer };
    const base = descend(root, at === "" ? [] : at.split("/"), { at: "", layer }, at);
    if (isTreeOrder(list)) addInOrder(base, list, place);
    else addSorted(base, list, place);
  }
  yield* flatten(root);
}

/** Where an entry of a layer lies in the merged tree. */
function pathIn({ at }: Place, path: string): string {
  if (at === "") return path;
  return path === "" ? at : `${at}/${path}`;
}

function directory(path: string, layer: number): Node {
  const plain = { mode: 0o755, uid: 0, gid: 0, mtimeSec: 0, mtimeNs: 0 };
  return { entry: { type: "directory", path, ...plain }, children: new Map(), layer };
}

/**
 * Whether each entry comes after its parent's and siblings are in order, each once: as entriesOf gives them. Then nothing has to
 * be sorted or searched for, and no path is there twice.
 */
function isTreeOrder(entries: readonly LayerEntry[]): boolean {
  const parents = [""];
  const lasts = [""];
  for (const [i, { path, type }] of entries.entries()) {
    if (path === "") {
      if (i > 0) return false;
      continue;
    }
    const slash = path.lastIndexOf("/");
    const parent = slash < 0 ? "" : path.slice(0, slash);
    while (parents.length > 0 && parents[parents.length - 1] !== parent) {
      parents.pop();
      lasts.pop();
    }
    const name = path.slice(slash + 1);
    if (parents.length === 0 || lasts[lasts.length - 1]! >= name) return false;
    lasts[lasts.length - 1] = name;
    if (type === "directory") {
      parents.push(path);
      lasts.push("");
    }
  }
  return true;
}

function addInOrder(base: Node, entries: readonly LayerEntry[], place: Place): void {
  const parents = [base];
  const paths = [""];
  for (const entry of entries) {
    if (entry.path === "") {
      putRoot(base, entry, place);
      continue;
    }
    const slash = entry.path.lastIndexOf("/");
    const parent = slash < 0 ? "" : entry.path.slice(0, slash);
    while (paths[paths.length - 1] !== parent) {
      paths.pop();
      parents.pop();
    }
    const name = entry.path.slice(slash + 1);
    const node = put(parents[parents.length - 1]!, name, entry, place);
    if (node?.children === undefined) continue;
    paths.push(entry.path);
    parents.push(node);
  }
}

function addSorted(base: Node, entries: readonly LayerEntry[], place: Place): void {
  // A directory's path is a prefix of those below it, so this order has it first: opaque ones clear what is older only.
  const sorted = [...entries].sort((left, right) => compareNames(left.path, right.path));
  let previous: string | undefined;
  for (const entry of sorted) {
    const { path } = entry;
    if (path === previous) refuse(pathIn(place, path), "the same path twice");
    previous = path;
    if (path === "") {
      putRoot(base, entry, place);
      continue;
    }
    const names = path.split("/");
    const name = names.pop()!;
    put(descend(base, names, place, path), name, entry, place);
  }
}

/** The directory that names lead to, made where it is missing or a lower layer has a file; `wanted` is below it. */
function descend(base: Node, names: readonly string[], place: Place, wanted: string): Node {
  let node = base;
  for (const [i, name] of names.entries()) {
    let next = node.children!.get(name);
    if (next?.children === undefined) {
      if (next?.layer === place.layer) refuse(pathIn(place, wanted), "a file is its parent");
      next = directory(pathIn(place, names.slice(0, i + 1).join("/")), place.layer);
      node.children!.set(name, next);
    }
    node = next;
  }
  return node;
}

function putRoot(base: Node, entry: LayerEntry, place: Place): void {
  if (entry.type !== "directory") refuse(place.at, "the root is no directory");
  if (entry.opaque === true) base.children!.clear();
  base.entry = resolved(entry, place);
}

/** Lays an entry over what its parent has by that name; its node, unless it is a whiteout. */
function put(parent: Node, name: string, entry: LayerEntry, place: Place): Node | undefined {
  const siblings = parent.children!;
  if (entry.type === "whiteout") {
    siblings.delete(name);
    return undefined;
  }
  const known = siblings.get(name);
  const isDirectory = entry.type === "directory";
  const isMerged = isDirectory && known?.children !== undefined && entry.opaque !== true;
  const children = isMerged ? known.children : isDirectory ? new Map<string, Node>() : undefined;
  const node = { entry: resolved(entry, place), children, layer: place.layer };
  siblings.set(name, node);
  return node;
}

/** The entry as a snapshot has it: at its place, not opaque, and its hard links apart from those of other layers. */
function resolved(entry: LayerEntry, place: Place): LayerEntry {
  const path = pathIn(place, entry.path);
  if (entry.type === "file" && entry.linkGroup)
    return { ...entry, path, linkGroup: `${place.layer}:${entry.linkGroup}` };
  if (entry.type === "directory" && entry.opaque === true) return { ...entry, path, opaque: false };
  return place.at === "" ? entry : { ...entry, path };
}

function* flatten(root: Node): Iterable<LayerEntry> {
  yield root.entry;
  const stack = [root.children!.values()];
  while (stack.length > 0) {
    const next = stack[stack.length - 1]!.next();
    if (next.done === true) {
      stack.pop();
      continue;
    }
    const { entry, children } = next.value;
    yield entry;
    if (children !== undefined) stack.push(children.values());
  }
}

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
  const enter = (ino: number, path: string) => {
    // A directory has one name.
    if (seen[ino] !== 0 || stack.length > TREE_DEPTH_MAX) corrupt(path);
    seen[ino] = 1;
    const row = index.row(ino);
    const first = index.firstDirent(row);
    if (first < 0) corrupt(path);
    stack.push({ path, dirent: first, end: first + index.field(row, Inode.b) });
  };
  yield entryAt(index, index.row(1), 1, "");
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
    const entry = entryAt(index, index.row(ino), ino, path);
    yield entry;
    if (entry.type === "directory") enter(ino, path);
  }
}

function corrupt(path: string): never {
  refuse(path, "the index contradicts itself");
}

const NO_BLOCKS: readonly Digest[] = [];
const text = new Uint8Array(XATTR_VALUE_MAX_BYTES);

function entryAt(index: Index, row: number, ino: number, path: string): LayerEntry {
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
  const common = xattrs !== undefined && xattrs.size > 0 ? { ...plain, xattrs } : plain;
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
  const count = index.blockCount(blob);
  const blocks =
    count === 0 ? NO_BLOCKS : Array.from({ length: count }, (_, k) => index.blockDigest(blob, k));
  return { digest: digestAt(index.bytes, row + Blob.digest), size: index.blobSize(blob), blocks };
}
