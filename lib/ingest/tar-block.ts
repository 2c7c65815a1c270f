// Tar headers and PAX records as they lie there: ustar, GNU and what POSIX put on top. POSIX.1-2017 pax, "ustar Interchange Format"
// and "pax Extended Header"; GNU tar manual, "Basic Tar Format". Says what bytes say and judges nothing. Pure. Control plane.

import { latin1At, roundUp } from "../base/bytes.ts";
import type { Piece } from "../store/lanes.ts";
import { WHOLE_MAX_BYTES } from "./sink.ts";

export const TAR_BLOCK_BYTES = 512;

export type TarType =
  | "file"
  | "link"
  | "symlink"
  | "character-device"
  | "block-device"
  | "directory"
  | "fifo"
  | "contiguous-file"
  | "pax-header"
  | "pax-global-header"
  | "gnu-long-link-path"
  | "gnu-long-path";

/** One header; numbers are NaN where the bytes are none. Texts are latin1, so that no byte of a name is lost. */
export interface RawHeader {
  /** Undefined for a type that is not known. */
  readonly type: TarType | undefined;
  readonly name: string;
  readonly linkname: string;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly size: number;
  readonly mtimeSec: number;
}

/** PAX records that hold for an entry, as UTF-8 text. */
export type PaxRecords = ReadonlyMap<string, string>;
export const NO_RECORDS: PaxRecords = new Map();

const TYPES: ReadonlyMap<number, TarType> = new Map(
  Object.entries({
    "\0": "file",
    "0": "file",
    "1": "link",
    "2": "symlink",
    "3": "character-device",
    "4": "block-device",
    "5": "directory",
    "6": "fifo",
    "7": "contiguous-file",
    g: "pax-global-header",
    x: "pax-header",
    K: "gnu-long-link-path",
    L: "gnu-long-path",
    N: "gnu-long-path",
  } as const).map(([flag, type]) => [flag.charCodeAt(0), type]),
);

const At = { mode: 100, uid: 108, gid: 116, size: 124, mtime: 136, sum: 148, type: 156 } as const;
const LINKNAME = 157;
const MAGIC = 257;
const PREFIX = 345;
const [NAME_BYTES, PREFIX_BYTES] = [100, 155];
/** Of what is summed up at once. */
const WORD_BYTES = 4;
const USTAR_MAGIC = "ustar\0";
const GNU_MAGIC = "ustar  \0";
const [SPACE, ZERO, SEVEN, BASE_256] = [0x20, 0x30, 0x37, 0x80];

/** The header in a block; undefined for a block of zeros, or why it is none. */
export function readBlock(block: Buffer): RawHeader | string | undefined {
  const sum = checksum(block);
  // All but the sum itself is zero: the end mark, or padding.
  if (sum === 8 * SPACE) return undefined;
  if (sum !== numberAt(block, At.sum, 8)) return "a header's checksum is wrong";
  const isUstar = latin1At(block, MAGIC, MAGIC + 6) === USTAR_MAGIC;
  if (!isUstar && latin1At(block, MAGIC, MAGIC + 8) !== GNU_MAGIC) {
    return "a header's format is not known";
  }
  const name = textAt(block, 0, NAME_BYTES);
  const hasPrefix = isUstar && block[PREFIX] !== 0;
  return {
    type: TYPES.get(block[At.type]!),
    name: hasPrefix ? `${textAt(block, PREFIX, PREFIX_BYTES)}/${name}` : name,
    linkname: textAt(block, LINKNAME, NAME_BYTES),
    mode: numberAt(block, At.mode, 8),
    uid: numberAt(block, At.uid, 8),
    gid: numberAt(block, At.gid, 8),
    size: numberAt(block, At.size, 12),
    mtimeSec: numberAt(block, At.mtime, 12),
  };
}

/** What contentsIn found: in the order of the tar; `end` is where the first header lies of which not all is there. */
export interface Contents {
  readonly pieces: Piece[];
  readonly end: number;
}

/**
 * Where small files' contents lie in bytes that start with a header, as far as they are there whole. It is a guess, by the headers
 * alone: the reader knows what PAX records say, and which headers are none.
 */
