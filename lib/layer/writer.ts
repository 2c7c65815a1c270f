// Writer: entries to the bytes of an index. The same tree gives the same bytes, in whatever order its entries come.
// Control plane; docs/format/layer-index.md is the format.

import { createHash } from "node:crypto";
import type { BlobRef } from "../base/blob.ts";
import { setI64, setU64 } from "../base/bytes.ts";
import type { Digest } from "../base/digest.ts";
import { errnoName } from "../base/errno.ts";
import { TREE_DEPTH_MAX } from "../base/limits.ts";
import { checkName, compareNames, showName } from "../base/name.ts";
import type { LayerEntry } from "./entry.ts";
import { checkEntry, refuse } from "./entry-check.ts";
import {
  BLOB_BYTES,
  BLOCK_DIGEST_BYTES,
  Blob,
  IMPLIED_XATTR,
  INODE_BYTES,
  IndexKind,
  Inode,
  MARK_VALUE,
  OPAQUE_XATTR,
  S_IFCHR,
  S_IFDIR,
  S_IFIFO,
  S_IFLNK,
  S_IFREG,
} from "./format.ts";
import { Tables, type XattrPairs } from "./tables.ts";

/** What lies in a directory: of all but directories the entry itself, since there may be a million. */
type Leaf = Exclude<LayerEntry, { type: "directory" }>;

/** A directory of the tree under construction; children sorted when it is laid out, when it gets its number. */
class Directory {
  readonly children = new Map<string, Directory | Leaf>();
  readonly depth: number;
  entry: LayerEntry;
  ino = 0;

  constructor(entry: LayerEntry, depth: number) {
    this.entry = entry;
    this.depth = depth;
  }
}

/** The digest that names an index. */
export function indexDigest(bytes: Uint8Array): Digest {
  return createHash("sha256").update(bytes).digest("hex") as Digest;
}

/**
 * The index of a tree. Missing parent directories are made (0755, root's, time 0), and marked in a layer. Throws BURROW_BAD_INDEX, naming the path, for
 * a bad name, a path twice, a file as a parent, a whiteout in a snapshot, and past the limits.
 */
export function writeIndex(kind: IndexKind, entries: Iterable<LayerEntry>): Uint8Array {
  const tree = new TreeBuilder();
  for (const entry of entries) {
    checkEntry(entry, kind);
    tree.add(entry);
  }
  return layOut(kind, tree);
}

function impliedDirectory(path: string): LayerEntry {
  const plain = { mode: 0o755, uid: 0, gid: 0, mtimeSec: 0, mtimeNs: 0 };
  return { type: "directory", path, ...plain, implied: true };
}

/** The tree that entries describe, in whatever order they come. */
class TreeBuilder {
  readonly root = new Directory(impliedDirectory(""), 0);
  nodeCount = 1;
  blockCount = 0;
  /** By path: most entries find their parent in one step. */
  readonly #directories = new Map<string, Directory>([["", this.root]]);
  /** Directories that have no entry of their own, so far. */
  readonly #implied = new Set<Directory>([this.root]);

  add(entry: LayerEntry): void {
    const { path, type } = entry;
    if (path === "") {
      if (type !== "directory") refuse("", "the root is no directory");
      if (!this.#implied.delete(this.root)) refuse("", "the same path twice");
      this.root.entry = entry;
      return;
    }
    const slash = path.lastIndexOf("/");
    const parent = this.#directory(slash < 0 ? "" : path.slice(0, slash), path);
    const name = path.slice(slash + 1);
    const known = parent.children.get(name);
    const isImplied = known instanceof Directory && this.#implied.has(known);
    if (known === undefined) this.#insert(parent, name, entry, path);
    else if (!isImplied || type !== "directory") refuse(path, "the same path twice");
    else {
      this.#implied.delete(known);
      known.entry = entry;
    }
  }

  /** The directory at a path, made when it is missing; `entry` is the path that wants it. */
  #directory(path: string, entry: string): Directory {
    const known = this.#directories.get(path);
    if (known !== undefined && !entry.startsWith("/")) return known;
    const names = entry.split("/");
    if (names.length > TREE_DEPTH_MAX) refuse(entry, "too deep");
    let node = this.root;
    for (let i = 0; i < names.length - 1; i++) {
      const name = names[i]!;
      const next = node.children.get(name);
      if (next === undefined) {
        node = this.#insertImplied(node, name, names.slice(0, i + 1).join("/"), entry);
      } else if (next instanceof Directory) {
        node = next;
      } else {
        refuse(entry, "a file is its parent");
      }
    }
    return node;
  }

  #insertImplied(parent: Directory, name: string, path: string, wanted: string): Directory {
    this.#check(parent, name, wanted);
    const directory = this.#insertDirectory(parent, name, impliedDirectory(path));
    this.#implied.add(directory);
    return directory;
  }

  #insert(parent: Directory, name: string, entry: LayerEntry, wanted: string): void {
    this.#check(parent, name, wanted);
    if (entry.type === "directory") {
      this.#insertDirectory(parent, name, entry);
      return;
    }
    parent.children.set(name, entry);
    this.nodeCount++;
    if (entry.type === "file") this.blockCount += entry.blob.blocks.length;
  }

  #insertDirectory(parent: Directory, name: string, entry: LayerEntry): Directory {
    const directory = new Directory(entry, parent.depth + 1);
    parent.children.set(name, directory);
    this.nodeCount++;
    this.#directories.set(entry.path, directory);
    return directory;
  }

  #check(parent: Directory, name: string, wanted: string): void {
    const bad = checkName(name);
    if (bad < 0) refuse(wanted, `a name is not allowed (${errnoName(bad)})`);
    if (parent.depth >= TREE_DEPTH_MAX) refuse(wanted, "too deep");
  }
}

