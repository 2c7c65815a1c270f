// Owns: proof of what a shared server takes on at most, and of what is said to whom it doesn't. Plane: control.
import { test } from "tap";
import { Tally } from "../../lib/gofer/tally.ts";

const MANY = 1 << 20;
const QUERY = { connections: 2, views: 1, uppers: 1 };

/** How many of these fit, and what the next is told. */
function filled(needed: typeof QUERY, sandboxesMax: number, openFiles: number): [number, string] {
  const tally = new Tally();
  for (let count = 0; ; count++) {
    const lack = tally.lack(needed, sandboxesMax, openFiles);
    if (lack !== undefined) return [count, lack];
    tally.add(needed);
  }
}

test("what a server has no room for is said", (t) => {
  t.same(filled(QUERY, 99, MANY), [30, "a server has 30 sandboxes at most"]);
  t.same(filled(QUERY, 3, MANY), [3, "a server has 3 sandboxes at most"]);
  const files = (limit: number, count: string) =>
    `a server that may have ${limit} files open has room for ${count}`;
  t.same(filled(QUERY, 99, 20_000), [4, files(20_000, "4 writable mounts")]);
  t.same(filled(QUERY, 99, 4096), [1, files(4096, "1 writable mount")]);
  t.same(filled(QUERY, 99, 1024), [0, files(1024, "0 writable mounts")]);
  t.equal(filled({ ...QUERY, uppers: 0 }, 99, 1024)[0], 30, "which views don't need");
  const wide = { connections: 9, views: 8, uppers: 0 };
  t.same(filled(wide, 99, MANY), [6, "a server has room for 60 mounts and 127 sockets"]);
  const tally = new Tally();
  tally.add(QUERY);
  tally.remove(QUERY);
  t.equal(tally.lack(QUERY, 1, 4096), undefined, "what ended leaves its room");
  t.end();
});