export function contentsIn(bytes: Buffer): Contents {
  const pieces: Piece[] = [];
  let at = 0;
  while (at + TAR_BLOCK_BYTES <= bytes.length) {
    const type = TYPES.get(bytes[at + At.type]!);
    const size = type === "directory" ? 0 : numberAt(bytes, at + At.size, 12);
    const start = at + TAR_BLOCK_BYTES;
    if (!(size >= 0) || start + size > bytes.length) break;
    const isFile = type === "file" || type === "contiguous-file";
    if (isFile && size > 0 && size <= WHOLE_MAX_BYTES) pieces.push({ start, length: size });
    at = start + roundUp(size, TAR_BLOCK_BYTES);
  }
  return { pieces, end: at };
}

/** A GNU long name: latin1, up to the first NUL. */
export function longName(bytes: Buffer): string {
  return textAt(bytes, 0, bytes.length);
}

/** The PAX records of an extended header, up to the first that is none; those of `common` hold where it doesn't say otherwise. */
export function paxRecords(bytes: Buffer, common: PaxRecords): PaxRecords {
  const records = new Map(common);
  for (let at = 0; at < bytes.length; ) {
    // "LENGTH KEY=VALUE\n"; the length counts itself.
    const blank = bytes.indexOf(SPACE, at);
    const start = blank < 0 ? bytes.length : blank;
    const length = Number.parseInt(latin1At(bytes, at, start), 10);
    if (!(length > 0)) break;
    const text = bytes.toString("utf8", start + 1, Math.max(start + 1, at + length - 1));
    const equals = text.indexOf("=");
    if (equals < 0) break;
    records.set(text.slice(0, equals), text.slice(equals + 1));
    at += length;
  }
  return records;
}

/** The sum of all bytes, those of the sum itself taken for blanks. */
function checksum(block: Buffer): number {
  let sum = 8 * SPACE + sumOf(block);
  for (let i = At.sum; i < At.type; i++) sum -= block[i]!;
  return sum;
}

function sumOf(block: Buffer): number {
  let sum = 0;
  if (block.byteOffset % WORD_BYTES !== 0) {
    for (let i = 0; i < TAR_BLOCK_BYTES; i++) sum += block[i]!;
    return sum;
  }
  // Four at a time: a tar may have a million headers. Two sums of 256 bytes each lie side by side, of 16 bits.
  const words = new Uint32Array(block.buffer, block.byteOffset, TAR_BLOCK_BYTES / WORD_BYTES);
  for (let i = 0; i < words.length; i++) {
    const word = words[i]!;
    sum += (word & 0x00ff00ff) + ((word >>> 8) & 0x00ff00ff);
  }
  return (sum & 0xffff) + (sum >>> 16);
}

/** Octal digits, or base 256 (GNU) with the top bit set. No digits at all are 0. */
function numberAt(block: Buffer, at: number, length: number): number {
  if (block[at]! & BASE_256) return base256(block, at, length);
  const limit = at + length;
  let start = at;
  while (start < limit && block[start] === SPACE) start++;
  while (start < limit && block[start] === 0) start++;
  let value = 0;
  for (let i = start; i < limit; i++) {
    const byte = block[i]!;
    if (byte === SPACE || byte === 0) break;
    if (byte < ZERO || byte > SEVEN) return oddNumber(block, start, limit);
    value = value * 8 + (byte - ZERO);
  }
  return value;
}

/** What isn't all digits, as old tars have it: a sign before them, or something behind them. */
function oddNumber(block: Buffer, start: number, limit: number): number {
  const end = block.indexOf(SPACE, start);
  return Number.parseInt(latin1At(block, start, end < 0 ? limit : Math.min(end, limit)), 8);
}

/** 0x80 and a number, or 0xff and a negative one: its two's complement. */
function base256(block: Buffer, at: number, length: number): number {
  const isPositive = block[at] === 0x80;
  if (!isPositive && block[at] !== 0xff) return Number.NaN;
  let value = 0;
  for (let i = at + 1; i < at + length; i++) {
    value = value * 256 + (isPositive ? block[i]! : 0xff - block[i]!);
  }
  return isPositive ? value : -value - 1;
}

function textAt(block: Buffer, at: number, length: number): string {
  const end = block.indexOf(0, at);
  return latin1At(block, at, end < 0 ? at + length : Math.min(end, at + length));
}