/** Breadth first, each directory's names in byte order; hard links share the number of their first name. */
function layOut(kind: IndexKind, { root, nodeCount, blockCount }: TreeBuilder): Uint8Array {
  const count = { inodes: nodeCount, dirents: nodeCount, blobs: nodeCount, blocks: blockCount };
  const tables = new Tables(count);
  const empties = new Map<Digest, number>();
  const groups = new Map<string, { readonly leaf: Leaf; readonly ino: number }>();
  root.ino = addEntry(tables, root.entry, kind, empties);
  const directories = [root];
  for (const { ino, children } of directories) {
    tables.beginDirectory(ino);
    // Code units of latin1 are bytes, and without a comparer they are sorted several times as fast.
    for (const name of [...children.keys()].sort()) {
      const child = children.get(name)!;
      if (child instanceof Directory) {
        child.ino = addEntry(tables, child.entry, kind, empties);
        tables.addDirent(ino, child.ino, name);
        directories.push(child);
        continue;
      }
      const group = child.type === "file" ? child.linkGroup || undefined : undefined;
      const first = group === undefined ? undefined : groups.get(group);
      if (first !== undefined) checkSameFile(first.leaf, child);
      const leafIno = first?.ino ?? addEntry(tables, child, kind, empties);
      if (group !== undefined && first === undefined)
        groups.set(group, { leaf: child, ino: leafIno });
      tables.addDirent(ino, leafIno, name);
    }
    // The index is as large again: what it was made of needn't be there beside it.
    children.clear();
  }
  return tables.finish(kind);
}

function checkSameFile(first: LayerEntry, other: LayerEntry): void {
  const isSame =
    first.type === "file" && other.type === "file" && first.blob.digest === other.blob.digest;
  if (!isSame) refuse(other.path, `a hard link to ${showName(first.path)} with other content`);
}

const TYPE_BITS = {
  file: S_IFREG,
  directory: S_IFDIR,
  symlink: S_IFLNK,
  fifo: S_IFIFO,
  whiteout: S_IFCHR,
};

const inode = new DataView(new ArrayBuffer(INODE_BYTES));
const inodeWords = new Uint32Array(inode.buffer);

/** `empties`: numbers of the blobs without content, by digest. */
function addEntry(
  tables: Tables,
  entry: LayerEntry,
  kind: IndexKind,
  empties: Map<Digest, number>,
): number {
  inode.setUint32(Inode.mode, TYPE_BITS[entry.type] | entry.mode, true);
  inode.setUint32(Inode.uid, entry.uid, true);
  inode.setUint32(Inode.gid, entry.gid, true);
  setI64(inode, Inode.mtimeSec, entry.mtimeSec);
  inode.setUint32(Inode.mtimeNs, entry.mtimeNs, true);
  const ino = tables.addInode(inodeWords, 0);
  const target = entry.type === "symlink" ? entry.target : undefined;
  tables.addTexts(ino, target, xattrsOf(entry, kind));
  if (entry.type === "file") tables.setBlob(ino, blobNumber(tables, entry.blob, empties));
  return ino;
}

/** The number of a blob. Of a million files it is the empty ones that are many: a row for each would be as large as the index. */
function blobNumber(tables: Tables, blob: BlobRef, empties: Map<Digest, number>): number {
  if (blob.size > 0) return addBlob(tables, blob);
  const number = empties.get(blob.digest) ?? addBlob(tables, blob);
  empties.set(blob.digest, number);
  return number;
}

const blob = new DataView(new ArrayBuffer(BLOB_BYTES));
const blobBytes = Buffer.from(blob.buffer);
const blobWords = new Uint32Array(blob.buffer);

function addBlob(tables: Tables, { digest, size, blocks }: BlobRef): number {
  blobBytes.write(digest, Blob.digest, "hex");
  setU64(blob, Blob.size, size);
  blob.setUint32(Blob.blockCount, blocks.length, true);
  const digests = new Uint32Array((blocks.length * BLOCK_DIGEST_BYTES) >> 2);
  if (blocks.length > 0) Buffer.from(digests.buffer).write(blocks.join(""), "hex");
  return tables.addBlob(blobWords, 0, digests, 0);
}

const NO_XATTRS: XattrPairs = [];

/** Extended attributes of an entry as the index has them: the marks of a layer's directories are among them. */
function xattrsOf(entry: LayerEntry, kind: IndexKind): XattrPairs {
  const isOpaque = entry.type === "directory" && entry.opaque === true;
  const isImplied =
    entry.type === "directory" && entry.implied === true && kind === IndexKind.layer;
  if (entry.xattrs === undefined && !isOpaque && !isImplied) return NO_XATTRS;
  const xattrs = withoutMarks(new Map(entry.xattrs));
  if (isOpaque) xattrs.set(OPAQUE_XATTR, MARK_VALUE);
  if (isImplied) xattrs.set(IMPLIED_XATTR, MARK_VALUE);
  return sortedXattrs(xattrs);
}

/** The same attributes, without what an index alone says by them. */
export function withoutMarks(xattrs: Map<string, string>): Map<string, string> {
  xattrs.delete(OPAQUE_XATTR);
  xattrs.delete(IMPLIED_XATTR);
  return xattrs;
}

export function sortedXattrs(xattrs: ReadonlyMap<string, string>): XattrPairs {
  return [...xattrs].sort(([left], [right]) => compareNames(left, right));
}
