// Packs, locators and the writer: what goes in comes out, once, and nothing half-written is believed.

import fs from "node:fs";
import fc from "fast-check";
import { test } from "tap";
import type { BlobRef } from "../../lib/base/blob.ts";
import type { Digest } from "../../lib/base/digest.ts";
import { BLOCK_BYTES } from "../../lib/base/limits.ts";
import { Origin } from "../../lib/cache/origins.ts";
import { getPieces, openPiece, pieceAt, pieceCount } from "../../lib/cache/pieces.ts";
import { Codec, compressChunk, expandChunk } from "../../lib/store/codec.ts";
import { digestOf } from "../../lib/store/hash.ts";
import { KnownBlobs, readLocator } from "../../lib/store/known.ts";
import { objectPath } from "../../lib/store/layout.ts";
import { Locator } from "../../lib/store/locator.ts";
import { encodeFileLocator, encodeLocator } from "../../lib/store/locator-writer.ts";
import { memoryBackend } from "../../lib/store/memory.ts";
import { openStore } from "../../lib/store/open.ts";
import { readPackRows } from "../../lib/store/pack.ts";
import { openPackWriter } from "../../lib/store/pack-writer.ts";
import type { WritableBackend } from "../../lib/store/store.ts";
import { cpuMs } from "../suite/cpu.ts";
import { noise } from "../suite/daemon-node.ts";

async function pathsOf(store: WritableBackend, folder: string): Promise<string[]> {
  const paths: string[] = [];
  for await (const path of store.list(folder)) paths.push(path);
  return paths.sort();
}

async function* pieces(bytes: Buffer, pieceBytes: number): AsyncIterable<Uint8Array> {
  for (let at = 0; at < bytes.length; at += pieceBytes) yield bytes.subarray(at, at + pieceBytes);
}

/** A blob read back through a locator, each piece verified. */
async function readBack(store: WritableBackend, locator: Locator, ref: BlobRef): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  const sender = { name: store.origin, blame: () => undefined };
  for (let k = 0; k < pieceCount(ref.size); k++) {
    const piece = pieceAt(locator, ref.digest, ref.size, k);
    const stored = await store.get(piece.path, {
      range: { offset: piece.offset, length: piece.stored },
    });
    parts.push(openPiece(piece, { stored, sender }, ref.blocks[k] ?? ref.digest));
  }
  return Buffer.concat(parts);
}

test("a chunk that claims another length is refused before it is expanded", async (t) => {
  const content = Buffer.alloc(200_000, "abc");
  const { codec, bytes } = compressChunk(content);
  t.equal(codec, Codec.lz4);
  t.same(expandChunk(codec, bytes, content.length), content);
  const bomb = Buffer.from(bytes);
  bomb.writeUInt32LE(0x7fff_ffff, 0);
  const took = cpuMs(() => {
    t.throws(() => expandChunk(codec, bomb, content.length), { code: "BURROW_CORRUPT" });
    t.throws(() => expandChunk(codec, bomb, 0x7fff_ffff), { code: "BURROW_CORRUPT" });
  });
  t.ok(took < 500, "nothing was allocated for it");
  t.throws(() => expandChunk(codec, bytes.subarray(0, 100), content.length), {
    code: "BURROW_CORRUPT",
  });
  t.throws(() => expandChunk(codec, Buffer.alloc(0), 0), { code: "BURROW_CORRUPT" });
  t.throws(() => expandChunk(9, bytes, content.length), { code: "BURROW_CORRUPT" });
  t.throws(() => expandChunk(Codec.raw, content, 10), { code: "BURROW_CORRUPT" });
  t.equal(compressChunk(noise(10_000)).codec, Codec.raw, "what does not shrink stays raw");
});

test("a failing store leaves neither index nor locator", async (t) => {
  for (const broken of ["packs", "indexes", "locators"]) {
    const store = memoryBackend();
    const failing: WritableBackend = {
      origin: store.origin,
      get: (path, options) => store.get(path, options),
      has: (path) => store.has(path),
      list: (folder) => store.list(folder),
      sizes: (folder) => store.sizes(folder),
      remove: (path) => store.remove(path),
      close: () => store.close(),
      put: (path, bytes) =>
        path.startsWith(broken) ? Promise.reject(new Error("disk gone")) : store.put(path, bytes),
    };
    const writer = await openPackWriter(failing);
    await writer.addBytes(noise(1000));
    await t.rejects(writer.finish(Buffer.from("index")), { message: "disk gone" });
    t.same(await pathsOf(store, "locators"), [], `${broken}: no locator`);
    if (broken === "packs")
      t.same(await pathsOf(store, "indexes"), [], "no index before its packs");
  }
});

