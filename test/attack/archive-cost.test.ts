// Archives of little that cost much: a path that names 255 directories, attributes by the GiB, PAX records that each entry inherits.
// Each is refused while it is cheap. (What costs content has bounds of its own: archive.test.ts.)

import { test } from "tap";
import { BurrowError } from "../../lib/base/error.ts";
import {
  ARCHIVE_DIRECTORIES_MAX,
  ARCHIVE_TEXT_MAX_BYTES,
  PAX_RECORDS_MAX,
} from "../../lib/base/limits.ts";
import { EntryTree, type Refusal } from "../../lib/ingest/entry-tree.ts";
import { imported, pax, tar } from "../ingest/archives.ts";
import { LATE_MS } from "../suite/wait.ts";

async function refusalOf(attempt: Promise<unknown>): Promise<BurrowError> {
  try {
    await attempt;
  } catch (error) {
    if (error instanceof BurrowError) return error;
    throw error;
  }
  throw new Error("it was taken");
}

test("paths that name more directories than any archive has", async (t) => {
  const deep = "a/".repeat(254);
  const count = Math.ceil(ARCHIVE_DIRECTORIES_MAX / 255) + 10;
  const parts = Array.from({ length: count }, (_, i) => [
    pax({ path: `${i}/${deep}f` }),
    { name: "x" },
  ]);
  const error = await refusalOf(imported(tar(...parts.flat())));
  t.match(error, { code: "BURROW_BAD_ARCHIVE", message: /over 500000 directories/ });
  const fine = await imported(tar(...parts.slice(0, 100).flat()));
  t.equal(fine.length, 100, "some are no attack");
});

test("names, targets and attributes past what is held in memory", (t) => {
  const plain = { mode: 0o777, uid: 0, gid: 0, mtimeSec: 0, mtimeNs: 0 };
  const target = "t".repeat(4095);
  const xattrs = new Map([["user.a", "v".repeat(60_000)]]);
  const kinds = {
    targets: (i: number) => ({ ...plain, type: "symlink", path: `l${i}`, target }) as const,
    attributes: (i: number) => ({ ...plain, type: "fifo", path: `p${i}`, xattrs }) as const,
  };
  for (const [kind, entry] of Object.entries(kinds)) {
    const tree = new EntryTree();
    let count = 0;
    let refusal: Refusal | undefined;
    while (refusal === undefined && count < 100_000) refusal = tree.add(entry(count++));
    t.match(refusal?.why, /take over 268435456 bytes/, kind);
    t.ok(count * 4000 <= ARCHIVE_TEXT_MAX_BYTES * 1.01, `${count} of them`);
  }
  t.end();
});

test("a global PAX header that every entry inherits", async (t) => {
  const records = Object.fromEntries(
    Array.from({ length: 100_000 }, (_, i) => [`k${i.toString(36)}`, "1"]),
  );
  const entries = Array.from({ length: 500 }, (_, i) => [pax({ mtime: "1" }), { name: `f${i}` }]);
  const started = performance.now();
  const error = await refusalOf(imported(tar(pax(records, "g"), ...entries.flat())));
  t.match(error, { code: "BURROW_BAD_ARCHIVE", message: /over 1024 PAX records/ });
  t.ok(performance.now() - started < LATE_MS, "at the first of them");
  const few = Object.fromEntries(Object.entries(records).slice(0, PAX_RECORDS_MAX - 1));
  t.equal((await imported(tar(pax(few, "g"), ...entries.slice(0, 3).flat()))).length, 3);
});
