// Foreseeing: what a start will read is found by its files, each of them once, whatever the files say.

import { test } from "tap";
import type { LayerEntry } from "../../lib/layer/entry.ts";
import { IndexKind } from "../../lib/layer/format.ts";
import { Index } from "../../lib/layer/index.ts";
import { writeIndex } from "../../lib/layer/writer.ts";
import { type Bringer, foresee } from "../../lib/preload/foresee.ts";
import type { Start } from "../../lib/preload/start.ts";
import { ViewFiles } from "../../lib/preload/view-files.ts";
import { digestOf } from "../../lib/store/hash.ts";
import { LoopShare } from "../../lib/store/loop-share.ts";
import { elf } from "../suite/elf-file.ts";

type Content = string | Buffer | { readonly link: string };
type Tree = Readonly<Record<string, Content>>;

const common = { mode: 0o644, uid: 0, gid: 0, mtimeSec: 0, mtimeNs: 0 };

function indexOf(tree: Tree): Index {
  const entries = Object.entries(tree).map(([path, content]): LayerEntry => {
    if (typeof content === "object" && "link" in content)
      return { ...common, mode: 0o777, type: "symlink", path, target: content.link };
    const bytes = Buffer.from(content);
    // Equal files are one blob, and one is seen once.
    const digest = digestOf(Buffer.concat([bytes, Buffer.from(path)]));
    const blocks = bytes.length > 1 << 20 ? Math.ceil(bytes.length / (1 << 18)) : 0;
    const blob = {
      digest,
      size: bytes.length,
      blocks: Array.from({ length: blocks }, () => digest),
    };
    return { ...common, type: "file", path, blob };
  });
  return new Index(writeIndex(IndexKind.snapshot, entries));
}

const START: Start = { program: "/env/bin/python3", path: ["/env/bin"], cwd: "/", imports: [] };

/** Paths that are foreseen, and of those that aren't wanted whole the ranges. */
async function foreseen(trees: readonly [Tree, Tree], start: Partial<Start>, lost: string[] = []) {
  const [base, env] = trees;
  const files = new ViewFiles([
    { at: "/", index: indexOf(base) },
    { at: "/env", index: indexOf(env) },
  ]);
  const contentOf = (path: string) =>
    path.startsWith("/env/") ? env[path.slice(5)] : base[path.slice(1)];
  const found = new Map<string, [number, number][]>();
  const note = (path: string, from: number, end: number, size: number) => {
    const ranges = found.get(path) ?? [];
    ranges.push([from, Math.min(end, size)]);
    found.set(path, ranges);
  };
  const bringer: Bringer = {
    async read({ path, size }, { offset, end }) {
      note(path, offset, end, size);
      if (lost.includes(path)) return undefined;
      return Buffer.from(contentOf(path) as string).subarray(offset, end);
    },
    bring({ path, size }, ranges) {
      for (const { offset, end } of ranges) note(path, offset, end, size);
    },
  };
  await foresee({ ...START, ...start }, files, bringer, new LoopShare(5));
  return found;
}

const LIB = "lib/python3.11";
const PYTHON: Tree = {
  "bin/python3": { link: "python3.11" },
  "bin/python3.11": elf({
    needed: ["libz.so.1", "libc.so.6"],
    runpath: "$ORIGIN/../lib",
    bytes: 20_000,
  }),
  "lib/libz.so.1": { link: "libz.so.1.2" },
  "lib/libz.so.1.2": elf({ needed: ["libc.so.6"], bytes: 20_000 }),
  [`${LIB}/os.py`]: "import frozen",
  [`${LIB}/encodings/__init__.py`]: "from . import aliases",
  [`${LIB}/encodings/aliases.py`]: "",
  [`${LIB}/json/__init__.py`]: "from .decoder import J",
  [`${LIB}/json/decoder.py`]: "import re, _json",
  [`${LIB}/re.py`]: "def f():\n  import never",
  [`${LIB}/never.py`]: "",
  [`${LIB}/frozen.py`]: "",
  [`${LIB}/lib-dynload/_json.cpython-311-x86_64-linux-gnu.so`]: elf({ needed: [], bytes: 13_000 }),
  [`${LIB}/site-packages/a.pth`]: "x",
};
const BASE: Tree = {
  "etc/ld.so.cache": "cache",
  "lib64/libc.so.6": elf({ needed: [], bytes: 15_000 }),
};
const SEEN = [
  "/env/bin/python3.11",
  "/env/lib/libz.so.1.2",
  "/env/lib/python3.11/encodings/__init__.py",
  "/env/lib/python3.11/encodings/aliases.py",
  "/env/lib/python3.11/site-packages/a.pth",
  "/etc/ld.so.cache",
  "/lib64/libc.so.6",
];

test("of two Pythons at a prefix it is the one that the program is", async (t) => {
  const env: Tree = {
    "bin/python3": { link: "python3.10" },
    "bin/python3.10": elf({ needed: [], runpath: "", bytes: 20_000 }),
    "lib/python3.10/os.py": "",
    "lib/python3.10/site.py": "",
    "lib/python3.10/encodings/__init__.py": "",
    "lib/python3.9/os.py": "",
    "lib/python3.9/encodings/__init__.py": "",
  };
  const found = await foreseen([{}, env], {});
  t.ok(found.has("/env/lib/python3.10/encodings/__init__.py"));
  t.notOk(found.has("/env/lib/python3.9/encodings/__init__.py"));
});

