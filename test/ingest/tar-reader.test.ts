// What is in a tar, held against another reader of tars (tar-stream): names of all formats, sizes, records, content, however the bytes
// come; and what that one gets wrong.

import { createHash } from "node:crypto";
import { Readable } from "node:stream";
import fc from "fast-check";
import { test } from "tap";
import { extract, type Header, pack } from "tar-stream";
import { readBlock } from "../../lib/ingest/tar-block.ts";
import { type TarEntry, TarReader } from "../../lib/ingest/tar-reader.ts";
import { RUNS, SEED } from "../layer/trees.ts";
import { gnuLong, header, imported, pax, tar } from "./archives.ts";

interface Seen {
  readonly name: string;
  readonly type: string | undefined;
  readonly size: number;
  readonly linkname: string;
  readonly mtimeSec: number;
  readonly pax: Readonly<Record<string, string>>;
  readonly content: string;
}

function sourceOf(archive: Buffer, pieceBytes: number): Readable {
  const pieces = function* () {
    for (let at = 0; at < archive.length; at += pieceBytes)
      yield archive.subarray(at, at + pieceBytes);
  };
  return Readable.from(pieces(), { objectMode: false });
}

const hashOf = (parts: readonly Uint8Array[]) =>
  createHash("sha256").update(Buffer.concat(parts)).digest("hex");

const utf8 = (latin1: string) => Buffer.from(latin1, "latin1").toString("utf8");

async function contentOf({ content, size }: TarEntry, asWhole: boolean): Promise<string> {
  if (asWhole) return hashOf([await content.whole()]);
  const parts: Uint8Array[] = [];
  // Each is good until the next is asked for.
  for await (const part of content) parts.push(Buffer.from(part));
  return hashOf(size === 0 ? [] : parts);
}

async function ours(archive: Buffer, pieceBytes: number, asWhole = false): Promise<Seen[]> {
  const reader = new TarReader(sourceOf(archive, pieceBytes), {
    onBytes: () => undefined,
    explain: (cause) => cause,
  });
  const seen: Seen[] = [];
  for (let entry = await reader.next(); entry !== undefined; entry = await reader.next()) {
    const { type, size, header } = entry;
    const records = Object.fromEntries(entry.pax);
    seen.push({
      // tar-stream has PAX names in place already.
      name: records["path"] || utf8(entry.name),
      type,
      size,
      linkname: records["linkpath"] || utf8(entry.linkname),
      mtimeSec: header.mtimeSec,
      pax: records,
      content: await contentOf(entry, asWhole),
    });
  }
  reader.close();
  return seen;
}

async function theirs(archive: Buffer): Promise<Seen[]> {
  const seen: Seen[] = [];
  const tarStream = extract();
  tarStream.end(archive);
  for await (const entry of tarStream) {
    const parts: Uint8Array[] = [];
    for await (const part of entry) parts.push(part as Uint8Array);
    const { name, type, size, linkname, mtime } = entry.header;
    const records = (entry.header as { pax?: Record<string, string> | null }).pax;
    seen.push({
      name,
      type: type ?? undefined,
      size: size ?? 0,
      linkname: linkname ?? "",
      mtimeSec: (mtime?.getTime() ?? 0) / 1000,
      pax: records ?? {},
      content: hashOf(parts),
    });
  }
  return seen;
}

/** An archive as tar-stream writes it: names that fit a header, that need its prefix, or a PAX record. */
async function packed(entries: readonly (Header & { content: Uint8Array })[]): Promise<Buffer> {
  const archive = pack();
  for (const { content, ...head } of entries) archive.entry(head, Buffer.from(content));
  archive.finalize();
  const parts: Uint8Array[] = [];
  for await (const part of archive) parts.push(part as Uint8Array);
  return Buffer.concat(parts);
}

const part = fc.stringMatching(/^[a-z\u00e4\u4e16]{1,90}$/);
const name = fc.array(part, { minLength: 1, maxLength: 4 }).map((parts) => parts.join("/"));
const file = fc.record({
  name,
  mtime: fc.integer({ min: 0, max: 2 ** 31 }).map((sec) => new Date(sec * 1000)),
  content: fc.uint8Array({ maxLength: 3000 }),
});
const link = fc.record({
  name,
  type: fc.constantFrom("symlink", "link"),
  linkname: name,
  content: fc.constant(new Uint8Array(0)),
});
const pieceBytes = fc.constantFrom(1 << 20, 4096, 512, 333, 7);