test("content of every size comes back, from bytes and from streams", async (t) => {
  const store = memoryBackend();
  const writer = await openPackWriter(store, { packBytes: 1_500_000 });
  const contents = [
    Buffer.alloc(0),
    noise(1),
    Buffer.alloc(70_000, "zip me "),
    noise(1024 * 1024, 2),
    noise(1024 * 1024 + 1, 3),
    noise(2 * BLOCK_BYTES * 4, 4),
    Buffer.concat([noise(1_300_000, 5), Buffer.alloc(3_000_000, "tail")]),
    noise(5_000_000, 6),
  ];
  const refs: BlobRef[] = [];
  for (const [i, content] of contents.entries()) {
    const ref =
      i % 2 ? await writer.addBytes(content) : await writer.addStream(pieces(content, 70_001), 5);
    t.equal(ref.digest, digestOf(content));
    t.equal(
      ref.blocks.length,
      content.length > 1024 * 1024 ? Math.ceil(content.length / BLOCK_BYTES) : 0,
    );
    refs.push(ref);
  }
  const { digest } = await writer.finish(Buffer.from("an index"));
  t.equal(digest, digestOf(Buffer.from("an index")));
  const locator = await readLocator(store, digest);
  t.equal(locator.blobCount, contents.length);
  for (const [i, ref] of refs.entries()) {
    if (ref.size > 0) t.same(await readBack(store, locator, ref), contents[i], `${ref.size} bytes`);
  }
  for (const path of await pathsOf(store, "packs")) {
    const pack = await store.get(path);
    t.equal(objectPath("packs", digestOf(pack)), path);
    for (const row of readPackRows(pack)) {
      const found = locator.find(row.blob);
      t.ok(found >= 0);
      t.match(locator.chunkAt(found, row.block), {
        offset: row.offset,
        stored: row.stored,
        length: row.length,
      });
    }
  }
});

test("equal content is stored once, across layers and streams", async (t) => {
  const store = memoryBackend();
  const shared = [noise(5000, 1), noise(3_000_000, 2), noise(9_000_000, 3)];
  const first = await openPackWriter(store, { packBytes: 2_000_000 });
  for (const content of shared) await first.addStream(pieces(content, 65_536), content.length);
  await first.addBytes(shared[0]!);
  const one = await first.finish(Buffer.from("layer one"));
  const packs = await pathsOf(store, "packs");
  const known = await KnownBlobs.load(store);
  t.equal(known.count, 3);
  const second = await openPackWriter(store, { packBytes: 2_000_000, known });
  const own = noise(7000, 9);
  for (const content of shared) await second.addStream(pieces(content, 65_536), content.length);
  const ref = await second.addBytes(own);
  const two = await second.finish(Buffer.from("layer two"));
  t.equal((await pathsOf(store, "packs")).length, packs.length + 1, "one pack for what is new");
  t.equal(second.counts.deduped, 3);
  const snapshot = await openPackWriter(store, { known });
  const made = await snapshot.addBytes(noise(100, 10));
  const merged = await snapshot.writeSnapshot(Buffer.from("snapshot"), [one.digest, two.digest]);
  const locator = await readLocator(store, merged.digest);
  t.equal(locator.blobCount, 5);
  t.same(await readBack(store, locator, ref), own);
  t.same(await readBack(store, locator, made), noise(100, 10));
  await t.rejects(snapshot.writeSnapshot(Buffer.from("x"), ["ab".repeat(32) as Digest]), {
    code: "BURROW_NOT_FOUND",
  });
});

test("small blobs of several layers lie side by side for a snapshot, and where they were for the layers", async (t) => {
  const store = memoryBackend();
  const known = await KnownBlobs.load(store);
  const refs: BlobRef[] = [];
  const layers: Digest[] = [];
  for (const seed of [1, 2, 3]) {
    const writer = await openPackWriter(store, { known });
    refs.push(await writer.addBytes(noise(300, seed)));
    await writer.addBytes(noise(9_000, 10 + seed));
    layers.push((await writer.finish(Buffer.from(`layer ${seed}`))).digest);
  }
  const packOf = (locator: Locator, ref: BlobRef) =>
    locator.chunkAt(locator.find(ref.digest), 0).pack;
  const before = await readLocator(store, layers[0]!);
  const path = before.chunkAt(before.find(refs[0]!.digest), 0).path;
  const absent = { digest: "ab".repeat(32) as Digest };
  const together = [...refs, absent].map(({ digest }) => digest);
  const write = async (name: string) => {
    const writer = await openPackWriter(store, { known });
    const { digest } = await writer.writeSnapshot(Buffer.from(name), layers, together);
    return { counts: writer.counts, locator: await readLocator(store, digest) };
  };
  const { locator } = await write("snapshot");
  t.equal(new Set(refs.map((ref) => packOf(locator, ref))).size, 1);
  t.equal(locator.blobCount, 6);
  for (const [i, ref] of refs.entries())
    t.same(await readBack(store, locator, ref), noise(300, i + 1));
  const layer = await readLocator(store, layers[0]!);
  t.equal(packOf(layer, refs[0]!), packOf(before, refs[0]!));
  t.equal((await write("another")).counts.packs, 0, "the same again is no new pack");
  await store.remove(path);
  await store.put(path, noise(300, 77));
  const damaged = (await write("of what is damaged")).locator;
  t.equal(packOf(damaged, refs[0]!), packOf(before, refs[0]!), "left where it was");
  t.equal(packOf(damaged, refs[1]!), packOf(damaged, refs[2]!));
});

