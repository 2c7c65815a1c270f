// Owns: proof that a wheel becomes what pip makes of it, and which wheels are refused before anything is kept. Plane: control.

import { spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import t from "tap";
import { checkTags, wheelName } from "../../../lib/ingest/wheel/tags.ts";
import { keeper } from "../archives.ts";
import { failureOf, zipOf } from "../conda/packages.ts";
import {
  fileOf,
  imported,
  NAME,
  rowOf,
  type WheelFile,
  type WheelSpec,
  wheelOf,
} from "./wheels.ts";

const DATA = "demo_pkg-1.0.data";
const SITE = "lib/python3.11/site-packages";
const INFO = `${SITE}/demo_pkg-1.0.dist-info`;
const RICH: WheelSpec = {
  files: [
    { name: "demo/", content: "" },
    { name: "demo/__init__.py", content: "def main():\n    print('hello')\n" },
    { name: "demo/Readme", content: "upper" },
    { name: "demo/readme", content: "lower: another file on Linux" },
    { name: 'demo/a, "b".txt', content: "quoted in RECORD" },
    { name: "demo/ümlaut.txt", content: "not ASCII" },
    { name: "demo/tool.so", content: Buffer.alloc(3_000_000, 7), isExecutable: true },
    { name: `${DATA}/purelib/pure.py`, content: "" },
    { name: `${DATA}/platlib/plat.py`, content: "x = 1\n" },
    { name: `${DATA}/headers/demo.h`, content: "#define DEMO\n" },
    { name: `${DATA}/data/share/demo/x.txt`, content: "x" },
    { name: `${DATA}/scripts/py-tool`, content: "#!python -E\nprint(1)\n", isExecutable: true },
    { name: `${DATA}/scripts/pyw-tool`, content: "#!pythonw\nprint(1)\n" },
    { name: `${DATA}/scripts/sh-tool`, content: "#!/bin/sh\n", isExecutable: true },
    { name: `${DATA}/scripts/demo-script.py`, content: "#!python\n" },
  ],
  entryPoints: `# programs
[console_scripts]
demo = demo:main
deep = demo.sub:Class.run [extra]

[gui_scripts]
demo-gui = demo:main
[other]
x = y
`,
};

t.test("files, schemes, scripts and entry points come to their places", async (t) => {
  const { files, entries, project, version } = await imported(fileOf(wheelOf(RICH)));
  t.same([project, version], ["demo_pkg", "1.0"]);
  t.equal(entries.length, files.size, "nothing but files");
  const text = (path: string) => files.get(path)?.content.toString("utf8");
  t.equal(text("bin/py-tool"), "#!/opt/env/bin/python3.11\nprint(1)\n");
  t.equal(files.get("bin/py-tool")?.mode, 0o755);
  t.equal(files.get("bin/pyw-tool")?.mode, 0o644, "not executable in the zip: nor here");
  t.equal(text("bin/sh-tool"), "#!/bin/sh\n");
  t.match(text("bin/demo"), /^#!\/opt\/env\/bin\/python3\.11\n[\s\S]*from demo import main\n/);
  t.match(text("bin/deep"), /from demo\.sub import Class\n[\s\S]*sys\.exit\(Class\.run\(\)\)/);
  t.ok(files.has("bin/demo-gui"));
  t.notOk(files.has("bin/demo-script.py"), "what another installer made of an entry point");
  t.equal(text(`${SITE}/demo/readme`)?.slice(0, 5), "lower");
  t.equal(text(`${SITE}/demo/Readme`), "upper");
  t.equal(text("share/demo/x.txt"), "x");
  t.ok(files.has("include/python3.11/demo-pkg/demo.h"));
  t.equal(text(`${INFO}/INSTALLER`), "burrow\n");
  const rows = text(`${INFO}/RECORD`)!.split("\r\n");
  t.ok(rows.includes(rowOf("../../../bin/py-tool", text("bin/py-tool")!)), "of what is there");
  t.ok(rows.includes("demo_pkg-1.0.dist-info/RECORD,,"));
});

t.test("a long prefix, a Python elsewhere, and another place for packages", async (t) => {
  const path = fileOf(wheelOf(RICH));
  const long = await imported(path, { prefix: `/opt/${"x".repeat(120)}` });
  t.match(
    long.files.get("bin/demo")?.content.toString(),
    /^#!\/bin\/sh\n'''exec' \/opt\/x+\/bin\/python3\.11 "\$0" "\$@"\n' '''\n# -\*-/,
  );
  const other = await imported(path, {
    executable: "/usr/bin/python3",
    sitePackages: "lib/python3.11/dist-packages",
  });
  t.match(other.files.get("bin/demo")?.content.toString(), /^#!\/usr\/bin\/python3\n/);
  t.ok(other.files.has("lib/python3.11/dist-packages/demo/__init__.py"));
});

/** Files of a tree by path, with mode and content. */
function treeOf(dir: string): Map<string, { mode: number; content: Buffer }> {
  const names = readdirSync(dir, { recursive: true, withFileTypes: true });
  return new Map(
    names
      .filter((each) => each.isFile())
      .map((each) => {
        const path = join(each.parentPath ?? each.path, each.name);
        const latin1 = Buffer.from(relative(dir, path)).toString("latin1");
        return [latin1, { mode: statSync(path).mode & 0o7777, content: readFileSync(path) }];
      }),
  );
}

/** Only an installer's own names: who it is, and what was asked of it. */
const OWN = /\/(INSTALLER|REQUESTED|direct_url\.json)$/;

t.test("file by file, it is what pip makes", async (t) => {
  const probe = spawnSync("python3", ["-m", "pip", "--version"], { encoding: "utf8" });
  const match = /^pip (\d+)\..*\(python (\d+\.\d+)\)/.exec(probe.stdout ?? "");
  if (probe.status !== 0 || match === null) {
    t.comment("skipped: python3 -m pip isn't here");
    t.end();
    return;
  }
  const [, major, version] = match as unknown as [string, string, string];
  const executable = spawnSync("python3", ["-c", "import sys; print(sys.executable)"], {
    encoding: "utf8",
  }).stdout.trim();
  const prefix = mkdtempSync(join(tmpdir(), "burrow-pip-"));
  t.teardown(() => rmSync(prefix, { recursive: true, force: true }));
  const path = fileOf(wheelOf(RICH));
  const words = ["-m", "pip", "install", "--no-deps", "--no-compile", "--no-index", "--quiet"];
  const options = ["--ignore-installed", "--no-warn-script-location", "--prefix", prefix, path];
  const pip = spawnSync("python3", [...words, ...options], { encoding: "utf8" });
  t.equal(pip.status, 0, pip.stderr);
  const theirs = treeOf(prefix);
  const info = [...theirs.keys()].find((name) => name.endsWith(".dist-info/WHEEL"))!;
  const site = info.split("/").slice(0, -2).join("/");
  const layout = { pythonVersion: version, executable, sitePackages: site };
  const { files } = await imported(path, { prefix, ...layout });
  const names = (all: Iterable<string>) => [...all].filter((name) => !OWN.test(name)).sort();
  t.same(names(files.keys()), names(theirs.keys()));
  for (const name of names(theirs.keys())) {
    const [own, their] = [files.get(name), theirs.get(name)!];
    t.equal(own?.mode, their.mode, name);
    // pip 25 has another text for programs of entry points.
    if (/^bin\/(demo|deep)/.test(name) && Number(major) >= 25) continue;
    const rows = ({ content }: { content: Buffer }) =>
      content
        .toString("utf8")
        .split("\n")
        .filter((row) => !OWN.test(row.split(",")[0]!));
    if (name.endsWith("/RECORD")) t.same(rows(own!), rows(their), name);
    else t.ok(own?.content.equals(their.content), name);
  }
});

t.test("tags decide which Python and platform a wheel is for", (t) => {
  const check = (tags: string, version = "3.11") => {
    const name = `x-1-${tags}.whl`;
    const python = { version, sitePackages: "" };
    return failureOf(Promise.resolve().then(() => checkTags(name, wheelName(name), python)));
  };
  const good = [
    "py3-none-any",
    "py2.py3-none-any",
    "py311-none-any",
    "py37-none-any",
    "cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64",
    "cp36-abi3-manylinux1_x86_64",
    "cp311-none-linux_x86_64",
    "cp39.cp310.cp311-abi3-manylinux_2_28_x86_64",
  ];
  const bad: [string, RegExp][] = [
    ["py2-none-any", /^BURROW_UNSUPPORTED\nit is for py2-none, not for CPython 3\.11/],
    ["cp312-cp312-manylinux_2_17_x86_64", /CPython 3\.11; --python names another/],
    ["cp312-abi3-manylinux_2_17_x86_64", /not for CPython 3\.11/],
    ["py312-none-any", /not for CPython 3\.11/],
    ["cp311-cp311t-manylinux_2_17_x86_64", /not for CPython 3\.11/],
    ["pp311-pypy311_pp73-manylinux_2_17_x86_64", /not for CPython/],
    ["cp311-cp311-macosx_11_0_arm64", /not for x86-64 Linux with glibc/],
    ["cp311-cp311-musllinux_1_1_x86_64", /not for x86-64 Linux with glibc/],
    ["cp311-cp311-manylinux_2_17_aarch64", /not for x86-64 Linux/],
    ["cp311-cp311-win_amd64", /not for x86-64 Linux/],
  ];
  return Promise.all([
    ...good.map(async (tags) => t.equal(await check(tags), "no error", tags)),
    ...bad.map(async ([tags, pattern]) => t.match(await check(tags), pattern, tags)),
    check("cp37-cp37m-manylinux1_x86_64", "3.7").then((text) => t.equal(text, "no error")),
    ...["x.whl", "x-1.whl", "x-1-py3-none.whl", "x-1-py3-none-any.zip"].map(async (name) => {
      const text = await failureOf(Promise.resolve().then(() => wheelName(name)));
      t.match(text, /^BURROW_BAD_PACKAGE\nits name is no wheel's/, name);
    }),
  ]);
});

const file: WheelFile = { name: "demo.py", content: "x" };
const without = (name: string) => (rows: string[]) => rows.filter((row) => !row.startsWith(name));
const as = (from: string, to: string) => (rows: string[]) =>
  rows.map((row) => row.replace(from, to));

t.test("wheels that lie are refused by name, before anything is kept", async (t) => {
  const cases: [string, WheelSpec, RegExp][] = [
    [
      "a file that RECORD lacks",
      { record: without("demo.py") },
      /not in RECORD\n.*\nfile: demo\.py/,
    ],
    [
      "a file that is missing",
      { record: (rows) => [...rows, "no.py,,"] },
      /not in the wheel.*no\.py/s,
    ],
    ["no hash", { record: as(rowOf("demo.py", "x"), "demo.py,,") }, /no sha256 or better/],
    ["md5", { record: as("sha256=", "md5=") }, /no sha256 or better/],
    ["a row twice", { record: (rows) => [rows[0]!, ...rows] }, /lists demo\.py twice/],
    ["a row of four", { record: as("demo.py,", "demo.py,,,") }, /no row of path/],
    ["an open quote", { record: as("demo.py", '"demo.py') }, /no row of path/],
    ["another project", { project: "other" }, /another project's/],
    ["no format", { wheelText: "Tag: py3-none-any\n" }, /no Wheel-Version/],
    ["..", { files: [{ name: "../x", content: "" }] }, /invalid relative path|"\.\."/],
    ["absolute", { files: [{ name: "/etc/x", content: "" }] }, /absolute/],
    ["NUL", { files: [{ name: "a\0b", content: "" }] }, /not allowed/],
    [
      ".. in data",
      { files: [{ name: `${DATA}/data/../../x`, content: "" }] },
      /relative path|"\.\."/,
    ],
    ["no scheme", { files: [{ name: `${DATA}/etc/x`, content: "" }] }, /no such scheme/],
    ["a symlink", { files: [{ ...file, mode: 0o120777 }] }, /no plain file/],
    ["a device", { files: [{ ...file, mode: 0o020666 }] }, /no plain file/],
    ["twice", { files: [file, file], record: (rows) => rows.slice(1) }, /comes twice/],
    ["entry point out", { entryPoints: "[console_scripts]\n../x = a:b\n" }, /not allowed/],
    ["entry point code", { entryPoints: "[console_scripts]\nx = a:b;c\n" }, /not allowed/],
    ["entry point, no call", { entryPoints: "[gui_scripts]\nx = a\n" }, /not allowed/],
  ];
  for (const [what, spec, pattern] of cases) {
    const sink = keeper();
    const text = await failureOf(imported(fileOf(wheelOf({ files: [file], ...spec })), { sink }));
    t.match(text, /^BURROW_BAD_(ARCHIVE|PACKAGE)\n/, `${what}: ${text}`);
    t.match(text, pattern, what);
    t.match(text, NAME, what);
    t.equal(sink.kept.size, 0, `${what}: nothing was kept`);
  }
});

t.test("bytes that aren't those of RECORD are refused", async (t) => {
  const wrongHash = as(rowOf("demo.py", "x"), rowOf("demo.py", "y"));
  const hash = await failureOf(imported(fileOf(wheelOf({ files: [file], record: wrongHash }))));
  t.match(hash, /^BURROW_BAD_PACKAGE\nits sha256 is not that in RECORD\n.*\nfile: demo\.py$/);
  const wrongSize = (rows: string[]) => [rows[0]!.replace(/,1$/, ",2"), ...rows.slice(1)];
  const size = await failureOf(imported(fileOf(wheelOf({ files: [file], record: wrongSize }))));
  t.match(size, /^BURROW_BAD_PACKAGE\nit has 1 bytes, and 2 in RECORD/);
  const clash = [file, { name: `${DATA}/purelib/demo.py`, content: "other" }];
  t.match(await failureOf(imported(fileOf(wheelOf({ files: clash })))), /twice, with different/);
  const below = [file, { name: `${DATA}/purelib/demo.py/x`, content: "" }];
  t.match(await failureOf(imported(fileOf(wheelOf({ files: below })))), /below a file/);
});

t.test("bombs, cut zips and absurd counts are refused", async (t) => {
  const sink = keeper();
  const refused = async (bytes: Buffer, pattern: RegExp, limits = {}) => {
    const text = await failureOf(imported(fileOf(bytes), { sink, limits }));
    t.match(text, /^BURROW_BAD_(ARCHIVE|PACKAGE)\n/, text);
    t.match(text, pattern);
  };
  const whole = wheelOf({ files: [{ name: "zeros", content: Buffer.alloc(1 << 20) }] });
  await refused(whole, /claims over 1000000 bytes/, { maxBytes: 1_000_000 });
  await refused(whole, /over 3 entries/, { maxEntries: 3 });
  for (const length of [0, 10, 200, whole.length - 30, whole.length - 1]) {
    await refused(whole.subarray(0, length), /cut or corrupt/);
  }
  // The second member's local header becomes the first's: both would read the same bytes.
  const shared = zipOf([
    { name: "a.py", content: Buffer.from("same") },
    { name: "b.py", content: Buffer.from("same") },
  ]);
  const at = shared.lastIndexOf("PK\x01\x02", undefined, "latin1");
  shared.writeUInt32LE(0, at + 42);
  await refused(shared, /shares bytes with another member/);
  // A claim of less than deflate makes of it, and of more.
  for (const claim of [10, 1 << 21]) {
    const lying = Buffer.from(whole);
    lying.writeUInt32LE(claim, lying.indexOf("PK\x01\x02", undefined, "latin1") + 24);
    await refused(lying, /cut or corrupt|in fact|RECORD/);
  }
  await refused(zipOf([{ name: "x", content: Buffer.from("x") }]), /0 \.dist-info directories/);
  const flipped = Buffer.from(whole);
  flipped[60]! ^= 0xff;
  await refused(flipped, /cut or corrupt|checksum|RECORD/);
  t.equal(sink.kept.size, 0, "nothing was kept");
});

t.test("a newer format is told apart from a broken one", async (t) => {
  const spec = { wheelText: "Wheel-Version: 2.0\n" };
  t.match(
    await failureOf(imported(fileOf(wheelOf(spec)))),
    /^BURROW_UNSUPPORTED\nwheel format 2\.0/,
  );
  t.match(await failureOf(imported("/nowhere/demo-1-py3-none-any.whl")), /^BURROW_NOT_FOUND/);
});
