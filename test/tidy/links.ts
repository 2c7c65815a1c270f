// Links of the documentation: that the file is there, and the heading in it. Plane: any.

import { posix } from "node:path";
import type { SourceFile } from "./source.ts";

/** A heading's anchor, as git forges make it: lower case, a dash for each space, punctuation gone. */
function anchorOf(heading: string): string {
  return heading
    .replace(/\[([^\]]*)\]\([^)]*\)/g, "$1")
    .toLowerCase()
    .replace(/[^\p{L}\p{N}_ -]/gu, "")
    .replaceAll(" ", "-");
}

/** The text without blocks of code and code in a line, in which nothing is a heading or a link. */
const proseOf = (text: string) => text.replace(/^```[\s\S]*?^```/gm, "");

function anchorsOf(text: string): Set<string> {
  const anchors = new Set<string>();
  for (const [, heading] of proseOf(text).matchAll(/^#{1,6} (.*)$/gm)) {
    const anchor = anchorOf(heading!.trim());
    let name = anchor;
    for (let i = 1; anchors.has(name); i++) name = `${anchor}-${i}`;
    anchors.add(name);
  }
  return anchors;
}

/** Complaints about links of Markdown files to files of the project that aren't there, or headings that aren't in them. */
export function checkLinks(files: readonly SourceFile[]): string[] {
  const pages = files.filter(({ path }) => path.endsWith(".md"));
  const anchors = new Map(pages.map(({ path, text }) => [path, anchorsOf(text)]));
  const paths = files.map(({ path }) => path);
  return pages.flatMap(({ path, text }) => {
    const prose = proseOf(text).replace(/`[^`\n]*`/g, "");
    return [...prose.matchAll(/\]\(([^)\s]+)\)/g)].flatMap(([, link]) => {
      if (/^[a-z]+:/.test(link!) || link!.endsWith(".png")) return []; // images aren't among the files
      const [name = "", anchor] = link!.split("#");
      const target = name === "" ? path : posix.join(posix.dirname(path), name);
      const isThere = paths.some(
        (one) => one === target || one.startsWith(posix.join(target, "/")),
      );
      if (!isThere) return [`${path}: ${link}: no such file`];
      if (anchor === undefined || anchors.get(target)?.has(anchor)) return [];
      return [`${path}: ${link}: no such heading`];
    });
  });
}
