// Python's byte code (.pyc): which modules it imports when it is run. The marshalled code of the module alone is looked at; functions and
// classes in it are passed over. Bytes of anybody: what can't be read imports nothing. Control plane.
//
// Sources: CPython 3.8 to 3.13, Lib/importlib/_bootstrap_external.py (magic numbers, header), Python/marshal.c (types, references, fields
// of code), Lib/opcode.py and Include/opcode_ids.h (opcodes).

import { FORESEEN_IMPORTS_MAX, FORESEEN_NAME_MAX_CHARS } from "../base/limits.ts";
import type { PythonImport } from "./python-text.ts";

const HEADER_BYTES = 16;

/** Of a version's code objects. */
interface Layout {
  /** u32 before the code's bytes: counts of arguments, locals and stack, and flags. */
  readonly numbers: number;
  /** Objects behind the code, constants and names: up to the line number, and behind it. */
  readonly rest: readonly [number, number];
  readonly loadConst: number;
  readonly loadName: number;
  readonly loadAttr: number;
  readonly importName: number;
  readonly extendedArg: number;
  /** POP_JUMP_IF_FALSE, with which an `if` begins. */
  readonly jumpIfFalse: number;
  /** What may stand between a value and that jump: more of its argument, places for counts, 3.13's TO_BOOL. */
  readonly between: readonly number[];
  /** Bits of LOAD_ATTR's argument that aren't the name's number. */
  readonly attrBits: number;
  /** Where a jump at `i` leads, by its argument. */
  readonly target: (i: number, argument: number) => number;
}

const OPS = {
  ...{ loadConst: 100, loadName: 101, loadAttr: 106, importName: 108 },
  ...{ extendedArg: 144, jumpIfFalse: 114, attrBits: 0, between: [144, 0] },
};
const FROM_38: Layout = { numbers: 6, rest: [5, 1], ...OPS, target: (_, argument) => argument };
const FROM_310: Layout = { ...FROM_38, target: (_, argument) => 2 * argument };
const FROM_311: Layout = {
  ...{ numbers: 5, rest: [5, 2], ...OPS },
  target: (i, argument) => i + 2 + 2 * argument,
};
const FROM_312: Layout = { ...FROM_311, attrBits: 1 };
const FROM_313: Layout = {
  ...FROM_312,
  ...{
    loadConst: 83,
    loadName: 92,
    loadAttr: 82,
    importName: 75,
    extendedArg: 71,
    jumpIfFalse: 97,
    between: [71, 0, 40],
  },
  // Behind the jump stands a place for a count.
  target: (i, argument) => i + 4 + 2 * argument,
};
/** By the magic number of each released version. */
const LAYOUTS: ReadonlyMap<number, Layout> = new Map([
  [3413, FROM_38],
  [3425, FROM_38],
  [3439, FROM_310],
  [3495, FROM_311],
  [3531, FROM_312],
  [3571, FROM_313],
]);
/** typing's, which is false when a module runs: what stands below it is read by checkers of types alone. */
const CHECKING = "TYPE_CHECKING";

const FLAG_REF = 0x80;
const REF = "r".charCodeAt(0);
const TUPLE = "(".charCodeAt(0);
const INT = "i".charCodeAt(0);
const DEPTH_MAX = 100;

/** Of objects by their type: below the first of these, so many bytes follow. */
const Kind = {
  shortText: 32,
  text: 33,
  long: 34,
  shortList: 35,
  list: 36,
  code: 37,
  none: 38,
} as const;
const KINDS = new Uint8Array(128).fill(Kind.none);
for (const [types, kind] of [
  ["0NFTS.", 0],
  ["ir", 4],
  ["Ig", 8],
  ["y", 16],
  ["zZ", Kind.shortText],
  ["sutaA", Kind.text],
  ["l", Kind.long],
  [")", Kind.shortList],
  ["([<>", Kind.list],
  ["c", Kind.code],
] as const)
  for (const type of types) KINDS[type.charCodeAt(0)] = kind;

/** A byte that begins no object; the walk ends by it. */
class Unreadable extends Error {}

