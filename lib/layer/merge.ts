// Merge: an ordered stack of layers to one snapshot. Later layers win; whiteouts and opaque directories are resolved here, at build
// time, so that a lookup never sees a layer. overlayfs.rst is the model. Directories are sorted tables in every layer, so they are
// gone through side by side in the order of the snapshot's own, and rows are copied. Control plane.

import {
  BLOCK_BYTES,
  BLOCK_DIGESTS_OVER_BYTES,
  MERGE_ENTRIES_MAX,
  TREE_DEPTH_MAX,
} from "../base/limits.ts";
import { corrupt, entriesOf, targetAt, xattrsAt } from "./entries.ts";
import type { LayerEntry } from "./entry.ts";
import { checkXattrs, refuse } from "./entry-check.ts";
import {
  Blob,
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
import { countOf, type Item, Items, layerAt, nameAt, nameBytesAt, rootOf } from "./stack.ts";
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

/** A directory of the snapshot. */
interface Directory {
  readonly ino: number;
  readonly path: string;
  readonly depth: number;
  /** Those of the layers that it is made of, lowest first. */
  readonly parts: readonly Item[];
}

/** A snapshot on its way. */
interface Merge {
  readonly tables: Tables;
  readonly items: Items;
  /** Numbers in the snapshot of files of several names, by layer and ino. */
  readonly links: Map<number, number>;
  /** In the order in which they are gone through. */
  readonly directories: Directory[];
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
  const [blobs, blocks, strings] = [total(Table.blobs), total(Table.blocks), total(Table.strings)];
  const layers = stack.map(layerAt);
  const tables = new Tables(
    { inodes: 1 + dirents, dirents, blobs, blocks, strings },
    layers.map(({ content }) => content),
  );
  const merge: Merge = { tables, items: new Items(layers), links: new Map(), directories: [] };
  addDirectory(merge, layers.map(rootOf), "", 0);
  for (const directory of merge.directories) addNames(merge, directory);
  return tables.finish(IndexKind.snapshot);
}

/** Adds a directory, so far without names, of what layers have by its own, lowest first: its number. */
function addDirectory(merge: Merge, same: readonly Item[], folder: string, depth: number): number {
  const top = topOf(same);
  const ino = addItem(merge, top, folder);
  merge.directories.push({ ino, path: pathOf(top, folder), depth, parts: partsOf(same) });
  return ino;
}

/** Adds the names of a directory and what they name. */
function addNames(merge: Merge, { ino, path, depth, parts }: Directory): void {
  const { tables, items } = merge;
  items.read(parts, path);
  const { count } = items;
  if (count > 0 && depth >= TREE_DEPTH_MAX) refuse(path, "too deep");
  tables.beginDirectory(ino);
  for (let start = 0, end = 0; start < count; start = end) {
    end = parts.length > 1 ? items.endOfName(start) : start + 1;
    const item = items.at(end - 1);
    const type = typeOf(item);
    if (type === S_IFCHR) continue;
    const child =
      type === S_IFDIR
        ? addDirectory(merge, items.between(start, end), path, depth + 1)
        : addItem(merge, item, path);
    const { layer, dirent } = item;
    tables.addDirent(
      ino,
      child,
      layer.index.bytes,
      nameAt(layer, dirent),
      nameBytesAt(layer, dirent),
    );
  }
}

function typeOf({ layer, row }: Item): number {
  return layer.index.field(row, Inode.mode) & S_IFMT;
}

function pathOf({ layer, dirent }: Item, folder: string): string {
  return dirent < 0 ? folder : pathIn(folder, layer.index.direntName(dirent));
}

/** Whether what is in `lower` shows in the directory above it. */
function isOver(lower: Item, upper: Item): boolean {
  return typeOf(lower) === S_IFDIR && !isMarked(upper, OPAQUE_XATTR);
}

/** Of what layers have by one name the directories that are seen as one: the last is one. */
function partsOf(same: readonly Item[]): readonly Item[] {
  let first = same.length - 1;
  while (first > 0 && isOver(same[first - 1]!, same[first]!)) first--;
  return first === 0 ? same : same.slice(first);
}

/** Of the same, the directory whose attributes are seen: the highest that its layer has an entry for. */
function topOf(same: readonly Item[]): Item {
  let top = same.length - 1;
  const isBelow = (item: Item) => typeOf(item) === S_IFDIR;
  while (top > 0 && isMarked(same[top]!, IMPLIED_XATTR) && isBelow(same[top - 1]!)) top--;
  return same[top]!;
}

/** More than there are numbers of inodes. */
const NUMBERS = 2 ** 32;

/** Adds an inode unless it is there by another name: its number in the snapshot. */
function addItem(merge: Merge, item: Item, folder: string): number {
  const { layer, row, ino } = item;
  if (typeOf(item) !== S_IFREG || layer.index.field(row, Inode.nlink) <= 1) {
    return addRow(merge, item, folder);
  }
  const key = layer.number * NUMBERS + ino;
  const known = merge.links.get(key);
  if (known !== undefined) return known;
  const added = addRow(merge, item, folder);
  merge.links.set(key, added);
  return added;
}

/** Adds an inode as the layer has it. Its fields are checked: a snapshot holds nothing that writeIndex would refuse. */
function addRow({ tables }: Merge, item: Item, folder: string): number {
  const { layer, row } = item;
  const { index } = layer;
  const mode = index.field(row, Inode.mode);
  const type = mode & S_IFMT;
  const isSound =
    mode <= (S_IFMT | 0o7777) &&
    index.field(row, Inode.mtimeNs) < 1e9 &&
    (index.field(row, Inode.mtimeSec + 4) === 0 || Number.isSafeInteger(index.mtimeAt(row))) &&
    (type === S_IFREG || type === S_IFDIR || type === S_IFLNK || type === S_IFIFO);
  if (!isSound) corrupt(pathOf(item, folder));
  const ino = tables.addInode(index.words, row);
  if (type === S_IFREG) {
    const blob = blobOf(tables, item, folder);
    tables.setBlob(ino, blob, index.words, row + (Inode.size >> 2));
  }
  if (type === S_IFLNK || index.field(row, Inode.xattr) !== 0) {
    const path = pathOf(item, folder);
    const xattrs = withoutMarks(xattrsAt(index, row, path));
    checkXattrs(path, xattrs);
    const target = type === S_IFLNK ? targetAt(index, row, path) : undefined;
    tables.addTexts(ino, target, sortedXattrs(xattrs));
  }
  return ino;
}

/** The number in the tables of a file's blob, which is added unless it is there. */
function blobOf(tables: Tables, item: Item, folder: string): number {
  const { layer, row } = item;
  const { index, blobNumbers } = layer;
  const blob = index.field(row, Inode.a);
  const size = index.sizeAt(row);
  if (blob >= index.blobCount || index.blobSize(blob) !== size) corrupt(pathOf(item, folder));
  const known = blobNumbers[blob]!;
  if (known !== 0) return known - 1;
  const count = size > BLOCK_DIGESTS_OVER_BYTES ? Math.ceil(size / BLOCK_BYTES) : 0;
  const given = index.field(index.blobRow(blob) / 4, Blob.blockCount);
  const isSound = given === count && index.blockCount(blob) === count;
  if (!isSound || !Number.isSafeInteger(size)) corrupt(pathOf(item, folder));
  const number = tables.addBlob(layer.number, blob);
  blobNumbers[blob] = number + 1;
  return number;
}

function isMarked({ layer, row }: Item, mark: string): boolean {
  const { index } = layer;
  for (let at = index.nextXattr(row, -1); at >= 0; at = index.nextXattr(row, at))
    if (index.xattrName(at) === mark) return true;
  return false;
}
