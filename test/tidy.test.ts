// Owns: the house style as a test: every rule of tidy/rules.ts over the project's files, and a proof that each can fail.
// Plane: any.

import { resolve } from "node:path";
import t from "tap";
import { FILE_LINES_WARN, lineCount, RULES } from "./tidy/rules.ts";
import { codeOf, functionsOf, importsOf, readProject } from "./tidy/source.ts";

const files = readProject(resolve(import.meta.dirname, "../.."));

t.test("the project keeps the rules", async (t) => {
  t.ok(files.length > 100, "the project was read");
  for (const { name, check } of RULES) t.same(check(files), [], name);
});

t.test("each rule complains of what breaks it, and of nothing else", async (t) => {
  for (const { name, check, bad, good } of RULES) {
    for (const [i, sample] of bad.entries()) t.not(check(sample).length, 0, `${name}: bad ${i}`);
    if (good !== undefined) t.same(check(good), [], `${name}: good`);
  }
});

t.test("code is told from comments and strings", async (t) => {
  t.equal(codeOf('a("b // c"); // d'), 'a(""); ');
  t.equal(codeOf("a /* b\nc */ d"), "a \n d");
  // biome-ignore lint/suspicious/noTemplateCurlyInString: it is the text under test.
  t.equal(codeOf('`a${b("c")}d` + e'), '`${b("")}` + e');
  // biome-ignore lint/suspicious/noTemplateCurlyInString: it is the text under test.
  t.equal(codeOf("`a${{ b: `c` }.b}d`"), "`${{ b: `` }.b}`");
  t.equal(codeOf("'\\'' + b"), "'' + b");
});

t.test("imports and functions are found", async (t) => {
  const text = ["import {", "  a,", '} from "../b.ts";', 'import type { C } from "node:c";'].join(
    "\n",
  );
  t.same(importsOf({ path: "lib/x/y.ts", text }), ["lib/b.ts", "node:c"]);
  const body = ["class A {", "  b(c: D): E {", "    if (c) {", "    }", "  }", "}"].join("\n");
  t.same(functionsOf(body), [{ line: 2, lines: 4, name: "b(c: D): E {" }]);
});

const long = files.filter(
  ({ path, text }) => /\.(ts|c|h)$/.test(path) && lineCount(text) > FILE_LINES_WARN,
);
for (const { path, text } of long) {
  t.comment(`${path}: ${lineCount(text)} lines; aim for ${FILE_LINES_WARN}`);
}
