// Imports in Python's text: what runs when a module does is found, what doesn't isn't, and no text makes it fail.

import fc from "fast-check";
import { test } from "tap";
import { importsOfText } from "../../lib/preload/python-text.ts";

/** As "..module: name name". */
function shown(text: string): string[] {
  return importsOfText(text).map(({ level, module, names }) => {
    return `${".".repeat(level)}${module}${names.length > 0 ? `: ${names.join(" ")}` : ""}`;
  });
}

test("imports, one by one", async (t) => {
  const each: Record<string, string[]> = {
    "import a": ["a"],
    "import a.b as c, d": ["a.b", "d"],
    "import time;t=time.time();import numpy,pandas;print(time.time()-t)": [
      "time",
      "numpy",
      "pandas",
    ],
    "from a.b import c as d, e": ["a.b: c e"],
    "from . import a": [".: a"],
    "from .. a import b": ["..a: b"],
    "from...import a": ["...: a"],
    "from .a.b import (c,  # why\n    d,\n)": [".a.b: c d"],
    "from a import *": ["a"],
    "import a \\\n  , b": ["a", "b"],
    "if x: import a; import b\nelse: import c": ["a", "b", "c"],
    "try:\n\timport a\nexcept ImportError:\n\timport b": ["a", "b"],
    "class A:\n  import a": ["a"],
    "import ünï": ["ünï"],
    "\fimport\fa\f": ["a"],
    "import a\r\nimport b\r\n": ["a", "b"],
  };
  for (const [text, wanted] of Object.entries(each)) t.same(shown(text), wanted, text);
});

test("what is no import, or doesn't run, isn't found", async (t) => {
  const each = [
    "importa = 1",
    "from_here = 2",
    "import_(a)",
    "x = 'import a'",
    '"""\nimport a\n"""',
    "# import a",
    "f('''\nimport a''', (\nimport_b))",
    "def f():\n  import a\n  def g(): import b\n\n  import c",
    "async  def f(): import a",
    "if TYPE_CHECKING:\n  import a",
    "if typing.TYPE_CHECKING: import a",
    "x = 'unfinished\\",
    "import",
    "import 1a",
    "from import a",
  ];
  for (const text of each) t.same(shown(text), [], text);
  t.same(shown("def f():\n  import a\nimport b"), ["b"], "behind a function");
  t.same(shown("if TYPE_CHECKING:\n  import a\nelse:\n  import b"), ["b"]);
});

test("nor does it take long over long ones", async (t) => {
  // Statements that are looked at to their ends, and such as are cut off.
  for (const many of [8_000, 400_000]) {
    const each = [
      ...[" ", " .", "\f", "\v", "\u00a0"].map((part) => `from${part.repeat(many)}x`),
      `if${"\f".repeat(many)}typing${"\f".repeat(many)}x:`,
      `import${" a .".repeat(many)}`,
      `import ${"a,".repeat(many)}`,
      `from a import (${"\n ".repeat(many)}`,
      "\\\n".repeat(many),
      "'".repeat(many),
      "(".repeat(many),
    ];
    for (const text of each) t.ok(importsOfText(text).length <= 16_384, text.slice(0, 12));
  }
});

test("no text makes it fail", async () => {
  const word = fc.constantFrom(
    ...'import|from|as|def|class|if|:|;|(|)|,|.|\n|  |\t|\\\n|\'|"""|#|a|b.c|*|TYPE_CHECKING|é'.split(
      "|",
    ),
  );
  const text = fc.oneof(
    fc.string(),
    fc.array(word).map((words) => words.join(" ")),
  );
  fc.assert(
    fc.property(text, (each) => {
      for (const { level, module } of importsOfText(each))
        if (level === 0 && module === "") throw new Error("of nothing");
    }),
  );
});
