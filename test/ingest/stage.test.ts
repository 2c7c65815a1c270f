// Stages: a directory or prefix of plain files, pinned by its manifest, served in place; changed files are errors, never a mix.

import fs from "node:fs";
import net from "node:net";
import { tmpdir } from "node:os";
import { type Test, test } from "tap";
import { Errno } from "../../lib/base/errno.ts";
import { BLOCK_BYTES } from "../../lib/base/limits.ts";
import { keepIndex, openCache } from "../../lib/cache/cache.ts";
import { importStage } from "../../lib/ingest/stage/import.ts";
import { MANIFEST_NAME, parseManifest } from "../../lib/ingest/stage/manifest.ts";
import { createManifest } from "../../lib/ingest/stage/scan.ts";
import { IndexKind } from "../../lib/layer/format.ts";
import { writeIndex } from "../../lib/layer/writer.ts";
import { noise, publishedOf, TestNode } from "../suite/daemon-node.ts";
import { OriginServer } from "../suite/origin-server.ts";

function temporary(t: Test): string {
  const root = fs.mkdtempSync(`${tmpdir()}/burrow-stage-`);
  t.teardown(() => fs.rmSync(root, { recursive: true, force: true }));
  return root;
}

function fill(root: string): void {
  fs.mkdirSync(`${root}/data/empty`, { recursive: true });
  fs.writeFileSync(`${root}/data/a b.csv`, "a,b\n1,2\n");
  fs.writeFileSync(`${root}/data/zero`, "");
  fs.writeFileSync(`${root}/größe.bin`, noise(9 * BLOCK_BYTES + 1));
  fs.symlinkSync("a b.csv", `${root}/data/link`);
  fs.chmodSync(`${root}/data/a b.csv`, 0o640);
  for (const path of ["data/a b.csv", "data/zero", "größe.bin"])
    fs.utimesSync(`${root}/${path}`, 1000, 1000);
  for (const path of ["data/empty", "data"]) fs.utimesSync(`${root}/${path}`, 2000, 2000);
}

test("what a stage can't hold is refused by name", async (t) => {
  const root = temporary(t);
  const server = net.createServer().listen(`${root}/socket`);
  await new Promise((resolve) => server.once("listening", resolve));
  await t.rejects(importStage(root), { code: "BURROW_BAD_PACKAGE", context: { path: "socket" } });
  await new Promise((resolve) => server.close(resolve));
  fs.writeFileSync(Buffer.concat([Buffer.from(`${root}/`), Buffer.from([0xff, 0xfe])]), "x");
  await t.rejects(importStage(root), { code: "BURROW_BAD_PACKAGE", message: /no UTF-8/ });
  await t.rejects(importStage(`${root}/none`), { code: "BURROW_IO" });
});

test("a manifest that can't be is refused", (t) => {
  const sha256 = `sha256:${"ab".repeat(32)}`;
  const file = { path: "a", size: 1, sha256 };
  const bad: unknown[] = [
    { format: 2, files: [] },
    { format: 1 },
    { format: 1, files: [{ ...file, path: "../a" }] },
    { format: 1, files: [{ ...file, path: "/a" }] },
    { format: 1, files: [{ ...file, path: "a//b" }] },
    { format: 1, files: [{ ...file, path: "a\0" }] },
    { format: 1, files: [{ ...file, size: -1 }] },
    { format: 1, files: [{ ...file, size: 1.5 }] },
    { format: 1, files: [{ ...file, sha256: "abc" }] },
    { format: 1, files: [{ ...file, blocks: [sha256] }] },
    { format: 1, files: [], symlinks: [{ path: "l", target: "" }] },
    [],
  ];
  for (const value of bad) {
    const bytes = Buffer.from(JSON.stringify(value));
    t.throws(
      () => parseManifest(bytes, "here"),
      { code: "BURROW_BAD_PACKAGE" },
      JSON.stringify(value),
    );
  }
  t.throws(() => parseManifest(Buffer.from("{"), "here"), { code: "BURROW_BAD_PACKAGE" });
  t.equal(
    parseManifest(Buffer.from(JSON.stringify({ format: 1, files: [file] })), "x").files.length,
    1,
  );
  t.end();
});

