// Hostile archives, from their maker's side. Each must be refused with BURROW_BAD_ARCHIVE that names archive and entry, soon, and
// no byte may reach a file system: importing goes through a sink alone, and a canary directory stays as it was.

import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { gzipSync } from "node:zlib";
import { test } from "tap";
import { BurrowError } from "../../lib/base/error.ts";
import { discardingSink } from "../../lib/ingest/sink.ts";
import { importTar } from "../../lib/ingest/tar.ts";
import {
  END,
  entry,
  gnuLong,
  header,
  imported,
  pax,
  type RawHeader,
  tar,
} from "../ingest/archives.ts";
import { LATE_MS } from "../suite/wait.ts";

const canary = mkdtempSync(join(tmpdir(), "burrow-canary-"));
mkdirSync(join(canary, "target"));
writeFileSync(join(canary, "target", "file"), "untouched");

type Part = Buffer | RawHeader;

/** What the archive is called, its parts, why it is refused, and the entry that is named if it isn't the last. */
const CORPUS: [string, Part[], RegExp, string?][] = [
  ["..", [{ name: "../evil", content: "x" }], /has "\.\."/],
  [".. within", [{ name: "a/../../evil", content: "x" }], /has "\.\."/],
  [".. at the end", [{ name: "a/..", type: "5" }], /has "\.\."/],
  [".. that stays inside", [{ name: "a/../b", content: "x" }], /has "\.\."/],
  ["an absolute path", [{ name: "/etc/passwd", content: "x" }], /absolute/],
  ["an absolute path with dots", [{ name: "/./etc", content: "x" }], /absolute/],
  [
    "a PAX path that overrides",
    [pax({ path: "../evil" }), { name: "fine", content: "x" }],
    /has "\.\."/,
    "../evil",
  ],
  ["an absolute PAX path", [pax({ path: "/evil" }), { name: "fine" }], /absolute/, "/evil"],
  [
    "a GNU long name that overrides",
    [gnuLong("../evil", "L"), { name: "fine" }],
    /has "\.\."/,
    "../evil",
  ],
  ["a ustar prefix", [{ name: "evil", prefix: ".." }], /has "\.\."/, "../evil"],
  ["an absolute ustar prefix", [{ name: "evil", prefix: "/etc" }], /absolute/, "/etc/evil"],
  ["NUL in a PAX path", [pax({ path: "a\0b" }), { name: "fine" }], /not allowed/, "a\0b"],
  [
    "a name of 256 bytes",
    [pax({ path: "n".repeat(256) }), { name: "x" }],
    /not allowed/,
    "n".repeat(256),
  ],
  [
    "a path of 5000 bytes",
    [pax({ path: "n/".repeat(2500) }), { name: "x" }],
    /too long/,
    "n/".repeat(2500),
  ],
  [
    "300 directories deep",
    [pax({ path: `${"d/".repeat(299)}f` }), { name: "x" }],
    /too deep/,
    `${"d/".repeat(299)}f`,
  ],
  ["no name", [{ name: "", content: "x" }], /root is no directory/],
  ["a file as the root", [{ name: "./", type: "2", linkname: "x" }], /root is no directory/],
  [
    "a symlink, then a write through it",
    [
      { name: "l", type: "2", linkname: `${canary}/target` },
      { name: "l/file", content: "evil" },
    ],
    /below a symlink/,
  ],
  [
    "a write, then a symlink in its parent's place",
    [
      { name: "l/file", content: "x" },
      { name: "l", type: "2", linkname: "/" },
    ],
    /place of a directory/,
  ],
  [
    "a directory, then a symlink in its place",
    [
      { name: "l/", type: "5" },
      { name: "l", type: "2", linkname: "/" },
    ],
    /comes twice/,
  ],
  [
    "a symlink, then a directory in its place, then a write",
    [
      { name: "l", type: "2", linkname: "/" },
      { name: "l/", type: "5" },
    ],
    /comes twice/,
    "l/",
  ],
  ["a file, then a file below it", [{ name: "f" }, { name: "f/g" }], /below a file/],
  [
    "a symlink that changes",
    [
      { name: "l", type: "2", linkname: "a" },
      { name: "l", type: "2", linkname: "b" },
    ],
    /twice/,
  ],
  [
    "a file that changes",
    [
      { name: "f", content: "a" },
      { name: "./f", content: "b" },
    ],
    /twice/,
    "./f",
  ],
  [
    "a file over a symlink",
    [
      { name: "f", type: "2", linkname: "x" },
      { name: "f", content: "b" },
    ],
    /twice/,
  ],
  ["a hard link out", [{ name: "h", type: "1", linkname: `../${canary}` }], /has "\.\."/],
  [
    "an absolute hard link",
    [{ name: "h", type: "1", linkname: `${canary}/target/file` }],
    /absolute/,
  ],
  ["a hard link to nothing", [{ name: "h", type: "1", linkname: "none" }], /not in the archive/],
  [
    "a hard link to what comes later",
    [{ name: "h", type: "1", linkname: "f" }, { name: "f" }],
    /not in the archive/,
    "h",
  ],
  ["a hard link to itself", [{ name: "h", type: "1", linkname: "h" }], /not in the archive/],
  [
    "a hard link to a directory",
    [
      { name: "d/", type: "5" },
      { name: "h", type: "1", linkname: "d" },
    ],
    /to a directory/,
  ],
  [
    "a hard link through a symlink",
    [
      { name: "l", type: "2", linkname: "/" },
      { name: "h", type: "1", linkname: "l/etc/passwd" },
    ],
    /not in the archive/,
  ],
  [
    "a hard link with content",
    [{ name: "f" }, { name: "h", type: "1", linkname: "f", content: "evil" }],
    /claims 4 bytes/,
  ],
  ["an empty target", [{ name: "l", type: "2" }], /target is not allowed/],
  [
    "a target with NUL",
    [pax({ linkpath: "a\0b" }), { name: "l", type: "2" }],
    /target is not allowed/,
    "l",
  ],
  [
    "a target of 5000 bytes",
    [pax({ linkpath: "t".repeat(5000) }), { name: "l", type: "2" }],
    /target is not/,
    "l",
  ],
  [
    "a symlink with content",
    [{ name: "l", type: "2", linkname: "x", content: "evil" }],
    /claims 4 bytes/,
  ],
  ["a directory with content", [{ name: "d/", type: "5", content: "evil" }], /claims 4 bytes/],
  ["a character device", [{ name: "null", type: "3" }], /character-device/],
  ["a block device", [{ name: "sda", type: "4" }], /block-device/],
  ["a GNU sparse file", [{ name: "s", type: "S", content: "x" }], /unknown type/],
  ["a PAX sparse file", [pax({ "GNU.sparse.major": "1" }), { name: "s" }], /sparse/, "s"],
  ["a multi-volume part", [{ name: "m", type: "M", content: "x" }], /unknown type/],
  ["a PAX path that is not UTF-8", [pax({ path: "a\xff" }), { name: "p" }], /not UTF-8/, "a\ufffd"],
  [
    "an attribute that is not UTF-8",
    [pax({ "SCHILY.xattr.user.a": "\xff" }), { name: "p" }],
    /not UTF-8/,
    "p",
  ],
  ["an attribute without name", [pax({ "SCHILY.xattr.": "a" }), { name: "p" }], /bad name/, "p"],
  ["a mode that is no number", [{ name: "m", mode: "zzzzzz" }], /a mode or owner/],
  ["a time that is no number", [pax({ mtime: "1e300" }), { name: "t" }], /time/, "t"],
  ["a time past all clocks", [pax({ mtime: "9999999999999999" }), { name: "t" }], /time/, "t"],
  ["an owner past 2^32", [pax({ uid: "4294967296" }), { name: "u" }], /owner/, "u"],
  [
    "a size past all disks",
    [pax({ size: "9007199254740993" }), { name: "s", content: "x" }],
    /size|claims/,
    "s",
  ],
  [
    "a size of 2^60 in base 256",
    [{ name: "s", size: "\x80\0\0\0\x10\0\0\0\0\0\0\0" }],
    /size|claims/,
  ],
  ["a size of a kind that is none", [{ name: "s", size: "\x81\0\0\0\0\0\0\0\0\0\0\x01" }], /size/],
  ["a whiteout of ..", [{ name: "a/.wh..." }], /whiteout of a name/],
  ["a whiteout of nothing", [{ name: ".wh." }], /whiteout of a name/],
];

