// Owns: proof on some forty real packages that what is served is what a plain linker puts on disk (fixtures/link.py, a second
// reading of the format), file by file, and that a real Python in a sandbox can use all of it. Needs root, a runsc, and
// $BURROW_FIXTURES=DIR where fixtures/wide.sh DIR can work or has worked; skipped with the reason otherwise. Plane: control.

import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { type Test, test } from "tap";
import { Node } from "../cli/cli.ts";
import { findRevisions } from "./runsc.ts";

const ROOT = path.resolve(import.meta.dirname, "../../..");
const fixtures = process.env["BURROW_FIXTURES"];
const { found, reasons } = findRevisions();
const skip =
  found.length === 0
    ? reasons.join("; ")
    : fixtures === undefined && "BURROW_FIXTURES=DIR isn't set: where fixtures/wide.sh DIR works";
const PREFIX = "/opt/env";
/** No distributions of Python's, so neither pip nor importlib knows them. */
const PLAIN = ["burrow-prefix", "libopenblas", "python", "tzdata"];

type Facts = Readonly<Record<string, unknown>>;

/** Type, mode, content and target by path, of a tree on disk. (Node's recursive readdir follows symlinks to directories.) */
function treeOnDisk(root: string, below = "", tree = new Map<string, Facts>()): Map<string, Facts> {
  for (const each of fs.readdirSync(path.join(root, below))) {
    const name = path.join(below, each);
    const file = path.join(root, name);
    const stat = fs.lstatSync(file);
    const mode = stat.mode & 0o7777;
    if (stat.isSymbolicLink()) tree.set(name, { type: "symlink", target: fs.readlinkSync(file) });
    else if (stat.isDirectory()) {
      tree.set(name, { type: "directory", mode });
      treeOnDisk(root, name, tree);
    } else {
      const sha256 = createHash("sha256").update(fs.readFileSync(file)).digest("hex");
      tree.set(name, { type: "file", mode, size: stat.size, sha256 });
    }
  }
  return tree;
}

/** The same of a snapshot. */
async function treeServed(node: Node, digest: string): Promise<Map<string, Facts>> {
  const { stdout } = await node.run(["layer", "show", "--json", digest]);
  const all = JSON.parse(stdout) as Record<string, unknown>[];
  const facts = ({ type, mode, size, sha256, target }: Record<string, unknown>) =>
    type === "symlink"
      ? { type, target }
      : type === "directory"
        ? { type, mode }
        : { type, mode, size, sha256 };
  return new Map(
    all
      .filter((entry) => entry["path"] !== "")
      .map((entry) => [String(entry["path"]), facts(entry)]),
  );
}

function compareTrees(t: Test, served: Map<string, Facts>, disk: Map<string, Facts>): void {
  t.same([...served.keys()].sort(), [...disk.keys()].sort(), "the same paths");
  const isRecord = (name: string) => name.startsWith("conda-meta/"); // the linker's have less in them
  const different = [...disk].filter(
    ([name, facts]) =>
      !isRecord(name) && JSON.stringify(facts) !== JSON.stringify(served.get(name)),
  );
  t.same(
    different.map(([name, facts]) => ({ name, facts, served: served.get(name) })),
    [],
  );
}

for (const revision of found) {
  test(`${revision.name}: forty packages`, { skip, timeout: 900_000 }, async (t) => {
    execFileSync("bash", [path.join(ROOT, "fixtures/wide.sh"), fixtures!], { stdio: "ignore" });
    const node = new Node(300_000);
    t.teardown(() => node.close());
    node.env["BURROW_RUNSC"] = revision.path;
    const run = async (...words: string[]) => {
      const { code, stdout, stderr } = await node.run(words);
      t.equal(code, 0, stderr.slice(-2000));
      return stdout.trim();
    };
    const base = await run("layer", "import", "--quiet", "--snapshot", `${fixtures}/base.tar`);
    const env = await run("env", "create", "--quiet", `${fixtures}/wide/explicit.txt`);
    const disk = treeOnDisk(`${fixtures}/wide/check${PREFIX}`);
    t.ok(disk.size > 10_000);
    compareTrees(t, await treeServed(node, env), disk);

    const compiled = await run("env", "compile", "--quiet", "--base", base, env);
    for (const each of [env, compiled]) {
      const words = ["--base", base, "--env", each, "--stage", `fixtures=${ROOT}/fixtures`];
      const python = ["python3", "/stage/fixtures/probe.py"];
      const seen = JSON.parse(await run("run", ...words, "--", ...python));
      const failures = (all: Record<string, string | null>) =>
        Object.entries(all).filter(([, error]) => error !== null);
      t.ok(Object.keys(seen.modules).length >= 40, "top-level modules");
      t.same(failures(seen.modules), [], "each is imported");
      t.same(failures(seen.scripts), [], "each program runs");
      t.ok(Object.keys(seen.records).length >= 40, "packages");
      const expected = Object.entries(seen.records).filter(([name]) => !PLAIN.includes(name));
      t.same(seen.metadata, Object.fromEntries(expected), "importlib.metadata");
      t.same(seen.pip, Object.fromEntries(expected), "pip list");
      t.equal(seen.variables.CONDA_PREFIX, PREFIX);
    }
    t.same(node.leftovers(), []);
  });
}