/** Imports of a module, in order; undefined for code of a version that isn't known here, or no code. Never throws. */
export function importsOfCode(bytes: Buffer): PythonImport[] | undefined {
  if (bytes.length < HEADER_BYTES + 1) return undefined;
  const layout = LAYOUTS.get(bytes.readUInt16LE(0));
  const isCode = bytes[2] === 0x0d && bytes[3] === 0x0a;
  if (!isCode || layout === undefined) return undefined;
  try {
    return new Walk(bytes, layout).imports();
  } catch (error) {
    if (error instanceof Unreadable || error instanceof RangeError) return undefined;
    throw error;
  }
}

class Walk {
  readonly #bytes: Buffer;
  readonly #layout: Layout;
  #at = HEADER_BYTES;
  /** Where the objects begin that others refer to, by number. */
  readonly #refs: number[] = [];
  /** Names that may yet be found. */
  #left = FORESEEN_IMPORTS_MAX;

  constructor(bytes: Buffer, layout: Layout) {
    this.#bytes = bytes;
    this.#layout = layout;
  }

  imports(): PythonImport[] {
    if (KINDS[this.#type()] !== Kind.code) throw new Unreadable();
    this.#at += 4 * this.#layout.numbers;
    const code = this.#at;
    this.#skip(1);
    const consts = this.#elements();
    const names = this.#elements();
    return this.#importsIn(this.#string(code), consts, names);
  }

  /** By the code: LOAD_CONST level, LOAD_CONST names, IMPORT_NAME module; not what `if TYPE_CHECKING` leads to. dis.html#opcode-IMPORT_NAME */
  #importsIn(code: Buffer, consts: readonly number[], names: readonly number[]): PythonImport[] {
    const found: PythonImport[] = [];
    const { loadConst, importName, extendedArg, jumpIfFalse, between, target } = this.#layout;
    let [level, list, extended] = [-1, -1, 0];
    let isChecked = false;
    for (let i = 0; i + 1 < code.length; i += 2) {
      const argument = extended | code[i + 1]!;
      extended = 0;
      const wasChecked: boolean = isChecked;
      isChecked = wasChecked && between.includes(code[i]!);
      if (code[i] === extendedArg) extended = (argument << 8) & 0xffffff;
      else if (code[i] === loadConst) [level, list] = [list, argument];
      else if (this.#isCheck(code[i]!, argument, names)) isChecked = true;
      else if (wasChecked && code[i] === jumpIfFalse) {
        // Only ever onwards: bytes of anybody.
        i = Math.max(i, target(i, argument) - 2);
      } else if (code[i] === importName) {
        const module = names[argument];
        const [levelAt, listAt] = [consts[level], consts[list]];
        if (module === undefined || levelAt === undefined || listAt === undefined) continue;
        if (--this.#left < 0) break;
        found.push({
          level: this.#integer(levelAt),
          module: this.#name(module),
          names: this.#names(listAt),
        });
      }
    }
    return found;
  }

  /** Whether an instruction loads TYPE_CHECKING, by itself or of a module. */
  #isCheck(op: number, argument: number, names: readonly number[]): boolean {
    const { loadName, loadAttr, attrBits } = this.#layout;
    if (op !== loadName && op !== loadAttr) return false;
    const name = names[op === loadAttr ? argument >> attrBits : argument];
    return name !== undefined && this.#name(name) === CHECKING;
  }

  /** The type of the object here, noted if others may refer to it; behind it after that. */
  #type(): number {
    const start = this.#at;
    const byte = this.#u8();
    if ((byte & FLAG_REF) !== 0) this.#refs.push(start);
    return byte & ~FLAG_REF;
  }

  #u8(): number {
    return this.#bytes.readUInt8(this.#at++);
  }

