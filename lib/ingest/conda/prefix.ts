// Prefix rewriting: the placeholder that a package was built with becomes the prefix that it is linked at. Pure.
// Facts: conda core/portability.py (update_prefix, binary_replace, replace_long_shebang). Control plane.

import { BurrowError } from "../../base/error.ts";

export type FileMode = "text" | "binary";

/** Longest "#!" line that every kernel takes whole. conda: MAX_SHEBANG_LENGTH_LINUX; man execve(2). */
const SHEBANG_MAX_BYTES = 127;
const SHEBANG = /^#![ \t]*((?:\\ |[^ \n\r\t])+)([^\n\r]*)/;

export interface PrefixRewrite {
  readonly placeholder: string;
  readonly mode: FileMode;
}

/** The content under another prefix. A binary keeps its length. BURROW_PREFIX_TOO_LONG with `context`. */
export function rewritePrefix(
  content: Buffer,
  { placeholder, mode }: PrefixRewrite,
  prefix: string,
  context: Readonly<Record<string, string>>,
): Buffer {
  if (mode === "text") return shortenShebang(replaceText(content, placeholder, prefix), prefix);
  if (prefix.length <= placeholder.length) return replaceBinary(content, placeholder, prefix);
  if (content.indexOf(placeholder) < 0) return content;
  throw new BurrowError(
    "BURROW_PREFIX_TOO_LONG",
    `the prefix has ${prefix.length} bytes, and a binary has room for ${placeholder.length}`,
    { context: { ...context, prefix } },
  );
}

function replaceText(content: Buffer, old: string, replacement: string): Buffer {
  const parts: Buffer[] = [];
  const bytes = Buffer.from(replacement);
  const oldBytes = Buffer.from(old);
  let start = 0;
  for (let at = content.indexOf(oldBytes); at >= 0; at = content.indexOf(oldBytes, start)) {
    parts.push(content.subarray(start, at), bytes);
    start = at + oldBytes.length;
  }
  return start === 0 ? content : Buffer.concat([...parts, content.subarray(start)]);
}

/** In each C string with the placeholder all its occurrences are replaced, and NULs make up for the bytes that are saved. */
function replaceBinary(content: Buffer, old: string, replacement: string): Buffer {
  const oldBytes = Buffer.from(old);
  const out = Buffer.from(content);
  for (let at = content.indexOf(oldBytes); at >= 0; ) {
    const nul = content.indexOf(0, at);
    const end = nul < 0 ? content.length : nul;
    const replaced = replaceText(content.subarray(at, end), old, replacement);
    replaced.copy(out, at);
    out.fill(0, at + replaced.length, end);
    at = content.indexOf(oldBytes, end);
  }
  return out;
}

/** A "#!" line that is too long, or has a space in its prefix, finds its interpreter through env and PATH. */
export function shortenShebang(content: Buffer, prefix: string): Buffer {
  if (content[0] !== 0x23 || content[1] !== 0x21) return content;
  const newline = content.indexOf(10);
  const line = content.toString("latin1", 0, newline < 0 ? content.length : newline);
  if (line.length <= SHEBANG_MAX_BYTES && !prefix.includes(" ")) return content;
  // The prefix may hold the spaces that would end the interpreter's name.
  const match =
    prefix.includes(" ") && line.startsWith(`#!${prefix}/`)
      ? /^([^ \t]*)(.*)/.exec(line.slice(`#!${prefix}/`.length))
      : SHEBANG.exec(line);
  if (match === null) return content;
  const program = match[1]!.slice(match[1]!.lastIndexOf("/") + 1);
  const shebang = Buffer.from(`#!/usr/bin/env ${program}${match[2]!}`, "latin1");
  return Buffer.concat([shebang, content.subarray(line.length)]);
}
