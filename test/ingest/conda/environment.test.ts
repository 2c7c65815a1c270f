// Owns: lists of packages: the Python that noarch packages get, what is not imported twice, and paths that clash. Plane: control.

import { createHash } from "node:crypto";
import { existsSync, rmSync } from "node:fs";
import { dirname, resolve } from "node:path";
import t from "tap";
import {
  type EnvironmentOptions,
  findClobbers,
  importEnvironment,
  type PackageFacts,
} from "../../../lib/ingest/conda/environment.ts";
import type { ExplicitPackage } from "../../../lib/ingest/conda/explicit.ts";
import { importCondaPackage } from "../../../lib/ingest/conda/import.ts";
import type { LayerEntry } from "../../../lib/layer/entry.ts";
import { conda, failureOf, fileOf, keeper, type Spec } from "./packages.ts";

/** Packages to fetch, a store of layers, and what was asked of both. */
class World {
  readonly fetched: string[] = [];
  readonly released: string[] = [];
  readonly layers = new Map<string, { layer: LayerEntry[]; facts: PackageFacts }>();
  readonly #archives = new Map<string, Buffer>();

  async add(name: string, spec: Spec): Promise<ExplicitPackage> {
    const version = name === "python" ? "3.12.4" : "1.0";
    const bytes = await conda({ ...spec, index: { name, version, ...spec.index } });
    const url = `https://host/c/linux-64/${name}-${version}-h0_0.conda`;
    this.#archives.set(url, bytes);
    return { url, line: 3, sha256: createHash("sha256").update(bytes).digest("hex") };
  }

  /** Has the archive of one item under another's URL too. */
  mirror(item: ExplicitPackage, other: ExplicitPackage): void {
    this.#archives.set(other.url, this.#archives.get(item.url)!);
  }