test("the same directory gives the same stage, scanned or by its manifest", async (t) => {
  const root = temporary(t);
  fill(root);
  const scanned = await importStage(root);
  const { digest, manifest } = await createManifest(root);
  t.equal(manifest.files.length, 3);
  const imported = await importStage(root);
  t.equal(imported.digest, digest);
  t.equal(scanned.digest, digest);
  t.same(imported.entries, scanned.entries);
  t.same(imported.locator, scanned.locator);
  t.equal((await createManifest(root)).digest, digest, "again");
  const csv = imported.entries.find(({ path }) => path === "data/a b.csv");
  t.match(csv, { type: "file", mode: 0o640, mtimeSec: 1000, blob: { size: 8 } });
  t.match(
    imported.entries.find(({ path }) => path === "data/link"),
    { type: "symlink", target: "a b.csv" },
  );
  t.ok(writeIndex(IndexKind.layer, imported.entries).length > 0);
});

test("a stage is served in place, over HTTP; a file that changed is EIO, never mixed", async (t) => {
  const node = new TestNode();
  t.teardown(() => node.close());
  const root = temporary(t);
  fill(root);
  await createManifest(root);
  const server = await OriginServer.start(root);
  t.teardown(() => server.close());
  // A manifest from elsewhere need not have block digests.
  const text = fs
    .readFileSync(`${root}/${MANIFEST_NAME}`, "utf8")
    .replace(/,"blocks":\[[^\]]*\]/, "");
  fs.writeFileSync(`${root}/${MANIFEST_NAME}`, text);
  const stage = await importStage(server.url);
  const refs = new Map(
    stage.entries.flatMap((entry) => (entry.type === "file" ? [[entry.path, entry.blob]] : [])),
  );
  const bytes = writeIndex(IndexKind.snapshot, stage.entries);
  const digest = await keepIndex(openCache(node.cache), bytes, stage.locator);
  const published = publishedOf(digest, bytes, refs);
  await node.start({ deadlineMs: 1500, background: false });
  const client = await node.connect(node.mount(stage.origin, digest));
  const row = (name: string) => published.row(Buffer.from(name).toString("latin1"));
  t.equal((await client.askBlob(0, row("data/a b.csv"))).errno, 0);
  t.equal((await client.askBlob(0, row("data/zero"))).errno, 0);
  // One block alone: nothing is read ahead of it.
  const first = await client.askBlocks(0, row("größe.bin"), 0, 1);
  t.match(first, { errno: 0, state: 2 });
  fs.writeFileSync(`${root}/größe.bin`, noise(9 * BLOCK_BYTES + 1, 2));
  t.equal(
    (await client.askBlocks(0, row("größe.bin"), 6, 1)).errno,
    Errno.EIO,
    "another version's block",
  );
  t.equal((await client.askBlob(0, row("größe.bin"))).errno, Errno.EIO);
  t.ok((await node.settled()).fetch["mismatches"]! > 0);
  fs.rmSync(`${root}/größe.bin`);
  t.equal((await client.askBlocks(0, row("größe.bin"), 8, 1)).errno, Errno.EIO, "gone");
  fs.writeFileSync(`${root}/größe.bin`, noise(9 * BLOCK_BYTES + 1));
  t.equal((await client.askBlob(0, row("größe.bin"))).errno, 0, "put back");
  t.same(
    fs.readFileSync(node.blobPath(refs.get(Buffer.from("größe.bin").toString("latin1"))!.digest)),
    noise(9 * BLOCK_BYTES + 1),
  );
});

test("a large file that is not what its manifest says is refused at import", async (t) => {
  const root = temporary(t);
  fill(root);
  await createManifest(root);
  const text = fs
    .readFileSync(`${root}/${MANIFEST_NAME}`, "utf8")
    .replace(/,"blocks":\[[^\]]*\]/, "");
  fs.writeFileSync(`${root}/${MANIFEST_NAME}`, text);
  fs.writeFileSync(`${root}/größe.bin`, noise(9 * BLOCK_BYTES + 1, 2));
  await t.rejects(importStage(root), { code: "BURROW_DIGEST_MISMATCH" });
});
