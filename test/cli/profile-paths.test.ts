// Owns: proof that a profile names what it says, through symlinks, and nothing for ever. Plane: control.

import fs from "node:fs";
import path from "node:path";
import { test } from "tap";
import { named, pathBelow, readProfile } from "../../lib/cli/profile-paths.ts";
import { layerOf } from "../../lib/layer/merge.ts";
import { digestOf } from "../../lib/store/hash.ts";

const PLAIN = { mode: 0o755, uid: 0, gid: 0, mtimeSec: 0, mtimeNs: 0 };

const file = (name: string, linkGroup?: string) => {
  const blob = { digest: digestOf(Buffer.from(linkGroup ?? name)), size: 1, blocks: [] };
  return { type: "file", path: name, ...PLAIN, blob, ...(linkGroup ? { linkGroup } : {}) } as const;
};
const link = (name: string, target: string) =>
  ({ type: "symlink", path: name, target, ...PLAIN }) as const;

const INDEX = layerOf([
  file("a/one"),
  file("a/b/two"),
  file("a/b/three", "three"),
  file("c/three", "three"),
  file("c/f\xe4r"),
  link("to-b", "a/b"),
  link("a/up", "../c"),
  link("c/absolute", "/a/../to-b/two"),
  link("loop", "pool"),
  link("pool", "loop"),
  link("dangling", "nowhere"),
]);

/** Which of the files above a profile names, by their content. */
function contents(...paths: string[]): string[] {
  const { rows } = named(INDEX, paths);
  const texts = ["a/one", "a/b/two", "three", "c/f\xe4r"];
  return texts.filter((text) => {
    const digest = digestOf(Buffer.from(text));
    return [...rows].some((row) => INDEX.blobDigest(row) === digest);
  });
}

test("a file, a directory with all below it, and what symlinks lead to", (t) => {
  t.same(contents("/a/one"), ["a/one"]);
  t.same(contents("/a"), ["a/one", "a/b/two", "three"]);
  t.same(contents("/"), ["a/one", "a/b/two", "three", "c/f\xe4r"]);
  t.same(contents("/to-b/two"), ["a/b/two"]);
  t.same(contents("/a/up/three"), ["three"]);
  t.same(contents("/c/absolute", "//a/./one/"), ["a/one", "a/b/two"]);
  t.same(contents("/../../c/f\xe4r"), ["c/f\xe4r"]);
  t.end();
});

test("an environment is named at its prefix", (t) => {
  const xattrs = new Map([["user.burrow.prefix", "/opt/env"]]);
  const root = { type: "directory", path: "", ...PLAIN, xattrs } as const;
  const way = link("way", "/opt/env/a");
  const index = layerOf([root, file("a/one"), link("out", "/usr/lib"), way]);
  const paths = [
    "way/one",
    "a",
    "./a/../a/one",
    "/opt/env/way/one",
    "/opt/../opt/env/a",
    "/opt/env/../env",
    "/opt",
    "/",
  ];
  for (const path of paths) t.equal(named(index, [path]).rows.size, 1, path);
  const others = [
    "opt/env/a",
    "a/none",
    "out",
    "/a/one",
    "/opt/en/a",
    "/opt/env/../a",
    "/opt/env/out",
  ];
  t.same(named(index, others), { rows: new Set(), missing: others });
  t.end();
});

test("a path of an environment is one below its root, wherever it is seen", (t) => {
  const xattrs = new Map([["user.burrow.prefix", "/opt/env"]]);
  const index = layerOf([{ type: "directory", path: "", ...PLAIN, xattrs }, file("a/one")]);
  for (const [path, below] of [
    ["/opt/env/a/one", "a/one"],
    ["/opt//env/./a/", "a"],
    ["/opt/env", ""],
    ["/opt", ""],
    ["/", ""],
    ["a/one", "a/one"],
    ["opt/env/a", "opt/env/a"],
    ["/opt/envy", "opt/envy"],
    ["/a/one", "a/one"],
  ] as const)
    t.equal(pathBelow(index, path), below, path);
  t.equal(pathBelow(INDEX, "/a/one/"), "a/one");
  t.end();
});

test("what isn't there is said, also at the end of a loop", (t) => {
  const paths = ["/a/none", "/loop", "/dangling", "/a/one/x", "/a/one"];
  const { rows, missing } = named(INDEX, paths);
  t.same(missing, paths.slice(0, 4));
  t.equal(rows.size, 1);
  t.end();
});

test("names are bytes", async (t) => {
  const profile = path.join(t.testdir({}), "profile");
  fs.writeFileSync(profile, Buffer.from("/c/f\xe4r\n", "latin1"));
  t.same(contents(...(await readProfile(profile))), ["c/f\xe4r"]);
  await t.rejects(readProfile("/dev/zero"), { code: "BURROW_USAGE", message: /at most/ });
});
