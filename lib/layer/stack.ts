// Stack: layers on their way into a snapshot, and what they have in one directory, by name. Control plane.

import { checkName } from "../base/name.ts";
import type { BlobSource } from "./blobs.ts";
import { corrupt } from "./entries.ts";
import { DIRENT_BYTES, Dirent, Header, Inode, Table } from "./format.ts";
import type { Index } from "./index.ts";

const DIRENT_WORDS = DIRENT_BYTES >> 2;
const NAME = Dirent.name >> 2;
const NAME_BYTES = Dirent.nameBytes >> 2;
const PREFIX = Dirent.prefix >> 2;
const PREFIX_BYTES = 4;

/** Of Layer.names. */
export const NAME_WORDS = 2;

export interface Layer {
  readonly index: Index;
  /** Its place in the stack. */
  readonly number: number;
  /** Where its inodes and its dirents begin in the index's words. */
  readonly inodes: number;
  readonly dirents: number;
  /** Where its strings begin in the index's bytes. */
  readonly strings: number;
  readonly stringBytes: number;
  /** By ino: 1 for a directory that was entered. It has one name, or the way could go in circles. */
  readonly entered: Uint32Array;
  /** Dirents that were not gone through: each is one directory's, or few bytes could stand for very many entries. */
  direntsLeft: number;
  readonly content: BlobSource;
  /** By row of its blobs: 1 + the number in the snapshot's tables, or 0. */
  readonly blobNumbers: Uint32Array;
  /** By where a name begins in its strings two words: 1 + where it does in the snapshot's, or 0; and how long it is. */
  readonly names: Uint32Array;
}

/** What a layer has by a name. */
export interface Item {
  readonly layer: Layer;
  /** Of its name; -1 for a root, which has none. */
  readonly dirent: number;
  readonly ino: number;
  /** Of its inode. */
  readonly row: number;
}

/** Layers, lowest first. What is noted of them lies in a few large pieces: several a layer would be more work for the collector. */
export function layersOf(stack: readonly Index[]): Layer[] {
  const entered = shares(stack.map(({ inodeCount }) => inodeCount + 1));
  const blobNumbers = shares(stack.map(({ blobCount }) => blobCount));
  const names = shares(stack.map((index) => NAME_WORDS * countOf(index, Table.strings)));
  return stack.map((index, number) => {
    const { bytes, words } = index;
    return {
      index,
      number,
      inodes: offsetOf(index, Table.inodes) >>> 2,
      dirents: offsetOf(index, Table.dirents) >>> 2,
      strings: offsetOf(index, Table.strings),
      stringBytes: countOf(index, Table.strings),
      entered: entered[number]!,
      direntsLeft: index.direntCount,
      content: {
        words: new Int32Array(bytes.buffer, bytes.byteOffset, words.length),
        blobs: offsetOf(index, Table.blobs) >>> 2,
        blocks: offsetOf(index, Table.blocks) >>> 2,
      },
      blobNumbers: blobNumbers[number]!,
      names: names[number]!,
    };
  });
}

/** Zeros, as many as asked for. */
function shares(lengths: readonly number[]): Uint32Array[] {
  const all = new Uint32Array(lengths.reduce((sum, length) => sum + length, 0));
  let end = 0;
  return lengths.map((length) => {
    end += length;
    return all.subarray(end - length, end);
  });
}

/** Rows of a table; their first byte is where offsetOf says. */
export function countOf({ words }: Index, table: number): number {
  return words[(Header.tables >> 2) + 2 * table]!;
}

function offsetOf({ words }: Index, table: number): number {
  return words[(Header.tables >> 2) + 2 * table + 1]!;
}

/** The root of a layer. */
export function rootOf(layer: Layer): Item {
  return { layer, dirent: -1, ino: 1, row: layer.index.row(1) };
}

/** Its first dirent. Each directory is entered once: throws BURROW_BAD_INDEX for its path otherwise, or if it is none. */
export function enter({ layer, ino, row }: Item, path: string): number {
  const { index, entered } = layer;
  const first = index.firstDirent(row);
  if (first < 0 || entered[ino] !== 0) corrupt(path);
  entered[ino] = 1;
  layer.direntsLeft -= index.field(row, Inode.b);
  if (layer.direntsLeft < 0) corrupt(path);
  return first;
}

/** What parts of a directory have by each name, in byte order: lowest first. Throws BURROW_BAD_INDEX for the path if a part lies. */
export function itemsOf(parts: readonly Item[], path: string): Item[][] {
  const byName = new Map<string, Item[]>();
  for (const part of parts) {
    const { layer, row } = part;
    const { index } = layer;
    const first = enter(part, path);
    const end = first + index.field(row, Inode.b);
    let previous = "";
    for (let dirent = first; dirent < end; dirent++) {
      const name = index.direntName(dirent);
      const ino = index.direntIno(dirent);
      if (ino <= 0 || checkName(name) < 0 || name <= previous) corrupt(path);
      previous = name;
      const item = { layer, dirent, ino, row: index.row(ino) };
      const same = byName.get(name);
      if (same === undefined) byName.set(name, [item]);
      else same.push(item);
    }
  }
  // Code units of latin1 are bytes, and without a comparer they are sorted several times as fast.
  return [...byName.keys()].sort().map((name) => byName.get(name)!);
}

/** Whether the name of a dirent comes behind that of the one before it, if it isn't the first of its directory. */
export function isInOrder(layer: Layer, first: number, dirent: number): boolean {
  return dirent === first || isBefore(layer, dirent - 1, dirent);
}

/** Whether a name comes before another of the same layer, by their bytes; the prefixes are checked elsewhere. */
function isBefore({ index, dirents, strings }: Layer, dirent: number, next: number): boolean {
  const { words, bytes } = index;
  const at = dirents + dirent * DIRENT_WORDS;
  const other = dirents + next * DIRENT_WORDS;
  const difference = words[at + PREFIX]! - words[other + PREFIX]!;
  if (difference !== 0) return difference < 0;
  const start = strings + words[at + NAME]!;
  const otherStart = strings + words[other + NAME]!;
  const length = words[at + NAME_BYTES]! & 0xffff;
  const otherLength = words[other + NAME_BYTES]! & 0xffff;
  let i = PREFIX_BYTES;
  while (i < length && i < otherLength && bytes[start + i] === bytes[otherStart + i]) i++;
  if (i >= otherLength) return false;
  return i >= length || bytes[start + i]! < bytes[otherStart + i]!;
}