async function refusalOf(attempt: Promise<unknown>): Promise<BurrowError> {
  const started = performance.now();
  const error = await attempt.then(
    () => new Error("it was taken"),
    (reason: unknown) => reason,
  );
  if (!(error instanceof BurrowError)) throw error;
  if (performance.now() - started > LATE_MS) throw new Error("refused, but late");
  return error;
}

test("each hostile archive is refused, by archive and entry", async (t) => {
  for (const [what, parts, why, named] of CORPUS) {
    const error = await refusalOf(imported(tar(...parts), { whiteouts: "oci" }));
    t.equal(error.code, "BURROW_BAD_ARCHIVE", what);
    t.match(error.message, why, what);
    t.equal(error.context["archive"], "test.tar", what);
    const last = parts.at(-1)!;
    const wanted = named ?? (Buffer.isBuffer(last) ? "" : last.name);
    if (wanted !== "") t.equal(error.context["entry"], wanted, what);
  }
});

test("an archive cut anywhere is refused", async (t) => {
  const body = Buffer.concat([
    entry({ name: "d/", type: "5" }),
    pax({ mtime: "1.5" }),
    entry({ name: "d/f", content: "x".repeat(700) }),
    gnuLong("n/".repeat(150), "L"),
    entry({ name: "n", content: Buffer.alloc(1024) }),
  ]);
  const whole = Buffer.concat([body, END]);
  t.equal((await imported(whole)).length, 3);
  t.equal(
    (await imported(whole.subarray(0, whole.length - 512))).length,
    3,
    "one zero block is an end",
  );
  for (let length = 0; length <= body.length; length += 64) {
    const error = await refusalOf(imported(whole.subarray(0, length)));
    t.equal(error.code, "BURROW_BAD_ARCHIVE", `${length} bytes`);
  }
  const noise = await refusalOf(imported(Buffer.concat([whole, Buffer.alloc(512, "x")])));
  t.equal(noise.code, "BURROW_BAD_ARCHIVE", "something after the end");
});

