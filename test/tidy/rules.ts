// Rules: the house style that a program can check, each a function from files to complaints, with samples that it must
// complain of. Add a rule only for what was got wrong twice, or must never happen once. Plane: any.

import {
  checkDataPlane,
  checkDead,
  checkExports,
  checkLayers,
  DATA_PLANE,
  isLib,
  REACH,
} from "./layers.ts";
import { checkLinks } from "./links.ts";
import { cFunctionsOf, functionsOf, importsOf, matches, type SourceFile } from "./source.ts";

export interface Rule {
  readonly name: string;
  readonly check: (files: readonly SourceFile[]) => string[];
  /** Each must be complained of: proof that the rule can fail. */
  readonly bad: readonly (readonly SourceFile[])[];
  /** Must pass. */
  readonly good?: readonly SourceFile[];
}

const file = (path: string, ...lines: string[]): SourceFile => ({ path, text: lines.join("\n") });

/** A rule that looks at one file at a time: complaints get the path in front. */
function each(
  applies: (path: string) => boolean,
  check: (file: SourceFile) => string[],
): Rule["check"] {
  return (files) =>
    files
      .filter(({ path }) => applies(path))
      .flatMap((one) => check(one).map((text) => `${one.path}: ${text}`));
}

const isTs = (path: string) => path.endsWith(".ts");
const isC = (path: string) => /^native\/.*\.[ch]$/.test(path);
const isCode = (path: string) => /\.(ts|mjs|js|c|h|sh|py)$/.test(path);

// The public surface.

/** What programs that embed Burrow are promised: a page is made of its doc comments. */
const PUBLIC = /^lib\/(api\/burrow|cli\/run-stats|base\/error)\.ts$/;
/** Exported, or a field of what is. */
const PROMISE =
  /^(export (async )?(function|interface|class|const|type \w+ =)| {2}readonly [\w$]+\??:)/;

function checkPublic({ text }: SourceFile): string[] {
  const lines = text.split("\n");
  let isOpen = true; // in what others see
  return lines.flatMap((line, i) => {
    if (/^(export )?(async )?(function|interface|class|const|type)\b/.test(line))
      isOpen = line.startsWith("export ");
    const isSaid = /\*\/$/.test(lines[i - 1] ?? "");
    return isOpen && PROMISE.test(line) && !isSaid ? [`line ${i + 1}: no doc comment`] : [];
  });
}

// Lengths.

const FILE_LINES_MAX = 600;
/** Past this a file is named in the test's output. */
export const FILE_LINES_WARN = 450;
const FUNCTION_LINES_MAX = 70;
const NATIVE_LINE_MAX = 120;
/**
 * 2,000 was the aim; addon, launcher and stub came to 2,102 with host directories and errors that say why. Since then ingest's codecs
 * and hashes were added, which are a third of its time otherwise: docs/design/0012-sha256-lanes.md; what the daemon's loop has done by
 * threads: docs/design/0013-off-the-loop.md and 0018-hanging-disk.md; what a server gives up on each of its threads, and the calls for
 * it: docs/design/0015-hardening.md; what lets another server go on, and says that it does: docs/design/0016-hot-restart.md; how a stub
 * finds a server that others have, and that server lets go of one of them: docs/design/0025-shared-server.md; a program's start by a
 * thread, in whose place the daemon's loop waited for its exec: docs/design/0006-standby.md; what has a disk take a block before it is
 * given out: docs/design/0037-landed-blocks.md; and threads of our own, since the loop waited for libuv's: docs/design/0042-deadline.md.
 */
const NATIVE_LINES_MAX = 4_020;

export const lineCount = (text: string) => text.split("\n").length - (text.endsWith("\n") ? 1 : 0);

function checkFunctions({ path, text }: SourceFile): string[] {
  const spans = isTs(path) ? functionsOf(text) : cFunctionsOf(text);
  return spans
    .filter(({ lines }) => lines > FUNCTION_LINES_MAX)
    .map(
      ({ line, lines, name }) =>
        `line ${line}: ${lines} lines, at most ${FUNCTION_LINES_MAX}: ${name}`,
    );
}

function checkNativeTotal(files: readonly SourceFile[]): string[] {
  const total = files
    .filter(({ path }) => isC(path))
    .reduce((sum, { text }) => sum + lineCount(text), 0);
  return total <= NATIVE_LINES_MAX
    ? []
    : [`native/: ${total} lines of C, at most ${NATIVE_LINES_MAX}`];
}

