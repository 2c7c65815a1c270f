// Owns: packages that write below symlinks of others, against the kernel: the same packages laid into a directory as conda does
// it. Plane: control.

import { deepStrictEqual } from "node:assert";
import fs from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import t from "tap";
import { findClobbers } from "../../../lib/ingest/conda/environment.ts";
import { type PackageEntries, throughLinks } from "../../../lib/ingest/conda/prefix-tree.ts";
import { entriesOf } from "../../../lib/layer/entries.ts";
import type { LayerEntry } from "../../../lib/layer/entry.ts";
import { IndexKind } from "../../../lib/layer/format.ts";
import { Index } from "../../../lib/layer/index.ts";
import { writeIndex } from "../../../lib/layer/writer.ts";
import { directory, file, mergeLayers, RUNS, SEED, symlink } from "../../layer/trees.ts";
import { cpuMs } from "../../suite/cpu.ts";
import { failureOf } from "./packages.ts";

/** What a package's layer gives back: with every directory, in tree order. */
function packageOf(name: string, entries: readonly LayerEntry[]): PackageEntries {
  return { name, entries: [...entriesOf(new Index(writeIndex(IndexKind.layer, entries)))] };
}

/** One line a path: what it is and, but for directories, which. */
type Listing = Record<string, string>;

function merged(packages: readonly PackageEntries[], prefix: string): Listing {
  const stack = throughLinks(packages, prefix).map(({ entries }) => ({ entries, at: "" }));
  const index = new Index(writeIndex(IndexKind.snapshot, mergeLayers(stack)));
  const listing: Listing = {};
  for (const entry of entriesOf(index)) {
    const { path, type } = entry;
    listing[path] = type;
    if (entry.type === "file") listing[path] = entry.blob.digest;
    if (entry.type === "symlink") listing[path] = `-> ${entry.target}`;
  }
  return listing;
}

