// Owns: what a conda package becomes: paths, modes, links, patched files, noarch layout, entry points and the record.
// Plane: control.

import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import t from "tap";
import { IndexKind } from "../../../lib/layer/format.ts";
import { writeIndex } from "../../../lib/layer/writer.ts";
import {
  bz2,
  conda,
  failureOf,
  imported,
  infoOf,
  type Member,
  PLACEHOLDER,
  PREFIX,
  pathsOf,
  type Spec,
  tarBz2,
  tarOf,
  zipOf,
  zst,
} from "./packages.ts";

const binary = `ELF\0${PLACEHOLDER}/lib\0end`;
const files: Member[] = [
  { name: "bin/tool", content: `#!${PLACEHOLDER}/bin/python\nprint(1)\n`, mode: 0o775 },
  { name: "bin/link", type: "symlink", target: "tool" },
  { name: "lib/libx.so", content: binary, mode: 0o4755, mtimeSec: 1_500_000_000 },
  { name: "lib/libx-2.so", type: "link", target: "lib/libx.so" },
  { name: "share/empty", content: "" },
  { name: "share/read-only", content: "r", mode: 0o444 },
];
const spec: Spec = {
  files,
  placeholders: { "bin/tool": "text", "lib/libx.so": "binary", "lib/libx-2.so": "binary" },
  index: { depends: ["python >=3.11"], license: "MIT", build_number: 3 },
};

t.test("a package becomes what conda would link, from either format", async (t) => {
  const results = await Promise.all(
    [conda(spec), tarBz2(spec)].map(async (b) => imported(await b)),
  );
  for (const { at, text, entries, warnings } of results) {
    t.same(
      entries.map(({ path }) => path).sort(),
      [...files.map(({ name }) => name), "conda-meta/demo-1.0-h0_0.json"].sort(),
    );
    t.equal(text("bin/tool"), `#!${PREFIX}/bin/python\nprint(1)\n`);
    t.equal(
      text("lib/libx.so"),
      `ELF\0${PREFIX}/lib${"\0".repeat(PLACEHOLDER.length - PREFIX.length)}\0end`,
    );
    t.match(at("bin/link"), { type: "symlink", target: "tool", mode: 0o777 });
    t.equal(at("bin/tool")!.mode, 0o775);
    t.equal(at("lib/libx.so")!.mode, 0o755, "no set-id bits");
    t.match(at("lib/libx.so"), { uid: 0, gid: 0, mtimeSec: 1_500_000_000, mtimeNs: 0 });
    t.equal(at("share/read-only")!.mode, 0o444);
    t.equal(text("share/empty"), "");
    const [one, two] = [at("lib/libx.so"), at("lib/libx-2.so")];
    t.ok(one?.type === "file" && two?.type === "file");
    if (one?.type === "file" && two?.type === "file") {
      t.ok(one.linkGroup, "hard links stay one file");
      t.equal(one.linkGroup, two.linkGroup);
    }
    t.same(warnings, []);
    t.ok(writeIndex(IndexKind.layer, entries).length > 0, "an index takes it");
  }
});

t.test("a placeholder across the border of blocks is replaced like any other", async (t) => {
  const bytes = Buffer.alloc(2 * 1024 * 1024 + 77, "x");
  // Across what is read, hashed, cut into blocks and gathered: at each border another part of it on either side.
  for (const [i, border] of [2 ** 16, 2 ** 18, 2 ** 19, 2 ** 20, 2 ** 20 + 2 ** 18].entries())
    bytes.write(`${PLACEHOLDER}/lib/${PLACEHOLDER}\0`, border - 1 - i * 60, "latin1");
  const large = { files: [{ name: "lib/large.so", content: bytes }] };
  const { text } = await imported(
    await conda({ ...large, placeholders: { "lib/large.so": "binary" } }),
  );
  const expected = bytes
    .toString("latin1")
    .replaceAll(`${PLACEHOLDER}/lib/${PLACEHOLDER}\0`, (found) =>
      `${PREFIX}/lib/${PREFIX}`.padEnd(found.length, "\0"),
    );
  t.ok(text("lib/large.so") === expected);
});

t.test("the record is what conda-meta holds, and holds no times", async (t) => {
  const bytes = await conda(spec);
  const sha256 = createHash("sha256").update(bytes).digest("hex");
  const url = "https://user:secret@host/t/token/channel/linux-64/demo-1.0-h0_0.conda?x=1";
  const { record, text, at } = await imported(bytes, { url });
  t.same(JSON.parse(text("conda-meta/demo-1.0-h0_0.json")!), record);
  t.match(record, {
    name: "demo",
    version: "1.0",
    build: "h0_0",
    build_number: 3,
    channel: "https://host/channel",
    url: "https://host/channel/linux-64/demo-1.0-h0_0.conda",
    subdir: "linux-64",
    fn: "demo-1.0-h0_0.conda",
    sha256,
    size: bytes.length,
    depends: ["python >=3.11"],
    constrains: [],
    license: "MIT",
    files: files.map(({ name }) => name),
    link: { type: 1 },
  });
  const library = at("lib/libx.so");
  const path = record.paths_data.paths.find(({ _path }) => _path === "lib/libx.so");
  t.same(path, {
    _path: "lib/libx.so",
    path_type: "hardlink",
    sha256: createHash("sha256").update(binary).digest("hex"),
    sha256_in_prefix: library?.type === "file" ? library.blob.digest : "",
    size_in_bytes: binary.length,
    prefix_placeholder: PLACEHOLDER,
    file_mode: "binary",
  });
  const again = await imported(bytes, { url });
  t.same(again.entries, (await imported(bytes, { url })).entries, "the same each time");
});

