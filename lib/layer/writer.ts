// Writer: entries to the bytes of an index. The same tree gives the same bytes, in whatever order its entries come.
// Control plane; docs/format/layer-index.md is the format.

import { createHash } from "node:crypto";
import type { BlobRef } from "../base/blob.ts";
import { roundUp, viewOf } from "../base/bytes.ts";
import { DIGEST_BYTES, type Digest } from "../base/digest.ts";
import { errnoName } from "../base/errno.ts";
import { INDEX_INODES_MAX, INDEX_MAX_BYTES, TREE_DEPTH_MAX } from "../base/limits.ts";
import { checkName, compareNames, showName } from "../base/name.ts";
import type { LayerEntry } from "./entry.ts";
import { checkEntry, refuse } from "./entry-check.ts";
import {
  BLOB_BYTES,
  BLOCK_DIGEST_BYTES,
  Blob,
  DIRENT_BYTES,
  Dirent,
  direntType,
  HEADER_BYTES,
  Header,
  INODE_BYTES,
  type IndexKind,
  Inode,
  MAGIC_HIGH,
  MAGIC_LOW,
  namePrefix,
  OPAQUE_XATTR,
  S_IFCHR,
  S_IFDIR,
  S_IFIFO,
  S_IFLNK,
  S_IFREG,
  Table,
  VERSION,
  XATTR_BYTES,
  Xattr,
} from "./format.ts";

const TWO_32 = 0x1_0000_0000;
const TABLE_ALIGN = 8;

/** A node of the tree under construction; children sorted when it is laid out. */
interface Node {
  entry: LayerEntry;
  readonly children: Map<string, Node> | undefined;
  readonly depth: number;
  ino: number;
}

/** The digest that names an index. */
export function indexDigest(bytes: Uint8Array): Digest {
  return createHash("sha256").update(bytes).digest("hex") as Digest;
}

/**
 * The index of a tree. Missing parent directories are made (0755, root's, time 0). Throws BURROW_BAD_INDEX, naming the path, for
 * a bad name, a path twice, a file as a parent, a whiteout in a snapshot, and past the limits.
 */
export function writeIndex(kind: IndexKind, entries: Iterable<LayerEntry>): Uint8Array {
  const tree = new TreeBuilder();
  for (const entry of entries) {
    checkEntry(entry, kind);
    tree.add(entry);
  }
  return layOut(kind, numberNodes(tree.root));
}

function emptyDirectory(path: string): LayerEntry {
  return { type: "directory", path, mode: 0o755, uid: 0, gid: 0, mtimeSec: 0, mtimeNs: 0 };
}

function newNode(entry: LayerEntry, depth: number): Node {
  return { entry, children: entry.type === "directory" ? new Map() : undefined, depth, ino: 0 };
}

/** The tree that entries describe, in whatever order they come. */
class TreeBuilder {
  readonly root = newNode(emptyDirectory(""), 0);
  /** By path: most entries find their parent in one step. */
  readonly #directories = new Map<string, Node>([["", this.root]]);
  /** Directories that have no entry of their own, so far. */
  readonly #implied = new Set<Node>([this.root]);

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
    const known = parent.children!.get(name);
    if (known === undefined) this.#insert(parent, name, entry, path);
    else if (type === "directory" && this.#implied.delete(known)) known.entry = entry;
    else refuse(path, "the same path twice");
  }

  /** The directory at a path, made when it is missing; `entry` is the path that wants it. */
  #directory(path: string, entry: string): Node {
    const known = this.#directories.get(path);
    if (known !== undefined && !entry.startsWith("/")) return known;
    const names = entry.split("/");
    if (names.length > TREE_DEPTH_MAX) refuse(entry, "too deep");
    let node = this.root;
    for (let i = 0; i < names.length - 1; i++) {
      const name = names[i]!;
      const next = node.children!.get(name);
      if (next === undefined) {
        node = this.#insert(node, name, emptyDirectory(names.slice(0, i + 1).join("/")), entry);
        this.#implied.add(node);
      } else if (next.children === undefined) {
        refuse(entry, "a file is its parent");
      } else {
        node = next;
      }
    }
    return node;
  }

  #insert(parent: Node, name: string, entry: LayerEntry, wanted: string): Node {
    const bad = checkName(name);
    if (bad < 0) refuse(wanted, `a name is not allowed (${errnoName(bad)})`);
    if (parent.depth >= TREE_DEPTH_MAX) refuse(wanted, "too deep");
    const node = newNode(entry, parent.depth + 1);
    parent.children!.set(name, node);
    if (node.children !== undefined) this.#directories.set(entry.path, node);
    return node;
  }
}

