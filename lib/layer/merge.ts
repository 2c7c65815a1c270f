// Merge: an ordered stack of layers to one snapshot. Later layers win; whiteouts and opaque directories are resolved here, at build
// time, so that a lookup never sees a layer. overlayfs.rst is the model. Directories are sorted tables in every layer, so they are
// gone through side by side in the order of the snapshot's own, and rows are copied. Control plane.

import { S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT, S_IFREG } from "../base/file-types.ts";
import {
  BLOCK_BYTES,
  BLOCK_DIGESTS_OVER_BYTES,
  MERGE_ENTRIES_MAX,
  TREE_DEPTH_MAX,
} from "../base/limits.ts";
import { optimizedSoon } from "../sys/tiering.ts";
import { corrupt, targetAt, xattrsAt } from "./entries.ts";
import type { LayerEntry } from "./entry.ts";
import { checkXattrs, refuse } from "./entry-check.ts";
import {
  Blob,
  DIRENT_BYTES,
  Dirent,
  IMPLIED_XATTR,
  IndexKind,
  Inode,
  OPAQUE_XATTR,
  prefixAt,
  Table,
} from "./format.ts";
import { Index } from "./index.ts";
import {
  countOf,
  enter,
  type Item,
  isInOrder,
  itemsOf,
  type Layer,
  layersOf,
  rootOf,
} from "./stack.ts";
import { Tables } from "./tables.ts";
import { sortedXattrs, withoutMarks, writeIndex } from "./writer.ts";

const MODE = Inode.mode >> 2;
const NLINK = Inode.nlink >> 2;
const SIZE = Inode.size >> 2;
const A = Inode.a >> 2;
const XATTR = Inode.xattr >> 2;
const DIRENT_WORDS = DIRENT_BYTES >> 2;
const NAME = Dirent.name >> 2;
const NAME_BYTES = Dirent.nameBytes >> 2;
const PREFIX = Dirent.prefix >> 2;

/** The index of a layer that is entries. */
export function layerOf(entries: Iterable<LayerEntry>): Index {
  return new Index(writeIndex(IndexKind.layer, entries));
}

/** A path below a folder; both are latin1, and "" is the root. */
export function pathIn(folder: string, name: string): string {
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
  return stack.length === 0
    ? writeIndex(IndexKind.snapshot, [])
    : optimizedSoon(() => mergeStack(stack));
}

function mergeStack(stack: readonly Index[]): Uint8Array {
  const total = (table: number) => stack.reduce((sum, index) => sum + countOf(index, table), 0);
  const dirents = total(Table.dirents);
  if (dirents > MERGE_ENTRIES_MAX) {
    refuse("", `${dirents} entries in ${stack.length} layers, over ${MERGE_ENTRIES_MAX}`);
  }
  const [blobs, blocks, strings] = [total(Table.blobs), total(Table.blocks), total(Table.strings)];
  const layers = layersOf(stack);
  const tables = new Tables(
    { inodes: 1 + dirents, dirents, blobs, blocks, strings },
    layers.map(({ content }) => content),
  );
  const merge: Merge = { tables, links: new Map(), directories: [] };
  addDirectory(merge, layers.map(rootOf), "", 0);
  for (const directory of merge.directories) addNames(merge, directory);
  return tables.finish(IndexKind.snapshot);
}

/** Adds the names of a directory and what they name. Most directories are one layer's alone. */
function addNames(merge: Merge, directory: Directory): void {
  const { ino, path, parts } = directory;
  merge.tables.beginDirectory(ino);
  if (parts.length > 1) {
    for (const same of itemsOf(parts, path)) {
      const top = same.at(-1)!;
      const next = top.dirent + 1;
      const isAdded =
        same.length === 1 &&
        merge.tables.addFiles(ino, top.layer, top.dirent, top.dirent, next) === next;
      if (!isAdded) addName(merge, directory, top, same);
    }
    return;
  }
  const [part] = parts;
  const { layer, row } = part!;
  const first = enter(part!, path);
  const end = first + layer.index.field(row, Inode.b);
  for (let dirent = first; ; dirent++) {
    dirent = merge.tables.addFiles(ino, layer, first, dirent, end);
    if (dirent === end) return;
    const child = layer.index.direntIno(dirent);
    if (child <= 0 || !isInOrder(layer, first, dirent)) corrupt(path);
    addName(merge, directory, { layer, dirent, ino: child, row: layer.index.row(child) });
  }
}

/** Adds a name and what is seen by it: an item, and if that is a directory, with it what layers below have by the same name. */
function addName(merge: Merge, directory: Directory, item: Item, same?: readonly Item[]): void {
  const { tables } = merge;
  const { ino, path, depth } = directory;
  const { layer, dirent, row } = item;
  const { words, bytes } = layer.index;
  const type = words[row + MODE]! & S_IFMT;
  if (depth >= TREE_DEPTH_MAX) refuse(path, "too deep");
  if (type === S_IFCHR) return;
  const child =
    type === S_IFDIR
      ? addDirectory(merge, same ?? [item], path, depth + 1)
      : addItem(merge, item, path);
  const at = layer.dirents + dirent * DIRENT_WORDS;
  const offset = words[at + NAME]!;
  const length = words[at + NAME_BYTES]! & 0xffff;
  const start = layer.strings + offset;
  const prefix = words[at + PREFIX]!;
  const isSound =
    offset + length <= layer.stringBytes &&
    prefixAt(bytes, start, length) === prefix &&
    tables.addDirent(ino, child, bytes, start, length, prefix);
  if (!isSound) corrupt(path);
}

