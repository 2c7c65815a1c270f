// What a command's words say of what it reads: names alone, and none of the text that was given to it.

import { test } from "tap";
import { startOf } from "../../lib/preload/start.ts";

const PATH = { PATH: "/opt/env/bin:/usr/bin" };

function told(...words: string[]) {
  const { script, imports } = startOf(words, PATH, "/")!;
  return script === undefined ? { imports } : { script, imports };
}

test("a script, a module or text of Python's", async (t) => {
  t.same(told("python3", "-c", "import a, b.c; from d import e; secret = 'x'"), {
    imports: ["a", "b.c", "d", "d.e"],
  });
  t.same(told("/opt/env/bin/python3.11", "-Bc", "import a"), { imports: ["a"] });
  t.same(told("python", "-cimport a"), { imports: ["a"] });
  t.same(told("python3", "-m", "pkg.sub", "-c"), {
    imports: ["runpy", "pkg.sub", "pkg.sub.__main__"],
  });
  t.same(told("python3", "-W", "error", "-Xdev", "-u", "/stage/q/a.py", "-m", "x"), {
    script: "/stage/q/a.py",
    imports: [],
  });
  t.same(told("python3", "--check-hash-based-pycs", "always", "a.py"), {
    script: "a.py",
    imports: [],
  });
});

test("of anything else its program alone", async (t) => {
  for (const words of [
    ["python3"],
    ["python3", "-"],
    ["sh", "-c", "import a"],
    ["pythonic", "a.py"],
  ])
    t.same(told(...words), { imports: [] }, words.join(" "));
  t.equal(startOf([], PATH, "/"), undefined);
  t.equal(startOf(["x".repeat(5_000)], PATH, "/"), undefined);
  t.same(startOf(["a"], PATH, "/tmp"), {
    program: "a",
    path: ["/opt/env/bin", "/usr/bin"],
    cwd: "/tmp",
    imports: [],
  });
  t.same(startOf(["a"], {}, ""), { program: "a", path: [], cwd: "/", imports: [] });
});

test("text of any length gives no more than mount.json may hold", async (t) => {
  const text = Array.from({ length: 5_000 }, (_, i) => `import m${i}`).join("\n");
  t.equal(told("python3", "-c", text).imports.length, 1_024);
  t.same(told("python3", "-c", `import ${"x".repeat(5_000)}`), { imports: [] });
});
