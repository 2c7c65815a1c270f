// Locators that lie: anybody's store may serve them, and no digest names them. What they lead to is verified elsewhere; here, that
// following them costs little.

import { test } from "tap";
import type { Digest } from "../../lib/base/digest.ts";
import { FETCH_RUN_BYTES } from "../../lib/base/limits.ts";
import type { Origin } from "../../lib/cache/origins.ts";
import { type Piece, plannedAround } from "../../lib/cache/pieces.ts";
import { Locator } from "../../lib/store/locator.ts";
import { encodeLocator } from "../../lib/store/locator-writer.ts";
import { cpuMs } from "../suite/cpu.ts";
import { Dice } from "../suite/dice.ts";

const digestOf = (i: number) => i.toString(16).padStart(64, "0") as Digest;
const pack = "f".repeat(64) as Digest;

/** COUNT small blobs that lie side by side in one pack, of `stored` bytes each. */
function sideBySide(count: number, stored: number): Locator {
  return new Locator(
    encodeLocator(
      Array.from({ length: count }, (_, i) => {
        const chunk = { pack, offset: 100 + i * stored, stored, length: 100, codec: 0 };
        return { digest: digestOf(i), size: 100, chunks: [chunk] };
      }),
    ),
  );
}

for (const stored of [0, 1]) {
  test(`a hundred thousand neighbours of ${stored} bytes`, (t) => {
    const locator = sideBySide(100_000, stored);
    // The order of chunks without bytes is none: more than share a chunk in earnest are not looked through.
    if (stored === 0) {
      const lie = { code: "BURROW_CORRUPT", message: /missing in the order/ };
      t.throws(() => locator.runAround(50_000, FETCH_RUN_BYTES), lie);
    }
    for (const row of stored === 0 ? [0] : [0, 50_000, 99_999]) {
      let run: ReturnType<typeof locator.runAround> = [];
      const took = cpuMs(() => {
        run = locator.runAround(row, FETCH_RUN_BYTES);
      });
      t.ok(run.length <= 1024, `${run.length} in a run`);
      t.ok(
        run.some(({ blob }) => blob === digestOf(row)),
        "the one asked for is in it",
      );
      t.ok(took < 100, `${Math.round(took)} ms`);
    }
    t.end();
  });
}

test("a run is in the order of its offsets, whole on both sides of what is asked for", (t) => {
  const locator = sideBySide(2_000, 1000);
  const run = locator.runAround(1_000, 9_500).map(({ blob }) => Number.parseInt(blob, 16));
  t.same(run, [1000, 1001, 1002, 1003, 1004, 1005, 1006, 1007, 1008]);
  const last = locator.runAround(1_998, 5_000).map(({ blob }) => Number.parseInt(blob, 16));
  t.same(last, [1995, 1996, 1997, 1998, 1999]);
  t.end();
});

test("whatever the order of chunks is said to be, a segment lies around its chunk", (t) => {
  const seed = Date.now() % 2 ** 31;
  const dice = new Dice(seed);
  const count = 200;
  const segmentBytes = 4096;
  let found = 0;
  for (let round = 0; round < 40; round++) {
    const { bytes } = sideBySide(count, 500);
    // Header, rows of 48 bytes for each blob, of 24 for each chunk.
    const orderAt = 64 + count * (48 + 24);
    for (let i = 0; i < 1 << (round % 8); i++)
      bytes.writeUInt32LE(dice.pick(count), orderAt + 4 * dice.pick(count));
    const locator = new Locator(bytes);
    for (let row = 0; row < count; row++) {
      const { offset, stored } = locator.chunkAt(row, 0);
      const segment = locator.segmentAround(row, 0, segmentBytes);
      if (segment === undefined) continue;
      found++;
      const end = segment.offset + segment.length;
      const isAround = segment.offset <= offset && offset + stored <= end;
      if (!isAround || segment.offset < offset - (offset % segmentBytes))
        t.fail(`${offset} in ${segment.offset}+${segment.length}, seed ${seed}`);
    }
  }
  t.ok(found > count, `${found} segments, seed ${seed}`);
  t.end();
});

test("where the order of chunks is a lie, a part of a pack is asked for by itself", (t) => {
  const { bytes } = sideBySide(10, 500);
  bytes.fill(0xff, 64 + 10 * (48 + 24), 64 + 10 * (48 + 24 + 4));
  const locator = new Locator(bytes);
  const blob = digestOf(3);
  const home = { locator, blob, block: 0 };
  const origin = {
    planned: () => undefined,
    isStarted: () => true,
    claim: () => t.fail("claimed"),
  };
  const piece = { ...locator.chunkAt(3, 0), home } as unknown as Piece;
  t.equal(plannedAround(origin as unknown as Origin, piece), undefined);
  t.end();
});
