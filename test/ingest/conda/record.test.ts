// Owns: the URL in a package's record, without secrets and for every file's name; names and paths that are over the limits only
// once they are in the prefix. Plane: control.

import { mkdirSync, renameSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { pathToFileURL } from "node:url";
import t from "tap";
import { importEnvironment } from "../../../lib/ingest/conda/environment.ts";
import { importCondaPackage } from "../../../lib/ingest/conda/import.ts";
import { plainUrl } from "../../../lib/ingest/conda/record.ts";
import { IndexKind } from "../../../lib/layer/format.ts";
import { writeIndex } from "../../../lib/layer/writer.ts";
import { conda, failureOf, fileOf, imported, keeper, PREFIX } from "./packages.ts";

const FILE = "demo-1.0-h0_0.conda";

t.test("no user, password or token stays in a URL", async (t) => {
  const cases: [string, string][] = [
    ["https://host/c/noarch/a-1-0.conda", "https://host/c/noarch/a-1-0.conda"],
    ["https://me:secret@host/c/noarch/a-1-0.conda", "https://host/c/noarch/a-1-0.conda"],
    ["https://host/t/secret/c/noarch/a-1-0.conda", "https://host/c/noarch/a-1-0.conda"],
    ["https://host/get/t/secret/c/noarch/a-1-0.conda", "https://host/get/c/noarch/a-1-0.conda"],
    ["https://host/c/noarch/a-1-0.conda?sig=secret#secret", "https://host/c/noarch/a-1-0.conda"],
    ["file:///t/kept/a-1-0.conda", "file:///t/kept/a-1-0.conda"],
    ["pkgs/t/kept/a-1-0.conda", "pkgs/t/kept/a-1-0.conda"],
  ];
  for (const [url, plain] of cases) t.equal(plainUrl(url), plain, url);
});

t.test("a list with a package twice is refused without its secrets", async (t) => {
  const path = fileOf(await conda({}));
  const item = { url: `https://me:secret@host/t/secret/c/linux-64/${FILE}`, line: 3 };
  const text = await failureOf(
    importEnvironment([item, { ...item, line: 4 }], {
      prefix: PREFIX,
      fetch: async () => path,
      makeLayer: async (_key, _item, link) => (await link(keeper())).entries,
    }),
  );
  t.match(text, /^BURROW_BAD_LOCK\nline 4: demo comes twice/);
  t.match(text, `other: https://host/c/linux-64/${FILE}`);
  t.notMatch(text, /secret/);
});

t.test("without a URL the record has that of the file, whatever its name", async (t) => {
  const path = fileOf(await conda({}));
  for (const name of ["a#b", "a?b", "a%41", "a b", "\u00e9"]) {
    const folder = join(dirname(path), name);
    const moved = join(folder, FILE);
    mkdirSync(folder);
    renameSync(path, moved);
    const options = { prefix: PREFIX, sink: keeper() };
    const { record } = await importCondaPackage(moved, options);
    t.equal(record.url, pathToFileURL(moved).href, name);
    const near = await importCondaPackage(relative(process.cwd(), moved), options);
    t.equal(near.record.url, record.url, `${name}, relative`);
    t.equal(near.record.fn, FILE);
    renameSync(moved, path);
  }
});

t.test("names and paths over the limits in the prefix name package and file", async (t) => {
  const name = (count: number) => ({ index: { name: "n".repeat(count) } });
  // "-1.0-h0_0.json"
  const longest = 255 - 14;
  const { entries } = await imported(await conda(name(longest)));
  t.ok(writeIndex(IndexKind.layer, entries).length > 0, "the longest name that fits");
  t.match(
    await failureOf(imported(await conda(name(longest + 1)))),
    /^BURROW_BAD_PACKAGE\nin the prefix its path has a name.*\npackage: demo-.*file: conda-meta\/n+-1.0/s,
  );
  const deep = (count: number) => ({
    index: { noarch: "python", subdir: "noarch" },
    files: [{ name: `site-packages/${Array(count).fill("d").join("/")}`, content: "" }],
  });
  const options = { pythonVersion: "3.11" };
  // lib/python3.11/site-packages are three of 256.
  const deepest = await imported(await conda(deep(253)), options);
  t.ok(writeIndex(IndexKind.layer, deepest.entries).length > 0, "the deepest path that fits");
  t.match(
    await failureOf(imported(await conda(deep(254)), options)),
    /^BURROW_BAD_PACKAGE\nin the prefix its path is too deep\npackage: demo-.*file: site-packages/s,
  );
  const sitePackages = "../outside";
  t.match(
    await failureOf(imported(await conda(deep(1)), { ...options, sitePackages })),
    /^BURROW_BAD_PACKAGE\nin the prefix its path has "\.\."/,
  );
});