test("a sound archive has in it what another reader finds", async (t) => {
  t.comment(`seed ${SEED}`);
  const entries = fc.array(fc.oneof({ weight: 3, arbitrary: file }, link), { maxLength: 12 });
  const property = fc.asyncProperty(
    entries,
    pieceBytes,
    fc.boolean(),
    async (list, bytes, asWhole) => {
      const archive = await packed(list as (Header & { content: Uint8Array })[]);
      const found = await ours(archive, bytes, asWhole);
      t.strictSame(found, await theirs(archive));
      if (found.length !== list.length) throw new Error("an entry is missing");
    },
  );
  await fc.assert(property, { numRuns: RUNS / 5, seed: SEED });
});

test("headers of all kinds mean what another reader makes of them", async (t) => {
  const long = "n".repeat(200);
  const archive = tar(
    { name: "./", type: "5" },
    { name: "f", content: "content", mode: "100644 ", mtime: 1_700_000_000 },
    { name: "spaces", mode: "   644", size: "      12", content: "twelve bytes" },
    { name: "end", prefix: "a/prefix" },
    { name: "old", type: "\0", content: "x".repeat(512) },
    gnuLong(long, "L"),
    gnuLong(`${long}/target`, "K"),
    { name: "cut", type: "2", linkname: "cut" },
    { name: "after" },
    pax({ comment: "for all" }, "g"),
    pax({ path: "of-pax", size: "3", mtime: "1.25" }),
    { name: "f2", content: "abc" },
    { name: "without" },
    pax({ uid: "4000000000" }),
    { name: "with" },
    { name: "pipe", type: "6" },
    { name: "what", type: "Z" },
  );
  for (const bytes of [1 << 20, 512, 7]) {
    t.strictSame(await ours(archive, bytes), await theirs(archive), `pieces of ${bytes}`);
  }
});

test("a time before 1970 in base 256 is two's complement", async (t) => {
  const block = header({ name: "old" });
  Buffer.alloc(12, 0xff).copy(block, 136);
  block.write("        ", 148, "latin1");
  const sum = block.reduce((total, byte) => total + byte, 0);
  block.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148, "latin1");
  const [entry] = await imported(tar(block));
  t.match(entry, { path: "old", mtimeSec: -1, mtimeNs: 0 });
});

test("an empty extended header says nothing, and takes nothing of what follows", async (t) => {
  const found = await ours(tar(pax({}), { name: "f", content: "abc" }, { name: "g" }), 512);
  t.same(
    found.map(({ name, size }) => [name, size]),
    [
      ["f", 3],
      ["g", 0],
    ],
  );
});

test("what isn't read of an entry is passed over", async (t) => {
  const archive = tar({ name: "a", content: "x".repeat(5000) }, { name: "b", content: "y" });
  const hooks = { onBytes: () => undefined, explain: (cause: unknown) => cause };
  const reader = new TarReader(sourceOf(archive, 700), hooks);
  const first = await reader.next();
  for await (const piece of first!.content) {
    t.equal(piece[0], 120);
    break;
  }
  const second = await reader.next();
  t.equal(second?.name, "b");
  t.equal((await second!.content.whole()).toString(), "y");
  t.equal(await reader.next(), undefined);
  t.ok(reader.isWhole);
});

test("errors come as they are explained: of the source, of its end, of whoever counts", async (t) => {
  const explain = (cause: unknown) => new Error(`explained: ${(cause as Error).message}`);
  const read = async (source: Readable, onBytes: () => Error | undefined = () => undefined) => {
    const reader = new TarReader(source, { onBytes, explain });
    while ((await reader.next()) !== undefined);
  };
  const archive = tar({ name: "a", content: "x".repeat(5000) });
  const failing = new Readable({ read() {} });
  failing.push(archive.subarray(0, 1024));
  setImmediate(() => failing.destroy(new Error("the disk is gone")));
  await t.rejects(read(failing), { message: "explained: the disk is gone" });
  const closed = new Readable({ read() {} });
  closed.push(archive.subarray(0, 1024));
  setImmediate(() => closed.destroy());
  await t.rejects(read(closed), { message: /^explained: the source was closed/ });
  await t.rejects(read(sourceOf(archive.subarray(0, 2000), 512)), {
    message: "explained: it ends too soon",
  });
  const over = sourceOf(archive, 512);
  await t.rejects(
    read(over, () => new Error("too much")),
    { message: "explained: too much" },
  );
  t.ok(over.destroyed);
});

test("a header is the same wherever it lies in memory", (t) => {
  const block = tar({ name: "\xff".repeat(99), content: "x", mode: "100755 " }).subarray(0, 512);
  const plain = readBlock(Buffer.from(block));
  t.equal(typeof plain, "object");
  for (let shift = 0; shift < 8; shift++) {
    const shifted = Buffer.alloc(1024)
      .fill(block, shift, shift + 512)
      .subarray(shift, shift + 512);
    t.same(readBlock(shifted), plain, `${shift} bytes further`);
    shifted[5] = shifted[5]! ^ 1;
    t.match(readBlock(shifted), /checksum is wrong/);
  }
  t.end();
});