  options(prefix = "/opt/env"): EnvironmentOptions<LayerEntry[]> {
    return {
      prefix,
      fetch: async ({ url }) => {
        this.fetched.push(url);
        return fileOf(this.#archives.get(url)!);
      },
      release: (_item, path) => {
        this.released.push(path);
        rmSync(dirname(path), { recursive: true });
      },
      find: async (key) => this.layers.get(JSON.stringify(key)),
      makeLayer: async (key, _item, link) => {
        const { entries, facts } = await link(keeper());
        this.layers.set(JSON.stringify(key), { layer: entries, facts });
        return entries;
      },
    };
  }
}

const noarch: Spec = {
  index: { noarch: "python", subdir: "noarch" },
  files: [{ name: "site-packages/x.py", content: "x" }],
};

t.test("noarch: python needs a Python, and gets the list's, wherever it stands", async (t) => {
  const world = new World();
  const pure = await world.add("pure", noarch);
  t.match(await failureOf(importEnvironment([pure], world.options())), /^BURROW_BAD_LOCK/);
  t.equal(world.released.length, world.fetched.length, "what was fetched is given back");
  const python = await world.add("python", {});
  const made = await importEnvironment([pure, python], world.options());
  t.same(
    made.packages.map(({ item }) => item),
    [pure, python],
    "in the list's order",
  );
  t.equal(made.python?.version, "3.12");
  const paths = (layer: readonly LayerEntry[]) => layer.map(({ path }) => path);
  t.match(paths(made.packages[0]!.layer), ["lib/python3.12/site-packages/x.py"]);
  const other = await importEnvironment([pure], { ...world.options(), pythonVersion: "3.9" });
  t.match(paths(other.packages[0]!.layer), ["lib/python3.9/site-packages/x.py"]);
  const free = await world.add("python", {
    index: { version: "3.13.0", python_site_packages_path: "lib/python3.13t/site-packages" },
  });
  const threaded = await importEnvironment([free, pure], world.options());
  t.match(paths(threaded.packages[1]!.layer), ["lib/python3.13t/site-packages/x.py"]);
});

t.test("what has a layer is not fetched again; another prefix is another layer", async (t) => {
  const world = new World();
  const items = [await world.add("a", {}), await world.add("b", { index: { build_number: 2 } })];
  const first = await importEnvironment(items, world.options());
  t.same(
    first.packages.map(({ isNew }) => isNew),
    [true, true],
  );
  t.equal(world.fetched.length, 2);
  const again = await importEnvironment(items, world.options());
  t.same(
    again.packages.map(({ isNew }) => isNew),
    [false, false],
  );
  t.same(
    again.packages.map(({ facts }) => facts),
    first.packages.map(({ facts }) => facts),
  );
  t.equal(world.fetched.length, 2);
  const { sha256: _, ...unhashed } = items[0]!;
  const found = await importEnvironment([unhashed], world.options());
  t.equal(found.packages[0]!.isNew, false, "without a hash it is fetched and known by its own");
  t.equal(world.fetched.length, 3);
  const moved = await importEnvironment(items, world.options("/opt/other"));
  t.same(
    moved.packages.map(({ isNew }) => isNew),
    [true, true],
  );
});

t.test("a list that can't be is refused", async (t) => {
  const world = new World();
  const a = await world.add("a", {});
  const twice = [a, { ...a, line: 4 }];
  t.match(
    await failureOf(importEnvironment(twice, world.options())),
    /^BURROW_BAD_LOCK\nline 4: a comes twice/,
  );
  const wrong = { ...a, sha256: "0".repeat(64) };
  t.match(await failureOf(importEnvironment([wrong], world.options())), /^BURROW_DIGEST_MISMATCH/);
  t.equal(world.released.length, world.fetched.length);
});

t.test("only packages for Linux on x86-64, and for any", async (t) => {
  const cases: [Record<string, unknown>, string | undefined][] = [
    [{ subdir: "osx-arm64" }, "osx-arm64"],
    [{ subdir: "linux-aarch64" }, "linux-aarch64"],
    [{ subdir: undefined, platform: "osx", arch: "x86_64" }, "osx-64"],
    [{ subdir: undefined, platform: "linux", arch: "x86" }, "linux-32"],
    [{ subdir: undefined, platform: "linux", arch: "x86_64" }, undefined],
    [{ subdir: undefined }, undefined],
    [{ subdir: "noarch", noarch: "generic" }, undefined],
  ];
  for (const [index, refused] of cases) {
    const world = new World();
    const item = await world.add("a", { index });
    const text = await failureOf(importEnvironment([item], world.options()));
    const pattern = `^BURROW_BAD_LOCK\nthe package is for ${refused}\npackage: a-1\\.0-h0_0\\.conda\n`;
    t.match(text, new RegExp(refused === undefined ? "^no error$" : pattern), item.url);
    t.equal(world.layers.size, refused === undefined ? 1 : 0);
  }
});

t.test("a layer depends on the list alone: hashes given or not, what the store has", async (t) => {
  const world = new World();
  const item = await world.add("a", {});
  const { sha256, ...bare } = item;
  const made = async (list: ExplicitPackage, known = world) => {
    const { packages } = await importEnvironment([list], known.options());
    return packages[0]!;
  };
  const first = await made(item);
  const md5 = first.facts.md5;
  t.match(md5, /^[0-9a-f]{32}$/);
  t.equal(first.facts.sha256, sha256);
  const fresh = async (list: ExplicitPackage) => {
    const other = new World();
    await other.add("a", {});
    return await made(list, other);
  };
  t.same((await fresh(bare)).layer, first.layer, "no hash");
  t.same((await fresh({ ...bare, md5 })).layer, first.layer, "an md5");
  const mirrored = { ...item, url: item.url.replace("host/c", "mirror/c") };
  world.mirror(item, mirrored);
  const second = await made(mirrored);
  t.equal(second.isNew, true, "the record has the list's URL, so it is another layer");
  t.notSame(second.layer, first.layer);
  const secret = { ...item, url: item.url.replace("https://", "https://me:secret@") };
  t.equal((await made(secret)).isNew, false, "what is secret is not in it");
});

t.test("paths that several packages write, with the last as winner", async (t) => {
  const file = (path: string, digest: string): LayerEntry => {
    const common = { path, mode: 0o644, uid: 0, gid: 0, mtimeSec: 0, mtimeNs: 0 };
    return { ...common, type: "file", blob: { digest: digest as never, size: 1, blocks: [] } };
  };
  const directory = (path: string): LayerEntry => {
    return { type: "directory", path, mode: 0o755, uid: 0, gid: 0, mtimeSec: 0, mtimeNs: 0 };
  };
  const layers = [
    {
      name: "a",
      entries: [file("bin/x", "1"), file("same", "2"), directory("lib"), file("b", "1")],
    },
    { name: "b", entries: [file("bin/x", "2"), file("same", "2"), directory("lib")] },
    { name: "c", entries: [file("b/inner", "3"), file("bin/x", "3")] },
  ];
  t.same(findClobbers(layers), [
    { path: "b", winner: "c", losers: ["a"], isSame: false },
    { path: "bin/x", winner: "c", losers: ["a", "b"], isSame: false },
    { path: "same", winner: "b", losers: ["a"], isSame: true },
  ]);
  t.same(findClobbers([]), []);
});

const DATA = resolve(import.meta.dirname, "../../../../../shared/data");
const skip = existsSync(DATA) ? false : "the packages are not beside the project";

t.test("real packages clash where their authors meant them to", { skip }, async (t) => {
  const layers = [];
  for (const number of [1, 2, 3]) {
    const path = `${DATA}/rattler/clobber/clobber-${number}-0.1.0-h4616a5c_0.tar.bz2`;
    const { entries } = await importCondaPackage(path, { prefix: "/opt/env", sink: keeper() });
    layers.push({ name: `clobber-${number}`, entries });
  }
  t.same(
    findClobbers(layers).map(({ path, winner, losers }) => ({ path, winner, losers })),
    [
      { path: "another-clobber.txt", winner: "clobber-3", losers: ["clobber-1", "clobber-2"] },
      { path: "clobber.txt", winner: "clobber-3", losers: ["clobber-1", "clobber-2"] },
    ],
  );
});
