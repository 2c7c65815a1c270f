// Placeholders: the path that a package was built for, replaced by the prefix it is installed at. Pure; changes the buffers that
// it is given. The rules are conda's (conda/core/portability.py): five encodings, C strings padded behind. Control plane.

import { BurrowError } from "../../base/error.ts";
import { badPackage } from "./errors.ts";

export type FileMode = "text" | "binary";

export interface Placeholder {
  readonly text: string;
  readonly mode: FileMode;
}

/** What errors name. */
export interface PatchContext {
  readonly package: string;
  readonly file: string;
}

/** A kernel reads this much of a shebang line for certain: 127 bytes and a newline. man execve(2); conda has the same figure. */
export const SHEBANG_MAX_BYTES = 127;

/**
 * What a hostile package may cost here: a file that is nothing but its placeholder, say "/", would grow by the prefix's length and
 * cost a step each time. Real files have a few thousand of them (generated build files); 10^6 take about 0.2 s.
 */
const OCCURRENCES_MAX = 1_000_000;
/** Of a patched file, as of one that is to be patched. */
const PATCHED_MAX_BYTES = 1024 * 1024 * 1024;
/** A longer first line names no program, whatever it starts with: PATH_MAX and room for arguments. */
const SHEBANG_LINE_MAX_BYTES = 64 * 1024;

interface Encoding {
  readonly unit: 1 | 2 | 4;
  readonly encode: (text: string) => Buffer;
}

const ENCODINGS: readonly Encoding[] = [
  { unit: 1, encode: (text) => Buffer.from(text, "utf8") },
  { unit: 2, encode: (text) => Buffer.from(text, "utf16le") },
  { unit: 2, encode: (text) => Buffer.from(text, "utf16le").swap16() },
  { unit: 4, encode: utf32le },
  { unit: 4, encode: (text) => utf32le(text).swap32() },
];

function utf32le(text: string): Buffer {
  const points = [...text].map((char) => char.codePointAt(0)!);
  const bytes = Buffer.alloc(4 * points.length);
  for (const [i, point] of points.entries()) bytes.writeUInt32LE(point, 4 * i);
  return bytes;
}

/**
 * The content of a file with its placeholder replaced by `prefix`. Binary: the same length, in place. Text: a new buffer when
 * something was replaced. BURROW_PREFIX_TOO_LONG when a C string has no room for it, BURROW_BAD_PACKAGE past the bounds.
 */
export function replacePlaceholder(
  content: Buffer,
  placeholder: Placeholder,
  prefix: string,
  context: PatchContext,
): Buffer {
  let result = content;
  const isText = placeholder.mode === "text";
  const patcher = new Patcher(context);
  if (isText) result = escapeShebang(result, placeholder.text, prefix);
  for (const encoding of ENCODINGS) {
    const from = encoding.encode(placeholder.text);
    const to = encoding.encode(prefix);
    if (isText) result = patcher.replaceAll(result, from, to);
    else patcher.replaceInStrings(result, from, to, encoding.unit);
  }
  return isText ? shortenShebang(result) : result;
}

/** The replacing of one file's placeholder, with what is left of its bounds. */
class Patcher {
  readonly #context: PatchContext;
  #left = OCCURRENCES_MAX;

  constructor(context: PatchContext) {
    this.#context = context;
  }

  /** Every occurrence of `from`, left to right; the same buffer when there is none. */
  replaceAll(content: Buffer, from: Buffer, to: Buffer): Buffer {
    const count = this.#count(content, from);
    if (count === 0) return content;
    const size = content.length + count * (to.length - from.length);
    if (size > PATCHED_MAX_BYTES) throw this.#bad(`with its prefix it is over ${size} bytes`);
    const out = Buffer.allocUnsafe(size);
    let done = 0;
    let end = 0;
    for (let k = 0; k < count; k++) {
      const at = content.indexOf(from, done);
      end += content.copy(out, end, done, at);
      end += to.copy(out, end);
      done = at + from.length;
    }
    content.copy(out, end, done);
    return out;
  }

  /**
   * In place: from each occurrence to the end of its C string, all are replaced and what became free is NULs at the string's end.
   * Bytes that no NUL ends are no C string and stay, as with conda.
   */
  replaceInStrings(content: Buffer, from: Buffer, to: Buffer, unit: number): void {
    for (let at = content.indexOf(from); at >= 0; at = content.indexOf(from, at)) {
      const end = stringEnd(content, at + from.length, unit);
      if (end < 0) return;
      if (to.length > from.length) {
        throw new BurrowError(
          "BURROW_PREFIX_TOO_LONG",
          `the prefix has ${to.length / unit} bytes and the file has room for ${from.length / unit}`,
          { context: { ...this.#context } },
        );
      }
      const text = this.replaceAll(content.subarray(at, end), from, to);
      text.copy(content, at);
      content.fill(0, at + text.length, end);
      at = end;
    }
  }

  #count(content: Buffer, from: Buffer): number {
    let count = 0;
    for (let at = content.indexOf(from); at >= 0; at = content.indexOf(from, at + from.length)) {
      count++;
      if (--this.#left < 0) throw this.#bad(`it has its placeholder over ${OCCURRENCES_MAX} times`);
    }
    return count;
  }

  #bad(why: string): BurrowError {
    return badPackage(this.#context.package, why, this.#context.file);
  }
}

/** Where the terminator of a string starts, in whole units from `start`; -1 when there is none. */
function stringEnd(content: Buffer, start: number, unit: number): number {
  if (unit === 1) return content.indexOf(0, start);
  for (let at = start; at + unit <= content.length; at += unit) {
    let isZero = true;
    for (let k = 0; k < unit; k++) isZero &&= content[at + k] === 0;
    if (isZero) return at;
  }
  return -1;
}

/** A prefix with a blank would cut a shebang in two: it is escaped there, which shortenShebang understands. */
function escapeShebang(content: Buffer, placeholder: string, prefix: string): Buffer {
  const from = Buffer.from(`#!${placeholder}`);
  const isShebang = content.subarray(0, from.length).equals(from) && content.includes("\n");
  if (!prefix.includes(" ") || !isShebang) return content;
  const to = Buffer.from(`#!${prefix.replaceAll(" ", "\\ ")}`);
  return Buffer.concat([to, content.subarray(from.length)]);
}

/** "#!", blanks, an absolute program in which a blank may be escaped, and the rest of the line. Latin1. */
const SHEBANG = /^#! *(\/(?:\\ |[^ \n\r\t])*)(.*)$/s;

/** A shebang too long for a kernel, or with a blank in its path, finds its program on the PATH: `#!/usr/bin/env NAME`. */
function shortenShebang(content: Buffer): Buffer {
  if (content[0] !== 0x23 || content[1] !== 0x21) return content;
  const newline = content.indexOf(0x0a);
  const end = newline < 0 ? content.length : newline;
  if (end > SHEBANG_LINE_MAX_BYTES) return content;
  const match = SHEBANG.exec(content.toString("latin1", 0, end));
  if (match === null) return content;
  const slash = match[1]!.lastIndexOf("/");
  if (end <= SHEBANG_MAX_BYTES && !match[1]!.slice(0, slash).includes("\\ ")) return content;
  const shebang = `#!/usr/bin/env ${match[1]!.slice(slash + 1)}${match[2]}`;
  return Buffer.concat([Buffer.from(shebang, "latin1"), content.subarray(end)]);
}
