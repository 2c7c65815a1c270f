// Owns: real packages in the prefix: what each becomes there, held against the listing of its archive and, for what is made or
// patched, against text written by hand. Plane: control. Skipped where the packages are not.

import { createHash } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { resolve } from "node:path";
import t from "tap";
import {
  type ImportedPackage,
  type ImportOptions,
  importCondaPackage,
} from "../../../lib/ingest/conda/import.ts";
import { discardingSink } from "../../../lib/ingest/sink.ts";
import type { LayerEntry } from "../../../lib/layer/entry.ts";
import { failureOf, keeper, PREFIX } from "./packages.ts";

const DATA = resolve(import.meta.dirname, "../../../../../shared/data");
const skip = existsSync(`${DATA}/REF.json`) ? false : "the packages are not beside the project";
const BUILD = `${DATA}/conda-build`;
/** Name, tar type, mode, size, link target, sha256. */
type Row = [string, string, number, number, string, string];

function referenceOf(path: string): Row[] {
  const all = JSON.parse(readFileSync(`${DATA}/REF.json`, "utf8")) as Record<string, Row[]>;
  return all[path]!.filter(([name]) => !name.startsWith("info/"));
}

const bare = (row: Row) => [row[0], row[2], row[4] || row[5]];

/** The same of entries, without the record. */
function rowsOf(entries: readonly LayerEntry[]): (string | number)[][] {
  return entries
    .filter(({ path }) => !path.startsWith("conda-meta/"))
    .map((entry) => {
      const content = entry.type === "file" ? entry.blob.digest : "";
      return [entry.path, entry.mode, entry.type === "symlink" ? entry.target : content];
    })
    .sort(byName);
}

const byName = (left: (string | number)[], right: (string | number)[]) =>
  left[0]! < right[0]! ? -1 : 1;

interface Linked extends ImportedPackage {
  readonly text: (path: string) => string | undefined;
}

async function linked(path: string, options: Partial<ImportOptions> = {}): Promise<Linked> {
  const sink = keeper();
  const result = await importCondaPackage(path, { prefix: PREFIX, sink, ...options });
  const text = (wanted: string) => {
    const entry = result.entries.find((one) => one.path === wanted);
    return entry?.type === "file" ? sink.kept.get(entry.blob.digest)?.toString() : undefined;
  };
  return { ...result, text };
}

t.test("mock, without placeholders, is linked as it is archived", { skip }, async (t) => {
  const name = "cph/mock-2.0.0-py37_1000";
  const whole = await linked(`${DATA}/${name}.conda`);
  t.same(rowsOf(whole.entries), referenceOf(`${name}.conda`).map(bare).sort(byName));
  const old = await linked(`${DATA}/${name}.tar.bz2`);
  t.same(rowsOf(old.entries), rowsOf(whole.entries), "the same from either format");
  t.same(whole.warnings, []);
});

t.test("symlinks of real packages keep their targets", { skip }, async (t) => {
  const name = "cph/cph_test_data-0.0.1-0.tar.bz2";
  const links = referenceOf(name).filter(([, type]) => type === "2");
  t.equal(links.length, 7, "as many as the reference has");
  const { entries } = await linked(`${DATA}/${name}`);
  for (const [path, , , , target] of links) {
    t.match(
      entries.find((entry) => entry.path === path),
      { type: "symlink", target, mode: 0o777 },
      path,
    );
  }
});

