// Writer: entries to the bytes of an index. The same tree gives the same bytes, in whatever order its entries come.
// Control plane; docs/format/layer-index.md is the format.

import { createHash } from "node:crypto";
import { assert } from "../base/assert.ts";
import type { BlobRef } from "../base/blob.ts";
import { setI64, setU64 } from "../base/bytes.ts";
import type { Digest } from "../base/digest.ts";
import { errnoName } from "../base/errno.ts";
import { S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFREG } from "../base/file-types.ts";
import { NAME_MAX_BYTES, TREE_DEPTH_MAX } from "../base/limits.ts";
import { checkName, compareNames, showName } from "../base/name.ts";
import { BLOB_WORDS, type BlobSource } from "./blobs.ts";
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
  namePrefix,
  OPAQUE_XATTR,
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
  const blobs = new BlobTable(nodeCount, blockCount);
  const counts = { inodes: nodeCount, dirents: nodeCount, blobs: nodeCount, blocks: blockCount };
  const tables = new Tables({ ...counts, strings: nodeCount * USUAL_NAME_BYTES }, [blobs]);
  const bytes = Buffer.alloc(NAME_MAX_BYTES);
  const groups = new Map<string, { readonly leaf: Leaf; readonly ino: number }>();
  const add = (directory: number, name: string, ino: number): void => {
    const length = bytes.write(name, "latin1");
    const isAdded = tables.addDirent(directory, ino, bytes, 0, length, namePrefix(name));
    assert(isAdded, "names were checked when they came");
  };
  root.ino = addEntry(tables, blobs, root.entry, kind);
  const directories = [root];
  for (const { ino, children } of directories) {
    tables.beginDirectory(ino);
    // Code units of latin1 are bytes, and without a comparer they are sorted several times as fast.
    for (const name of [...children.keys()].sort()) {
      const child = children.get(name)!;
      if (child instanceof Directory) {
        child.ino = addEntry(tables, blobs, child.entry, kind);
        add(ino, name, child.ino);
        directories.push(child);
        continue;
      }
      const group = child.type === "file" ? child.linkGroup || undefined : undefined;
      const first = group === undefined ? undefined : groups.get(group);
      if (first !== undefined) checkSameFile(first.leaf, child);
      const leafIno = first?.ino ?? addEntry(tables, blobs, child, kind);
      if (group !== undefined && first === undefined)
        groups.set(group, { leaf: child, ino: leafIno });
      add(ino, name, leafIno);
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

/** Of the names of a tree, those that occur again left out. */
const USUAL_NAME_BYTES = 16;

const TYPE_BITS = {
  file: S_IFREG,
  directory: S_IFDIR,
  symlink: S_IFLNK,
  fifo: S_IFIFO,
  whiteout: S_IFCHR,
};

const inode = new DataView(new ArrayBuffer(INODE_BYTES));
const inodeWords = new Uint32Array(inode.buffer);

function addEntry(tables: Tables, blobs: BlobTable, entry: LayerEntry, kind: IndexKind): number {
  inode.setUint32(Inode.mode, TYPE_BITS[entry.type] | entry.mode, true);
  inode.setUint32(Inode.uid, entry.uid, true);
  inode.setUint32(Inode.gid, entry.gid, true);
  setI64(inode, Inode.mtimeSec, entry.mtimeSec);
  inode.setUint32(Inode.mtimeNs, entry.mtimeNs, true);
  const ino = tables.addInode(inodeWords, 0);
  const target = entry.type === "symlink" ? entry.target : undefined;
  tables.addTexts(ino, target, xattrsOf(entry, kind));
  if (entry.type === "file") {
    setU64(inode, Inode.size, entry.blob.size);
    const blob = blobNumber(tables, blobs, entry.blob);
    tables.setBlob(ino, blob, inodeWords, Inode.size >> 2);
  }
  return ino;
}

/** The number of a blob. Of a million files it is the empty ones that are many: a row for each would be as large as the index. */
function blobNumber(tables: Tables, blobs: BlobTable, blob: BlobRef): number {
  const known = blob.size === 0 ? blobs.empties.get(blob.digest) : undefined;
  const number = known ?? tables.addBlob(0, blobs.add(blob));
  if (blob.size === 0) blobs.empties.set(blob.digest, number);
  return number;
}

/** Blobs of entries as rows: the one source of the tables' blobs. */
class BlobTable implements BlobSource {
  readonly words: Int32Array;
  readonly blobs = 0;
  readonly blocks: number;
  /** Numbers of the blobs without content, by digest. */
  readonly empties = new Map<Digest, number>();
  readonly #bytes: Buffer;
  readonly #view: DataView;
  #count = 0;
  #blockCount = 0;

  constructor(blobCount: number, blockCount: number) {
    const buffer = new ArrayBuffer(blobCount * BLOB_BYTES + blockCount * BLOCK_DIGEST_BYTES);
    this.words = new Int32Array(buffer);
    this.blocks = blobCount * BLOB_WORDS;
    this.#bytes = Buffer.from(buffer);
    this.#view = new DataView(buffer);
  }

  /** Adds a blob: its row. */
  add({ digest, size, blocks }: BlobRef): number {
    const at = this.#count * BLOB_BYTES;
    this.#bytes.write(digest, at + Blob.digest, "hex");
    setU64(this.#view, at + Blob.size, size);
    this.#view.setUint32(at + Blob.firstBlock, this.#blockCount, true);
    this.#view.setUint32(at + Blob.blockCount, blocks.length, true);
    for (const block of blocks) {
      this.#bytes.write(block, 4 * this.blocks + this.#blockCount++ * BLOCK_DIGEST_BYTES, "hex");
    }
    return this.#count++;
  }
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