t.test("only what is listed is linked; the rest is counted", async (t) => {
  const paths = [...pathsOf(spec).slice(0, 2), { _path: "var/empty", path_type: "directory" }];
  const more: Member = { name: "var/cache/", type: "directory" };
  const { entries, at, warnings } = await imported(
    await conda({ ...spec, paths, files: [...files, more] }),
  );
  t.same(entries.map(({ path }) => path).sort(), [
    "bin/link",
    "bin/tool",
    "conda-meta/demo-1.0-h0_0.json",
    "var/empty",
  ]);
  t.match(at("var/empty"), { type: "directory", mode: 0o755 });
  t.same(warnings, ["files in the archive that are not in its list: 4"]);
  const script = { name: "bin/.demo-post-link.sh", content: "exit 1" };
  const scripted = await imported(await conda({ files: [script] }));
  t.same(scripted.warnings, ["bin/.demo-post-link.sh is not run"]);
});

t.test("a hard link needs its target's fate", async (t) => {
  const text = await failureOf(
    imported(await conda({ ...spec, placeholders: { "lib/libx.so": "binary" } })),
  );
  t.match(text, /BURROW_BAD_PACKAGE\nit is a hard link to a file with another placeholder/);
  const paths = pathsOf(spec).filter(({ _path }) => _path !== "lib/libx.so");
  t.match(await failureOf(imported(await conda({ ...spec, paths }))), /its list doesn't have/);
  const links: Member[] = [
    { name: "a", type: "symlink", target: "x" },
    { name: "b", type: "link", target: "a" },
  ];
  const listed = ["a", "b"].map((_path) => ({ _path, path_type: "softlink" }));
  const { at } = await imported(await conda({ files: links, paths: listed }));
  t.match(at("b"), { type: "symlink", target: "x" }, "one to a symlink is a copy of it");
});

t.test("a prefix too long names the file", async (t) => {
  const text = await failureOf(imported(await conda(spec), { prefix: `/${"x".repeat(230)}` }));
  t.match(text, /^BURROW_PREFIX_TOO_LONG.*package: demo-1.0-h0_0.conda\nfile: lib\/libx.so/s);
});

t.test("packages from before paths.json", async (t) => {
  const listed = files.map(({ name }) => name).join("\n");
  const hasPrefix = [
    `${PLACEHOLDER} binary lib/libx.so`,
    `"${PLACEHOLDER}" binary "lib/libx-2.so"`,
    "share/old",
  ].join("\n");
  const old: Member = { name: "share/old", content: "x=/opt/anaconda1anaconda2anaconda3/y" };
  const info: Member[] = [
    { name: "info/files", content: `${listed}\nshare/old\n` },
    { name: "info/has_prefix", content: `${hasPrefix}\n` },
  ];
  const { text, record } = await imported(
    await tarBz2({ files: [...files, old], paths: null, info }),
  );
  t.equal(text("share/old"), `x=${PREFIX}/y`);
  t.match(text("lib/libx.so"), /^ELF\0\/opt\/env\/lib\0/);
  t.match(text("bin/tool"), PLACEHOLDER, "not in has_prefix");
  t.equal(record.files.length, files.length + 1);
});

t.test("metadata behind the files is heeded all the same", async (t) => {
  for (const order of [
    [...files, ...infoOf(spec)],
    [infoOf(spec)[0]!, ...files, infoOf(spec)[1]!],
  ]) {
    const { text, entries } = await imported(bz2(await tarOf(order)));
    t.equal(text("bin/tool"), `#!${PREFIX}/bin/python\nprint(1)\n`);
    t.equal(entries.length, files.length + 1);
  }
});

t.test("zips of any make", async (t) => {
  const info = zst(await tarOf(infoOf(spec)));
  const pkg = zst(await tarOf(files.map((file) => ({ ...file, name: `./${file.name}` }))));
  for (const isDeflated of [false, true]) {
    for (const hasDescriptor of [false, true]) {
      const options = { isDeflated, hasDescriptor };
      const zip = zipOf([
        { name: "demo/pkg-demo-1.0-h0_0.tar.zst", content: pkg, ...options },
        { name: "demo/README", content: Buffer.from("x"), ...options },
        { name: "demo/info-demo-1.0-h0_0.tar.zst", content: info, ...options },
      ]);
      const { entries } = await imported(zip);
      t.equal(entries.length, files.length + 1, JSON.stringify(options));
    }
  }
});

const noarch: Spec = {
  index: { noarch: "python", subdir: "noarch" },
  files: [
    { name: "site-packages/demo/__init__.py", content: "" },
    { name: "python-scripts/old", content: `#!${PLACEHOLDER}/bin/python\n`, mode: 0o755 },
    { name: "etc/demo.conf", content: "c" },
  ],
  placeholders: { "python-scripts/old": "text" },
  info: [
    {
      name: "info/link.json",
      content: JSON.stringify({
        noarch: { type: "python", entry_points: ["demo = demo.cli:App.main", "other=demo:f"] },
        package_metadata_version: 1,
      }),
    },
  ],
};

t.test("noarch: python is laid out for the environment's Python", async (t) => {
  const bytes = await conda(noarch);
  const { entries, at, text, record } = await imported(bytes, { pythonVersion: "3.11.2" });
  t.same(entries.map(({ path }) => path).sort(), [
    "bin/demo",
    "bin/old",
    "bin/other",
    "conda-meta/demo-1.0-h0_0.json",
    "etc/demo.conf",
    "lib/python3.11/site-packages/demo/__init__.py",
  ]);
  t.equal(at("bin/demo")!.mode, 0o755);
  t.match(text("bin/demo"), /^#!\/opt\/env\/bin\/python3\.11\n/);
  t.match(text("bin/demo"), /^from demo\.cli import App$.*sys\.exit\(App\.main\(\)\)/ms);
  t.match(record.files, ["lib/python3.11/site-packages/demo/__init__.py", "bin/old"]);
  t.match(record.paths_data.paths.at(-1), {
    _path: "bin/other",
    path_type: "unix_python_entry_point",
  });
  const long = await imported(bytes, { pythonVersion: "3.12", prefix: `/${"x".repeat(130)}` });
  t.match(
    long.text("bin/demo"),
    /^#!\/bin\/sh\n'''exec' "\/x{130}\/bin\/python3\.12" "\$0" "\$@" #'''\n/,
  );
  t.equal(long.text("bin/old"), "#!/usr/bin/env python\n");
  const free = await imported(bytes, {
    pythonVersion: "3.13",
    sitePackages: "lib/python3.13t/site-packages",
  });
  t.ok(free.at("lib/python3.13t/site-packages/demo/__init__.py"));
});

t.test("an entry point starts its Python below any prefix", async (t) => {
  const folder = mkdtempSync(join(tmpdir(), "burrow-entry-point-"));
  t.teardown(() => rmSync(folder, { recursive: true }));
  mkdirSync(join(folder, "demo"));
  writeFileSync(join(folder, "demo/__init__.py"), "");
  const main = "import sys\nclass App:\n  main = lambda: print(sys.executable, sys.argv[1:])\n";
  writeFileSync(join(folder, "demo/cli.py"), main);
  const python = spawnSync("python3", ["-c", "import sys; print(sys.executable, end='')"]);
  const env = { PATH: process.env["PATH"], PYTHONPATH: folder, PYTHONWARNINGS: "error" };
  const bytes = await conda(noarch);
  const names = ["a b", 'say "a"', "$HOME a", "`id` a", "\\u a\\", "it's a", "''' a'''"];
  for (const name of [...names, "#\"$'\\` a"]) {
    const prefix = join(folder, name);
    mkdirSync(join(prefix, "bin"), { recursive: true });
    symlinkSync(python.stdout.toString(), join(prefix, "bin/python3.11"));
    const { text } = await imported(bytes, { pythonVersion: "3.11", prefix });
    const program = join(prefix, "bin/demo");
    writeFileSync(program, text("bin/demo")!, { mode: 0o755 });
    t.match(text("bin/demo"), /^#!\/bin\/sh\n/, name);
    const { stdout, stderr } = spawnSync(program, ["x y"], { env, encoding: "utf8" });
    t.equal(`${stdout}${stderr}`, `${prefix}/bin/python3.11 ['x y']\n`, name);
  }
});

t.test("noarch: generic stays as it is, and needs no Python", async (t) => {
  for (const value of ["generic", true]) {
    const bytes = await conda({ ...noarch, index: { noarch: value, subdir: "noarch" }, info: [] });
    const { at } = await imported(bytes);
    t.ok(at("site-packages/demo/__init__.py"));
  }
});

t.test("files stream into the sink; the patched ones alone are held", async (t) => {
  const content = Buffer.alloc(3 << 20, "large");
  const streamed: number[] = [];
  const { entries } = await imported(await conda({ files: [{ name: "large", content }] }), {
    sink: {
      async addBytes(bytes) {
        const digest = createHash("sha256").update(bytes).digest("hex");
        return { digest, size: bytes.length, blocks: [] } as never;
      },
      async addStream(chunks, hint) {
        const hash = createHash("sha256");
        let size = 0;
        for await (const chunk of chunks) {
          hash.update(chunk);
          size += chunk.length;
        }
        streamed.push(hint);
        return { digest: hash.digest("hex"), size, blocks: [] } as never;
      },
    },
  });
  t.same(streamed, [content.length]);
  t.equal(entries.length, 2);
});
