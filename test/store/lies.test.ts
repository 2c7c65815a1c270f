// Owns: proof that a locator or a delta that lies costs its readers no more than what it is about. Plane: control.

import { createHash } from "node:crypto";
import { test } from "tap";
import type { Digest } from "../../lib/base/digest.ts";
import { Codec } from "../../lib/store/codec.ts";
import { applyDelta, makeDelta } from "../../lib/store/delta-codec.ts";
import { KnownBlobs, readLocator } from "../../lib/store/known.ts";
import { objectPath } from "../../lib/store/layout.ts";
import { Locator } from "../../lib/store/locator.ts";
import { BLOB_ROW, CHUNK_ROW, HEADER } from "../../lib/store/locator-format.ts";
import { type BlobPlace, encodeLocator } from "../../lib/store/locator-writer.ts";
import { memoryBackend } from "../../lib/store/memory.ts";

const sumOf = (text: string) => createHash("sha256").update(text).digest("hex") as Digest;

/** Blobs of one chunk each, in one pack. */
function placesOf(digests: readonly Digest[]): BlobPlace[] {
  const pack = sumOf("pack");
  return digests.map((digest, i) => ({
    digest,
    size: 10,
    chunks: [{ pack, offset: 16 + 10 * i, stored: 10, length: 10, codec: Codec.raw }],
  }));
}

test("a locator whose names all begin alike is searched as any other", (t) => {
  const begun = (i: number) => `00000000${sumOf(`${i}`).slice(8)}` as Digest;
  const locator = new Locator(
    encodeLocator(placesOf(Array.from({ length: 5_000 }, (_, i) => begun(i)))),
  );
  let looks = 0;
  const { digestAt } = Locator.prototype;
  locator.digestAt = (row) => {
    looks++;
    return digestAt.call(locator, row);
  };
  for (const i of [0, 17, 4_999]) t.equal(digestAt.call(locator, locator.find(begun(i))), begun(i));
  for (let i = 5_000; i < 5_100; i++) t.equal(locator.find(begun(i)), -1);
  t.equal(locator.find("f".repeat(64) as Digest), -1);
  t.ok(looks < 103 * 20, `${looks} looks`);
  t.end();
});

test("a locator with chunks that lie costs dedup, nothing else", async (t) => {
  const honest = encodeLocator(placesOf(Array.from({ length: 100 }, (_, i) => sumOf(`${i}`))));
  const chunksAt = HEADER.bytes + 100 * BLOB_ROW.bytes;
  const rowOf = (row: number) => HEADER.bytes + row * BLOB_ROW.bytes;
  const lies = {
    "a chunk outside": (bytes: Buffer) => bytes.writeUInt32LE(100, rowOf(50) + BLOB_ROW.first),
    "a pack outside": (bytes: Buffer) => bytes.writeUInt32LE(1, chunksAt + CHUNK_ROW.pack),
    // Each walk over all blobs would be one over as many chunks as there are, for each.
    "all chunks in each blob": (bytes: Buffer) => {
      for (let row = 0; row < 100; row++) {
        bytes.writeUInt32LE(0, rowOf(row) + BLOB_ROW.first);
        bytes.writeUInt32LE(100, rowOf(row) + BLOB_ROW.count);
      }
    },
  };
  for (const [what, lie] of Object.entries(lies)) {
    const store = memoryBackend();
    const bytes = Buffer.from(honest);
    lie(bytes);
    await store.put(objectPath("locators", sumOf("a")), bytes);
    await store.put(objectPath("locators", sumOf("b")), encodeLocator(placesOf([sumOf("known")])));
    await t.rejects(readLocator(store, sumOf("a")), { code: "BURROW_CORRUPT" }, what);
    const known = await KnownBlobs.load(store);
    t.equal(known.count, 1, what);
    t.ok(known.place(sumOf("known")), what);
  }
});

test("what a delta's steps take is bounded by what it makes", (t) => {
  const base = Buffer.from("0123456789");
  const head = Buffer.alloc(12);
  head.writeUInt32LE(1, 0);
  head.writeUInt32LE(200, 4);
  head.writeUInt32LE(10, 8);
  // No stream at all: it is refused before that is looked at.
  const body = Buffer.concat([head, Buffer.from("no stream")]);
  t.throws(() => applyDelta(base, body, 10), { message: /lengths contradict/ });
  t.ok(applyDelta(base, makeDelta(base, base, 1)!, 10).equals(base));
  t.end();
});
