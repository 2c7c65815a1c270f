// Owns: proof that what a store keeps compressed is read as if it were there as it is, wherever it lies; what writers choose; and what a
// hostile or damaged stream comes to. Plane: control.

import { createHash, randomBytes } from "node:crypto";
import fs from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { brotliCompressSync, constants } from "node:zlib";
import fc from "fast-check";
import { type Test, test } from "tap";
import type { Digest } from "../../lib/base/digest.ts";
import { COMPRESSED_MIN_BYTES } from "../../lib/base/limits.ts";
import { compressing } from "../../lib/store/compressed.ts";
import { objectPath } from "../../lib/store/layout.ts";
import { memoryBackend } from "../../lib/store/memory.ts";
import { newMeter } from "../../lib/store/meter.ts";
import { openOrigin, openStore } from "../../lib/store/open.ts";
import { classOf } from "../../lib/store/store.ts";
import { OriginServer } from "../suite/origin-server.ts";

const MAGIC = "BRWBROTL";
const QUICK = { [constants.BROTLI_PARAM_QUALITY]: 1 };

const sumOf = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex") as Digest;

/** Rows as an index's: a digest each, and small numbers. */
function tableOf(rows: number): Buffer {
  const bytes = Buffer.alloc(rows * 48);
  for (let i = 0; i < rows; i++) {
    createHash("sha256")
      .update(`${i}`)
      .digest()
      .copy(bytes, i * 48);
    bytes.writeUInt32LE(i, i * 48 + 40);
  }
  return bytes;
}

const INDEX = tableOf(3_000);
/** Where it lies. */
const NAMED = objectPath("indexes", sumOf(INDEX));

/** Puts bytes there, without a store. */
function write(root: string, bytes: Uint8Array): void {
  fs.mkdirSync(path.dirname(`${root}/${NAMED}`), { recursive: true });
  fs.writeFileSync(`${root}/${NAMED}`, bytes);
}

function temporary(t: Test): string {
  const root = fs.mkdtempSync(`${tmpdir()}/burrow-store-`);
  t.teardown(() => fs.rmSync(root, { recursive: true, force: true }));
  return root;
}

/** A stream as a store has it, which says that it expands to so many bytes. */
function streamOf(content: Uint8Array, bytes = content.length, version = 1): Buffer {
  const head = Buffer.alloc(16);
  head.write(MAGIC, "latin1");
  head.writeUInt32LE(version, 8);
  head.writeUInt32LE(bytes, 12);
  return Buffer.concat([head, brotliCompressSync(content, { params: QUICK })]);
}

test("what is put compressed is read as it was, from a directory and over HTTP", async (t) => {
  const root = temporary(t);
  const store = await openStore(root);
  const server = await OriginServer.start(root);
  t.teardown(() => server.close());
  await store.put(NAMED, INDEX);
  const stored = fs.readFileSync(`${root}/${NAMED}`);
  t.equal(stored.toString("latin1", 0, 8), MAGIC);
  t.ok(stored.length < 0.9 * INDEX.length, `${stored.length} of ${INDEX.length}`);
  t.ok((await store.get(NAMED)).equals(INDEX));
  const meter = newMeter();
  const origin = openOrigin(server.url, { meter });
  t.teardown(() => origin.close());
  t.ok((await origin.get(NAMED)).equals(INDEX));
  t.equal(meter.bytes, stored.length, "what is counted is what came");
  t.equal(meter.requests, 1, "nobody asks for two kinds of it");
});

test("what is short, or packs, or no shorter compressed lies as it is", async (t) => {
  const inner = memoryBackend();
  const store = compressing(inner);
  const noise = randomBytes(2 * COMPRESSED_MIN_BYTES);
  const zeros = Buffer.alloc(4 * 1024 * 1024);
  for (const [at, bytes] of [
    ["indexes/ab/short", INDEX.subarray(0, COMPRESSED_MIN_BYTES - 1)],
    ["packs/ab/pack", INDEX],
    ["locators/ab/noise", noise],
    // A stream of these would be one that no reader takes.
    ["indexes/ab/zeros", zeros],
  ] as const) {
    await store.put(at, bytes);
    t.ok((await inner.get(at)).equals(bytes), at);
    t.ok((await store.get(at)).equals(bytes), at);
  }
});

test("what an earlier build wrote is read as it is", async (t) => {
  const root = temporary(t);
  write(root, INDEX);
  const origin = openOrigin(root);
  t.ok((await origin.get(NAMED)).equals(INDEX));
});

test("any bytes come back", async (t) => {
  const store = compressing(memoryBackend());
  await fc.assert(
    fc.asyncProperty(fc.uint8Array({ minLength: 1, maxLength: 64 }), fc.nat(3), async (seed, n) => {
      const bytes = Buffer.alloc(COMPRESSED_MIN_BYTES + n, seed);
      bytes.set(
        seed.map((each) => each ^ 0xff),
        n,
      );
      await store.put("locators/ab/any", bytes);
      t.ok((await store.get("locators/ab/any")).equals(bytes));
    }),
    { numRuns: 10 },
  );
});

test("a stream that lies is refused, and another place may have it right", async (t) => {
  const inner = memoryBackend();
  const store = compressing(inner);
  const at = "locators/ab/lies";
  const whole = streamOf(INDEX);
  const cases: readonly (readonly [string, Buffer])[] = [
    ["longer than it says", streamOf(INDEX, INDEX.length - 1)],
    ["shorter than it says", streamOf(INDEX, INDEX.length + 1)],
    ["of another version", streamOf(INDEX, INDEX.length, 2)],
    ["cut off", whole.subarray(0, whole.length - 100)],
    ["no stream at all", Buffer.concat([whole.subarray(0, 16), randomBytes(1_000)])],
    ["a header alone", whole.subarray(0, 16)],
    ["much longer than itself", streamOf(Buffer.alloc(4 * 1024 * 1024))],
  ];
  for (const [what, bytes] of cases) {
    await inner.put(at, bytes);
    const failure = await store.get(at).catch((error: unknown) => error);
    t.match(failure, { code: "BURROW_CORRUPT" }, what);
    t.equal(classOf(failure), "transient", what);
  }
  await inner.put(at, whole);
  const options = { maxBytes: INDEX.length - 1 };
  await t.rejects(store.get(at, options), { code: "BURROW_CORRUPT" }, "past what the caller takes");
  t.ok((await store.get(at)).equals(INDEX));
});

test("an index that expands to another one is refused by its name", async (t) => {
  const root = temporary(t);
  write(root, streamOf(tableOf(2_999)));
  const store = await openStore(root);
  await t.rejects(store.get(NAMED), { code: "BURROW_DIGEST_MISMATCH" });
});
