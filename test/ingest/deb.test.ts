// Debian packages: the ar archive around them, and where their paths go on a merged-/usr system.

import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { test } from "tap";
import { type DebOptions, importDeb, mergedPath } from "../../lib/ingest/deb.ts";
import { discardingSink } from "../../lib/ingest/sink.ts";
import type { LayerEntry } from "../../lib/layer/entry.ts";
import { collect, tar } from "./archives.ts";

const dir = mkdtempSync(join(tmpdir(), "burrow-deb-"));

function member(name: string, content: Buffer | string, size?: number | string): Buffer {
  const bytes = Buffer.from(content);
  const head = `${name.padEnd(16)}${"0".padEnd(12)}${"0".padEnd(6)}${"0".padEnd(6)}${"100644".padEnd(8)}`;
  const padding = bytes.length % 2 === 0 ? "" : "\n";
  return Buffer.concat([
    Buffer.from(`${head}${String(size ?? bytes.length).padEnd(10)}\`\n`),
    bytes,
    Buffer.from(padding),
  ]);
}

const VERSION = member("debian-binary", "2.0\n");
const CONTROL = member(
  "control.tar.gz",
  gzipSync(tar({ name: "./control", content: "Package: x" })),
);

function imported(
  members: (Buffer | string)[],
  options: Partial<DebOptions> = {},
): Promise<LayerEntry[]> {
  const path = join(dir, "x.deb");
  writeFileSync(path, Buffer.concat(members.map((each) => Buffer.from(each))));
  return collect(importDeb(path, { sink: discardingSink(), ...options }));
}

const deb = (data: Buffer, name: string) => ["!<arch>\n", VERSION, CONTROL, member(name, data)];
const paths = (entries: readonly LayerEntry[]) => entries.map(({ path }) => path).sort();

const DATA = tar(
  { name: "./", type: "5" },
  { name: "./lib/", type: "5" },
  { name: "./lib/x86_64-linux-gnu/", type: "5" },
  { name: "./lib/x86_64-linux-gnu/libx.so.1", content: "elf" },
  {
    name: "./lib/x86_64-linux-gnu/libx.so",
    type: "1",
    linkname: "./lib/x86_64-linux-gnu/libx.so.1",
  },
  { name: "./usr/lib/", type: "5" },
  { name: "./usr/lib/y", content: "y" },
  { name: "./sbin", type: "2", linkname: "usr/sbin" },
  { name: "./library", content: "l" },
);

test("the data of a package, below usr where that is merged", async (t) => {
  const entries = await imported(deb(gzipSync(DATA), "data.tar.gz"));
  t.same(paths(entries), [
    "",
    "library",
    "sbin",
    "usr/lib",
    "usr/lib/x86_64-linux-gnu",
    "usr/lib/x86_64-linux-gnu/libx.so",
    "usr/lib/x86_64-linux-gnu/libx.so.1",
    "usr/lib/y",
  ]);
  const plain = await imported(deb(DATA, "data.tar"), { mergedUsr: false });
  t.ok(paths(plain).includes("lib/x86_64-linux-gnu/libx.so"), "or where the archive says");
});

test("every directory that Debian merges, and no other", (t) => {
  for (const name of ["bin", "sbin", "lib", "lib32", "lib64", "libx32"]) {
    t.equal(mergedPath(name, "directory"), `usr/${name}`);
    t.equal(mergedPath(`${name}/a/b`, "file"), `usr/${name}/a/b`);
    t.equal(mergedPath(name, "symlink"), name, "the merge's own symlink");
  }
  for (const name of ["library", "usr/lib", "etc/bin", "", "binary/x"]) {
    t.equal(mergedPath(name, "file"), name);
  }
  t.end();
});

test("data compressed as Debian has done", async (t) => {
  for (const [program, suffix] of [
    ["xz", "xz"],
    ["zstd", "zst"],
    ["bzip2", "bz2"],
  ] as const) {
    let data: Buffer;
    try {
      data = execFileSync(program, ["-c"], { input: DATA, stdio: "pipe" });
    } catch {
      t.comment(`no ${suffix}: ${program} is not installed`);
      continue;
    }
    t.equal((await imported(deb(data, `data.tar.${suffix}`))).length, 8, suffix);
    const cut = imported(deb(data.subarray(0, data.length - 9), `data.tar.${suffix}`));
    await t.rejects(
      cut,
      { code: "BURROW_BAD_ARCHIVE", context: { archive: "x.deb" } },
      `${suffix} cut`,
    );
  }
});

test("what is no package is refused", async (t) => {
  const data = member("data.tar", DATA);
  const bad: [string, (Buffer | string)[], RegExp][] = [
    ["nothing", [], /no ar archive/],
    ["something else", ["PK\x03\x04 and so on"], /no ar archive/],
    ["an empty archive", ["!<arch>\n"], /no data\.tar/],
    ["no debian-binary", ["!<arch>\n", data], /no Debian package/],
    ["format 3", ["!<arch>\n", member("debian-binary", "3.0\n"), data], /no Debian package/],
    ["no data", ["!<arch>\n", VERSION, CONTROL], /no data\.tar/],
    ["empty data", ["!<arch>\n", VERSION, member("data.tar", "")], /data\.tar is empty/],
    ["a cut header", ["!<arch>\n", VERSION, data.subarray(0, 30)], /header is damaged/],
    ["cut data", ["!<arch>\n", VERSION, data.subarray(0, 2000)], /cut in data\.tar/],
    ["a size that is no number", ["!<arch>\n", member("debian-binary", "2.0\n", "-1")], /damaged/],
    ["a size past the end", ["!<arch>\n", member("debian-binary", "2.0\n", 9e9)], /cut in debian/],
    [
      "a data.tar that is none",
      ["!<arch>\n", VERSION, member("data.tar", "x".repeat(600))],
      /no good tar/,
    ],
    [
      "17 members",
      ["!<arch>\n", VERSION, ...Array(20).fill(member("_x", "")), data],
      /no data\.tar/,
    ],
  ];
  for (const [what, members, message] of bad) {
    const wanted = { code: "BURROW_BAD_ARCHIVE", message, context: { archive: "x.deb" } };
    await t.rejects(imported(members), wanted, what);
  }
  const missing = collect(importDeb(join(dir, "none.deb"), { sink: discardingSink() }));
  await t.rejects(missing, { code: "BURROW_NOT_FOUND", context: { archive: "none.deb" } });
});

test("clean up", (t) => {
  rmSync(dir, { recursive: true, force: true });
  t.end();
});