function pathOf({ layer, dirent }: Item, folder: string): string {
  return dirent < 0 ? folder : pathIn(folder, layer.index.direntName(dirent));
}

/** Adds a directory, so far without names, of what layers have by its own, lowest first: its number. */
function addDirectory(merge: Merge, same: readonly Item[], folder: string, depth: number): number {
  const top = topOf(same);
  const ino = addItem(merge, top, folder);
  merge.directories.push({ ino, path: pathOf(top, folder), depth, parts: partsOf(same) });
  return ino;
}

function typeOf({ layer, row }: Item): number {
  return layer.index.field(row, Inode.mode) & S_IFMT;
}

/** Whether what is in `lower` shows in the directory above it. */
function isOver(lower: Item, upper: Item): boolean {
  return typeOf(lower) === S_IFDIR && !isMarked(upper, OPAQUE_XATTR);
}

/** Of what layers have by one name the directories that are seen as one: the last is one. */
function partsOf(same: readonly Item[]): readonly Item[] {
  let first = same.length - 1;
  while (first > 0 && isOver(same[first - 1]!, same[first]!)) first--;
  return same.slice(first);
}

/** Of the same, the directory whose attributes are seen: the highest that its layer has an entry for. */
function topOf(same: readonly Item[]): Item {
  let top = same.length - 1;
  const isBelow = (item: Item) => typeOf(item) === S_IFDIR;
  while (top > 0 && isMarked(same[top]!, IMPLIED_XATTR) && isBelow(same[top - 1]!)) top--;
  return same[top]!;
}

function isMarked({ layer, row }: Item, mark: string): boolean {
  const { index } = layer;
  for (let at = index.nextXattr(row, -1); at >= 0; at = index.nextXattr(row, at))
    if (index.xattrName(at) === mark) return true;
  return false;
}

/** More than there are numbers of inodes. */
const NUMBERS = 2 ** 32;

/** Adds an inode as the layer has it, unless it is there by another name: its number in the snapshot. */
function addItem(merge: Merge, item: Item, folder: string): number {
  const { layer, row, ino } = item;
  const { words } = layer.index;
  const type = words[row + MODE]! & S_IFMT;
  const isLinked = type === S_IFREG && words[row + NLINK]! > 1;
  const key = isLinked ? layer.number * NUMBERS + ino : 0;
  const known = isLinked ? merge.links.get(key) : undefined;
  if (known !== undefined) return known;
  if (!isSoundInode(layer, row)) corrupt(pathOf(item, folder));
  const added = merge.tables.addInode(words, row);
  if (type === S_IFREG) {
    const blob = blobOf(merge, item, folder);
    merge.tables.setBlob(added, blob, words, row + SIZE);
  }
  if (isLinked) merge.links.set(key, added);
  if (type === S_IFLNK || words[row + XATTR] !== 0) addTexts(merge, item, added, folder);
  return added;
}

/** Whether an inode is what writeIndex would take, but for what its other tables say of it. */
function isSoundInode({ index }: Layer, row: number): boolean {
  const mode = index.field(row, Inode.mode);
  const type = mode & S_IFMT;
  return (
    (type === S_IFREG || type === S_IFDIR || type === S_IFLNK || type === S_IFIFO) &&
    mode <= (S_IFMT | 0o7777) &&
    index.field(row, Inode.mtimeNs) < 1e9 &&
    (index.field(row, Inode.mtimeSec + 4) === 0 || Number.isSafeInteger(index.mtimeAt(row)))
  );
}

function addTexts({ tables }: Merge, item: Item, ino: number, folder: string): void {
  const { row } = item;
  const { index } = item.layer;
  const path = pathOf(item, folder);
  const xattrs = withoutMarks(xattrsAt(index, row, path));
  checkXattrs(path, xattrs);
  const isLink = typeOf(item) === S_IFLNK;
  tables.addTexts(ino, isLink ? targetAt(index, row, path) : undefined, sortedXattrs(xattrs));
}

/** The number in the tables of a file's blob, which is added unless it is there. */
function blobOf({ tables }: Merge, item: Item, folder: string): number {
  const { layer, row } = item;
  const { index, blobNumbers } = layer;
  const blob = index.words[row + A]!;
  if (blob >= index.blobCount) corrupt(pathOf(item, folder));
  const size = index.sizeAt(row);
  if (index.blobSize(blob) !== size) corrupt(pathOf(item, folder));
  const known = blobNumbers[blob]!;
  if (known !== 0) return known - 1;
  const count = size > BLOCK_DIGESTS_OVER_BYTES ? Math.ceil(size / BLOCK_BYTES) : 0;
  const given = index.field(index.blobRow(blob) / 4, Blob.blockCount);
  const isSound = given === count && (count === 0 || index.blockCount(blob) === count);
  if (!isSound || !Number.isSafeInteger(size)) corrupt(pathOf(item, folder));
  const number = tables.addBlob(layer.number, blob);
  blobNumbers[blob] = number + 1;
  return number;
}
