// Source: the project's files as text, and the few things that rules want to know of a text: its imports, its code without
// comments and strings, how long its functions are. Approximations that hold for formatted code. Plane: any.

import { readdirSync, readFileSync } from "node:fs";
import { join, posix } from "node:path";

export interface SourceFile {
  /** From the project's root, e.g. "lib/base/name.ts". */
  readonly path: string;
  readonly text: string;
}

/** Files whose bytes aren't text: not read. */
const BINARY = /\.(node|png|gz|zst|zip|conda|bz2|tar|bin|o)$/;

/** All files below root but those that .gitignore names ("folder/" and "*.ending" lines). */
export function readProject(root: string): SourceFile[] {
  const ignored = readFileSync(join(root, ".gitignore"), "utf8").split("\n").filter(Boolean);
  const folders = new Set([".git", ...ignored.map((line) => line.replace(/\/$/, ""))]);
  const endings = ignored.filter((line) => line.startsWith("*.")).map((line) => line.slice(1));
  const files: SourceFile[] = [];
  const visit = (folder: string) => {
    for (const each of readdirSync(join(root, folder), { withFileTypes: true })) {
      const path = posix.join(folder, each.name);
      if (folders.has(each.name) || folders.has(path)) continue;
      if (each.isDirectory()) visit(path);
      else if (each.isFile() && !BINARY.test(path) && !endings.some((end) => path.endsWith(end))) {
        files.push({ path, text: readFileSync(join(root, path), "utf8") });
      }
    }
  };
  visit("");
  return files;
}

/** What a module imports, types too: "node:fs", "commander", or a path from the root. */
export function importsOf({ path, text }: SourceFile): string[] {
  const found: string[] = [];
  for (const match of text.matchAll(/\b(?:from|import)\s*\(?\s*"([^"\n]+)"/g)) {
    const name = match[1]!;
    found.push(name.startsWith(".") ? posix.join(posix.dirname(path), name) : name);
  }
  return found;
}

/** The text with comments gone and strings emptied; line breaks stay. Not for text with quotes in RegExp literals. */
export function codeOf(text: string): string {
  let out = "";
  let at = 0;
  /** Depth of braces at which each open `${` of a template ends. */
  const templates: number[] = [];
  let depth = 0;
  const skipString = (quote: string) => {
    while (at < text.length && text[at] !== quote) {
      if (text[at] === "\\") at++;
      if (quote === "`" && text[at] === "$" && text[at + 1] === "{") {
        templates.push(depth++);
        at += 2;
        out += "${";
        return;
      }
      if (text[at] === "\n") out += "\n";
      at++;
    }
    at++;
    out += quote;
  };
  while (at < text.length) {
    const char = text[at]!;
    if (char === "/" && text[at + 1] === "/") {
      while (at < text.length && text[at] !== "\n") at++;
    } else if (char === "/" && text[at + 1] === "*") {
      const end = text.indexOf("*/", at + 2);
      const comment = text.slice(at, end < 0 ? text.length : end + 2);
      out += comment.replace(/[^\n]/g, "");
      at += comment.length;
    } else {
      at++;
      out += char;
      if (char === '"' || char === "'" || char === "`") skipString(char);
      else if (char === "{") depth++;
      else if (char === "}" && --depth === templates.at(-1)) {
        templates.pop();
        skipString("`");
      }
    }
  }
  return out;
}

export interface FunctionSpan {
  /** 1-based line on which the body opens. */
  readonly line: number;
  readonly lines: number;
  readonly name: string;
}

const CONTROL = /^(\} )?(if|for|while|switch|else|catch|try|do|with|class|interface|finally)\b/;

/** Functions and methods of formatted TypeScript: from the line that opens the body to the one of the same indent. */
export function functionsOf(text: string): FunctionSpan[] {
  const lines = text.split("\n");
  const spans: FunctionSpan[] = [];
  for (const [i, line] of lines.entries()) {
    const code = line.trim();
    const isFunction = /=> \{$/.test(code) || /\)(: .+)? \{$/.test(code);
    if (!isFunction || CONTROL.test(code)) continue;
    const indent = line.length - line.trimStart().length;
    const end = lines.findIndex(
      (other, j) => j > i && new RegExp(`^ {${indent}}[}\\]]`).test(other),
    );
    if (end >= 0) spans.push({ line: i + 1, lines: end - i + 1, name: code.slice(0, 60) });
  }
  return spans;
}

/** Functions of C whose body opens on a line that starts in column 0. */
export function cFunctionsOf(text: string): FunctionSpan[] {
  const lines = text.split("\n");
  const spans: FunctionSpan[] = [];
  for (const [i, line] of lines.entries()) {
    if (!/^[a-zA-Z_ ].*\) \{$|^\{$/.test(line)) continue;
    const end = lines.findIndex((other, j) => j > i && other.startsWith("}"));
    if (end >= 0) spans.push({ line: i + 1, lines: end - i + 1, name: line.slice(0, 60) });
  }
  return spans;
}

/** Complaints "line N: …" for each line that the pattern matches. */
export function matches(text: string, pattern: RegExp, complaint: string): string[] {
  return text
    .split("\n")
    .flatMap((line, i) => (pattern.test(line) ? [`line ${i + 1}: ${complaint}`] : []));
}