interface Directory {
  readonly node: Node;
  /** Sorted. */
  readonly names: readonly string[];
}

interface Numbered {
  /** One per inode, ino - 1; the first name of hard links stands for all. */
  readonly nodes: Node[];
  readonly linkCounts: number[];
  /** In the order of their inode numbers. */
  readonly directories: Directory[];
}

/** Breadth first; hard links share the number of their first name. */
function numberNodes(root: Node): Numbered {
  const nodes: Node[] = [root];
  const linkCounts: number[] = [2];
  const groups = new Map<string, Node>();
  const directories: Directory[] = [];
  root.ino = 1;
  for (let at = 0; at < nodes.length; at++) {
    const node = nodes[at]!;
    if (node.children === undefined) continue;
    // Code units of latin1 are bytes, and without a comparer they are sorted several times as fast.
    const names = [...node.children.keys()].sort();
    directories.push({ node, names });
    for (const name of names) {
      const child = node.children.get(name)!;
      const group = child.entry.type === "file" ? child.entry.linkGroup : undefined;
      const first = group === undefined || group === "" ? undefined : groups.get(group);
      if (first !== undefined) {
        checkSameFile(first.entry, child.entry);
        child.ino = first.ino;
        linkCounts[first.ino - 1]!++;
        continue;
      }
      child.ino = nodes.push(child);
      linkCounts.push(child.children === undefined ? 1 : 2);
      if (child.children !== undefined) linkCounts[at]!++;
      if (group !== undefined && group !== "") groups.set(group, child);
      if (nodes.length > INDEX_INODES_MAX)
        refuse(child.entry.path, `over ${INDEX_INODES_MAX} inodes`);
    }
  }
  return { nodes, linkCounts, directories };
}

function checkSameFile(first: LayerEntry, other: LayerEntry): void {
  const isSame =
    first.type === "file" && other.type === "file" && first.blob.digest === other.blob.digest;
  if (!isSame) refuse(other.path, `a hard link to ${showName(first.path)} with other content`);
}

/** Distinct strings one after the other, in the order in which they were first added. */
class Strings {
  readonly #offsets = new Map<string, number>();
  length = 0;

  add(text: string): number {
    const known = this.#offsets.get(text);
    if (known !== undefined) return known;
    const offset = this.length;
    this.#offsets.set(text, offset);
    this.length += text.length;
    return offset;
  }

