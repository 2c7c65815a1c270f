// ELF: what the dynamic linker reads of a program or a shared library before it runs: which others it needs and where they are looked
// for, and which of its bytes. Bytes of anybody: what can't be read needs nothing. 64-bit little-endian alone, which is what gVisor runs.
// elf(5), ld.so(8). Control plane.

import { FORESEEN_NAME_MAX_CHARS } from "../base/limits.ts";

/** A part of a file: of a large one what is asked for. */
export interface FileRange {
  readonly offset: number;
  readonly end: number;
}

/** By the program headers alone: where to read on. */
export interface ElfHead {
  /** Path of the dynamic linker, of a program. */
  readonly interpreter: FileRange | undefined;
  /** The dynamic section. */
  readonly dynamic: FileRange | undefined;
  /** Segments, by their addresses. */
  readonly segments: readonly (FileRange & {
    readonly address: number;
    readonly isWritten: boolean;
    readonly isRun: boolean;
  })[];
}

export interface ElfNeeds {
  /** Names, as DT_NEEDED has them. */
  readonly needed: readonly FileRange[];
  /** DT_RUNPATH, or DT_RPATH where there is none. */
  readonly paths: FileRange | undefined;
  /** Tables that are read and segments that are written when it is loaded, and constants that what runs then reads. */
  readonly loaded: readonly FileRange[];
}

const HEADER_BYTES = 64;
const PROGRAM_HEADER_BYTES = 56;
const PROGRAM_HEADERS_MAX = 64;
const DYNAMIC_BYTES = 16;
const DYNAMICS_MAX = 1_024;
const MAGIC = 0x464c457f;
const PT = { load: 1, dynamic: 2, interp: 3 } as const;
const PF_X = 1;
const PF_W = 2;
/** Of elf.h. */
const DT = {
  needed: 1,
  strtab: 5,
  rela: 7,
  relasz: 8,
  strsz: 10,
  rpath: 15,
  jmprel: 23,
  pltrelsz: 2,
  runpath: 29,
} as const;
/** Of constants: what OpenBLAS's dispatch reads of them when it is loaded is less. */
const CONSTANTS_BYTES = 64 * 1024;
/** A search path or the linker's, at most. */
export const ELF_TEXT_MAX_BYTES = 4_096;
/** A library's name, at most, and the zero behind it. */
const NAME_MAX_BYTES = FORESEEN_NAME_MAX_CHARS + 1;

/** Of a file's first bytes; undefined where they are no 64-bit ELF's. */
export function elfHead(bytes: Buffer): ElfHead | undefined {
  if (bytes.length < HEADER_BYTES || bytes.readUInt32LE(0) !== MAGIC) return undefined;
  if (bytes[4] !== 2 || bytes[5] !== 1) return undefined;
  const start = numberAt(bytes, 32);
  const count = Math.min(PROGRAM_HEADERS_MAX, bytes.readUInt16LE(56));
  if (bytes.readUInt16LE(54) !== PROGRAM_HEADER_BYTES) return undefined;
  if (start + count * PROGRAM_HEADER_BYTES > bytes.length) return undefined;
  let interpreter: FileRange | undefined;
  let dynamic: FileRange | undefined;
  const segments: ElfHead["segments"][number][] = [];
  for (let i = 0; i < count; i++) {
    const at = start + i * PROGRAM_HEADER_BYTES;
    const offset = numberAt(bytes, at + 8);
    const range = { offset, end: offset + numberAt(bytes, at + 32) };
    const type = bytes.readUInt32LE(at);
    if (type === PT.interp) interpreter = range;
    if (type === PT.dynamic) dynamic = range;
    const flags = bytes.readUInt32LE(at + 4);
    const is = { isWritten: (flags & PF_W) !== 0, isRun: (flags & PF_X) !== 0 };
    if (type === PT.load) segments.push({ ...range, address: numberAt(bytes, at + 16), ...is });
  }
  return { interpreter, dynamic, segments };
}

/** Of its dynamic section's bytes. */
export function elfNeeds(head: ElfHead, dynamic: Buffer): ElfNeeds {
  const value = new Map<number, number>();
  const names: number[] = [];
  const count = Math.min(DYNAMICS_MAX, Math.floor(dynamic.length / DYNAMIC_BYTES));
  for (let i = 0; i < count; i++) {
    const tag = numberAt(dynamic, i * DYNAMIC_BYTES);
    const of = numberAt(dynamic, i * DYNAMIC_BYTES + 8);
    if (tag === 0) break;
    if (tag === DT.needed) names.push(of);
    else value.set(tag, of);
  }
  const strings = offsetOf(head, value.get(DT.strtab));
  const textAt = (at: number, bytes: number): FileRange => {
    const offset = strings + at;
    return { offset, end: offset + bytes };
  };
  const path = value.get(DT.runpath) ?? value.get(DT.rpath);
  // Symbols, their names and hashes lie before the relocations, with every linker in use.
  const ends = [
    strings + (value.get(DT.strsz) ?? 0),
    offsetOf(head, value.get(DT.rela)) + (value.get(DT.relasz) ?? 0),
    offsetOf(head, value.get(DT.jmprel)) + (value.get(DT.pltrelsz) ?? 0),
  ].filter((end) => end > 0 && Number.isSafeInteger(end));
  const written = head.segments.filter(({ isWritten }) => isWritten);
  // Behind code; with every linker in use .rodata comes first in it, and what unwinds stacks behind that.
  const constants = head.segments
    .filter(({ offset, isWritten, isRun }) => offset > 0 && !isWritten && !isRun)
    .map(({ offset, end }) => ({ offset, end: Math.min(end, offset + CONSTANTS_BYTES) }));
  return {
    needed: strings < 0 ? [] : names.map((at) => textAt(at, NAME_MAX_BYTES)),
    paths: strings < 0 || path === undefined ? undefined : textAt(path, ELF_TEXT_MAX_BYTES),
    loaded: [{ offset: 0, end: Math.max(HEADER_BYTES, ...ends) }, ...written, ...constants],
  };
}

/** The text that begins a range; "" where it doesn't end in it. */
export function elfText(bytes: Buffer): string {
  const end = bytes.indexOf(0);
  return end < 0 ? "" : bytes.toString("latin1", 0, end);
}

/** Where in the file an address is; -Infinity where it is none of it. */
function offsetOf({ segments }: ElfHead, address: number | undefined): number {
  const holds = (each: (typeof segments)[number]) =>
    address !== undefined &&
    address >= each.address &&
    address < each.address + each.end - each.offset;
  const found = segments.find(holds);
  return found === undefined ? Number.NEGATIVE_INFINITY : found.offset + address! - found.address;
}

function numberAt(bytes: Buffer, at: number): number {
  return bytes.readUInt32LE(at) + bytes.readUInt32LE(at + 4) * 2 ** 32;
}
