// Merge: an ordered stack of layers to one snapshot. Later layers win; whiteouts and opaque directories are resolved here, at build
// time, so that a lookup never sees a layer. overlayfs.rst is the model. Directories are sorted tables in every layer, so they are
// gone through side by side in the order of the snapshot's own, and rows are copied. Control plane.

import {
  BLOCK_BYTES,
  BLOCK_DIGESTS_OVER_BYTES,
  MERGE_ENTRIES_MAX,
  TREE_DEPTH_MAX,
} from "../base/limits.ts";
import { checkName, compareNames } from "../base/name.ts";
import { corrupt, entriesOf, targetAt, xattrsAt } from "./entries.ts";
import type { LayerEntry } from "./entry.ts";
import { checkXattrs, refuse } from "./entry-check.ts";
import {
  BLOCK_DIGEST_BYTES,
  Blob,
  Header,
  IMPLIED_XATTR,
  IndexKind,
  Inode,
  OPAQUE_XATTR,
  S_IFCHR,
  S_IFDIR,
  S_IFIFO,
  S_IFLNK,
  S_IFMT,
  S_IFREG,
  Table,
} from "./format.ts";
import { Index } from "./index.ts";
import { Tables } from "./tables.ts";
import { sortedXattrs, withoutMarks, writeIndex } from "./writer.ts";

export interface StackedLayer {
  readonly entries: Iterable<LayerEntry>;
  /** Where its root lies in the snapshot: a latin1 path without slashes at its ends; "" for the root. */
  readonly at: string;
}

/** mergeIndexes for layers that are entries, in any order: those of the merged tree. Throws what it and writeIndex throw. */
export function mergeLayers(layers: readonly StackedLayer[]): Iterable<LayerEntry> {
  const indexes = layers.map(({ entries, at }) => {
    return layerOf(Array.from(entries, (entry) => ({ ...entry, path: pathIn(at, entry.path) })));
  });
  return entriesOf(new Index(mergeIndexes(indexes)));
}

/** The index of a layer that is entries. */
export function layerOf(entries: Iterable<LayerEntry>): Index {
  return new Index(writeIndex(IndexKind.layer, entries));
}

function pathIn(folder: string, name: string): string {
  return folder === "" || name === "" ? folder || name : `${folder}/${name}`;
}

/** A layer on its way into the snapshot. */
interface Layer {
  readonly index: Index;
  /** By ino: 1 for a directory that was entered. It has one name, or the way could go in circles. */
  readonly entered: Uint8Array;
  /** Dirents that were not gone through: each is one directory's, or few bytes could stand for very many entries. */
  direntsLeft: number;
  /** By row of its blobs: 1 + the number in the snapshot's tables, or 0. */
  readonly blobs: Uint32Array;
  /** Numbers in the snapshot of files of several names, by their own. */
  readonly links: Map<number, number>;
}

/** What a layer has by a name. */
interface Item {
  readonly name: string;
  readonly layer: Layer;
  readonly ino: number;
  /** Of its inode. */
  readonly row: number;
}

/** A directory of the snapshot. */
interface Directory {
  readonly ino: number;
  readonly path: string;
  readonly depth: number;
  /** Those of the layers that it is made of, lowest first. */
  readonly parts: readonly Item[];
}

/**
 * The bytes of the snapshot that layers make, lowest first. Throws BURROW_BAD_INDEX for a layer that contradicts itself; a hostile
 * one can't make it go in circles or without end.
 */
export function mergeIndexes(stack: readonly Index[]): Uint8Array {
  if (stack.length === 0) return writeIndex(IndexKind.snapshot, []);
  const total = (table: number) => stack.reduce((sum, index) => sum + countOf(index, table), 0);
  const dirents = total(Table.dirents);
  if (dirents > MERGE_ENTRIES_MAX) {
    refuse("", `${dirents} entries in ${stack.length} layers, over ${MERGE_ENTRIES_MAX}`);
  }
  const [blobs, blocks] = [total(Table.blobs), total(Table.blocks)];
  const tables = new Tables({ inodes: 1 + dirents, dirents, blobs, blocks });
  const parts = stack.map((index) => ({
    name: "",
    layer: stacked(index),
    ino: 1,
    row: index.row(1),
  }));
  const shown = partsOf(parts, 0, parts.length);
  const root = {
    ino: addItem(tables, topOf(parts, 0, parts.length), ""),
    path: "",
    depth: 0,
    parts: shown,
  };
  const directories: Directory[] = [root];
  for (const directory of directories) {
    const { path, depth } = directory;
    const items = itemsIn(directory);
    if (items.length > 0 && depth >= TREE_DEPTH_MAX) refuse(path, "too deep");
    tables.beginDirectory(directory.ino);
    for (let start = 0, end = 0; start < items.length; start = end) {
      const { name } = items[start]!;
      do end++;
      while (end < items.length && items[end]!.name === name);
      const last = items[end - 1]!;
      const type = typeOf(last);
      if (type === S_IFCHR) continue;
      const parts = type === S_IFDIR ? partsOf(items, start, end) : NO_PARTS;
      const ino = addItem(tables, type === S_IFDIR ? topOf(items, start, end) : last, path);
      tables.addDirent(directory.ino, ino, name);
      if (type !== S_IFDIR) continue;
      directories.push({ ino, path: pathIn(path, name), depth: depth + 1, parts });
    }
  }
  return tables.finish(IndexKind.snapshot);
}

const NO_PARTS: readonly Item[] = [];

function stacked(index: Index): Layer {
  const entered = new Uint8Array(index.inodeCount + 1);
  const blobs = new Uint32Array(index.blobCount);
  return { index, entered, direntsLeft: index.direntCount, blobs, links: new Map() };
}

