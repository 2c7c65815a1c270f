// Owns: conda packages that must be refused, and by what error: archives that are no plain tree, cut or lying; metadata that the
// bytes contradict; hashes that are not the lock's. Plane: control.

import t from "tap";
import { readCondaArchive } from "../../../lib/ingest/conda/archive.ts";
import { importCondaPackage } from "../../../lib/ingest/conda/import.ts";
import {
  bz2,
  conda,
  failureOf,
  fileOf,
  imported,
  infoOf,
  keeper,
  type Member,
  PREFIX,
  pathsOf,
  type Spec,
  tarBz2,
  tarOf,
  zipOf,
  zst,
} from "./packages.ts";

const a: Member = { name: "lib/a", content: "a" };

t.test("archives that are no plain tree are refused, naming archive and entry", async (t) => {
  const cases: [string, readonly Member[], RegExp][] = [
    ["..", [{ name: "lib/../../etc/passwd" }], /"\.\.".*entry: lib\/\.\.\/\.\.\/etc\/passwd/s],
    ["absolute", [{ name: "/etc/passwd" }], /absolute.*entry: \/etc\/passwd/s],
    ["NUL", [{ name: "lib/x", pax: { path: "lib/a\0b" } }], /not allowed/],
    ["long name", [{ name: `lib/${"x".repeat(256)}` }], /not allowed/],
    ["twice, other content", [a, { ...a, content: "b" }], /twice.*entry: lib\/a/s],
    ["file and directory", [a, { name: "lib/a/b" }], /below a file.*entry: lib\/a\/b/s],
    ["directory and file", [{ name: "lib/a/b" }, a], /not empty/],
    ["device", [{ name: "dev/null", type: "character-device" }], /character-device/],
    ["block device", [{ name: "dev/sda", type: "block-device" }], /block-device/],
    ["fifo", [{ name: "run/fifo", type: "fifo" }], /fifo/],
    [
      "symlink, then through it",
      [{ name: "lib/x", type: "symlink", target: "/etc" }, { name: "lib/x/passwd" }],
      /below a symlink.*entry: lib\/x\/passwd/s,
    ],
    ["empty symlink", [{ name: "lib/x", type: "symlink", target: "" }], /target is not allowed/],
    ["hard link to nothing", [{ name: "lib/x", type: "link", target: "lib/none" }], /before it/],
    ["hard link out", [{ name: "lib/x", type: "link", target: "../../x" }], /its target/],
    ["hard link to itself", [{ name: "lib/x", type: "link", target: "lib/x" }], /before it/],
  ];
  for (const [name, files, pattern] of cases) {
    // Whether the package lists what it has must make no difference.
    const listed = new Map(files.map(({ name, type }) => [name, type]));
    const all = [...listed]
      .filter(([path]) => /^lib\/[ax]$/.test(path))
      .map(([_path, type]) => {
        return { _path, path_type: type === "symlink" ? "softlink" : "hardlink" };
      });
    for (const paths of [all, []]) {
      for (const make of [conda, tarBz2]) {
        const text = await failureOf(imported(await make({ files, paths })));
        t.match(text, /^BURROW_BAD_ARCHIVE/, `${name}: ${text}`);
        t.match(text, pattern, name);
        t.match(text, /archive: demo-1.0-h0_0/, name);
      }
    }
  }
});

t.test("limits hold", async (t) => {
  const files = Array.from({ length: 20 }, (_, i) => ({
    name: `f${i}`,
    content: "x".repeat(9000),
  }));
  const bytes = await conda({ files });
  t.match(
    await failureOf(imported(bytes, { limits: { maxEntries: 10 } })),
    /BURROW_BAD_ARCHIVE\nit has over 10 entries/,
  );
  t.match(
    await failureOf(imported(bytes, { limits: { maxBytes: 100_000 } })),
    /BURROW_BAD_ARCHIVE\nit is over 100000 bytes/,
  );
  const zeros = await conda({ files: [{ name: "zeros", content: Buffer.alloc(64 << 20) }] });
  t.ok(zeros.length < 1 << 20, "a small archive of many zeros");
  t.match(
    await failureOf(imported(zeros, { limits: { maxBytes: 1 << 20 } })),
    /BURROW_BAD_ARCHIVE\nit claims 67108864 bytes/,
  );
});