test("packs that an ended writer left are not written, nor counted, again", async (t) => {
  const store = memoryBackend();
  const fill = async () => {
    const writer = await openPackWriter(store);
    await writer.addBytes(noise(5000, 1));
    return writer;
  };
  const first = await fill();
  await first.finish(Buffer.from("layer"));
  t.equal(first.counts.packs, 1);
  // As after a kill between packs and locator: nobody believes in the pack, but it is there.
  const lost = memoryBackend();
  for (const path of await pathsOf(store, "packs")) await lost.put(path, await store.get(path));
  const again = await openPackWriter(lost);
  await again.addBytes(noise(5000, 1));
  await again.finish(Buffer.from("layer"));
  t.match(again.counts, { blobs: 1, packs: 0, storedBytes: 0 });
});

test("a run goes to the neighbours in the pack, up to its bound", async (t) => {
  const store = memoryBackend();
  const writer = await openPackWriter(store);
  const refs: BlobRef[] = [];
  for (let i = 0; i < 10; i++) refs.push(await writer.addBytes(noise(1000, i + 1)));
  const { digest } = await writer.finish(Buffer.from("i"));
  const locator = await readLocator(store, digest);
  const around = (i: number, bytes: number) =>
    locator.runAround(locator.find(refs[i]!.digest), bytes).map(({ blob }) => {
      return refs.findIndex((ref) => ref.digest === blob);
    });
  t.same(around(3, 3000), [3, 4, 5], "forward first");
  t.same(around(9, 3000), [7, 8, 9], "back from the end");
  t.same(around(8, 4000), [6, 7, 8, 9]);
  t.same(around(5, 10), [5], "the blob itself always");
  t.equal(around(0, 1_000_000).length, 10);
});

test("a locator of plain files", async (t) => {
  const digest = digestOf(Buffer.from("x"));
  const files = [
    { digest, size: 1, path: "b" },
    { digest, size: 1, path: "a/ü" },
  ];
  const bytes = encodeFileLocator(files);
  t.same(bytes, encodeFileLocator([...files].reverse()), "the same in any order");
  const locator = new Locator(bytes);
  t.equal(locator.blobCount, 1);
  t.equal(locator.fileAt(locator.find(digest)), "a/ü");
  t.equal(locator.find("00".repeat(32) as Digest), -1);
});

test("a hostile locator is an error, never a crash, a hang or a huge read", async (t) => {
  const store = memoryBackend();
  const writer = await openPackWriter(store);
  const refs: BlobRef[] = [];
  for (let i = 0; i < 5; i++) refs.push(await writer.addBytes(noise(500, i + 1)));
  const { digest } = await writer.finish(Buffer.from("i"));
  const { bytes } = await readLocator(store, digest);
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.nat(bytes.length - 1), fc.nat(255)), { minLength: 1, maxLength: 8 }),
      fc.nat(bytes.length),
      (flips, cut) => {
        const bad = Buffer.from(bytes);
        for (const [at, value] of flips) bad[at] = value;
        for (const candidate of [bad, bad.subarray(0, cut)]) {
          try {
            const locator = new Locator(candidate);
            for (const ref of refs) {
              const row = locator.find(ref.digest);
              if (row >= 0) locator.runAround(row, 100_000);
              const piece = pieceAt(locator, ref.digest, ref.size, 0);
              if (piece.stored > ref.size) return false;
            }
          } catch (error) {
            if ((error as { code?: string }).code !== "BURROW_CORRUPT") return false;
          }
        }
        return true;
      },
    ),
    { numRuns: 500 },
  );
  t.throws(() => new Locator(encodeLocator([]).subarray(1)), { code: "BURROW_CORRUPT" });
  t.equal(new Locator(encodeLocator([])).blobCount, 0);
});

test("an unreadable locator costs dedup, nothing else; an origin reads packs", async (t) => {
  const root = fs.mkdtempSync("/tmp/burrow-packs-");
  t.teardown(() => fs.rmSync(root, { recursive: true, force: true }));
  const store = await openStore(root);
  const writer = await openPackWriter(store);
  const ref = await writer.addBytes(noise(2000));
  const { digest } = await writer.finish(Buffer.from("i"));
  await store.put("locators/ab/broken", Buffer.from("no locator"));
  t.equal((await KnownBlobs.load(store)).count, 1);
  const origin = new Origin(root, {}, 2);
  const piece = pieceAt(await readLocator(store, digest), ref.digest, ref.size, 0);
  const got = await getPieces(origin, [piece], true, AbortSignal.timeout(1000));
  t.same(openPiece(piece, got[0]!, ref.digest), noise(2000));
  origin.close();
});