/** Rows of a table; their first word is where offsetOf says. */
function countOf({ words }: Index, table: number): number {
  return words[(Header.tables >> 2) + 2 * table]!;
}

function offsetOf({ words }: Index, table: number): number {
  return words[(Header.tables >> 2) + 2 * table + 1]! >>> 2;
}

/** What layers have in a directory: by name, and those of one name in the order of their layers. */
function itemsIn({ path, parts }: Directory): Item[] {
  const items: Item[] = [];
  for (const part of parts) addNames(part, path, items);
  // Stable, and quick where sorted lists follow each other.
  if (parts.length > 1) items.sort((left, right) => compareNames(left.name, right.name));
  return items;
}

function addNames({ layer, ino, row }: Item, path: string, items: Item[]): void {
  const { index, entered } = layer;
  const first = index.firstDirent(row);
  if (first < 0 || entered[ino] !== 0) corrupt(path);
  entered[ino] = 1;
  const end = first + index.field(row, Inode.b);
  layer.direntsLeft -= end - first;
  if (layer.direntsLeft < 0) corrupt(path);
  let previous = "";
  for (let dirent = first; dirent < end; dirent++) {
    const name = index.direntName(dirent);
    const child = index.direntIno(dirent);
    if (child <= 0 || checkName(name) < 0 || name <= previous) corrupt(path);
    previous = name;
    items.push({ name, layer, ino: child, row: index.row(child) });
  }
}

function typeOf({ layer, row }: Item): number {
  return layer.index.field(row, Inode.mode) & S_IFMT;
}

/** Whether what is in `lower` shows in the directory above it. */
function isOver(lower: Item, upper: Item): boolean {
  return typeOf(lower) === S_IFDIR && !isMarked(upper, OPAQUE_XATTR);
}

/** Of what layers have by one name, start to end, the directories that are seen as one: the last is one. */
function partsOf(items: readonly Item[], start: number, end: number): Item[] {
  let first = end - 1;
  while (first > start && isOver(items[first - 1]!, items[first]!)) first--;
  return items.slice(first, end);
}

/** Of the same, the directory whose attributes are seen: the highest that its layer has an entry for. */
function topOf(items: readonly Item[], start: number, end: number): Item {
  let top = end - 1;
  const isBelow = (item: Item) => typeOf(item) === S_IFDIR;
  while (top > start && isMarked(items[top]!, IMPLIED_XATTR) && isBelow(items[top - 1]!)) top--;
  return items[top]!;
}

/** Adds an inode unless it is there by another name: its number in the snapshot. */
function addItem(tables: Tables, item: Item, folder: string): number {
  const { index, links } = item.layer;
  const isLinked = typeOf(item) === S_IFREG && index.field(item.row, Inode.nlink) > 1;
  const known = isLinked ? links.get(item.ino) : undefined;
  if (known !== undefined) return known;
  const ino = addRow(tables, item, folder);
  if (isLinked) links.set(item.ino, ino);
  return ino;
}

/** Adds an inode as the layer has it. Its fields are checked: a snapshot holds nothing that writeIndex would refuse. */
function addRow(tables: Tables, item: Item, folder: string): number {
  const { index } = item.layer;
  const { row } = item;
  const mode = index.field(row, Inode.mode);
  const type = mode & S_IFMT;
  const isSound =
    mode <= (S_IFMT | 0o7777) &&
    index.field(row, Inode.mtimeNs) < 1e9 &&
    Number.isSafeInteger(index.mtimeAt(row)) &&
    (type === S_IFREG || type === S_IFDIR || type === S_IFLNK || type === S_IFIFO);
  if (!isSound) corrupt(pathIn(folder, item.name));
  const ino = tables.addInode(index.words, row);
  if (type === S_IFREG) addFile(tables, ino, item, folder);
  if (type === S_IFLNK || index.field(row, Inode.xattr) !== 0) {
    const path = pathIn(folder, item.name);
    const xattrs = withoutMarks(xattrsAt(index, row, path));
    checkXattrs(path, xattrs);
    const target = type === S_IFLNK ? targetAt(index, row, path) : undefined;
    tables.addTexts(ino, target, sortedXattrs(xattrs));
  }
  return ino;
}

function addFile(tables: Tables, ino: number, item: Item, folder: string): void {
  const { index, blobs } = item.layer;
  const blob = index.field(item.row, Inode.a);
  const at = index.blobRow(blob) / 4;
  const size = index.sizeAt(item.row);
  const count = size > BLOCK_DIGESTS_OVER_BYTES ? Math.ceil(size / BLOCK_BYTES) : 0;
  const isSound =
    at >= 0 &&
    Number.isSafeInteger(size) &&
    index.blobSize(blob) === size &&
    index.field(at, Blob.blockCount) === count &&
    index.blockCount(blob) === count;
  if (!isSound) corrupt(pathIn(folder, item.name));
  if (blobs[blob] === 0) {
    const first = index.field(at, Blob.firstBlock) * (BLOCK_DIGEST_BYTES >> 2);
    const blocks = offsetOf(index, Table.blocks) + first;
    blobs[blob] = 1 + tables.addBlob(index.words, at, index.words, blocks);
  }
  tables.setBlob(ino, blobs[blob]! - 1);
}

function isMarked({ layer, row }: Item, mark: string): boolean {
  const { index } = layer;
  for (let at = index.nextXattr(row, -1); at >= 0; at = index.nextXattr(row, at))
    if (index.xattrName(at) === mark) return true;
  return false;
}
