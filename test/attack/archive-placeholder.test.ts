// Packages of a few hundred bytes whose files are nothing but their placeholder: patching one must end at a bound, in an error that
// names the file, and never take the process with it. Plane: control.

import { test } from "tap";
import { replacePlaceholder } from "../../lib/ingest/conda/prefix.ts";
import { failureOf, imported, tarBz2 } from "../ingest/conda/packages.ts";

const MIB = 1024 * 1024;
const CONTEXT = { package: "bomb-1-0.tar.bz2", file: "f" };

test("a file that is nothing but its placeholder is refused, by package and file", async (t) => {
  // A part of memory for each occurrence ended the process at this size.
  const archive = await tarBz2({
    files: [{ name: "f", content: Buffer.alloc(64 * MIB, "/") }],
    paths: [{ _path: "f", path_type: "hardlink", prefix_placeholder: "/", file_mode: "text" }],
  });
  t.ok(archive.length < 1024, `the archive is tiny: ${archive.length} bytes`);
  const text = await failureOf(imported(archive));
  t.match(text, /^BURROW_BAD_PACKAGE\nit has its placeholder over 1000000 times/);
  t.match(text, /package: demo-1.0-h0_0/);
  t.match(text, /file: f/);
});

test("so is one that is a million C strings", (t) => {
  const content = Buffer.from("/p\0".repeat(1_000_001), "latin1");
  const patch = () => replacePlaceholder(content, { text: "/p", mode: "binary" }, "/", CONTEXT);
  t.throws(patch, { code: "BURROW_BAD_PACKAGE", context: CONTEXT });
  t.end();
});

test("so is one that would grow past what is held in memory", (t) => {
  const content = Buffer.from("/p".repeat(300_000), "latin1");
  const prefix = `/${"x".repeat(4000)}`;
  const patch = () => replacePlaceholder(content, { text: "/p", mode: "text" }, prefix, CONTEXT);
  t.throws(patch, {
    code: "BURROW_BAD_PACKAGE",
    context: CONTEXT,
    message: /over 1200300000 bytes/,
  });
  t.end();
});

test("a first line that never ends is no shebang", (t) => {
  const content = Buffer.from(`#!/old/bin/python ${"x".repeat(70_000)}`);
  const patched = replacePlaceholder(content, { text: "/old", mode: "text" }, "/opt/env", CONTEXT);
  t.match(patched.toString("latin1", 0, 30), /^#!\/opt\/env\/bin\/python /);
  t.end();
});

test("half a million placeholders are no attack", (t) => {
  const content = Buffer.from("/p/x\n".repeat(500_000), "latin1");
  const patched = replacePlaceholder(content, { text: "/p", mode: "text" }, "/opt/env", CONTEXT);
  t.equal(patched.toString("latin1"), "/opt/env/x\n".repeat(500_000));
  t.end();
});