t.test("cut and damaged archives are refused, wherever they are cut", async (t) => {
  const content = Buffer.from(Array.from({ length: 100_000 }, (_, i) => (i * i * 31) >> 3));
  const spec: Spec = { files: [{ name: "lib/x", content }] };
  for (const [kind, whole] of [
    ["conda", await conda(spec)],
    ["bz2", await tarBz2(spec)],
  ] as const) {
    t.equal(await failureOf(imported(whole)), "no error", `${kind}: whole`);
    for (const part of [0, 3, 0.1, 0.5, 0.9, 0.999]) {
      const end = part < 1 ? Math.floor(whole.length * part) : part;
      const text = await failureOf(imported(whole.subarray(0, end)));
      t.match(text, /^BURROW_BAD_ARCHIVE/, `${kind}: cut at ${end} of ${whole.length}: ${text}`);
    }
  }
  const info = zst(await tarOf(infoOf(spec)));
  const pkg = zst(await tarOf(spec.files!));
  const tar = await tarOf(spec.files!);
  const parts: [string, Buffer, RegExp][] = [
    ["cut zstd", pkg.subarray(0, pkg.length - 9), /zst data is cut/],
    ["cut tar", zst(tar.subarray(0, 50_000)), /cut/],
    ["no tar", zst(Buffer.alloc(2000, "x")), /tar/],
    ["no zstd", Buffer.from("what is this"), /zst data is cut/],
    ["empty", Buffer.alloc(0), /zst data is cut/],
  ];
  for (const [name, bytes, pattern] of parts) {
    const zip = zipOf([
      { name: "info-a.tar.zst", content: info },
      { name: "pkg-a.tar.zst", content: bytes },
    ]);
    const text = await failureOf(imported(zip));
    t.match(text, /^BURROW_BAD_ARCHIVE/, `${name}: ${text}`);
    t.match(text, pattern, name);
  }
});