  #u32(): number {
    const value = this.#bytes.readUInt32LE(this.#at);
    this.#at += 4;
    return value;
  }

  /** Where the elements of the tuple here begin. */
  #elements(): number[] {
    const start = this.#at;
    const type = this.#type();
    if (type === REF) {
      const [end, ref] = [this.#at + 4, this.#refs[this.#u32()]];
      if (ref === undefined || ref === start) throw new Unreadable();
      const elements = this.#elementsAt(ref);
      this.#at = end;
      return elements;
    }
    const count = this.#count(type);
    return Array.from({ length: count }, () => {
      const at = this.#at;
      this.#skip(1);
      return at;
    });
  }

  /** Of a tuple that was walked already: of strings and numbers alone. */
  #elementsAt(at: number, most = Infinity): number[] {
    const there = new Walk(this.#bytes, this.#layout);
    there.#at = at;
    const count = there.#count(there.#type());
    if (count > most) throw new Unreadable();
    return Array.from({ length: count }, () => {
      const start = there.#at;
      there.#skip(DEPTH_MAX);
      return start;
    });
  }

  #count(type: number): number {
    const isShort = KINDS[type] === Kind.shortList;
    const count = isShort ? this.#u8() : type === TUPLE ? this.#u32() : -1;
    if (count < 0 || count > this.#bytes.length - this.#at) throw new Unreadable();
    return count;
  }

  /** Passes over the object here. */
  #skip(depth: number): void {
    if (depth > DEPTH_MAX || this.#at > this.#bytes.length) throw new Unreadable();
    const kind = KINDS[this.#type()]!;
    if (kind < Kind.shortText) this.#at += kind;
    else if (kind === Kind.shortText) this.#pass(this.#u8());
    else if (kind === Kind.text) this.#pass(this.#u32());
    else if (kind === Kind.long) this.#pass(2 * Math.abs(this.#u32() | 0));
    else if (kind === Kind.shortList) this.#skipMany(this.#u8(), depth);
    else if (kind === Kind.list) this.#skipMany(this.#u32(), depth);
    else if (kind === Kind.code) this.#skipCode(depth);
    else throw new Unreadable();
  }

  #pass(bytes: number): void {
    this.#at += bytes;
  }

  #skipMany(count: number, depth: number): void {
    if (count > this.#bytes.length - this.#at) throw new Unreadable();
    for (let i = 0; i < count; i++) this.#skip(depth + 1);
  }

  #skipCode(depth: number): void {
    this.#at += 4 * this.#layout.numbers;
    const [before, behind] = this.#layout.rest;
    // Its bytes, constants and names come first.
    this.#skipMany(3 + before, depth);
    this.#at += 4;
    this.#skipMany(behind, depth);
  }

  /** The object at an offset, or what it refers to. */
  #followed(at: number): number {
    if ((this.#bytes.readUInt8(at) & ~FLAG_REF) !== REF) return at;
    const ref = this.#refs[this.#bytes.readUInt32LE(at + 1)];
    if (ref === undefined) throw new Unreadable();
    return ref;
  }

  #string(given: number): Buffer {
    const at = this.#followed(given);
    const kind = KINDS[this.#bytes.readUInt8(at) & ~FLAG_REF];
    const isShort = kind === Kind.shortText;
    if (!isShort && kind !== Kind.text) throw new Unreadable();
    const start = at + (isShort ? 2 : 5);
    const length = isShort ? this.#bytes.readUInt8(at + 1) : this.#bytes.readUInt32LE(at + 1);
    if (start + length > this.#bytes.length) throw new Unreadable();
    return this.#bytes.subarray(start, start + length);
  }

  /** One that is too long is of no module, and not taken from where it stands as often as it is named. */
  #name(given: number): string {
    const bytes = this.#string(given);
    return bytes.length > FORESEEN_NAME_MAX_CHARS ? "" : bytes.toString("utf8");
  }

  #integer(given: number): number {
    const at = this.#followed(given);
    if ((this.#bytes.readUInt8(at) & ~FLAG_REF) !== INT) return 0;
    return this.#bytes.readInt32LE(at + 1);
  }

  /** What a tuple of names has; none of None. */
  #names(given: number): string[] {
    const at = this.#followed(given);
    const type = this.#bytes.readUInt8(at) & ~FLAG_REF;
    if (type !== TUPLE && KINDS[type] !== Kind.shortList) return [];
    const elements = this.#elementsAt(at, this.#left);
    this.#left -= elements.length;
    return elements.map((each) => this.#name(each));
  }
}
