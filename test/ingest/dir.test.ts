// Directories of this machine into entries: nothing followed, nothing that changes under way taken for what it was.

import { execFileSync } from "node:child_process";
import {
  appendFileSync,
  chmodSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Test, test } from "tap";
import { type DirectoryOptions, importDirectory } from "../../lib/ingest/dir.ts";
import { discardingSink } from "../../lib/ingest/sink.ts";
import type { LayerEntry } from "../../lib/layer/entry.ts";
import { IndexKind } from "../../lib/layer/format.ts";
import { writeIndex } from "../../lib/layer/writer.ts";
import { digestOf } from "../../lib/store/hash.ts";
import { collect, keeper } from "./archives.ts";

function scratch(t: Test): string {
  const path = mkdtempSync(join(tmpdir(), "burrow-dir-"));
  t.teardown(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

function imported(path: string, options: Partial<DirectoryOptions> = {}): Promise<LayerEntry[]> {
  return collect(importDirectory(path, { sink: discardingSink(), ...options }));
}

const paths = (entries: readonly LayerEntry[]) => entries.map(({ path }) => path);
const openFiles = () => readdirSync("/proc/self/fd").length;

test("types, attributes and order", async (t) => {
  const dir = scratch(t);
  mkdirSync(join(dir, "sub"), { mode: 0o750 });
  writeFileSync(join(dir, "sub", "file"), "content");
  chmodSync(join(dir, "sub", "file"), 0o4711);
  utimesSync(join(dir, "sub", "file"), 0, new Date(-1250));
  symlinkSync("/nowhere", join(dir, "dangling"));
  symlinkSync("sub", join(dir, "to-directory"));
  writeFileSync(join(dir, "empty"), "");
  execFileSync("mkfifo", [join(dir, "pipe")]);
  const before = openFiles();
  const entries = await imported(dir);
  t.equal(openFiles(), before, "every FD is closed");
  t.same(paths(entries), ["", "dangling", "empty", "pipe", "sub", "sub/file", "to-directory"]);
  const [, dangling, empty, pipe, sub, file, link] = entries;
  t.match(dangling, { type: "symlink", target: "/nowhere" });
  t.match(empty, { type: "file", blob: { size: 0 } });
  t.match(pipe, { type: "fifo" });
  t.match(sub, { type: "directory", mode: 0o750, uid: process.getuid!() });
  t.match(file, { mode: 0o4711, mtimeSec: -2, mtimeNs: 750_000_000 });
  t.match(file, { blob: { digest: digestOf(Buffer.from("content")), size: 7 } });
  t.match(link, { type: "symlink", target: "sub" });
  t.doesNotThrow(() => writeIndex(IndexKind.layer, entries));
});

test("names are bytes", async (t) => {
  const dir = scratch(t);
  for (const name of ["\xff\xfe", "b\xc3\xa9", "new\nline", " ", "\x01"]) {
    writeFileSync(Buffer.from(`${dir}/${name}`, "latin1"), name, "latin1");
  }
  symlinkSync(Buffer.from("t\xe9", "latin1"), Buffer.from(`${dir}/l\xe9`, "latin1"));
  mkdirSync(Buffer.from(`${dir}/\xf0d`, "latin1"));
  writeFileSync(Buffer.from(`${dir}/\xf0d/\xf1`, "latin1"), "below");
  const entries = await imported(dir);
  t.same(paths(entries), [
    "",
    "\x01",
    " ",
    "b\xc3\xa9",
    "l\xe9",
    "new\nline",
    "\xf0d",
    "\xf0d/\xf1",
    "\xff\xfe",
  ]);
  t.match(entries[4], { type: "symlink", target: "t\xe9" });
});

test("hard links are one inode, read once", async (t) => {
  const dir = scratch(t);
  writeFileSync(join(dir, "a"), "linked");
  linkSync(join(dir, "a"), join(dir, "b"));
  writeFileSync(join(dir, "c"), "linked");
  const sink = keeper();
  const [, a, b, c] = (await imported(dir, { sink })) as { linkGroup?: string }[];
  t.ok(a!.linkGroup);
  t.equal(b!.linkGroup, a!.linkGroup);
  t.equal(c!.linkGroup, undefined, "equal content is no link");
  t.equal(sink.calls.bytes, 2);
});

test("sockets and devices are left out, and said so", async (t) => {
  const dir = scratch(t);
  const server = createServer().listen(join(dir, "socket"));
  await new Promise((resolve) => server.once("listening", resolve));
  t.teardown(() => server.close());
  writeFileSync(join(dir, "file"), "");
  const skipped: string[] = [];
  const entries = await imported(dir, { onSkip: (path, why) => skipped.push(`${path}: ${why}`) });
  t.same(paths(entries), ["", "file"]);
  t.same(skipped, ["socket: it is a socket"]);
});

test("a file that changes while it is read is an error", async (t) => {
  const dir = scratch(t);
  const path = join(dir, "large");
  const changes: [string, () => void][] = [
    ["grows", () => appendFileSync(path, "more")],
    ["shrinks", () => truncateSync(path, 3_000_000)],
    ["is written to", () => writeFileSync(path, "x".repeat(4_000_000), { flag: "r+" })],
  ];
  for (const [what, change] of changes) {
    writeFileSync(path, Buffer.alloc(4_000_000));
    const inner = discardingSink();
    const sink = {
      ...inner,
      addStream: (chunks: AsyncIterable<Uint8Array>, size: number) => {
        const meddling = async function* () {
          let isFirst = true;
          for await (const chunk of chunks) {
            if (isFirst) change();
            isFirst = false;
            yield chunk;
          }
        };
        return inner.addStream(meddling(), size);
      },
    };
    const before = openFiles();
    const wanted = {
      code: "BURROW_IO",
      message: /changed/,
      context: { source: dir, entry: "large" },
    };
    await t.rejects(imported(dir, { sink }), wanted, `it ${what}`);
    t.equal(openFiles(), before);
  }
});

test("a directory swapped for a symlink under way leads nowhere", async (t) => {
  const dir = scratch(t);
  const outside = scratch(t);
  writeFileSync(join(outside, "file"), "secret");
  writeFileSync(join(outside, "other"), "secret");
  mkdirSync(join(dir, "d"));
  writeFileSync(join(dir, "d", "file"), "public");
  const sink = keeper();
  const entries = await imported(dir, {
    sink,
    onEntry: ({ path }) => {
      if (path !== "d") return;
      renameSync(join(dir, "d"), join(dir, "moved"));
      symlinkSync(outside, join(dir, "d"));
    },
  });
  t.same(paths(entries), ["", "d", "d/file"]);
  t.notOk([...sink.kept.values()].some((content) => content.includes("secret")));
});

test("a directory that can't be read", async (t) => {
  const dir = scratch(t);
  const none = join(dir, "none");
  await t.rejects(imported(none), { code: "BURROW_NOT_FOUND", context: { source: none } });
  writeFileSync(none, "");
  await t.rejects(imported(none), { code: "BURROW_IO" }, "a file");
  let deep = dir;
  for (let i = 0; i < 257; i++) deep = join(deep, "d");
  mkdirSync(deep, { recursive: true });
  await t.rejects(imported(dir), { code: "BURROW_IO", message: /too deep/ });
});
