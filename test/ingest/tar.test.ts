// Tar archives into entries: names of every format, links, attributes, whiteouts. What is refused is in test/attack/archive.

import { execFileSync } from "node:child_process";
import {
  linkSync,
  mkdirSync,
  mkdtempSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { gzipSync } from "node:zlib";
import { type Test, test } from "tap";
import { importDirectory } from "../../lib/ingest/dir.ts";
import { discardingSink } from "../../lib/ingest/sink.ts";
import { importTar } from "../../lib/ingest/tar.ts";
import type { LayerEntry } from "../../lib/layer/entry.ts";
import { IndexKind } from "../../lib/layer/format.ts";
import { writeIndex } from "../../lib/layer/writer.ts";
import { normal } from "../layer/trees.ts";
import { collect, gnuLong, imported, keeper, pax, tar } from "./archives.ts";

const paths = (entries: readonly LayerEntry[]) => entries.map(({ path }) => path).sort();

function scratch(t: Test): string {
  const path = mkdtempSync(join(tmpdir(), "burrow-tar-"));
  t.teardown(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

test("types, modes, owners and times are kept", async (t) => {
  const sink = keeper();
  const archive = tar(
    { name: "./", type: "5", mode: 0o1777 },
    { name: "./d/", type: "5", mode: 0o2755, uid: 1, gid: 2, mtime: 1_500_000_000 },
    { name: "d/tool", mode: 0o104755, content: "#!" },
    { name: "d/link", type: "2", linkname: "../d/tool", mode: 0o777 },
    { name: "d/hard", type: "1", linkname: "d/tool", mode: 0o600 },
    { name: "d/pipe", type: "6", mode: 0o600 },
    { name: "d/empty" },
    { name: "d/old", type: "\0", content: "v7 flag" },
    { name: "d/solid", type: "7", content: "contiguous" },
  );
  const entries = await imported(archive, { sink });
  const by = new Map(entries.map((each) => [each.path, each]));
  t.match(by.get(""), { type: "directory", mode: 0o1777 });
  t.match(by.get("d"), { mode: 0o2755, uid: 1, gid: 2, mtimeSec: 1_500_000_000, mtimeNs: 0 });
  t.match(by.get("d/tool"), { type: "file", mode: 0o4755, blob: { size: 2, blocks: [] } });
  t.match(by.get("d/link"), { type: "symlink", target: "../d/tool" });
  t.match(by.get("d/pipe"), { type: "fifo" });
  t.match(by.get("d/empty"), { type: "file", blob: { size: 0 } });
  t.match(by.get("d/hard"), { type: "file", mode: 0o4755 }, "a hard link is its target");
  const group = (path: string) => (by.get(path) as { linkGroup?: string }).linkGroup;
  t.equal(group("d/hard"), group("d/tool"));
  t.ok(group("d/tool"));
  t.equal(group("d/empty"), undefined);
  const contents = [...sink.kept.values()].map(String).sort();
  t.same(contents, ["", "#!", "contiguous", "v7 flag"]);
  t.doesNotThrow(() => writeIndex(IndexKind.layer, entries));
});

test("names are bytes, short and long, in any format", async (t) => {
  const long = `${"d".repeat(200)}/${"n".repeat(250)}`;
  const archive = tar(
    { name: "latin-\xe9\xff", content: "1" },
    gnuLong(`gnu/${long}\xff`, "L"),
    { name: "gnu/short", content: "2" },
    gnuLong(`target/${long}`, "K"),
    { name: "gnu-link", type: "2", linkname: "target/short" },
    pax({ path: `pax/${long}-\xc3\xa9`, linkpath: "unused" }),
    { name: "pax/short", content: "3" },
    pax({ linkpath: `\xc3\xa9/${long}` }),
    { name: "pax-link", type: "2", linkname: "short" },
    { name: "n".repeat(100), prefix: "p".repeat(155), content: "4" },
  );
  for (const pieceBytes of [1 << 20, 512, 100, 7]) {
    const entries = await imported(archive, {}, pieceBytes);
    t.same(
      paths(entries),
      [
        `gnu/${long}\xff`,
        "gnu-link",
        "latin-\xe9\xff",
        "pax-link",
        `pax/${long}-\xc3\xa9`,
        `${"p".repeat(155)}/${"n".repeat(100)}`,
      ].sort(),
      `in pieces of ${pieceBytes}`,
    );
    const target = (path: string) => entries.find((each) => each.path === path);
    t.match(target("gnu-link"), { target: `target/${long}` });
    t.match(target("pax-link"), { target: `\xc3\xa9/${long}` });
  }
});

test("PAX times to the nanosecond, owners and attributes", async (t) => {
  const time = async (mtime: string) => {
    const [only] = await imported(tar(pax({ mtime }), { name: "a" }));
    return [only!.mtimeSec, only!.mtimeNs];
  };
  t.same(await time("1712345678.123456789"), [1_712_345_678, 123_456_789]);
  t.same(await time("1712345678.5"), [1_712_345_678, 500_000_000]);
  t.same(await time("1.0000000019"), [1, 1], "digits past the ninth are dropped");
  t.same(await time("-1.25"), [-2, 750_000_000]);
  t.same(await time("-3"), [-3, 0]);
  t.same(await time("8589934592.1"), [2 ** 33, 100_000_000]);
  const records = {
    uid: "4000000000",
    gid: "3000000",
    "SCHILY.xattr.user.note": "a\xc3\xa9\x01",
    "SCHILY.xattr.security.capability": "\x01\0\0\x02\0\x20\0\0",
    "SCHILY.xattr.trusted.overlay.opaque": "y",
  };
  const [only] = await imported(tar(pax(records), { name: "a" }));
  t.match(only, { uid: 4_000_000_000, gid: 3_000_000 });
  t.strictSame(
    [...only!.xattrs!].sort(),
    [
      ["security.capability", "\x01\0\0\x02\0\x20\0\0"],
      ["user.note", "a\xc3\xa9\x01"],
    ],
    "what overlayfs itself reads is left out",
  );
  const [global] = await imported(
    tar(pax({ comment: "x", path: "elsewhere" }, "g"), { name: "a" }),
  );
  t.equal(global!.path, "a", "a global header names nothing");
});

test("directories may come late, twice or never", async (t) => {
  const archive = tar(
    { name: "a/b/c", content: "x" },
    { name: "a/b/", type: "5", mode: 0o700 },
    { name: "a/b", type: "5", mode: 0o750 },
    { name: "old-style/", size: 0 },
  );
  const entries = await imported(archive);
  t.same(paths(entries), ["a/b", "a/b/c", "old-style"]);
  t.match(
    entries.find(({ path }) => path === "a/b"),
    { mode: 0o750 },
  );
  t.match(
    entries.find(({ path }) => path === "old-style"),
    { type: "directory" },
  );
});

test("a name that comes twice with the same content is the later", async (t) => {
  const archive = tar(
    { name: "a", content: "same", mode: 0o600 },
    { name: "./a", content: "same", mode: 0o640 },
    { name: "l", type: "2", linkname: "a" },
    { name: "l", type: "2", linkname: "a" },
    { name: "h", type: "1", linkname: "a" },
    { name: "h", type: "1", linkname: "a" },
  );
  const entries = await imported(archive);
  t.same(paths(entries), ["a", "h", "l"]);
  t.match(
    entries.find(({ path }) => path === "a"),
    { mode: 0o640 },
  );
});

test("a hard link to a symlink is a copy of it", async (t) => {
  const archive = tar(
    { name: "s", type: "2", linkname: "x" },
    { name: "t", type: "1", linkname: "./s" },
  );
  t.match(await imported(archive), [
    { path: "s", target: "x" },
    { path: "t", type: "symlink", target: "x" },
  ]);
});

test("small content comes whole, large content as a stream", async (t) => {
  const sink = keeper();
  const large = Buffer.alloc((1 << 20) + 1, "large");
  const archive = tar(
    { name: "a", content: Buffer.alloc(1 << 20, "s") },
    { name: "b", content: large },
  );
  const entries = await imported(archive, { sink });
  t.same(sink.calls, { bytes: 1, stream: 1 });
  t.match(entries[1], { blob: { size: large.length } });
  t.ok([...sink.kept.values()].some((content) => content.equals(large)));
});

test("OCI whiteouts, whatever their order", async (t) => {
  const whiteouts = "oci" as const;
  const archive = tar(
    { name: "gone/.wh.file" },
    { name: "d/.wh..wh..opq" },
    { name: "d/new", content: "n" },
    { name: "implied/.wh..wh..opq" },
    { name: ".wh.both" },
    { name: "both/inner", content: "i" },
    { name: ".wh.replaced" },
    { name: "replaced", content: "r" },
    { name: ".wh.tree" },
    { name: "tree/.wh.inner" },
    { name: ".wh..wh.plnk" },
  );
  const skipped: string[] = [];
  const entries = await imported(archive, { whiteouts, onSkip: (path) => skipped.push(path) });
  const facts = entries.map((each) => {
    const isOpaque = each.type === "directory" && each.opaque === true;
    return `${each.path} ${isOpaque ? "opaque" : each.type}`;
  });
  t.same(facts.sort(), [
    "both opaque",
    "both/inner file",
    "d opaque",
    "d/new file",
    "gone/file whiteout",
    "implied opaque",
    "replaced file",
    "tree whiteout",
  ]);
  t.same(skipped, [".wh..wh.plnk"]);
  t.doesNotThrow(() => writeIndex(IndexKind.layer, entries));
  const plain = await imported(tar({ name: "a/.wh.b" }));
  t.match(plain, [{ path: "a/.wh.b", type: "file" }], "only where they are asked for");
  const root = await imported(tar({ name: ".wh..wh..opq" }), { whiteouts });
  t.match(root, [{ path: "", opaque: true, implied: true }], "emptied, else as it was");
});

test("mapPath moves entries and leaves some out", async (t) => {
  const archive = tar(
    { name: "info/", type: "5" },
    { name: "info/index.json", content: "{}" },
    { name: "bin/x", content: "x" },
    { name: "bin/y", type: "1", linkname: "bin/x" },
  );
  const entries = await imported(archive, {
    mapPath: (path) => (path.startsWith("info") ? undefined : `usr/${path}`),
  });
  t.same(paths(entries), ["usr/bin/x", "usr/bin/y"]);
  const outside = imported(archive, { mapPath: (path) => `../${path}` });
  await t.rejects(outside, { code: "BURROW_BAD_ARCHIVE" }, "and is held to the same rules");
});

test("devices are skipped when asked, and said so", async (t) => {
  const skipped: string[] = [];
  const archive = tar(
    { name: "dev/null", type: "3" },
    { name: "dev/sda", type: "4" },
    { name: "a" },
  );
  const entries = await imported(archive, {
    devices: "skip",
    onSkip: (path, why) => skipped.push(`${path}: ${why}`),
  });
  t.same(paths(entries), ["a"]);
  t.same(skipped, ["dev/null: it is a character-device", "dev/sda: it is a block-device"]);
});

test("files are recognised by their first bytes", async (t) => {
  const dir = scratch(t);
  const archive = tar({ name: "a", content: "hello" });
  const sink = discardingSink();
  for (const [name, bytes] of [
    ["plain", archive],
    ["misnamed.xz", gzipSync(archive)],
  ] as const) {
    writeFileSync(join(dir, name), bytes);
    const entries = await collect(importTar(join(dir, name), { sink, name }));
    t.same(paths(entries), ["a"], name);
  }
  const missing = importTar(join(dir, "none"), { sink, name: "none" });
  await t.rejects(collect(missing), { code: "BURROW_NOT_FOUND" });
});

test("failures of source and sink pass through", async (t) => {
  const archive = tar({ name: "a", content: "hello" });
  const failing = { ...discardingSink(), addBytes: () => Promise.reject(new Error("no space")) };
  await t.rejects(imported(archive, { sink: failing }), { message: "no space" });
  const source = Readable.from(
    (function* () {
      yield archive.subarray(0, 600);
      throw Object.assign(new Error("read failed"), { syscall: "read" });
    })(),
  );
  const entries = importTar(source, { sink: discardingSink(), name: "t.tar" });
  await t.rejects(collect(entries), { code: "BURROW_IO", context: { archive: "t.tar" } });
  t.ok(source.destroyed);
});

/** A directory tree with what formats differ in, and its entries. */
async function mixedTree(root: string): Promise<LayerEntry[]> {
  mkdirSync(join(root, "sub", "d".repeat(150)), { recursive: true });
  writeFileSync(join(root, "sub", "d".repeat(150), "n".repeat(120)), "long");
  writeFileSync(join(root, "one"), "content");
  writeFileSync(join(root, "big"), Buffer.alloc(3_000_000, "big"));
  linkSync(join(root, "one"), join(root, "sub", "two"));
  symlinkSync("t".repeat(140), join(root, "long-link"));
  symlinkSync("one", join(root, "link"));
  writeFileSync(join(root, "caf\u00e9"), "utf8");
  utimesSync(join(root, "one"), 1_600_000_000, 1_600_000_000);
  return await collect(importDirectory(root, { sink: discardingSink() }));
}

test("what tar(1) packs is what the directory holds", async (t) => {
  const dir = scratch(t);
  const root = join(dir, "root");
  const entries = await mixedTree(root);
  const pack = (format: string) => {
    const file = join(dir, `${format}.tar`);
    execFileSync("tar", [`--format=${format}`, "-C", root, "-cf", file, "."], { stdio: "pipe" });
    return collect(importTar(file, { sink: discardingSink(), name: format }));
  };
  t.strictSame(normal(await pack("posix")), normal(entries), "posix, nanoseconds and all");
  const toSeconds = (each: LayerEntry) => ({ ...each, mtimeNs: 0 });
  const wanted = normal(entries.map(toSeconds));
  t.strictSame(normal(await pack("gnu")), wanted, "gnu");
  writeFileSync(Buffer.from(`${root}/caf\xe9`, "latin1"), "latin1");
  const names = paths(await pack("gnu"));
  t.ok(names.includes("caf\xe9") && names.includes("caf\xc3\xa9"), "names need not be UTF-8");
  // GNU tar puts what is not ASCII into PAX records as it is.
  await t.rejects(pack("posix"), { code: "BURROW_BAD_ARCHIVE", message: /not UTF-8/ });
});