  /** Writes them into the index. One by one: together they may be longer than a JavaScript string. */
  writeTo(bytes: Buffer, start: number): void {
    for (const [text, offset] of this.#offsets) bytes.write(text, start + offset, "latin1");
  }
}

interface Blobs {
  /** Sorted by digest. */
  readonly sorted: readonly BlobRef[];
  /** Row of each inode's blob; of files alone. */
  readonly rows: Uint32Array;
}

function collectBlobs(nodes: readonly Node[]): Blobs {
  const found: BlobRef[] = [];
  const numbers = new Map<Digest, number>();
  const rows = new Uint32Array(nodes.length);
  for (const [i, { entry }] of nodes.entries()) {
    if (entry.type !== "file") continue;
    const { blob, path } = entry;
    let number = numbers.get(blob.digest);
    if (number === undefined) {
      number = found.push(blob) - 1;
      numbers.set(blob.digest, number);
    } else if (found[number]!.size !== blob.size) {
      refuse(path, `one digest for ${found[number]!.size} and ${blob.size} bytes`);
    }
    rows[i] = number;
  }
  const order = orderOf(found);
  const rowOf = new Uint32Array(found.length);
  for (const [row, number] of order.entries()) rowOf[number] = row;
  for (const [i, { entry }] of nodes.entries()) {
    if (entry.type === "file") rows[i] = rowOf[rows[i]!]!;
  }
  return { sorted: Array.from(order, (number) => found[number]!), rows };
}

/** Positions of blobs in the order of their digests; 48 bits of each nearly always decide, and compare as numbers. */
function orderOf(blobs: readonly BlobRef[]): Uint32Array {
  const keys = Float64Array.from(blobs, ({ digest }) => Number.parseInt(digest.slice(0, 12), 16));
  return Uint32Array.from(blobs.keys()).sort((left, right) => {
    const difference = keys[left]! - keys[right]!;
    return difference !== 0 ? difference : compareNames(blobs[left]!.digest, blobs[right]!.digest);
  });
}

const NO_XATTRS: readonly [string, string][] = [];

/** Extended attributes of an entry as the index has them: the opaque mark is one of them. */
function xattrsOf(entry: LayerEntry): readonly [string, string][] {
  const isOpaque = entry.type === "directory" && entry.opaque === true;
  if (entry.xattrs === undefined && !isOpaque) return NO_XATTRS;
  const xattrs = [...(entry.xattrs ?? [])].filter(([name]) => name !== OPAQUE_XATTR);
  if (isOpaque) xattrs.push([OPAQUE_XATTR, "y"]);
  return xattrs.sort(([left], [right]) => compareNames(left, right));
}

function layOut(kind: IndexKind, { nodes, linkCounts, directories }: Numbered): Uint8Array {
  const blobs = collectBlobs(nodes);
  const strings = new Strings();
  const direntCount = directories.reduce((sum, { names }) => sum + names.length, 0);
  const xattrCount = nodes.reduce((sum, { entry }) => sum + xattrsOf(entry).length, 0);
  const blockCount = blobs.sorted.reduce((sum, { blocks }) => sum + blocks.length, 0);
  const nameOffsets = new Uint32Array(direntCount);
  let dirent = 0;
  for (const { names } of directories)
    for (const name of names) nameOffsets[dirent++] = strings.add(name);
  for (const { entry } of nodes) {
    if (entry.type === "symlink") strings.add(entry.target);
    for (const text of xattrsOf(entry).flat()) strings.add(text);
  }
  const counts = [
    nodes.length,
    direntCount,
    blobs.sorted.length,
    blockCount,
    xattrCount,
    strings.length,
  ];
  const widths = [INODE_BYTES, DIRENT_BYTES, BLOB_BYTES, BLOCK_DIGEST_BYTES, XATTR_BYTES, 1];
  const offsets: number[] = [];
  let end = HEADER_BYTES;
  for (const [table, count] of counts.entries()) {
    offsets.push(end);
    end = roundUp(end + count * widths[table]!, TABLE_ALIGN);
  }
  if (end > INDEX_MAX_BYTES) refuse("", `an index of ${end} bytes`);
  const bytes = Buffer.alloc(end);
  const view = viewOf(bytes);
  view.setUint32(Header.magicLow, MAGIC_LOW, true);
  view.setUint32(Header.magicHigh, MAGIC_HIGH, true);
  view.setUint32(Header.version, VERSION, true);
  view.setUint32(Header.kind, kind, true);
  view.setUint32(Header.fileBytes, end, true);
  for (const [table, count] of counts.entries()) {
    view.setUint32(Header.tables + 8 * table, count, true);
    view.setUint32(Header.tables + 8 * table + 4, offsets[table]!, true);
  }
  const firstDirent = writeDirents(view, offsets[Table.dirents]!, directories, nameOffsets);
  writeInodes(view, offsets, nodes, linkCounts, firstDirent, blobs.rows, strings);
  writeBlobs(bytes, view, offsets, blobs.sorted);
  strings.writeTo(bytes, offsets[Table.strings]!);
  return bytes;
}

/** First dirent row of each directory, by ino. */
function writeDirents(
  view: DataView,
  start: number,
  directories: readonly Directory[],
  nameOffsets: Uint32Array,
): Map<number, number> {
  const first = new Map<number, number>();
  let row = 0;
  for (const { node, names } of directories) {
    first.set(node.ino, row);
    for (const name of names) {
      const child = node.children!.get(name)!;
      const at = start + row * DIRENT_BYTES;
      view.setUint32(at + Dirent.ino, child.ino, true);
      view.setUint32(at + Dirent.name, nameOffsets[row++]!, true);
      view.setUint16(at + Dirent.nameBytes, name.length, true);
      view.setUint8(at + Dirent.type, direntType(modeOf(child.entry)));
      view.setUint32(at + Dirent.prefix, namePrefix(name), true);
    }
  }
  return first;
}

const TYPE_BITS = {
  file: S_IFREG,
  directory: S_IFDIR,
  symlink: S_IFLNK,
  fifo: S_IFIFO,
  whiteout: S_IFCHR,
};

function modeOf(entry: LayerEntry): number {
  return TYPE_BITS[entry.type] | (entry.mode & 0o7777);
}

function writeInodes(
  view: DataView,
  offsets: readonly number[],
  nodes: readonly Node[],
  linkCounts: readonly number[],
  firstDirent: ReadonlyMap<number, number>,
  blobRows: Uint32Array,
  strings: Strings,
): void {
  let xattrRow = 0;
  for (const [i, { entry, children }] of nodes.entries()) {
    const at = offsets[Table.inodes]! + i * INODE_BYTES;
    let size = 0;
    let a = 0;
    let b = 0;
    if (entry.type === "file") {
      size = entry.blob.size;
      a = blobRows[i]!;
    } else if (entry.type === "symlink") {
      size = entry.target.length;
      a = strings.add(entry.target);
      b = size;
    } else if (entry.type === "directory") {
      size = children!.size;
      a = firstDirent.get(i + 1)!;
      b = size;
    }
    view.setUint32(at + Inode.mode, modeOf(entry), true);
    view.setUint32(at + Inode.nlink, linkCounts[i]!, true);
    view.setUint32(at + Inode.uid, entry.uid, true);
    view.setUint32(at + Inode.gid, entry.gid, true);
    view.setUint32(at + Inode.size, size % TWO_32, true);
    view.setUint32(at + Inode.size + 4, Math.floor(size / TWO_32), true);
    view.setUint32(at + Inode.mtimeSec, entry.mtimeSec >>> 0, true);
    view.setInt32(at + Inode.mtimeSec + 4, Math.floor(entry.mtimeSec / TWO_32), true);
    view.setUint32(at + Inode.mtimeNs, entry.mtimeNs, true);
    view.setUint32(at + Inode.a, a, true);
    view.setUint32(at + Inode.b, b, true);
    const xattrs = xattrsOf(entry);
    view.setUint32(at + Inode.xattr, xattrs.length === 0 ? 0 : xattrRow + 1, true);
    for (const [k, [name, value]] of xattrs.entries()) {
      const row = offsets[Table.xattrs]! + xattrRow++ * XATTR_BYTES;
      view.setUint32(row + Xattr.name, strings.add(name), true);
      view.setUint32(row + Xattr.nameBytes, name.length, true);
      view.setUint32(row + Xattr.value, strings.add(value), true);
      view.setUint32(row + Xattr.valueBytes, value.length, true);
      view.setUint32(row + Xattr.last, k === xattrs.length - 1 ? 1 : 0, true);
    }
  }
}

function writeBlobs(
  bytes: Buffer,
  view: DataView,
  offsets: readonly number[],
  blobs: readonly BlobRef[],
): void {
  let block = 0;
  for (const [row, blob] of blobs.entries()) {
    const at = offsets[Table.blobs]! + row * BLOB_BYTES;
    bytes.write(blob.digest, at + Blob.digest, DIGEST_BYTES, "hex");
    view.setUint32(at + Blob.size, blob.size % TWO_32, true);
    view.setUint32(at + Blob.size + 4, Math.floor(blob.size / TWO_32), true);
    view.setUint32(at + Blob.firstBlock, block, true);
    view.setUint32(at + Blob.blockCount, blob.blocks.length, true);
    for (const digest of blob.blocks) {
      const place = offsets[Table.blocks]! + block++ * BLOCK_DIGEST_BYTES;
      bytes.write(digest, place, DIGEST_BYTES, "hex");
    }
  }
}
