// Deltas that lie: anybody's store may serve them. Each is refused by name, none makes bytes that were not meant, and what it costs
// is bounded by what it may make.

import { createHash } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { brotliCompressSync, constants } from "node:zlib";
import { type Test, test } from "tap";
import type { Digest } from "../../lib/base/digest.ts";
import { applyDelta } from "../../lib/store/delta-codec.ts";
import { deltaPath, putNear } from "../../lib/store/deltas.ts";
import { objectPath } from "../../lib/store/layout.ts";
import { openOrigin, openStore } from "../../lib/store/open.ts";

const sumOf = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex") as Digest;

/** The body of a delta, as it says it is. */
function body(stepBytes: number, copied: number, stream: Uint8Array, columns = 1): Buffer {
  const head = Buffer.alloc(12);
  head.writeUInt32LE(columns, 0);
  head.writeUInt32LE(stepBytes, 4);
  head.writeUInt32LE(copied, 8);
  const params = { [constants.BROTLI_PARAM_QUALITY]: 5 };
  return Buffer.concat([head, brotliCompressSync(stream, { params })]);
}

const base = Buffer.from("the base of a delta");
/** Steps, differences and own bytes that together make ten bytes; `lie` changes one thing. */
const bodies: Record<string, [Buffer, number, RegExp]> = {
  "cut off": [Buffer.alloc(11), 10, /cut off/],
  "no stream": [Buffer.from([1, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0]), 10, /damaged/],
  "no columns": [body(3, 10, Buffer.alloc(13), 0), 10, /0 columns/],
  "too many columns": [body(3, 10, Buffer.alloc(13), 65), 10, /65 columns/],
  "more copied than made": [body(3, 11, Buffer.alloc(14)), 10, /contradict/],
  "a stream that is too short": [body(3, 10, Buffer.from([0, 10, 0])), 10, /contradict/],
  "a stream that is too long": [
    body(3, 10, Buffer.concat([Buffer.from([0, 10, 0]), Buffer.alloc(11)])),
    10,
    /too long/,
  ],
  "steps that make less": [
    body(3, 9, Buffer.concat([Buffer.from([0, 9, 0]), Buffer.alloc(10)])),
    10,
    /contradict/,
  ],
  "steps that make more": [
    body(3, 10, Buffer.concat([Buffer.from([1, 10, 0]), Buffer.alloc(10)])),
    10,
    /contradict/,
  ],
  "steps that copy more": [
    body(3, 9, Buffer.concat([Buffer.from([0, 10, 0]), Buffer.alloc(10)])),
    10,
    /contradict/,
  ],
  "steps that end within": [
    body(2, 10, Buffer.concat([Buffer.from([0, 10]), Buffer.alloc(10)])),
    10,
    /cut off/,
  ],
  "a step that does nothing": [
    body(6, 10, Buffer.concat([Buffer.from([0, 0, 0, 0, 10, 0]), Buffer.alloc(10)])),
    10,
    /does nothing/,
  ],
  "a number without end": [
    body(8, 10, Buffer.concat([Buffer.alloc(8, 0xff), Buffer.alloc(10)])),
    10,
    /too long/,
  ],
  "a stretch before the base": [
    body(3, 10, Buffer.concat([Buffer.from([0, 10, 1]), Buffer.alloc(10)])),
    10,
    /outside/,
  ],
  "a stretch behind the base": [
    body(3, 10, Buffer.concat([Buffer.from([0, 10, 20]), Buffer.alloc(10)])),
    10,
    /outside/,
  ],
  "a result that is too large": [body(3, 10, Buffer.from([0, 10, 0])), 2 ** 26 + 1, /would make/],
};

test("bodies that lie", (t) => {
  for (const [name, [bytes, length, why]] of Object.entries(bodies)) {
    t.throws(() => applyDelta(base, bytes, length), { code: "BURROW_CORRUPT", message: why }, name);
  }
  const right = body(3, 10, Buffer.concat([Buffer.from([0, 10, 0]), Buffer.alloc(10)]));
  t.equal(applyDelta(base, right, 10).toString(), "the base o", "what they are all but");
  t.end();
});

test("bombs cost what they may make, no more", (t) => {
  // 256 MiB in some hundred bytes.
  const bomb = body(3, 10, Buffer.alloc(256 * 1024 ** 2));
  t.ok(bomb.length < 1_000, `${bomb.length}`);
  const before = process.memoryUsage().rss;
  t.throws(() => applyDelta(base, bomb, 10), { code: "BURROW_CORRUPT", message: /too long/ });
  t.ok(process.memoryUsage().rss - before < 32 * 1024 ** 2);
  // As many steps as bytes: each makes one of the base's first.
  const count = 1_000_001;
  const steps = Buffer.alloc(3 * count);
  for (let i = 0; i < count; i++) steps.set([0, 1, i === 0 ? 0 : 1], 3 * i);
  const many = body(steps.length, count, Buffer.concat([steps, Buffer.alloc(count)]));
  t.throws(() => applyDelta(base, many, count), { code: "BURROW_CORRUPT", message: /many steps/ });
  const lie = body(3 * 5 * 1_000_000 + 1, 10, Buffer.alloc(10));
  t.throws(() => applyDelta(base, lie, 10), { code: "BURROW_CORRUPT", message: /contradict/ });
  t.end();
});