test("sizes that lie are refused", async (t) => {
  const short = Buffer.concat([header({ name: "f", size: 100_000 }), Buffer.alloc(2048, "x"), END]);
  t.match(await refusalOf(imported(short)), { code: "BURROW_BAD_ARCHIVE", message: /cut/ });
  const next = Buffer.concat([
    header({ name: "f", size: 5_000 }),
    entry({ name: "g", content: "x" }),
    END,
  ]);
  t.match(await refusalOf(imported(next)), { code: "BURROW_BAD_ARCHIVE" }, "more than there is");
  const long = Buffer.concat([header({ name: "f", size: 1 }), Buffer.alloc(2048, "x"), END]);
  t.match(await refusalOf(imported(long)), { code: "BURROW_BAD_ARCHIVE" }, "less than there is");
  const record = tar(pax({ size: "3" }), { name: "f", content: "x".repeat(600) });
  t.match(
    await refusalOf(imported(record)),
    { code: "BURROW_BAD_ARCHIVE" },
    "a PAX size that differs",
  );
});

test("bounds on entries and bytes hold", async (t) => {
  const many = tar(...Array.from({ length: 20 }, (_, i) => ({ name: `f${i}` })));
  const error = await refusalOf(imported(many, { maxEntries: 19 }));
  t.match(error, { message: /over 19 entries/, context: { archive: "test.tar", entry: "f19" } });
  t.equal((await imported(many, { maxEntries: 20 })).length, 20);
  const long = await refusalOf(
    imported(tar({ name: "f", content: Buffer.alloc(10_000) }), { maxBytes: 9_999 }),
  );
  t.match(long, { message: /over 9999 bytes/, context: { archive: "test.tar" } });
  const claim = await refusalOf(imported(tar({ name: "f", size: 10_000 }), { maxBytes: 9_999 }));
  t.match(claim, { message: /claims 10000 bytes/, context: { entry: "f" } });
});

