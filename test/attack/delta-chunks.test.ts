// Chunks that say they are deltas and lie: packs and locators are anybody's. Each is refused as what its origin sent wrong, none makes
// other bytes, and none has more read than content of its size may take.

import fs from "node:fs";
import path from "node:path";
import { type Test, test } from "tap";
import type { Digest } from "../../lib/base/digest.ts";
import { BLOCK_BYTES } from "../../lib/base/limits.ts";
import { Origin } from "../../lib/cache/origins.ts";
import { getPieces, openPiece, pieceAt, pieceCount } from "../../lib/cache/pieces.ts";
import { Codec } from "../../lib/store/codec.ts";
import { KnownBlobs, readLocator } from "../../lib/store/known.ts";
import { objectPath } from "../../lib/store/layout.ts";
import { Locator } from "../../lib/store/locator.ts";
import { type BlobPlace, encodeLocator, placeAt } from "../../lib/store/locator-writer.ts";
import { openStore } from "../../lib/store/open.ts";
import { nearOf, noise, type Published, publish } from "../suite/daemon-node.ts";

const TEXT = noise(30_000, 1);
const LARGE = noise(6 * BLOCK_BYTES, 2);
const flipped = (bytes: Buffer, at: number) => {
  const out = Buffer.from(bytes);
  out[at] = out[at]! ^ 1;
  return out;
};
const FILES = { text: flipped(TEXT, 20_000), large: flipped(LARGE, 3 * BLOCK_BYTES) };

interface Scene {
  readonly root: string;
  readonly base: Published;
  readonly made: Published;
  readonly places: BlobPlace[];
  /** Reads a file of `made` through a locator, as the daemon does. */
  readonly read: (locator: Locator, name: keyof typeof FILES) => Promise<Buffer>;
}

async function scene(t: Test): Promise<Scene> {
  const root = t.testdir();
  const base = await publish(root, { text: TEXT, large: LARGE });
  const made = await publish(root, FILES, { near: nearOf(base) });
  const store = await openStore(root);
  const locator = await readLocator(store, made.digest);
  const places = Array.from({ length: locator.blobCount }, (_, row) => placeAt(locator, row));
  const origin = new Origin(root, { tries: 1 }, 4);
  t.teardown(() => origin.close());
  const read = async (through: Locator, name: keyof typeof FILES) => {
    const { digest, size, blocks } = made.refs.get(name)!;
    const pieces = Array.from({ length: pieceCount(size) }, (_, k) =>
      pieceAt(through, digest, size, k),
    );
    const got = await getPieces(origin, pieces, true, AbortSignal.timeout(10_000));
    return Buffer.concat(pieces.map((piece, k) => openPiece(piece, got[k]!, blocks[k] ?? digest)));
  };
  return { root, base, made, places, read };
}

const NAMES = ["text", "large"] as const;

test("what all of this lies about is right", async (t) => {
  const { places, read, base, made } = await scene(t);
  const locator = new Locator(encodeLocator(places));
  t.equal(locator.blobCount, 4, "files and bases");
  for (const name of NAMES) {
    t.ok((await read(locator, name)).equals(FILES[name]));
    t.ok(locator.hasDelta(locator.find(made.refs.get(name)!.digest)));
    t.notOk(locator.hasDelta(locator.find(base.refs.get(name)!.digest)));
  }
});

test("locators without the base, with a delta for it, or with one that is too large", async (t) => {
  const { places, read, base, made } = await scene(t);
  const bases = new Set(NAMES.map((name) => base.refs.get(name)!.digest));
  const isBase = ({ digest }: BlobPlace) => bases.has(digest);
  const deltas = places.filter((place) => !isBase(place));
  const edit = (change: (place: BlobPlace) => BlobPlace) =>
    places.map((place) => (isBase(place) ? change(place) : place));
  const chunks =
    (change: (chunk: BlobPlace["chunks"][number]) => object) => (place: BlobPlace) => ({
      ...place,
      chunks: place.chunks.map((chunk) => ({ ...chunk, ...change(chunk) })),
    });
  const other = (digest: Digest) =>
    deltas.find((place) => place.size === places.find((one) => one.digest === digest)!.size)!;
  const lies: Record<string, BlobPlace[]> = {
    "no base": deltas,
    "a base that is a delta": edit((place) => ({ ...other(place.digest), digest: place.digest })),
    "a base of fewer chunks": edit((place) => ({ ...place, chunks: [] })),
    "a base longer than a chunk may be": edit(chunks(() => ({ length: 0xffff_ffff }))),
    "a base that grew": edit(chunks(({ length }) => ({ stored: length + 1 }))),
    "a base of another codec": edit(chunks(() => ({ codec: Codec.lz4 }))),
    "a base at another place": edit(chunks(({ offset }) => ({ offset: offset + 1 }))),
  };
  for (const [lie, changed] of Object.entries(lies)) {
    const locator = new Locator(encodeLocator(changed));
    for (const name of NAMES) {
      const wrong = { code: "BURROW_DIGEST_MISMATCH", class: "transient" };
      await t.rejects(read(locator, name), wrong, `${lie}: ${name}`);
    }
  }
  t.equal(made.refs.size, 2);
});

test("bytes of a delta or its base that were changed", async (t) => {
  const { root, places, read, base, made } = await scene(t);
  const locator = new Locator(encodeLocator(places));
  const damage = (digest: Digest, at: number) => {
    const { pack, offset } = places.find((place) => place.digest === digest)!.chunks[0]!;
    const file = path.join(root, objectPath("packs", pack));
    const right = fs.readFileSync(file);
    fs.writeFileSync(file, flipped(right, offset + at));
    return () => fs.writeFileSync(file, right);
  };
  for (const name of NAMES) {
    const own = made.refs.get(name)!.digest;
    // The base's digest, the columns, the count of steps, of copied bytes, the stream.
    for (const at of [0, 31, 33, 36, 40, 50]) {
      const repair = damage(own, at);
      await t.rejects(read(locator, name), { code: "BURROW_DIGEST_MISMATCH" }, `${name} ${at}`);
      repair();
    }
    const repair = damage(base.refs.get(name)!.digest, 100);
    await t.rejects(read(locator, name), { code: "BURROW_DIGEST_MISMATCH" }, `base of ${name}`);
    repair();
    t.ok((await read(locator, name)).equals(FILES[name]));
  }
});

test("blobs of deltas are no base, and give way to whole ones where locators are merged", async (t) => {
  const { root, base, made, places } = await scene(t);
  const store = await openStore(root);
  const known = await KnownBlobs.load(store);
  for (const name of NAMES) {
    t.equal(known.place(made.refs.get(name)!.digest), undefined);
    t.ok(known.place(base.refs.get(name)!.digest));
  }
  const third = { text: flipped(FILES.text, 5), large: flipped(FILES.large, 5) };
  const last = await publish(root, third, { near: nearOf(made) });
  const locator = await readLocator(store, last.digest);
  t.equal(locator.blobCount, 2);
  for (const ref of last.refs.values()) t.notOk(locator.hasDelta(locator.find(ref.digest)));
  const whole = places.map((place) => {
    const pack = "a".repeat(64) as Digest;
    return {
      ...place,
      chunks: place.chunks.map((chunk) => ({ ...chunk, pack, codec: Codec.raw })),
    };
  });
  for (const order of [
    [...places, ...whole],
    [...whole, ...places],
  ]) {
    const merged = new Locator(encodeLocator(order));
    for (let row = 0; row < merged.blobCount; row++) t.notOk(merged.hasDelta(row));
  }
});