// Words. The patterns are written so that they don't match themselves.

const WORDS: readonly (readonly [RegExp, (path: string) => boolean, string])[] = [
  [/(\/\/|\*|#)\s*(TODO|FIXME|XXX)\b(?!.*#\d+)/, isCode, "a note without an issue (#123)"],
  [/@ts-(ignore|nocheck)\b/, isTs, "the type checker silenced"],
  [/\.only\(|\bdebugger;/, isTs, "left over from debugging"],
  [/\b(white|black)list/i, () => true, 'say "allow list", "deny list"'],
  [/\b(strcpy|strcat|vsprintf|gets|system)\(/, isC, "an unbounded or shell call"],
];

function checkWords({ path, text }: SourceFile): string[] {
  return WORDS.flatMap(([pattern, applies, why]) =>
    applies(path) ? matches(text, pattern, why) : [],
  );
}

const PLACES: readonly (readonly [RegExp, string])[] = [
  [/(^|[\s"'`(=:])\/(root|work|home)\/[\w.-]+/, "a path of one machine"],
  [
    /\b(registry\.npmjs|pypi|pythonhosted|crates|proxy\.golang|deb\.debian)\.(org|io)\b/,
    "a registry's host",
  ],
];

// Documents that must keep up.

const textOf = (files: readonly SourceFile[], path: string) =>
  files.find((one) => one.path === path)?.text ?? "";

function checkDependencies(files: readonly SourceFile[]): string[] {
  const text = textOf(files, "package.json");
  if (text === "") return [];
  const { dependencies = {}, devDependencies = {} } = JSON.parse(text) as {
    dependencies?: Record<string, string>;
    devDependencies?: Record<string, string>;
  };
  const doc = textOf(files, "docs/dependencies.md");
  const all = { ...dependencies, ...devDependencies };
  return Object.entries(all).flatMap(([name, version]) => [
    ...(/^\d+\.\d+\.\d+$/.test(version)
      ? []
      : [`package.json: ${name} ${version} is no exact version`]),
    ...(doc.includes(`| \`${name}\``) ? [] : [`docs/dependencies.md: no line for ${name}`]),
  ]);
}

function checkErrors(files: readonly SourceFile[]): string[] {
  const codes = [...textOf(files, "lib/base/error.ts").matchAll(/^ {2}\| "(BURROW_\w+)"/gm)].map(
    (match) => match[1]!,
  );
  const doc = textOf(files, "docs/errors.md");
  const listed = [...doc.matchAll(/^\| `(BURROW_\w+)`/gm)].map((match) => match[1]!);
  // Printed for an error that carries no code: never thrown, so not in the type.
  const known = new Set([...codes, "BURROW_INTERNAL"]);
  return [
    ...codes
      .filter((code) => !listed.includes(code))
      .map((code) => `docs/errors.md: no row for ${code}`),
    ...listed
      .filter((code) => !known.has(code))
      .map((code) => `docs/errors.md: ${code} is no code`),
  ];
}

function checkHeader({ path, text }: SourceFile): string[] {
  const lines = text.split("\n");
  const first = lines[0]!.startsWith("#!") ? (lines[1] ?? "") : lines[0]!;
  const isComment = /^(\/\/|\/\*|#(?!include|define|ifndef|if)|"""|''')/.test(first);
  return isComment || lineCount(text) < 3
    ? []
    : [`line 1 of ${path.split("/").at(-1)} doesn't say what it owns`];
}

const repeated = (count: number, line: string) => Array.from({ length: count }, () => line);
const longFunction = ["function long(): void {", ...repeated(70, "  step();"), "}"];

export const RULES: readonly Rule[] = [
  {
    name: "what the API exports is documented, field by field",
    check: each((path) => PUBLIC.test(path), checkPublic),
    bad: [
      [file("lib/api/burrow.ts", "export function a(): void {}")],
      [file("lib/api/burrow.ts", "/** A. */", "export interface A {", "  readonly b: 1;", "}")],
    ],
    good: [file("lib/api/burrow.ts", "interface A {", "  readonly b: 1;", "}")],
  },
  {
    name: "a folder imports only the folders on its row",
    check: each(isLib, checkLayers),
    bad: [
      [file("lib/base/a.ts", 'import { b } from "../sys/b.ts";')],
      [file("lib/base/a.ts", 'import { readFileSync } from "node:fs";')],
      [file("lib/wire/a.ts", 'import type { B } from "../sys/b.ts";')],
      [file("lib/serve/a.ts", 'import { fetch } from "../cache/fetcher.ts";')],
      [file("lib/gofer/a.ts", 'const b = await import("../cli/b.ts");')],
      [file("lib/serve/lisafs/a.ts", 'import { b } from "../ninep/b.ts";')],
      [file("lib/odd/a.ts", "")],
    ],
    good: [
      file("lib/serve/lisafs/a.ts", 'import type { M } from "../../cache/mailbox.ts";'),
      file("lib/cli/a.ts", 'import { b } from "../daemon/b.ts";', 'import { c } from "./c.ts";'),
    ],
  },
  {
    name: "only sys loads the addon",
    check: each(
      (path) => isLib(path) && path !== "lib/sys/native.ts",
      ({ text }) =>
        matches(text, /\bcreateRequire\b|\bdlopen\b/, "import lib/sys/native.ts instead"),
    ),
    bad: [[file("lib/store/a.ts", 'import { createRequire } from "node:module";')]],
  },
  {
    name: "the data plane is synchronous, silent and returns errnos",
    check: each((path) => DATA_PLANE.test(path), checkDataPlane),
    bad: [
      "async function f() {}",
      "const p = new Promise(f);",
      "class A extends EventEmitter {}",
      "const big = 1n;",
      "const text = JSON.stringify(a);",
      "if (/a+/.test(b)) return;",
      "const r = new RegExp(b);",
      "console.log(a);",
      "throw new Error(a);",
      'import { LRUCache } from "lru-cache";',
    ].map((line) => [file("lib/tree/a.ts", line)]),
    good: [
      file("lib/tree/a.ts", "// throw, await: in a comment", 'const a = "JSON." + b / c / 2;'),
      // biome-ignore lint/suspicious/noTemplateCurlyInString: it is the sample's.
      file("lib/tree/b.ts", "const c = `await ${d / 2} throw`;", "/* async", " console */"),
      file("lib/cache/fetcher.ts", "await fetch(a);"),
    ],
  },
  {
    name: "no network and no programs in the gofer",
    check: each(
      (path) => DATA_PLANE.test(path) || path.startsWith("lib/gofer/"),
      (source) => importsOf(source).filter((name) => REACH.test(name)),
    ),
    bad: [[file("lib/gofer/a.ts", 'import { connect } from "node:net";')]],
  },
  {
    name: "no default exports, no barrels",
    check: each(
      (path) => isTs(path),
      ({ path, text }) => [
        ...matches(text, /^export default\b/, "a default export: name it"),
        ...matches(text, /^export (type )?\* /, "export *: import from where it is"),
        ...(/\/index\.ts$/.test(path) && path !== "lib/layer/index.ts" ? ["a barrel's name"] : []),
      ],
    ),
    bad: [
      [file("lib/tree/a.ts", "export default class A {}")],
      [file("lib/tree/a.ts", 'export * from "./b.ts";')],
      [file("lib/tree/index.ts", "// Nothing.")],
    ],
    good: [file("lib/layer/index.ts", "// Index.")],
  },
  {
    name: "no dead files",
    check: checkDead,
    bad: [
      [file("lib/tree/a.ts", ""), file("test/tree/a.test.ts", 'import "../../lib/tree/a.ts";')],
    ],
    good: [
      file("lib/tree/a.ts", ""),
      file("lib/cli/main.ts", 'import "../tree/a.ts";', 'new URL("./solve.js", import.meta.url);'),
      file("lib/cli/solve.ts", ""),
    ],
  },
  {
    name: "no value is exported that nobody else names",
    check: checkExports,
    bad: [
      [file("lib/tree/a.ts", "export const A = 1;"), file("lib/tree/b.ts", "const B = 1;")],
      [file("lib/tree/a.ts", "export async function a() {}", "a();")],
    ],
    good: [
      file("lib/tree/a.ts", "export const A = 1;", "export interface C {}"),
      file("test/tree/a.test.ts", 'import { A } from "../../lib/tree/a.ts";'),
      file("lib/api/burrow.ts", "export function a() {}"),
    ],
  },
  {
    name: `no file over ${FILE_LINES_MAX} lines`,
    check: each(isCode, ({ text }) =>
      lineCount(text) > FILE_LINES_MAX ? [`${lineCount(text)} lines: split it by noun`] : [],
    ),
    bad: [[file("lib/tree/a.ts", ...repeated(FILE_LINES_MAX + 1, "a();"))]],
  },
  {
    name: `no function over ${FUNCTION_LINES_MAX} lines`,
    check: each((path) => /^(lib|bench)\/.*\.ts$/.test(path) || isC(path), checkFunctions),
    bad: [
      [file("lib/tree/a.ts", ...longFunction)],
      [file("native/a.c", "int f(void) {", ...repeated(70, "  b();"), "}")],
      [file("lib/tree/a.ts", "const f = (a) => {", ...repeated(70, "  b();"), "};")],
    ],
    good: [file("lib/tree/a.ts", "class A {", ...repeated(100, "  readonly a = 1;"), "}")],
  },
  {
    name: `C: no line over ${NATIVE_LINE_MAX} columns`,
    check: each(isC, ({ text }) =>
      matches(text, new RegExp(`^.{${NATIVE_LINE_MAX + 1}}`), "too long"),
    ),
    bad: [[file("native/a.c", "x".repeat(NATIVE_LINE_MAX + 1))]],
  },
  {
    name: `C: no more than ${NATIVE_LINES_MAX} lines in all`,
    check: checkNativeTotal,
    bad: [[file("native/a.c", ...repeated(NATIVE_LINES_MAX, "a;")), file("native/b.h", "b;")]],
  },
  {
    name: "words",
    check: each((path) => isCode(path) && !path.startsWith("test/tidy/"), checkWords),
    bad: [
      [file("lib/tree/a.ts", "// TODO: later")],
      [file("lib/tree/a.ts", "// @ts-ignore")],
      [file("test/a.test.ts", "t.only('a');")],
      [file("native/a.c", "strcpy(a, b);")],
      [file("lib/tree/a.ts", "const whitelist = 1;")],
    ],
    good: [file("lib/tree/a.ts", "// TODO(#12): when the kernel can.")],
  },
  {
    name: "no paths of one machine, no registry hosts",
    check: each(
      (path) => !path.startsWith("test/tidy/"),
      ({ text }) => PLACES.flatMap(([pattern, why]) => matches(text, pattern, why)),
    ),
    bad: [
      [file("docs/a.md", "see /home/ann/notes")],
      [file("package-lock.json", `"resolved": "https://registry.${"npmjs"}.org/tap"`)],
    ],
    good: [file("lib/cli/a.ts", 'const env = { HOME: "/root" };')],
  },
  {
    name: "each file says first what it owns",
    check: each((path) => isCode(path) && !path.startsWith("fixtures/packages/"), checkHeader),
    bad: [[file("lib/tree/a.ts", 'import { b } from "./b.ts";', "", "b();")]],
    good: [file("test/gate.sh", "#!/bin/sh", "# The gate.", "exit 0")],
  },
  {
    name: "each dependency has an exact version and a line in docs/dependencies.md",
    check: checkDependencies,
    bad: [
      [file("package.json", '{ "dependencies": { "left-pad": "1.0.0" } }')],
      [
        file("package.json", '{ "devDependencies": { "left-pad": "^1.0.0" } }'),
        file("docs/dependencies.md", "| `left-pad` | pads |"),
      ],
    ],
  },
  {
    name: "docs/errors.md lists the codes of lib/base/error.ts",
    check: checkErrors,
    bad: [
      [file("lib/base/error.ts", '  | "BURROW_ODD"')],
      [file("docs/errors.md", "| `BURROW_GONE` | was |")],
    ],
  },
  {
    name: "links of the documentation lead somewhere",
    check: checkLinks,
    bad: [
      [file("docs/a.md", "[b](b.md)")],
      [file("docs/a.md", "[b](b.md#c-d)"), file("docs/b.md", "## C: d e")],
      [file("docs/a.md", "[b](#c)", "```", "# c", "```")],
    ],
    good: [
      file(
        "docs/a.md",
        "# A",
        "[b](b/c.md#d-e-1) [it](#a) [all](b/) [else](https://x.org/#y) `[no](x.md)`",
      ),
      file("docs/b/c.md", "## D, `e`", "## D (e)"),
    ],
  },
  {
    name: "each decision says on its third line where it stands",
    check: each(
      (path) => path.startsWith("docs/design/"),
      ({ text }) => (/^# .*\n\nStatus: ./.test(text) ? [] : ["no Status: below the title"]),
    ),
    bad: [[file("docs/design/0001-a.md", "# 0001: a", "", "## Context")]],
    good: [file("docs/design/0001-a.md", "# 0001: a", "", "Status: accepted.")],
  },
];
