// Owns: proof that deltas are made of what is right alone, and that their bases are written anew without harm. Plane: control.

import { test } from "tap";
import type { BlobRef } from "../../lib/base/blob.ts";
import { Codec, expandChunk } from "../../lib/store/codec.ts";
import { resolvingStore } from "../../lib/store/deltas.ts";
import { digestOf } from "../../lib/store/hash.ts";
import { KnownBlobs, readLocator } from "../../lib/store/known.ts";
import { objectPath } from "../../lib/store/layout.ts";
import { memoryBackend } from "../../lib/store/memory.ts";
import { type NearIndex, openPackWriter } from "../../lib/store/pack-writer.ts";
import { noise } from "../suite/daemon-node.ts";

/** A text that deltas are worth for, and one that is nearly the same. */
function nearlyEqual(bytes: number): { before: Buffer; after: Buffer } {
  const before = noise(bytes);
  const after = Buffer.from(before);
  after[bytes >> 1]! ^= 1;
  return { before, after };
}

test("no delta is made of a base that isn't what it is said to be", async (t) => {
  for (const bytes of [100_000, 1_500_000]) {
    const store = resolvingStore(memoryBackend());
    const { before, after } = nearlyEqual(bytes);
    const first = await openPackWriter(store);
    const ref = await first.addBytes(before);
    const { digest } = await first.finish(Buffer.from("index"));
    const near: NearIndex = { digest, blobAt: () => ref };
    const { path } = (await readLocator(store, digest)).chunkAt(0, 0);
    const pack = await store.get(path);
    const codecsOf = async (name: string): Promise<number[]> => {
      const writer = await openPackWriter(store, { near, known: await KnownBlobs.load(store) });
      const made = await writer.addBytes(after, "file");
      const locator = await readLocator(store, (await writer.finish(Buffer.from(name))).digest);
      await store.remove(objectPath("locators", digestOf(Buffer.from(name))));
      const row = locator.find(made.digest);
      const count = locator.chunkCount(row);
      return Array.from({ length: count }, (_, k) => locator.chunkAt(row, k).codec);
    };
    const damaged = Buffer.from(pack);
    damaged[1000]! ^= 0xff;
    await store.put(path, damaged);
    t.not((await codecsOf("by a damaged one"))[0], Codec.delta, `${bytes}`);
    await store.put(path, pack);
    t.equal((await codecsOf("by a right one"))[0], Codec.delta, `${bytes}`);
  }
});

test("a locator that others are deltas of is written anew, and they stay readable", async (t) => {
  const store = resolvingStore(memoryBackend());
  const files = Array.from({ length: 300 }, (_, i) => Buffer.from(`file ${i}`.repeat(10)));
  const made = async (contents: readonly Buffer[], index: string, near?: NearIndex) => {
    // As by another machine at the same time: it knows nothing that is here.
    const known = near === undefined ? new KnownBlobs() : await KnownBlobs.load(store);
    const writer = await openPackWriter(store, { known, near });
    const refs: BlobRef[] = [];
    for (const bytes of contents) refs.push(await writer.addBytes(bytes));
    return { refs, ...(await writer.finish(Buffer.from(index))) };
  };
  const base = await made(files, "base");
  const near: NearIndex = { digest: base.digest, blobAt: () => undefined };
  const second = await made([...files, Buffer.from("more")], "second", near);
  const deltas: string[] = [];
  for await (const path of store.whole.list("deltas/locators")) deltas.push(path);
  t.equal(deltas.length, 1);
  const again = await made([...files].reverse(), "base");
  t.equal(again.digest, base.digest);
  for (const { digest, refs } of [second, again]) {
    const locator = await readLocator(store, digest);
    for (const ref of refs) t.ok(locator.find(ref.digest) >= 0);
    const { path, offset, stored, codec, length } = locator.chunkAt(
      locator.find(refs[0]!.digest),
      0,
    );
    const bytes = await store.get(path, { range: { offset, length: stored } });
    t.equal(digestOf(expandChunk(codec, bytes, length)), refs[0]!.digest);
  }
});
