// In what order the program of env compile prints what it made: what is stored first lies together.

import { execFileSync } from "node:child_process";
import fs from "node:fs";
import { test } from "tap";
import { DRIVER } from "../../lib/cli/capture-driver.ts";

const PYTHON = "/usr/bin/python3";

test("byte code of tests comes behind all other, and each after its folder", {
  skip: fs.existsSync(PYTHON) ? false : `needs ${PYTHON}`,
}, (t) => {
  const packages = ["able", "able/tests", "able/zoo", "able/zoo/test", "baker"];
  const made = packages.map((name) => [name, { "__init__.py": `# ${name}\n` }] as const);
  const prefix = t.testdir({});
  for (const [name, files] of made) {
    const folder = `${prefix}/lib/python3.11/site-packages/${name}`;
    fs.mkdirSync(folder, { recursive: true });
    for (const [file, text] of Object.entries(files)) fs.writeFileSync(`${folder}/${file}`, text);
  }
  const job = JSON.stringify({ prefix, isCompiled: true, isActivated: false, scripts: [] });
  const out = execFileSync(PYTHON, ["-I", "-c", DRIVER, job], { maxBuffer: 1 << 24 });
  const input = out.subarray(out.indexOf(0x0a) + 1);
  const listed = execFileSync("tar", ["-t"], { input, encoding: "utf8" }).trim().split("\n");
  const folderOf = (path: string) => path.replace(/\/__pycache__\/.*$/, "");
  const codes = listed.filter((path) => path.endsWith(".pyc")).map(folderOf);
  const site = "lib/python3.11/site-packages";
  const order = ["able", "able/zoo", "baker", "able/tests", "able/zoo/test"];
  t.same(
    codes,
    order.map((name) => `${site}/${name}`),
  );
  const parents = listed
    .filter((path) => path.endsWith(".pyc"))
    .map((path) => {
      const parent = listed.indexOf(`${path.slice(0, path.lastIndexOf("/"))}/`);
      return parent >= 0 && parent < listed.indexOf(path);
    });
  t.same(parents, Array(packages.length).fill(true), "each after its folder");
  t.end();
});