t.test("a zip that is no .conda is refused", async (t) => {
  const info = zst(await tarOf(infoOf({})));
  const metadata = (text: string) => ({ name: "metadata.json", content: Buffer.from(text) });
  const part = { name: "info-a.tar.zst", content: info };
  const cases: [string, Buffer, RegExp][] = [
    ["nothing in it", zipOf([]), /BURROW_BAD_ARCHIVE\nit has no info/],
    ["two info parts", zipOf([part, { ...part, name: "info-b.tar.zst" }]), /comes twice/],
    ["format 3", zipOf([metadata('{"conda_pkg_format_version":3}'), part]), /BURROW_UNSUPPORTED/],
    ["metadata.json", zipOf([metadata("{"), part]), /BURROW_BAD_ARCHIVE\nits metadata.json/],
    ["no archive", Buffer.from("hello"), /neither a .conda/],
    [
      "too many members",
      zipOf(Array.from({ length: 70 }, (_, i) => ({ name: `${i}`, content: Buffer.alloc(0) }))),
      /over 64 members/,
    ],
  ];
  for (const [name, bytes, pattern] of cases) {
    t.match(await failureOf(imported(bytes)), pattern, name);
  }
  const damaged = zipOf([{ ...part, name: "info-a.tar.zst" }]);
  // A byte of the checksum in the central directory.
  const at = damaged.indexOf("PK\x01\x02", 0, "latin1") + 16;
  damaged[at]! ^= 1;
  t.match(await failureOf(imported(damaged)), /BURROW_BAD_ARCHIVE\na member's checksum is wrong/);
});

t.test("an archive with another hash than expected is not read", async (t) => {
  const path = fileOf(await conda({ files: [a] }));
  const sink = keeper();
  for (const expected of [{ sha256: "0".repeat(64) }, { md5: "0".repeat(32) }, { size: 5 }]) {
    const [key, value] = Object.entries(expected)[0]!;
    const text = await failureOf(importCondaPackage(path, { prefix: PREFIX, sink, expected }));
    t.match(text, /^BURROW_DIGEST_MISMATCH/, key);
    t.match(text, new RegExp(`package: demo-1.0-h0_0.conda\nexpected: ${value}\ngot: `), key);
  }
  t.equal(sink.kept.size, 0, "nothing was kept");
  t.match(
    await failureOf(importCondaPackage(`${path}x`, { prefix: PREFIX, sink })),
    /^BURROW_NOT_FOUND/,
  );
});

t.test("a package that is not what it says is refused, naming package and file", async (t) => {
  const link: Member = { name: "lib/x", type: "symlink", target: "a" };
  const listed = (extra: object) => [{ ...pathsOf({ files: [a] })[0]!, ...extra }];
  const json = (name: string, value: unknown) => [{ name, content: JSON.stringify(value) }];
  const scripts = (...entry_points: string[]): Spec => ({
    index: { noarch: "python", subdir: "noarch" },
    info: json("info/link.json", { noarch: { type: "python", entry_points } }),
  });
  const cases: [string, Spec, RegExp][] = [
    ["sha256", { files: [a], paths: listed({ sha256: "1".repeat(64) }) }, /sha256.*file: lib\/a/s],
    ["size", { files: [a], paths: listed({ size_in_bytes: 2 }) }, /1 bytes.*says 2/s],
    ["missing file", { files: [], paths: pathsOf({ files: [a] }) }, /archive does not.*lib\/a/s],
    [
      "file for a softlink",
      { files: [a], paths: listed({ path_type: "softlink" }) },
      /as a softlink/,
    ],
    [
      "file for a directory",
      { files: [a], paths: listed({ path_type: "directory" }) },
      /directory/,
    ],
    ["softlink for a file", { files: [a, link], paths: listed({ _path: "lib/x" }) }, /symlink/],
    ["unknown type", { files: [a], paths: listed({ path_type: "odd" }) }, /"odd" is not known/],
    [
      "unknown mode",
      { files: [a], paths: listed({ prefix_placeholder: "/x", file_mode: "odd" }) },
      /file_mode/,
    ],
    ["a path twice", { files: [a], paths: [...listed({}), ...listed({})] }, /twice/],
    ["a path out", { files: [a], paths: listed({ _path: "../x" }) }, /"\.\."/],
    ["a bad hash", { files: [a], paths: listed({ sha256: "xyz" }) }, /sha256 that is none/],
    ["no list", { files: [a], paths: null }, /info\/files: the package has none/],
    ["name out", { index: { name: "../x" } }, /name is missing or not allowed/],
    ["no version", { index: { version: 1 } }, /version is missing/],
    ["odd noarch", { index: { noarch: "ruby" } }, /"ruby" is not known/],
    ["depends", { index: { depends: "x" } }, /depends is no list/],
    [
      "its own record",
      { files: [{ name: "conda-meta/demo-1.0-h0_0.json", content: "{}" }] },
      /conda-meta/,
    ],
    ["entry point out", scripts("../../x = m:f"), /entry point is not allowed.*\.\./s],
    ["entry point ..", scripts(".. = m:f"), /entry point/],
    ["entry point /", scripts("a/b = m:f"), /entry point/],
    ["entry point code", scripts("x = os:system('id')"), /entry point/],
    ["entry point import", scripts("x = os; import y:f"), /entry point/],
    ["entry point, no function", scripts("x = m"), /entry point/],
    [
      "entry point in the place of a script",
      { ...scripts("x = m:f"), files: [{ name: "python-scripts/x", content: "y" }] },
      /in the prefix it comes twice/,
    ],
  ];
  for (const [name, spec, pattern] of cases) {
    const text = await failureOf(imported(await conda(spec), { pythonVersion: "3.11" }));
    t.match(text, /^BURROW_BAD_PACKAGE/, `${name}: ${text}`);
    t.match(text, pattern, name);
    t.match(text, /package: demo-1.0-h0_0.conda/, name);
  }
});

t.test("metadata that is none is refused", async (t) => {
  const cases: [string, readonly Member[], RegExp][] = [
    [
      "no index.json",
      [{ name: "info/paths.json", content: "{}" }],
      /index.json: the package has none/,
    ],
    ["cut index.json", [{ name: "info/index.json", content: '{"name' }], /it is no JSON/],
    ["a list", [{ name: "info/index.json", content: "[]" }], /no JSON object/],
    [
      "paths.json of version 2",
      [infoOf({})[0]!, { name: "info/paths.json", content: '{"paths_version": 2, "paths": []}' }],
      /version is 2/,
    ],
  ];
  for (const [name, info, pattern] of cases) {
    const zip = zipOf([{ name: "info-a.tar.zst", content: zst(await tarOf(info)) }]);
    const text = await failureOf(imported(zip));
    t.match(text, /^BURROW_BAD_PACKAGE/, `${name}: ${text}`);
    t.match(text, pattern, name);
  }
  const other = { name: "info/index.json", content: '{"name":"other","version":"1","build":"0"}' };
  t.match(
    await failureOf(imported(await conda({ files: [other] }))),
    /BURROW_BAD_ARCHIVE\nit comes twice, with different content.*entry: info\/index.json/s,
    "the package part can't replace what the info part says",
  );
  const late = bz2(await tarOf([...infoOf({ files: [a] }), a, other]));
  t.match(await failureOf(imported(late)), /BURROW_BAD_ARCHIVE\nit comes twice/);
});

t.test("bad prefixes and Pythons are the caller's mistake", async (t) => {
  const bytes = await conda({ index: { noarch: "python", subdir: "noarch" } });
  for (const prefix of [
    "",
    "/",
    "opt/env",
    "/opt/../env",
    "/opt/env/",
    "/opt//env",
    "/a\nb",
    "/a\0b",
  ]) {
    t.match(await failureOf(imported(bytes, { prefix })), /^BURROW_USAGE/, JSON.stringify(prefix));
  }
  for (const pythonVersion of ["", "3", "three", "3.x", "../3.11"]) {
    t.match(await failureOf(imported(bytes, { pythonVersion })), /^BURROW_USAGE/, pythonVersion);
  }
  t.match(await failureOf(imported(bytes)), /^BURROW_BAD_LOCK\na noarch: python package, and no/);
});

t.test("a reader that stops early leaves nothing running", async (t) => {
  const files = Array.from({ length: 50 }, (_, i) => ({
    name: `f${i}`,
    content: "x".repeat(90_000),
  }));
  for (const bytes of [await conda({ files }), await tarBz2({ files })]) {
    let count = 0;
    for await (const _ of readCondaArchive(fileOf(bytes))) if (++count === 3) break;
    t.equal(count, 3);
  }
});