test("a bomb ends at the bound, whatever is in it", async (t) => {
  const dir = mkdtempSync(join(tmpdir(), "burrow-bomb-"));
  t.teardown(() => rmSync(dir, { recursive: true, force: true }));
  const zeros = Buffer.alloc(256 << 20);
  const bombs = {
    "one file": Buffer.concat([header({ name: "zeros", size: zeros.length }), zeros, END]),
    "only zero blocks": zeros,
  };
  for (const [what, archive] of Object.entries(bombs)) {
    const path = join(dir, "bomb.tar.gz");
    writeFileSync(path, gzipSync(archive, { level: 1 }));
    let stored = 0;
    const inner = discardingSink();
    const counting = async function* (chunks: AsyncIterable<Uint8Array>) {
      for await (const chunk of chunks) {
        stored += chunk.length;
        yield chunk;
      }
    };
    const sink = {
      ...inner,
      addStream: (chunks: AsyncIterable<Uint8Array>, size: number) =>
        inner.addStream(counting(chunks), size),
    };
    const attempt = (async () => {
      for await (const _ of importTar(path, { sink, name: "bomb", maxBytes: 16 << 20 }));
    })();
    t.match(
      await refusalOf(attempt),
      { code: "BURROW_BAD_ARCHIVE", context: { archive: "bomb" } },
      what,
    );
    t.ok(stored <= 16 << 20, "and no more than the bound was read");
  }
});

test("an archive within a compressed archive stays one file", async (t) => {
  const inner = gzipSync(tar({ name: "../evil", content: "x" }));
  const entries = await imported(tar({ name: "nested.tar.gz", content: inner }));
  t.match(entries, [{ path: "nested.tar.gz", type: "file" }]);
});

test("names that differ in case, or in form, are different files", async (t) => {
  const entries = await imported(
    tar(
      { name: "A", content: "1" },
      { name: "a", content: "2" },
      { name: "\xc3\xa9" },
      { name: "e\xcc\x81" },
    ),
  );
  t.equal(new Set(entries.map(({ path }) => path)).size, 4);
});

test("setuid is kept as archived; a sandbox's mounts decide what it means", async (t) => {
  const [only] = await imported(tar({ name: "su", mode: 0o6755, content: "x" }));
  t.equal(only!.mode, 0o6755);
});

test("a refused archive closes its source", async (t) => {
  const bytes = Buffer.concat([entry({ name: "../evil" }), Buffer.alloc(4 << 20)]);
  const source = Readable.from(
    (function* () {
      for (let at = 0; at < bytes.length; at += 1024) yield bytes.subarray(at, at + 1024);
    })(),
    { objectMode: false },
  );
  await refusalOf(
    (async () => {
      for await (const _ of importTar(source, { sink: discardingSink(), name: "x" }));
    })(),
  );
  t.ok(source.destroyed);
});

test("the canary is untouched", (t) => {
  t.teardown(() => rmSync(canary, { recursive: true, force: true }));
  t.same(readdirSync(canary), ["target"]);
  t.equal(readFileSync(join(canary, "target", "file"), "utf8"), "untouched");
  t.notOk(existsSync(join(canary, "..", "evil")));
  t.end();
});