t.test("a noarch: python package with entry points", { skip }, async (t) => {
  const path = `${BUILD}/conda-index-pkg-a-1.0-pyhed9eced_1.tar.bz2`;
  const { entries, text, record, warnings } = await linked(path, { pythonVersion: "3.11.9" });
  const site = "lib/python3.11/site-packages";
  const egg = `${site}/conda_index_pkg_a-1.0-py2.7.egg-info`;
  t.same(entries.map((entry) => entry.path).sort(), [
    "bin/.conda-index-pkg-a-post-link.sh",
    "bin/conda-index-pkg-a",
    "bin/conda-index-pkg-a-helper",
    "conda-meta/conda-index-pkg-a-1.0-pyhed9eced_1.json",
    `${egg}/PKG-INFO`,
    `${egg}/SOURCES.txt`,
    `${egg}/dependency_links.txt`,
    `${egg}/entry_points.txt`,
    `${egg}/not-zip-safe`,
    `${egg}/top_level.txt`,
    `${site}/conda_index_pkg_a/__init__.py`,
  ]);
  t.equal(
    text("bin/conda-index-pkg-a-helper"),
    [
      `#!${PREFIX}/bin/python3.11`,
      "# -*- coding: utf-8 -*-",
      "import re",
      "import sys",
      "",
      "from conda_index_pkg_a import helper",
      "",
      "if __name__ == '__main__':",
      "    sys.argv[0] = re.sub(r'(-script\\.pyw?|\\.exe)?$', '', sys.argv[0])",
      "    sys.exit(helper())",
      "",
    ].join("\n"),
  );
  t.match(record, { noarch: "python", subdir: "noarch", name: "conda-index-pkg-a" });
  t.equal(record.files.length, entries.length - 1, "the record lists all but itself");
  t.same(warnings, ["bin/.conda-index-pkg-a-post-link.sh is not run"]);
  t.match(await failureOf(linked(path)), /^BURROW_BAD_LOCK/, "not without a Python");
});

t.test("placeholders of a real package, in both formats", { skip }, async (t) => {
  for (const suffix of ["conda", "tar.bz2"]) {
    const name = `conda-build/conda-index-pkg-a-1.0-py27h5e241af_0.${suffix}`;
    const { entries, text, record } = await linked(`${DATA}/${name}`);
    const script = text("bin/conda-index-pkg-a")!;
    t.match(script, new RegExp(`^#!${PREFIX}/bin/python`), suffix);
    t.notMatch(script, /anaconda/, suffix);
    const patched = new Set(["bin/conda-index-pkg-a", "bin/conda-index-pkg-a-helper"]);
    const isPlain = (row: (string | number)[]) => !patched.has(String(row[0]));
    const reference = referenceOf(name).map(bare).sort(byName);
    t.same(rowsOf(entries).filter(isPlain), reference.filter(isPlain), `${suffix}: the rest`);
    const listed = record.paths_data.paths.find(({ _path }) => _path === "bin/conda-index-pkg-a");
    t.match(listed, {
      sha256: "fd9995f6d392551c9e358b275239b1b70b1b2616c09576056419c71bec393cd0",
      sha256_in_prefix: createHash("sha256").update(script).digest("hex"),
      size_in_bytes: 247,
      prefix_placeholder: "/opt/anaconda1anaconda2anaconda3",
      file_mode: "text",
    });
  }
});

t.test("hashes of a lock are held against real archives", { skip }, async (t) => {
  const path = `${DATA}/cph/mock-2.0.0-py37_1000.conda`;
  const options = { prefix: PREFIX, sink: discardingSink() };
  const bytes = readFileSync(path);
  for (const kind of ["sha256", "md5"] as const) {
    const right = createHash(kind).update(bytes).digest("hex");
    const wrong = right.replace(/^./, (digit) => (digit === "0" ? "1" : "0"));
    const work = (hash: string) => importCondaPackage(path, { ...options, [kind]: hash });
    t.equal((await work(right.toUpperCase())).record[kind], right, kind);
    t.match(await failureOf(work(wrong)), /^BURROW_DIGEST_MISMATCH/, kind);
  }
});

t.test("two imports of a real package give equal bytes", { skip }, async (t) => {
  const path = `${BUILD}/conda-index-pkg-a-1.0-pyhed9eced_1.tar.bz2`;
  const record = "conda-meta/conda-index-pkg-a-1.0-pyhed9eced_1.json";
  const url = "https://host/channel/noarch/conda-index-pkg-a-1.0-pyhed9eced_1.tar.bz2";
  const one = await linked(path, { pythonVersion: "3.11", url });
  const two = await linked(path, { pythonVersion: "3.11", url });
  t.same(one.entries, two.entries);
  t.ok(one.text(record));
  t.equal(one.text(record), two.text(record));
});
