// Packages whose metadata is tiny as archived and vast once parsed: what a parser would make of it is bounded before it starts.
// Plane: control.

import { test } from "tap";
import { ARCHIVE_ENTRIES_MAX } from "../../lib/base/limits.ts";
import { INFO_MAX_BYTES } from "../../lib/ingest/conda/content.ts";
import { readMetadata } from "../../lib/ingest/conda/metadata.ts";
import { parseManifest } from "../../lib/ingest/stage/manifest.ts";
import { failureOf, imported, type Member, tarBz2 } from "../ingest/conda/packages.ts";
import { cpuMs } from "../suite/cpu.ts";

const refusal = async (info: Member) =>
  await failureOf(imported(await tarBz2({ paths: null, info: [info], files: [] })));

const paths = (content: string): Member => ({ name: "info/paths.json", content });

test("lists of nothing, and lists of lists, are refused before they are parsed", async (t) => {
  const count = ARCHIVE_ENTRIES_MAX + 1;
  const objects = `{"paths_version": 1, "paths": [${"{},".repeat(count)}{}]}`;
  for (const text of [objects, "[".repeat(count), `{"a":`.repeat(count)]) {
    const failure = await refusal(paths(text));
    t.match(failure, /^BURROW_BAD_PACKAGE\ninfo\/paths.json: it has too many values/);
    t.match(failure, /package: demo-1.0-h0_0/);
  }
});

test("so is a list of more lines than an archive may have entries", async (t) => {
  const content = "a\n".repeat(ARCHIVE_ENTRIES_MAX + 1);
  const failure = await refusal({ name: "info/files", content });
  t.match(failure, /^BURROW_BAD_PACKAGE\ninfo\/files: it has too many lines/);
});

test("and metadata over its bound is not read at all", async (t) => {
  const failure = await refusal(paths(" ".repeat(INFO_MAX_BYTES + 1)));
  t.match(failure, /^BURROW_BAD_ARCHIVE\nit is over 33554432 bytes/);
  t.match(failure, /entry: info\/paths.json/);
});

test("a list of 100,000 files is no attack", (t) => {
  const sha256 = "ab".repeat(32);
  const files = Array.from({ length: 100_000 }, (_, i) => {
    const path = `lib/python3.11/site-packages/some_package/data/file_${i}.json`;
    return { _path: path, path_type: "hardlink", sha256, size_in_bytes: i };
  });
  const json = (value: unknown) => Buffer.from(JSON.stringify(value, null, 2));
  const listed = json({ paths: files, paths_version: 1 });
  t.ok(listed.length < INFO_MAX_BYTES, `${listed.length} bytes are within the bound`);
  const index = json({ name: "demo", version: "1.0", build: "0" });
  const info = new Map([["info/index.json", index] as const, ["info/paths.json", listed] as const]);
  t.equal(readMetadata(info, "demo-1.0-0.conda").paths.length, files.length);
  t.end();
});

test("the manifest of a stage is bounded in the same way", (t) => {
  const lists: Readonly<Record<string, string>> = {
    objects: `{"format":1,"files":[${"{},".repeat(4_000_000)}{}]}`,
    arrays: `{"format":1,"files":[${"[],".repeat(4_000_000)}1]}`,
    depth: "[".repeat(4_000_000),
    fields: `{"format":1,"files":[{${'"a":1,'.repeat(8_000_000)}"b":1}]}`,
  };
  for (const [what, text] of Object.entries(lists)) {
    let error: unknown;
    const took = cpuMs(() => {
      try {
        parseManifest(Buffer.from(text), "stage");
      } catch (thrown) {
        error = thrown;
      }
    });
    t.match(error, { code: "BURROW_BAD_PACKAGE", cause: { message: /too many values/ } }, what);
    t.ok(took < 2_000, `${what}: before it is parsed`);
  }
  t.end();
});