/** The directory that `name` leads to: what is none, or lies outside of the prefix, gives way to one. */
function enter(prefix: string, at: string, name: string): string {
  const path = join(at, name);
  let real: string | undefined;
  try {
    real = fs.realpathSync.native(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ELOOP") throw error;
  }
  const isInside = real === prefix || real?.startsWith(`${prefix}/`) === true;
  if (real !== undefined && isInside && fs.statSync(real).isDirectory()) return real;
  fs.rmSync(path, { force: true, recursive: true });
  fs.mkdirSync(path);
  return path;
}

/** conda/gateways/disk/create.py: mkdir_p of the parents, then rm_rf of what is there, then the link. */
function laid(packages: readonly PackageEntries[], prefix: string): Listing {
  for (const { entries } of packages) {
    for (const entry of entries) {
      const names = entry.path === "" ? [] : entry.path.split("/");
      const last = entry.type === "directory" ? undefined : names.pop();
      let at = prefix;
      for (const name of names) at = enter(prefix, at, name);
      if (last === undefined) continue;
      const path = join(at, last);
      fs.rmSync(path, { force: true, recursive: true });
      if (entry.type === "symlink") fs.symlinkSync(entry.target, path);
      if (entry.type === "file") fs.writeFileSync(path, entry.blob.digest);
    }
  }
  const listing: Listing = { "": "directory" };
  for (const found of fs.readdirSync(prefix, { recursive: true, withFileTypes: true })) {
    const path = join(found.parentPath, found.name);
    const text = found.isSymbolicLink() ? `-> ${fs.readlinkSync(path)}` : "directory";
    listing[path.slice(prefix.length + 1)] = found.isFile()
      ? fs.readFileSync(path, "latin1")
      : text;
  }
  return listing;
}

const outcome = (make: () => Listing): Listing | "circles" => {
  try {
    return make();
  } catch (error) {
    const { code } = error as { code?: string };
    if (code === "ELOOP" || code === "BURROW_BAD_PACKAGE") return "circles";
    throw error;
  }
};

const path = fc
  .array(fc.constantFrom("a", "b", "c"), { minLength: 1, maxLength: 3 })
  .map((names) => names.join("/"));
const target = fc.oneof(
  path,
  path.map((text) => `../${text}`),
  path.map((text) => `@/${text}`),
  fc.constantFrom(".", "..", "@", "../..", "/", "a/../b", "./a/", "../@/a"),
);
const drafts = fc.array(
  fc.record({ path, kind: fc.constantFrom("file", "directory", "symlink"), target }),
  { maxLength: 8 },
);

t.test("packages over symlinks are what a directory would be", (t) => {
  t.comment(`seed ${SEED}`);
  const property = fc.property(fc.array(drafts, { minLength: 2, maxLength: 4 }), (lists) => {
    const folder = fs.mkdtempSync(join(tmpdir(), "burrow-prefix-"));
    const prefix = join(fs.realpathSync(folder), "prefix");
    fs.mkdirSync(prefix);
    try {
      const packages = lists.map((list, i) => {
        const entries = new Map<string, LayerEntry>();
        for (const { path, kind, target } of list) {
          const above = [...entries.values()].some(
            (one) => path.startsWith(`${one.path}/`) && one.type !== "directory",
          );
          const below = [...entries.keys()].some((one) => one.startsWith(`${path}/`));
          if (above || below || entries.has(path)) continue;
          const link = symlink(path, target.replace("@", prefix));
          const one = kind === "file" ? file(path, `${i} ${path}`) : directory(path);
          entries.set(path, kind === "symlink" ? link : one);
        }
        return packageOf(`p${i}`, [...entries.values()]);
      });
      deepStrictEqual(
        outcome(() => merged(packages, prefix)),
        outcome(() => laid(packages, prefix)),
      );
    } finally {
      fs.rmSync(folder, { recursive: true });
    }
  });
  t.doesNotThrow(() => fc.assert(property, { numRuns: RUNS, seed: SEED }));
  t.end();
});

t.test("a later package's files go where an earlier one's symlink leads", async (t) => {
  const first = packageOf("a", [
    file("lib/x"),
    symlink("lib64", "lib"),
    symlink("out", "/usr/lib"),
  ]);
  const second = packageOf("b", [file("lib64/x", "b's"), file("lib64/y"), file("out/z")]);
  const stack = throughLinks([first, second], "/opt/env");
  const seen = findClobbers(stack).map(({ path, winner, losers }) => [path, winner, ...losers]);
  t.same(seen, [
    ["lib/x", "b", "a"],
    ["out", "b", "a"],
  ]);
  const { lib64, out, ...rest } = merged([first, second], "/opt/env");
  t.equal(lib64, "-> lib");
  t.equal(out, "directory", "never out of the prefix");
  t.ok(rest["lib/y"] && rest["out/z"]);
  t.same(throughLinks([second, first], "/opt/env"), [second, first], "nothing to do in this order");
});

t.test("symlinks in circles are refused by name", async (t) => {
  const first = packageOf("a", [symlink("one", "two"), symlink("two", "one")]);
  const second = packageOf("b", [file("one/x")]);
  const work = async () => throughLinks([first, second], "/opt/env");
  t.match(await failureOf(work()), /^BURROW_BAD_PACKAGE\n.* without end\npackage: b\nfile: one$/);
});

t.test("files in the place of as many directories are laid in time that grows with them", (t) => {
  const names = Array.from({ length: 20_000 }, (_, i) => `d${i}`);
  const first = { name: "a", entries: [symlink("l", "d0"), ...names.map((at) => directory(at))] };
  const second = { name: "b", entries: [file("l/x"), ...names.map((at) => file(at))] };
  let laid: { readonly entries: readonly unknown[] } | undefined;
  const took = cpuMs(() => {
    [, laid] = throughLinks([first, second], "/opt/env");
  });
  t.ok(took < 2_000, `${Math.round(took)} ms`);
  t.equal(laid!.entries.length, names.length, "what was laid into d0 is gone with it");
  t.end();
});