test("Python's own start, with its libraries", async (t) => {
  const found = await foreseen([BASE, PYTHON], {});
  t.same([...found.keys()].sort(), SEEN);
  const byName = await foreseen([BASE, PYTHON], { program: "python3" });
  t.same([...byName.keys()].sort(), SEEN, "the same found in PATH");
  t.equal((await foreseen([BASE, PYTHON], { program: "/env/bin/none" })).size, 0);
});

test("what is imported, as far as it goes", async (t) => {
  const found = await foreseen([BASE, PYTHON], { imports: ["json", "json.tool", "absent"] });
  const more = ["json/__init__.py", "json/decoder.py", "re.py"].map(
    (each) => `/env/${LIB}/${each}`,
  );
  const native = `/env/${LIB}/lib-dynload/_json.cpython-311-x86_64-linux-gnu.so`;
  t.same([...found.keys()].sort(), [...SEEN, ...more, native].sort());
});

test("packages: their own first, byte code for text, folders without __init__", async (t) => {
  const site = `${LIB}/site-packages`;
  const tree = {
    ...PYTHON,
    [`${site}/pkg/__init__.py`]:
      "from . import a, b\nfrom .sub.deep import c\nfrom ... import over",
    [`${site}/pkg.py`]: "import never",
    [`${site}/pkg/a.py`]: "from pkg.a import pkg",
    [`${site}/pkg/__pycache__/a.cpython-311.pyc`]: "no code: its text is read",
    [`${site}/pkg/b.abi3.so`]: elf({ needed: [], bytes: 12_500 }),
    [`${site}/pkg/sub/deep.py`]: "import pkg",
  };
  const found = await foreseen([BASE, tree], { imports: ["pkg"] });
  const wanted = [
    "__init__.py",
    "a.py",
    "__pycache__/a.cpython-311.pyc",
    "b.abi3.so",
    "sub/deep.py",
  ];
  t.same(
    [...found.keys()].sort(),
    [...SEEN, ...wanted.map((each) => `/env/${site}/pkg/${each}`)].sort(),
  );
  for (const [path, ranges] of found) {
    const same = new Set(ranges.map(String));
    if (/\.pyc?$/.test(path)) t.equal(same.size, ranges.length, `${path} once`);
  }
});

test("a script, what lies beside it, and one that names its interpreter", async (t) => {
  const base = {
    ...BASE,
    "stage/q.py": "import beside\nfrom . import no",
    "stage/beside.py": "import json",
    "stage/tool": "#!/usr/bin/env python3\nimport beside",
    "stage/loop": "#!/stage/loop",
  };
  const found = await foreseen([base, PYTHON], { script: "q.py", cwd: "/stage" });
  for (const path of ["/stage/q.py", "/stage/beside.py", `/env/${LIB}/re.py`])
    t.ok(found.has(path), path);
  const tree = { ...PYTHON, "bin/env": "" };
  const tool = await foreseen([base, tree], { program: "/stage/tool", path: ["/env/bin"] });
  for (const path of ["/stage/tool", "/stage/beside.py", "/env/bin/python3.11"])
    t.ok(tool.has(path), path);
  const loop = await foreseen([base, PYTHON], { program: "/stage/loop" });
  t.ok(loop.has("/stage/loop"), "and no end of interpreters");
});

test("of large libraries what the linker reads; of what can't be had nothing", async (t) => {
  const big = elf({ needed: ["libz.so.1"], runpath: "/env/lib", bytes: 12 << 20 });
  const tree = {
    ...PYTHON,
    "bin/tool": elf({ needed: ["libbig.so"], runpath: "$ORIGIN/../lib", bytes: 9_000 }),
    "lib/libbig.so": big,
  };
  const found = await foreseen([BASE, tree], { program: "tool" });
  t.ok(found.has("/env/lib/libz.so.1.2"), "and what it needs");
  const bytes = found.get("/env/lib/libbig.so")!.reduce((sum, [from, end]) => sum + end - from, 0);
  t.ok(bytes < 64 * 1024, `${bytes} bytes`);
  const lost = await foreseen([BASE, tree], { program: "tool" }, ["/env/lib/libbig.so"]);
  t.notOk(lost.has("/env/lib/libz.so.1.2"));
});

test("links in circles and modules that import each other end", async (t) => {
  const circles: Tree = {
    ...PYTHON,
    [`${LIB}/x.py`]: { link: "y.py" },
    [`${LIB}/y.py`]: { link: "x.py" },
    [`${LIB}/one.py`]: "import two",
    [`${LIB}/two.py`]: "import one, x",
    "lib/self": { link: "../lib/self/self" },
  };
  const found = await foreseen([BASE, circles], { imports: ["one", "self.self.x"] });
  t.ok(found.has(`/env/${LIB}/two.py`));
  t.equal(found.size, SEEN.length + 2);
});

test("few links can't stand for a way without end", async (t) => {
  const bomb = Object.fromEntries(
    Array.from({ length: 30 }, (_, i) => [
      `l${i + 1}`,
      { link: Array.from({ length: 100 }, () => `l${i}`).join("/") },
    ]),
  );
  const tree = { ...PYTHON, l0: { link: "." }, ...bomb, "bin/tool": "#!/env/l30/bin/python3" };
  const found = await foreseen([BASE, tree], { program: "tool" });
  t.same([...found.keys()], ["/env/bin/tool", "/etc/ld.so.cache"].reverse());
});