const BASE = Buffer.from(Array.from({ length: 5_000 }, (_, i) => `line ${i}\n`).join(""));
const MADE = Buffer.from(BASE.toString().replace("line 77", "lime 77"));

async function scene(t: Test, folder: "indexes" | "locators") {
  const root = t.testdir();
  const store = await openStore(root);
  await store.put(objectPath(folder, sumOf(BASE)), BASE);
  const made = objectPath(folder, sumOf(MADE));
  t.ok((await putNear(store, made, MADE, sumOf(BASE))).isDelta);
  const files = {
    base: path.join(root, objectPath(folder, sumOf(BASE))),
    delta: path.join(root, deltaPath(made)),
  };
  const reader = openOrigin(root, { tries: 1 });
  const change = (edit: (bytes: Buffer) => Buffer | undefined) => {
    const bytes = fs.readFileSync(files.delta);
    fs.writeFileSync(files.delta, edit(bytes) ?? bytes);
  };
  return { store, made, files, reader, change };
}

type Edit = (bytes: Buffer) => Buffer | undefined;
const setU32 =
  (at: number, value: number): Edit =>
  (bytes) => {
    bytes.writeUInt32LE(value, at);
    return undefined;
  };
/** What is done to a delta, the code it is refused with, and whether that is so for locators too. */
const lies: Record<string, [Edit, string]> = {
  empty: [() => Buffer.alloc(0), "BURROW_CORRUPT"],
  "cut off in its header": [(bytes) => bytes.subarray(0, 119), "BURROW_CORRUPT"],
  "cut off in its body": [(bytes) => bytes.subarray(0, -5), "BURROW_CORRUPT"],
  "no delta": [(bytes) => bytes.fill(0, 0, 8), "BURROW_CORRUPT"],
  "another version": [setU32(8, 2), "BURROW_CORRUPT"],
  "a larger result": [setU32(116, MADE.length + 1), "BURROW_CORRUPT"],
  "a smaller result": [setU32(116, MADE.length - 1), "BURROW_CORRUPT"],
  "a huge result": [setU32(116, 0xffff_ffff), "BURROW_CORRUPT"],
  "a huge base": [setU32(112, 0xffff_ffff), "BURROW_CORRUPT"],
  "a base of another length": [setU32(112, BASE.length + 1), "BURROW_DIGEST_MISMATCH"],
  "a base that is missing": [(bytes) => bytes.fill(7, 16, 80), "BURROW_CORRUPT"],
  "its own base": [(bytes) => bytes.fill(sumOf(MADE), 16, 48, "hex"), "BURROW_CORRUPT"],
};

for (const folder of ["indexes", "locators"] as const) {
  test(`deltas of ${folder} that lie`, async (t) => {
    for (const [name, [edit, code]] of Object.entries(lies)) {
      const { made, reader, change } = await scene(t, folder);
      t.ok((await reader.get(made)).equals(MADE));
      change(edit);
      await t.rejects(reader.get(made), { code, context: { path: deltaPath(made) } }, name);
    }
  });

  test(`a base of ${folder} that isn't what the delta was made of`, async (t) => {
    const { made, files, reader } = await scene(t, folder);
    fs.writeFileSync(files.base, Buffer.from(BASE).fill("x", 100, 101));
    await t.rejects(reader.get(made), { code: "BURROW_DIGEST_MISMATCH" });
    fs.unlinkSync(files.base);
    const lost = { code: "BURROW_CORRUPT", class: "permanent", message: /not there as a whole/ };
    await t.rejects(reader.get(made), lost);
  });

  test(`deltas of ${folder} that are each other's base`, async (t) => {
    const { made, files, store, reader } = await scene(t, folder);
    const other = objectPath(folder, sumOf(BASE));
    fs.unlinkSync(files.base);
    await store.put(made, MADE);
    t.ok((await putNear(store, other, BASE, sumOf(MADE))).isDelta);
    fs.unlinkSync(path.join(reader.origin, made));
    for (const each of [made, other])
      await t.rejects(reader.get(each), {
        code: "BURROW_CORRUPT",
        message: /not there as a whole/,
      });
  });
}

test("a delta of an index that makes another one is refused before its base is read", async (t) => {
  const { made, reader, change, files } = await scene(t, "indexes");
  fs.unlinkSync(files.base);
  change((bytes) => bytes.fill(1, 80, 112));
  await t.rejects(reader.get(made), { code: "BURROW_CORRUPT", message: /makes another object/ });
});

test("no bit of a delta can be turned without being noticed, or without effect", async (t) => {
  const { made, reader, files } = await scene(t, "locators");
  const right = fs.readFileSync(files.delta);
  let refused = 0;
  for (let at = 0; at < right.length; at++) {
    const bytes = Buffer.from(right);
    bytes[at] = bytes[at]! ^ 1;
    fs.writeFileSync(files.delta, bytes);
    const got = await reader.get(made).catch((error: { code: string }) => error);
    if (Buffer.isBuffer(got)) t.ok(got.equals(MADE), `byte ${at}`);
    else t.match(got.code, /^BURROW_(CORRUPT|DIGEST_MISMATCH)$/, `byte ${at}`);
    if (!Buffer.isBuffer(got)) refused++;
  }
  t.ok(refused > right.length - 20, `${refused} of ${right.length}`);
});
