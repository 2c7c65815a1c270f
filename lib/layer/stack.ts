// Stack: layers on their way into a snapshot, and what they have in one directory, by name. Control plane.

import { checkName } from "../base/name.ts";
import type { BlobSource } from "./blobs.ts";
import { corrupt } from "./entries.ts";
import { Header, Inode, Table } from "./format.ts";
import type { Index } from "./index.ts";

export interface Layer {
  readonly index: Index;
  /** Its place in the stack. */
  readonly number: number;
  /** Where its dirents begin in the index's words. */
  readonly dirents: number;
  /** Where its strings begin in the index's bytes. */
  readonly strings: number;
  readonly stringBytes: number;
  /** By ino: 1 for a directory that was entered. It has one name, or the way could go in circles. */
  readonly entered: Uint8Array;
  /** Dirents that were not gone through: each is one directory's, or few bytes could stand for very many entries. */
  direntsLeft: number;
  readonly content: BlobSource;
  /** By row of its blobs: 1 + the number in the snapshot's tables, or 0. */
  readonly blobNumbers: Uint32Array;
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

export function layerAt(index: Index, number: number): Layer {
  const { bytes, words } = index;
  return {
    index,
    number,
    dirents: offsetOf(index, Table.dirents) >>> 2,
    strings: offsetOf(index, Table.strings),
    stringBytes: countOf(index, Table.strings),
    entered: new Uint8Array(index.inodeCount + 1),
    direntsLeft: index.direntCount,
    content: {
      words: new Int32Array(bytes.buffer, bytes.byteOffset, words.length),
      blobs: offsetOf(index, Table.blobs) >>> 2,
      blocks: offsetOf(index, Table.blocks) >>> 2,
    },
    blobNumbers: new Uint32Array(index.blobCount),
  };
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
