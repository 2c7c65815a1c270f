// Owns: proof that a board draws no more lines than a terminal has, and erases what it drew. Plane: control.

import { test } from "tap";
import { Board, bar } from "../../lib/cli/board.ts";

/** What a terminal shows of what was written to it: "up, erase below" and lines are all that a board writes. */
function shown(text: string): string[] {
  const lines: string[] = [""];
  for (const part of text.split(/(\x1b\[\d+A\r\x1b\[J|\n)/)) {
    const up = /^\x1b\[(\d+)A/.exec(part);
    if (up) {
      lines.length = Math.max(0, lines.length - 1 - Number(up[1]));
      lines.push("");
    } else if (part === "\n") lines.push("");
    else lines[lines.length - 1] += part;
  }
  return lines;
}

test("lines that stay are above, the whole is last, and the end leaves nothing else", async (t) => {
  let text = "";
  const board = new Board({ columns: 20, rows: 6, write: (more: string) => (text += more) });
  for (let i = 0; i < 10; i++) board.set(`${i}`, `thing ${i} ${"x".repeat(30)}`);
  board.total("all of it");
  board.line("first");
  const lines = shown(text);
  t.equal(lines[0], "first");
  t.equal(lines.at(-2), "all of it");
  t.equal(lines.length - 2, 4, "no more than fit beside a prompt");
  t.ok(lines.every((line) => line.length < 20));
  board.line("second");
  board.set("3", undefined);
  board.end();
  t.same(shown(text), ["first", "second", ""]);
});

test("a bar is full when all is done, and empty when nothing is known", async (t) => {
  t.equal(bar(0, 0), "[--------------------]   0%");
  t.equal(bar(1, 2), "[##########----------]  50%");
  t.equal(bar(3, 2), "[####################] 100%");
});
