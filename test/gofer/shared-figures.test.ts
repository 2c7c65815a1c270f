// What a broker tells its daemon, in whatever pieces it comes.

import { test } from "tap";
import { encodeFigures, FiguresReader } from "../../lib/gofer/shared-figures.ts";

test("the last whole line counts, however it is cut, and what is none is passed over", (t) => {
  const first = { servers: 1, sandboxes: 0, placed: 0, refused: 3 };
  const last = { servers: 2, sandboxes: 31, placed: 1234, refused: 3 };
  const said = `+\n${encodeFigures(first)}1 2\n9 9 9 9 9\n-1 2 3 4\n${encodeFigures(last)}7 7`;
  for (let size = 1; size < said.length; size++) {
    const reader = new FiguresReader();
    t.equal(reader.figures, undefined);
    for (let at = 0; at < said.length; at += size) reader.take(said.slice(at, at + size));
    t.same(reader.figures, last);
  }
  const reader = new FiguresReader();
  for (let i = 0; i < 1000; i++) reader.take("x".repeat(1000));
  reader.take(`\n${encodeFigures(first)}`);
  t.same(reader.figures, first, "of a line without an end only its end is kept");
  t.end();
});
