// Owns: proof that wheels stand beside conda packages in an environment, for its own Python, and that what would mix both is refused.
// Plane: control.

import fs from "node:fs";
import { test } from "tap";
import { conda } from "../ingest/conda/packages.ts";
import { wheelOf } from "../ingest/wheel/wheels.ts";
import { type Node, newNode } from "./cli.ts";

const WHEEL = "demo_pkg-1.0-py3-none-any.whl";
const PYTHON = "python-3.11.2-h0_0.conda";
const SITE = "lib/python3.11/site-packages";

async function packagesIn(node: Node): Promise<void> {
  const python = { name: "python", version: "3.11.2" };
  const files = [{ name: "bin/python3.11", content: "x" }];
  node.file(PYTHON, await conda({ index: python, files }));
  const entryPoints = "[console_scripts]\ndemo = demo:x\n";
  const content = "x = 1\n";
  node.file(WHEEL, wheelOf({ files: [{ name: "demo.py", content }], entryPoints }));
}

test("a wheel is laid out for the environment's Python, found again and listed", async (t) => {
  const node = newNode(t);
  await packagesIn(node);
  const create = ["env", "create", "--lock", "lock.txt", PYTHON, WHEEL];
  const made = await node.run(create);
  t.equal(made.code, 0, made.stderr);
  t.match(made.stderr, /^lock\.txt has the conda packages alone: give the wheels again with it$/m);
  const digest = made.stdout.trim();
  const shown = await node.run(["layer", "show", "--json", digest]);
  const all = JSON.parse(shown.stdout) as { path: string; size: number; sha256: string }[];
  const paths = all.map(({ path }) => path);
  for (const path of ["bin/demo", `${SITE}/demo.py`, `${SITE}/demo_pkg-1.0.dist-info/RECORD`])
    t.ok(paths.includes(path), path);
  const list = await node.run(["env", "show", digest]);
  t.match(list.stdout, /, 2 packages\npython +3\.11\.2 .*\ndemo_pkg +1\.0 +wheel +sha256:/);
  const json = JSON.parse((await node.run(["env", "show", "--json", digest])).stdout);
  const { wheels } = json;
  t.match(wheels, [{ name: "demo_pkg", version: "1.0", url: `file://${node.path(WHEEL)}` }]);
  const listed = await node.run(["env", "ls", "--json"]);
  t.same(JSON.parse(listed.stdout)[0].packages, ["python-3.11.2", "demo_pkg-1.0"]);
  const bin = await node.run(["layer", "show", "--json", wheels[0].layer, "bin/demo"]);
  t.match(JSON.parse(bin.stdout), [{ path: "bin/demo", mode: 0o755 }]);

  fs.unlinkSync(node.path("lock.txt"));
  const again = await node.run(["env", "create", "--quiet", "--lock", "lock.txt", PYTHON, WHEEL]);
  t.match(again, { code: 0, stdout: made.stdout, stderr: /^$/ });
  const locked = await node.run(["env", "create", "lock.txt", `./${WHEEL}`]);
  t.match(locked, { code: 0, stdout: made.stdout, stderr: /^$/ }, "known, wherever it is named");
  const bare = await node.run(["env", "create", "lock.txt"]);
  t.not(bare.stdout, made.stdout, "without the wheel it is another");
  const elsewhere = await node.run(["env", "create", "--prefix", "/opt/x/", "lock.txt", WHEEL]);
  const there = await node.run(["layer", "show", elsewhere.stdout.trim(), "/opt/x/bin/demo"]);
  t.match(there, { code: 0, stdout: / bin\/demo\n/ });
});

test("a wheel that fits no Python there, or is there already, is refused", async (t) => {
  const node = newNode(t);
  await packagesIn(node);
  node.file("plain-1.0-0.conda", await conda({ index: { name: "plain" } }));
  node.file("demo.pkg-1.0-0.conda", await conda({ index: { name: "demo.pkg", version: "1.0" } }));
  const copy = node.file(`other/${WHEEL}`, fs.readFileSync(node.path(WHEEL)));
  node.file("old-1.0-py2-none-any.whl", wheelOf({ project: "old", tag: "py2-none-any" }));
  node.file("odd.whl", "x");
  node.file("bad-1.0-py3-none-any.whl", "x");
  const cases: [string[], RegExp][] = [
    [[WHEEL], /alone is no environment: give a lock.*BURROW_USAGE/],
    [["plain-1.0-0.conda", WHEEL], /needs an environment with a Python in it.*BURROW_USAGE/],
    [["--python", "3.12", PYTHON, WHEEL], /the list has Python 3\.11\.2; .*BURROW_USAGE/],
    [["--python", "3.11", "plain-1.0-0.conda", WHEEL], /with a Python in it.*BURROW_USAGE/],
    [[PYTHON, "demo.pkg-1.0-0.conda", WHEEL], /has conda's demo\.pkg; leave one.*BURROW_USAGE/],
    [[PYTHON, WHEEL, copy], /the environment has demo_pkg-1\.0.*; leave one out.*BURROW_USAGE/],
    [[PYTHON, "old-1.0-py2-none-any.whl"], /py2-none.*CPython 3\.11.*BURROW_UNSUPPORTED/],
    [[PYTHON, "odd.whl"], /its name is no wheel's.*BURROW_BAD_PACKAGE/],
    [[PYTHON, "gone-1.0-py3-none-any.whl"], /there is no wheel gone.*BURROW_NOT_FOUND/],
    [[PYTHON, "https://x.example/a-1-py3-none-any.whl"], /download it first.*BURROW_USAGE/],
    [[PYTHON, "bad-1.0-py3-none-any.whl"], /BURROW_BAD_ARCHIVE/],
  ];
  const outcomes = await node.runAll(cases.map(([words]) => ["env", "create", ...words]));
  for (const [i, { code, stdout, stderr }] of outcomes.entries()) {
    const [words, pattern] = cases[i]!;
    t.not(code, 0, words.join(" "));
    t.equal(stdout, "");
    t.match(stderr, pattern);
  }
  const preload = await node.run(["preload", WHEEL]);
  t.match(preload, { code: 2, stderr: /needs a lock or packages to lie beside.*BURROW_USAGE/ });
  const failed = await node.run(["preload", "plain-1.0-0.conda", WHEEL]);
  t.match(failed, { code: 2, stderr: /needs an environment with a Python in it.*BURROW_USAGE/ });
});

test("preload makes the same environment with wheels, on this node, too", async (t) => {
  const node = newNode(t);
  await packagesIn(node);
  const made = await node.run(["preload", "--quiet", PYTHON, WHEEL]);
  t.equal(made.code, 0, made.stderr);
  const other = ["env", "create", "--quiet", "--store", node.path("other")];
  t.equal((await node.run([...other, PYTHON, WHEEL])).stdout, made.stdout);
});
