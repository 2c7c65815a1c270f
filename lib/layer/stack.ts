// Stack: layers on their way into a snapshot, and what they have in one directory side by side, by name. Rows of indexes are read in
// place, without an object or a string of each. Control plane.

import { NAME_MAX_BYTES } from "../base/limits.ts";
import type { BlobSource } from "./blobs.ts";
import { corrupt } from "./entries.ts";
import { DIRENT_BYTES, Dirent, Header, Inode, prefixAt, Table } from "./format.ts";
import type { Index } from "./index.ts";

const DIRENT_WORDS = DIRENT_BYTES >> 2;
const INO = Dirent.ino >> 2;
const NAME = Dirent.name >> 2;
const NAME_BYTES = Dirent.nameBytes >> 2;
const PREFIX = Dirent.prefix >> 2;
const PREFIX_BYTES = 4;
const SLASH = 0x2f;
const DOT = 0x2e;

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

/** What layers have in a directory: by name, and of one name in the order of the layers. */
export class Items {
  readonly #layers: readonly Layer[];
  /** Of each item its layer's number, then its dirent. Kept from directory to directory, as is the other half of a merge sort. */
  #pairs = new Uint32Array(2048);
  #spare = new Uint32Array(2048);
  count = 0;

  constructor(layers: readonly Layer[]) {
    this.#layers = layers;
  }

  /** Takes the names of a directory's parts, in place of those that there were. Throws BURROW_BAD_INDEX for the path if one lies. */
  read(parts: readonly Item[], path: string): void {
    this.count = 0;
    const ends = parts.map((part) => {
      this.#append(part, path);
      return this.count;
    });
    this.#sort(ends);
  }

  at(i: number): Item {
    const layer = this.#layers[this.#pairs[2 * i]!]!;
    const dirent = this.#pairs[2 * i + 1]!;
    const ino = inoAt(layer, dirent);
    return { layer, dirent, ino, row: layer.index.row(ino) };
  }

  between(start: number, end: number): Item[] {
    return Array.from({ length: end - start }, (_, i) => this.at(start + i));
  }

  /** Where those end that have the name of one. */
  endOfName(start: number): number {
    let end = start + 1;
    while (end < this.count && this.#compare(this.#pairs, start, end) === 0) end++;
    return end;
  }

  #append({ layer, ino, row }: Item, path: string): void {
    const { index, entered, number } = layer;
    const first = index.firstDirent(row);
    if (first < 0 || entered[ino] !== 0) corrupt(path);
    entered[ino] = 1;
    const length = index.field(row, Inode.b);
    layer.direntsLeft -= length;
    if (layer.direntsLeft < 0) corrupt(path);
    let at = 2 * this.count;
    this.count += length;
    if (2 * this.count > this.#pairs.length) this.#grow();
    const pairs = this.#pairs;
    for (let dirent = first; dirent < first + length; dirent++) {
      if (!isSound(layer, dirent)) corrupt(path);
      if (dirent > first && compareDirents(layer, dirent - 1, layer, dirent) >= 0) corrupt(path);
      pairs[at++] = number;
      pairs[at++] = dirent;
    }
  }

  #grow(): void {
    const pairs = new Uint32Array(4 * this.count);
    pairs.set(this.#pairs);
    this.#pairs = pairs;
    this.#spare = new Uint32Array(4 * this.count);
  }

  /** Merges sorted runs, of which each ends where the next begins, two by two until there is one. */
  #sort(ends: readonly number[]): void {
    let runs = ends;
    while (runs.length > 1) {
      const merged: number[] = [];
      for (let i = 0, start = 0; i < runs.length; i += 2) {
        const middle = runs[i]!;
        const end = runs[i + 1] ?? middle;
        this.#mergeRuns(start, middle, end);
        merged.push(end);
        start = end;
      }
      [this.#pairs, this.#spare] = [this.#spare, this.#pairs];
      runs = merged;
    }
  }

  /** Two runs, from start to middle and on to the end, to one of the spare pairs. Of one name, the left one's comes first. */
  #mergeRuns(start: number, middle: number, end: number): void {
    const pairs = this.#pairs;
    const spare = this.#spare;
    let left = start;
    let right = middle;
    for (let to = start; to < end; to++) {
      const isLeft = left < middle && (right >= end || this.#compare(pairs, left, right) <= 0);
      const from = isLeft ? left++ : right++;
      spare[2 * to] = pairs[2 * from]!;
      spare[2 * to + 1] = pairs[2 * from + 1]!;
    }
  }

  #compare(pairs: Uint32Array, left: number, right: number): number {
    const layer = this.#layers[pairs[2 * left]!]!;
    const other = this.#layers[pairs[2 * right]!]!;
    return compareDirents(layer, pairs[2 * left + 1]!, other, pairs[2 * right + 1]!);
  }
}

function inoAt({ index, dirents }: Layer, dirent: number): number {
  return index.words[dirents + dirent * DIRENT_WORDS + INO]!;
}

/** Where the name of a dirent lies in the bytes of its index. */
export function nameAt({ index, dirents, strings }: Layer, dirent: number): number {
  return strings + index.words[dirents + dirent * DIRENT_WORDS + NAME]!;
}

export function nameBytesAt({ index, dirents }: Layer, dirent: number): number {
  return index.words[dirents + dirent * DIRENT_WORDS + NAME_BYTES]! & 0xffff;
}

/** Whether a dirent names an inode by a valid name. */
function isSound(layer: Layer, dirent: number): boolean {
  const { words, bytes, inodeCount } = layer.index;
  const at = layer.dirents + dirent * DIRENT_WORDS;
  const ino = words[at + INO]!;
  const offset = words[at + NAME]!;
  const length = words[at + NAME_BYTES]! & 0xffff;
  if (ino < 1 || ino > inodeCount || offset + length > layer.stringBytes) return false;
  const start = layer.strings + offset;
  return isName(bytes, start, length) && prefixAt(bytes, start, length) === words[at + PREFIX];
}

/** checkName, of bytes. */
function isName(bytes: Uint8Array, start: number, length: number): boolean {
  if (length === 0 || length > NAME_MAX_BYTES) return false;
  for (let i = 0; i < length; i++) {
    const byte = bytes[start + i]!;
    if (byte === SLASH || byte === 0) return false;
  }
  if (length > 2 || bytes[start] !== DOT) return true;
  return length === 2 && bytes[start + 1] !== DOT;
}

/** Order of the names of two dirents that are sound: negative, 0 or positive. */
function compareDirents(layer: Layer, dirent: number, other: Layer, otherDirent: number): number {
  const words = layer.index.words;
  const others = other.index.words;
  const at = layer.dirents + dirent * DIRENT_WORDS;
  const otherAt = other.dirents + otherDirent * DIRENT_WORDS;
  const prefix = words[at + PREFIX]!;
  const otherPrefix = others[otherAt + PREFIX]!;
  if (prefix !== otherPrefix) return prefix < otherPrefix ? -1 : 1;
  const bytes = layer.index.bytes;
  const otherBytes = other.index.bytes;
  const start = layer.strings + words[at + NAME]!;
  const otherStart = other.strings + others[otherAt + NAME]!;
  const length = words[at + NAME_BYTES]! & 0xffff;
  const otherLength = others[otherAt + NAME_BYTES]! & 0xffff;
  const shorter = length < otherLength ? length : otherLength;
  for (let i = PREFIX_BYTES; i < shorter; i++) {
    const difference = bytes[start + i]! - otherBytes[otherStart + i]!;
    if (difference !== 0) return difference;
  }
  return length - otherLength;
}
