// What threads of the pool do to a file: right blocks are in their places, wrong ones are left to the caller, hashes are the same
// as on the loop. Test.

import { createHash } from "node:crypto";
import fs from "node:fs";
import { type Test, test } from "tap";
import { BLOCK_BYTES } from "../../lib/base/limits.ts";
import { hashFile, keepInPool, type StoredBlock } from "../../lib/cache/pool.ts";
import { Codec, compressChunk, keptOf } from "../../lib/store/codec.ts";
import { digestOf } from "../../lib/store/hash.ts";
import { noise } from "../suite/daemon-node.ts";

function open(t: Test): number {
  const fd = fs.openSync(`${t.testdir()}/file`, "w+");
  t.teardown(() => fs.closeSync(fd));
  return fd;
}

function at(fd: number, block: number, length: number): Buffer {
  const out = Buffer.alloc(length);
  return out.subarray(0, fs.readSync(fd, out, 0, length, block * BLOCK_BYTES));
}

/** Blocks of content as one run brings them: behind each other in one piece of memory. */
function storedOf(contents: readonly Buffer[], first: number): StoredBlock[] {
  const packed = contents.map((content) => keptOf(compressChunk(content)));
  const run = Buffer.concat(packed.map(({ bytes }) => bytes));
  let end = 0;
  return contents.map((content, i) => {
    const { codec, bytes } = packed[i]!;
    const stored = run.subarray(end, end + bytes.length);
    end += bytes.length;
    return { stored, codec, length: content.length, block: first + i, digest: digestOf(content) };
  });
}

const text = (seed: number) => Buffer.alloc(BLOCK_BYTES, `line ${seed} of a file\n`);

test("blocks that are right are written to their places", async (t) => {
  // With fewer than four no lanes are used; more than 16 are more than one batch.
  for (const count of [1, 3, 4, 17, 40]) {
    const contents = Array.from({ length: count }, (_, i) =>
      i % 3 === 1 ? text(i) : noise(i === count - 1 ? 1000 : BLOCK_BYTES, i + 1),
    );
    const fd = open(t);
    const blocks = storedOf(contents, 5);
    const codecs = new Set(blocks.map(({ codec }) => codec));
    t.equal(codecs.has(Codec.lz4), count > 1, "compressed ones among them");
    const kept = await keepInPool(fd, blocks);
    t.same([...kept].sort(), blocks.map(({ block }) => block).sort(), `all of ${count}`);
    const isRight = ({ block, length }: StoredBlock, i: number) =>
      at(fd, block, length).equals(contents[i]!);
    t.ok(blocks.every(isRight));
    t.equal(at(fd, 0, 16).compare(Buffer.alloc(16)), 0, "nothing elsewhere");
  }
});

test("what isn't right is not written, whatever lies beside it", async (t) => {
  const contents = [text(1), noise(BLOCK_BYTES, 2), text(3), text(4), text(5), text(6), text(7)];
  const good = storedOf(contents, 0);
  const [lz4, raw] = [good[0]!, good[1]!];
  const spoiled = Buffer.from(lz4.stored);
  spoiled[10]! ^= 1;
  const wrong: StoredBlock[] = [
    { ...lz4, block: 10, stored: spoiled },
    { ...lz4, block: 11, stored: lz4.stored.subarray(0, 3) },
    { ...lz4, block: 12, stored: lz4.stored.subarray(0, lz4.stored.length - 1) },
    { ...lz4, block: 13, length: lz4.length - 1 },
    { ...lz4, block: 14, digest: raw.digest },
    { ...raw, block: 15, length: raw.length - 1 },
    { ...raw, block: 16, digest: lz4.digest },
    { ...raw, block: 17, codec: Codec.delta },
    { ...raw, block: 18, codec: 9 },
    { ...raw, block: 19, length: BLOCK_BYTES + 1 },
  ];
  const fd = open(t);
  const kept = await keepInPool(fd, [...good, ...wrong]);
  t.same([...kept].sort(), [0, 1, 2, 3, 4, 5, 6]);
  t.equal(fs.fstatSync(fd).size, 7 * BLOCK_BYTES, "nothing behind the right ones");
});

test("a file that takes no writes keeps nothing, and one that is closed meanwhile takes its own", async (t) => {
  const blocks = storedOf([text(1)], 0);
  const folder = t.testdir();
  const path = `${folder}/file`;
  fs.writeFileSync(path, "");
  const reader = fs.openSync(path, "r");
  t.equal((await keepInPool(reader, blocks)).size, 0);
  fs.closeSync(reader);
  const writer = fs.openSync(path, "w+");
  const work = keepInPool(writer, blocks);
  fs.closeSync(writer);
  // The next file has its number, or one of the next: a thread that begins opens some for itself.
  const others = Array.from({ length: 10 }, () => fs.openSync(`${folder}/other`, "w+"));
  t.ok(others.includes(writer));
  t.equal((await work).size, 1);
  t.equal(fs.statSync(`${folder}/other`).size, 0);
  t.equal(fs.statSync(path).size, BLOCK_BYTES);
  for (const other of others) fs.closeSync(other);
  t.equal((await keepInPool(-1, blocks)).size, 0, "no file");
});

test("a file's hash is what its bytes come to", async (t) => {
  const PART = 4 * 1024 * 1024;
  const bytes = noise(2 * PART + 3, 7);
  for (const length of [0, 1, 1000, PART - 1, PART, PART + 1, 2 * PART, 2 * PART + 3]) {
    const fd = open(t);
    fs.writeSync(fd, bytes, 0, length);
    const expected = createHash("sha256").update(bytes.subarray(0, length)).digest("hex");
    t.equal(await hashFile(fd), expected, `${length} bytes`);
  }
  const folder = fs.openSync(t.testdir(), "r");
  await t.rejects(hashFile(folder), { code: "BURROW_IO" });
  fs.closeSync(folder);
});
