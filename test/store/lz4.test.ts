// Chunks as we pack them, held against another's unpacking (lz4-napi): whatever the bytes, and shorter or as they are.

import fc from "fast-check";
import { uncompressSync } from "lz4-napi";
import { test } from "tap";
import { Codec, compressChunk, keptOf } from "../../lib/store/codec.ts";
import { native } from "../../lib/sys/native.ts";
import { RUNS, SEED } from "../layer/trees.ts";
import { noise } from "../suite/daemon-node.ts";

function isSame(bytes: Buffer): boolean {
  const packed = compressChunk(bytes);
  if (packed.codec === Codec.raw) return packed.bytes === bytes;
  return packed.bytes.length < bytes.length && uncompressSync(packed.bytes).equals(bytes);
}

const GUARD = 0xa5;

/** Text with repeats near and far, as files have. */
function text(length: number): Buffer {
  const words = Array.from({ length: 300 }, (_, i) => (i * 7919).toString(36).repeat(1 + (i % 4)));
  const parts: string[] = [];
  for (let i = 0, size = 0; size < length; i++) {
    parts.push(words[(i * i + (i >> 5)) % words.length]!);
    size += parts.at(-1)!.length;
  }
  return Buffer.from(parts.join(""), "latin1").subarray(0, length);
}

test("any bytes come back", (t) => {
  const piece = fc.uint8Array({ maxLength: 80 });
  const repeats = fc.array(fc.tuple(piece, fc.nat(40)), { maxLength: 30 });
  fc.assert(
    fc.property(repeats, (all) => {
      const parts = all.flatMap(([bytes, count]) => Array<Uint8Array>(count + 1).fill(bytes));
      return isSame(Buffer.concat(parts));
    }),
    { numRuns: RUNS, seed: SEED },
  );
  t.end();
});

test("each length at the borders of the format", (t) => {
  const lengths = Array.from({ length: 600 }, (_, i) => i);
  for (const border of [4096, 65_536, 262_144, (1 << 20) - 14])
    for (let i = -14; i <= 14; i++) lengths.push(border + i);
  for (const length of lengths) {
    t.ok(isSame(text(length)), `text of ${length}`);
    t.ok(isSame(Buffer.alloc(length, 7)), `${length} equal bytes`);
  }
  const word = noise(70_000);
  for (const gap of [0, 1, 65_536, 200_000])
    t.ok(isSame(Buffer.concat([word, Buffer.alloc(gap), word])), `a repeat ${gap} bytes further`);
  t.end();
});

test("what shrinks is shorter, what does not is left as it is", (t) => {
  t.equal(compressChunk(noise(100_000)).codec, Codec.raw);
  t.equal(compressChunk(Buffer.from("a line of text")).codec, Codec.raw);
  t.equal(compressChunk(Buffer.alloc(0)).codec, Codec.raw);
  t.ok(compressChunk(text(100_000)).bytes.length < 50_000);
  t.end();
});

test("a result is kept by a copy alone", (t) => {
  const first = compressChunk(text(50_000));
  const kept = keptOf(first);
  compressChunk(Buffer.alloc(50_000, 1));
  t.notSame(first.bytes, kept.bytes, "the next takes its place");
  t.ok(uncompressSync(kept.bytes as Buffer).equals(text(50_000)));
  t.end();
});

const hasLibrary = native.packLz4(Buffer.alloc(100), Buffer.alloc(100)) > 0;
const skipped = hasLibrary ? {} : { skip: "there is no liblz4.so.1" };

test("never past the memory that it was given", skipped, (t) => {
  const bytes = text(100_000);
  const out = Buffer.alloc(bytes.length, GUARD);
  const whole = native.packLz4(bytes, out);
  t.ok(whole > 0);
  t.equal(native.packLz4(bytes, out.subarray(0, whole)), whole, "room for just that");
  for (let room = 0; room < whole; room += 97) {
    out.fill(GUARD);
    t.equal(native.packLz4(bytes, out.subarray(0, room)), 0, `room for ${room}`);
    t.ok(
      out.subarray(room).every((byte) => byte === GUARD),
      "and no byte behind it",
    );
  }
  t.end();
});
