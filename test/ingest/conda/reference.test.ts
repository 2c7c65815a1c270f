// Owns: the reader of conda archives against a listing of 91 real packages that was made with Python's tarfile and zipfile.
// Plane: control. Skipped where the packages are not.

import { createHash } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { resolve } from "node:path";
import t from "tap";
import { readCondaArchive } from "../../../lib/ingest/conda/archive.ts";

const DATA = resolve(import.meta.dirname, "../../../../../shared/data");
/** Name, tar type, mode, size, link target, sha256. */
type Row = [string, string, number, number, string, string];
const TYPES: Record<string, string> = {
  file: "0",
  hardlink: "1",
  symlink: "2",
  directory: "5",
};

async function rowsOf(path: string): Promise<Row[]> {
  const rows: Row[] = [];
  for await (const entry of readCondaArchive(path)) {
    const hash = createHash("sha256");
    for await (const chunk of entry.content ?? []) hash.update(chunk);
    const digest = entry.content === undefined ? "" : hash.digest("hex");
    const type = TYPES[entry.type] ?? entry.type;
    const name = entry.name.replace(/\/$/, "");
    rows.push([name, type, entry.mode, entry.size, entry.target ?? "", digest]);
  }
  return rows;
}

const byName = (left: Row, right: Row) => (left[0] < right[0] ? -1 : left[0] > right[0] ? 1 : 0);

const skip = existsSync(`${DATA}/REF.json`) ? false : "the packages are not beside the project";
t.test("real packages read as the reference says", { skip }, async (t) => {
  const reference = JSON.parse(readFileSync(`${DATA}/REF.json`, "utf8")) as Record<string, Row[]>;
  let count = 0;
  for (const [path, rows] of Object.entries(reference)) {
    const plain = rows.map(([name, ...rest]): Row => [name.replace(/^\.\//, ""), ...rest]);
    const got = await rowsOf(`${DATA}/${path}`);
    t.same(got.sort(byName), plain.sort(byName), path);
    count++;
  }
  t.equal(count, 91, "all of them");
});
