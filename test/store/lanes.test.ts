// Hashes of many pieces at once, held against node:crypto: whatever their lengths and places, and none that isn't right.

import { hash } from "node:crypto";
import fc from "fast-check";
import { test } from "tap";
import { blockDigests, groupBytes } from "../../lib/store/blocks.ts";
import { hashPieces, hasLanes, type Piece } from "../../lib/store/lanes.ts";
import { native } from "../../lib/sys/native.ts";
import { RUNS, SEED } from "../layer/trees.ts";
import { noise } from "../suite/daemon-node.ts";

const options = hasLanes ? {} : { skip: "this CPU has no lanes, or none that are of use" };
const BYTES = noise(200_000);
const EINVAL = 22;

const digestOf = (start: number, length: number) =>
  hash("sha256", BYTES.subarray(start, start + length), "hex");

/** What the addon says of ranges, and whether it wrote only where it should. */
function lanes(ranges: readonly (readonly [number, number])[]): string[] {
  const out = Buffer.alloc(32 * ranges.length + 32, 0xa5);
  const digests = out.subarray(0, 32 * ranges.length);
  const result = native.hashLanes(BYTES, Uint32Array.from(ranges.flat()), digests);
  if (result !== 0) throw new Error(`hashLanes: ${result}`);
  if (out.subarray(-32).some((byte) => byte !== 0xa5)) throw new Error("it wrote too much");
  return ranges.map((_, i) => digests.toString("hex", 32 * i, 32 * i + 32));
}

test("every length around the borders of blocks and padding", options, (t) => {
  const ranges = Array.from({ length: 400 }, (_, i) => [i % 7, i] as const);
  for (const order of [ranges, ranges.toReversed()])
    t.same(
      lanes(order),
      order.map(([start, length]) => digestOf(start, length)),
    );
  t.same(lanes([]), []);
  // FIPS 180-4's own example.
  const abc = Buffer.alloc(32);
  t.equal(native.hashLanes(Buffer.from("abc"), Uint32Array.of(0, 3), abc), 0);
  const known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
  t.equal(abc.toString("hex"), known);
  t.end();
});

test("any pieces in any order", options, (t) => {
  const length = fc.oneof(fc.nat(300), fc.nat(10_000), fc.constant(0));
  const range = fc.tuple(fc.nat(BYTES.length - 10_000), length);
  fc.assert(
    fc.property(fc.array(range, { maxLength: 70 }), (ranges) => {
      const right = ranges.map(([start, count]) => digestOf(start, count));
      return lanes(ranges).every((digest, i) => digest === right[i]);
    }),
    { numRuns: RUNS, seed: SEED },
  );
  t.end();
});

test("what lies outside is refused", options, (t) => {
  const digests = Buffer.alloc(64);
  const refused = (ranges: readonly number[], out = digests) =>
    t.equal(native.hashLanes(Buffer.alloc(100), Uint32Array.from(ranges), out), -EINVAL);
  refused([0, 101]);
  refused([0, 1, 100, 1]);
  refused([0xffff_ffff, 0xffff_ffff]);
  refused([0, 1, 0, 1, 0, 1]);
  refused([0, 1], Buffer.alloc(31));
  t.end();
});

test("pieces get their own digests, or none where they are better hashed alone", (t) => {
  const pieces = (...lengths: number[]): Piece[] =>
    lengths.map((length, start) => ({ start, length }));
  const hashed = (all: Piece[]) => {
    hashPieces(BYTES, all);
    for (const { start, length, digest } of all)
      t.equal(digest ?? digestOf(start, length), digestOf(start, length));
    return all.filter(({ digest }) => digest !== undefined).length;
  };
  const small = Array.from({ length: 40 }, (_, i) => 100 * i);
  t.equal(hashed(pieces(...small)), hasLanes ? 40 : 0);
  const [long, ...rest] = pieces(150_000, ...small);
  t.equal(hashed([long!, ...rest]), hasLanes ? 40 : 0);
  t.equal(long!.digest, undefined, "all lanes would wait for it");
  t.equal(hashed(pieces(50, 60)), 0, "too few");
  t.equal(hashed([]), 0);
  t.end();
});

test("blocks of content, and how much of a stream is taken together", (t) => {
  const bytes = noise(5 * 262_144 + 1000);
  const right: string[] = [];
  for (let at = 0; at < bytes.length; at += 262_144)
    right.push(hash("sha256", bytes.subarray(at, at + 262_144), "hex"));
  t.same(blockDigests(bytes), right);
  t.same(blockDigests(bytes.subarray(0, 1000)), [hash("sha256", bytes.subarray(0, 1000), "hex")]);
  const [MIB, KIB] = [1 << 20, 1 << 10];
  t.equal(groupBytes(0), MIB + 256 * KIB, "more than a blob without blocks");
  t.equal(groupBytes(MIB), MIB + 256 * KIB);
  t.equal(groupBytes(2 * MIB + 1), 2 * MIB + 256 * KIB);
  t.equal(groupBytes(Number.MAX_SAFE_INTEGER), 4 * MIB);
  t.end();
});
