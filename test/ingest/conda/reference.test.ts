// Owns: 91 real packages: the reader of archives against a listing that was made with Python's tarfile and zipfile, and which of
// them can be imported. Plane: control. Skipped where the packages are not.

import { createHash } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { resolve } from "node:path";
import t from "tap";
import { readCondaArchive } from "../../../lib/ingest/conda/archive.ts";
import { importCondaPackage } from "../../../lib/ingest/conda/import.ts";
import { discardingSink } from "../../../lib/ingest/sink.ts";
import { failureOf, PREFIX } from "./packages.ts";

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

/** Those that are no whole package, and what is wrong with them. */
const DAMAGED: Record<string, RegExp> = {
  "conda-build/a.tar.bz2": /^BURROW_BAD_PACKAGE\ninfo\/index.json: the package has none/,
  "conda-build/b.tar.bz2": /^BURROW_BAD_PACKAGE\ninfo\/index.json: the package has none/,
  "conda-build/subfolder.tar.bz2": /^BURROW_BAD_PACKAGE\ninfo\/index.json: the package has none/,
  "conda-build/subfolder2.tar.bz2": /^BURROW_BAD_PACKAGE\ninfo\/index.json: the package has none/,
  // Their payload was taken out.
  "conda-build/flask-0.11.1-py_0.tar.bz2": /^BURROW_BAD_PACKAGE\nits list has it/,
  "conda-build/fly-2.5.2-0.tar.bz2": /^BURROW_BAD_PACKAGE\nits list has it/,
  "conda-build/nano-2.4.1-0.tar.bz2": /^BURROW_BAD_PACKAGE\nits list has it/,
  "conda-build/spiffy-test-app-0.5-pyh6afbcc8_0.tar.bz2": /^BURROW_BAD_PACKAGE\nits list has it/,
  // Packed again where symlinks don't exist: empty targets here, empty files there.
  "conda/conda_format_repo-linux-64/zlib-1.2.11-h7b6447c_3.conda":
    /^BURROW_BAD_ARCHIVE\nit is a symlink whose target is not allowed.*entry: lib\/libz\.so/s,
  "conda/conda_format_repo-linux-64/zlib-1.2.11-h7b6447c_3.tar.bz2":
    /^BURROW_BAD_PACKAGE\nits list has it as a softlink.*file: lib\/libz\.so/s,
  // No list of files.
  "rattler/sparse/dotslash-test-1.0.0-0.conda": /^BURROW_BAD_PACKAGE\ninfo\/files/,
  "rattler/sparse/info-only-1.0.0-0.conda": /^BURROW_BAD_PACKAGE\ninfo\/files/,
  "rattler/sparse/symlink-test-1.0.0-0.conda": /^BURROW_BAD_PACKAGE\ninfo\/files/,
  "rattler/sparse/zip64-test-1.0.0-0.conda": /^BURROW_BAD_PACKAGE\ninfo\/files/,
};

t.test("real packages are imported, but for those that are damaged", { skip }, async (t) => {
  const reference = JSON.parse(readFileSync(`${DATA}/REF.json`, "utf8")) as Record<string, Row[]>;
  const options = { prefix: PREFIX, pythonVersion: "3.11", sink: discardingSink() };
  for (const path of Object.keys(reference)) {
    const text = await failureOf(importCondaPackage(`${DATA}/${path}`, options));
    t.match(text, DAMAGED[path] ?? /^no error$/, `${path}: ${text}`);
  }
});
