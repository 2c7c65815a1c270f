// Owns: proof that what a store keeps as a delta is read as if it were there whole: the codec, directories, HTTP, what writers
// choose and what is listed. Plane: control.

import { createHash, randomBytes } from "node:crypto";
import fs from "node:fs";
import fc from "fast-check";
import { type Test, test } from "tap";
import type { Digest } from "../../lib/base/digest.ts";
import { applyDelta, makeDelta } from "../../lib/store/delta-codec.ts";
import { type DeltaStore, deltaPath, putNear, resolving } from "../../lib/store/deltas.ts";
import { objectPath } from "../../lib/store/layout.ts";
import { localBackend } from "../../lib/store/local.ts";
import { newMeter } from "../../lib/store/meter.ts";
import { findNear, noteNear } from "../../lib/store/near.ts";
import { openOrigin, openStore } from "../../lib/store/open.ts";
import type { GetOptions } from "../../lib/store/store.ts";
import { OriginServer } from "../suite/origin-server.ts";

const sumOf = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex") as Digest;

/** Rows of 48 bytes, sorted by their first 32, and a table that has the number of each: as an index has. */
function tableOf(names: readonly Buffer[]): Buffer {
  const sorted = [...names].sort((a, b) => a.compare(b));
  const rows = sorted.map((name, i) => {
    const row = Buffer.alloc(48);
    name.copy(row);
    row.writeUInt32LE(name.readUInt16LE(4), 32);
    row.writeUInt32LE(i, 40);
    return row;
  });
  const users = names.map((name) => {
    const row = Buffer.alloc(48, "inode");
    row.writeUInt32LE(sorted.indexOf(name), 36);
    return row;
  });
  return Buffer.concat([...users, ...rows]);
}

const NAMES = Array.from({ length: 1_000 }, (_, i) => createHash("sha256").update(`${i}`).digest());
const BASE = tableOf(NAMES);
/** The same after a tenth of a percent got other names. */
const NEAR = tableOf(NAMES.map((name, i) => (i % 100 === 0 ? randomBytes(32) : name)));
/** Another that is near, in other places. */
const OTHER = tableOf(NAMES.map((name, i) => (i % 50 === 1 ? randomBytes(32) : name)));

test("what a delta makes is what it was made for", (t) => {
  const piece = fc.uint8Array({ maxLength: 300 });
  const edit = fc.record({ at: fc.nat(), cut: fc.nat(80), put: piece });
  fc.assert(
    fc.property(
      piece,
      fc.nat(12),
      fc.array(edit, { maxLength: 8 }),
      fc.constantFrom(1, 48),
      (seed, times, edits, columns) => {
        const base = Buffer.concat(Array.from({ length: times }, () => seed));
        let target = Buffer.from(base);
        for (const { at, cut, put } of edits) {
          const start = at % (target.length + 1);
          target = Buffer.concat([target.subarray(0, start), put, target.subarray(start + cut)]);
        }
        const delta = makeDelta(base, target, columns)!;
        return applyDelta(base, delta, target.length).equals(target);
      },
    ),
  );
  t.end();
});

test("rows that move cost little, and bytes that nothing is like no more than themselves", (t) => {
  const delta = makeDelta(BASE, NEAR, 48)!;
  t.ok(applyDelta(BASE, delta, NEAR.length).equals(NEAR));
  t.ok(delta.length < NEAR.length / 40, `${delta.length} of ${NEAR.length}`);
  const noise = randomBytes(10_000);
  t.ok(makeDelta(BASE, noise, 48)!.length < 10_100);
  t.equal(applyDelta(BASE, makeDelta(BASE, Buffer.alloc(0), 48)!, 0).length, 0);
  t.ok(makeDelta(BASE, BASE, 48)!.length < 60);
  t.end();
});

async function storeOf(t: Test): Promise<{ root: string; store: DeltaStore }> {
  const root = t.testdir();
  const store = await openStore(root);
  for (const folder of ["indexes", "locators"] as const)
    await store.put(objectPath(folder, sumOf(BASE)), BASE);
  return { root, store };
}

const indexPath = objectPath("indexes", sumOf(NEAR));
const locatorPath = objectPath("locators", sumOf(NEAR));

test("an object that is a delta is got, had and listed as others are, from a directory and over HTTP", async (t) => {
  const { root, store } = await storeOf(t);
  for (const path of [indexPath, locatorPath]) {
    const kept = await putNear(store, path, NEAR, sumOf(BASE));
    t.ok(kept.isDelta);
    t.equal(kept.bytes, fs.statSync(`${root}/deltas/${path}`).size);
    t.notOk(fs.existsSync(`${root}/${path}`));
  }
  const server = await OriginServer.start(root);
  t.teardown(() => server.close());
  for (const reader of [store, openOrigin(root), openOrigin(server.url)]) {
    for (const path of [indexPath, locatorPath]) {
      t.ok((await reader.get(path)).equals(NEAR), `${reader.origin} ${path}`);
      t.ok(await reader.has(path));
    }
    const missing = objectPath("indexes", "0".repeat(64) as Digest);
    await t.rejects(reader.get(missing), { code: "BURROW_NOT_FOUND", context: { path: missing } });
    t.notOk(await reader.has(missing));
    await t.rejects(reader.get(indexPath, { maxBytes: 1000 }), { code: "BURROW_CORRUPT" });
    reader.close();
  }
  for (const folder of ["indexes", `indexes/${sumOf(NEAR).slice(0, 2)}`]) {
    const listed: string[] = [];
    for await (const path of store.list(folder)) listed.push(path);
    t.ok(listed.includes(indexPath));
    t.equal(listed.includes(objectPath("indexes", sumOf(BASE))), folder === "indexes");
    t.equal(new Set(listed).size, listed.length);
  }
});

test("a locator is found that is written whole while it is looked for", async (t) => {
  const { root, store } = await storeOf(t);
  await putNear(store, locatorPath, NEAR, sumOf(BASE));
  const bare = localBackend(root);
  const reader = resolving({
    ...bare,
    origin: root,
    has: (path) => bare.has(path),
    get: async (path, options) => {
      if (path === deltaPath(locatorPath)) {
        // As a collector does that writes locators anew.
        await store.put(locatorPath, NEAR);
        await store.remove(path);
      }
      return await bare.get(path, options);
    },
  });
  t.ok((await reader.get(locatorPath)).equals(NEAR));
});

test("what is there whole costs no request more, and what is put whole counts", async (t) => {
  const { root, store } = await storeOf(t);
  await putNear(store, locatorPath, NEAR, sumOf(BASE));
  const meter = newMeter();
  const reader = openOrigin(root, { meter });
  await reader.get(objectPath("locators", sumOf(BASE)));
  t.equal(meter.requests, 1);
  t.ok((await reader.get(locatorPath)).equals(NEAR));
  t.equal(meter.requests, 4, "the object, its delta, the base");
  await store.put(locatorPath, BASE);
  t.ok((await reader.get(locatorPath)).equals(BASE));
  await putNear(store, locatorPath, NEAR, sumOf(BASE));
  t.ok((await reader.get(locatorPath)).equals(NEAR), "the whole one was replaced by a whole one");
});

test("a writer makes no delta of a delta, of what is gone, of what isn't near", async (t) => {
  const { root, store } = await storeOf(t);
  await putNear(store, indexPath, NEAR, sumOf(BASE));
  const noise = randomBytes(100_000);
  const cases: [Buffer, Digest][] = [
    [OTHER, sumOf(NEAR)],
    [OTHER, "1".repeat(64) as Digest],
    [noise, sumOf(BASE)],
    [OTHER, sumOf(OTHER)],
  ];
  for (const [bytes, near] of cases) {
    const path = objectPath("indexes", sumOf(bytes));
    t.notOk((await putNear(store, path, bytes, near)).isDelta);
    t.ok(fs.existsSync(`${root}/${path}`));
    t.notOk(fs.existsSync(`${root}/${deltaPath(path)}`));
    fs.unlinkSync(`${root}/${path}`);
  }
  fs.writeFileSync(`${root}/${objectPath("indexes", sumOf(BASE))}`, noise);
  const path = objectPath("indexes", sumOf(OTHER));
  t.notOk((await putNear(store, path, OTHER, sumOf(BASE))).isDelta, "a base that is broken");
});

test("a base that its writer has read is not read again, and must be there whole", async (t) => {
  const { store } = await storeOf(t);
  const reads: string[] = [];
  const get = (path: string, options?: GetOptions) => {
    reads.push(path);
    return store.whole.get(path, options);
  };
  const watched = {
    ...store,
    whole: { ...store.whole, get, has: (path: string) => store.whole.has(path) },
  };
  t.ok((await putNear(watched, indexPath, NEAR, sumOf(BASE), BASE)).isDelta);
  t.same(reads, []);
  t.ok((await store.get(indexPath)).equals(NEAR));
  t.ok((await putNear(watched, locatorPath, NEAR, sumOf(BASE), BASE)).isDelta);
  t.same(reads, [objectPath("locators", sumOf(BASE))], "the index is no base of a locator");
  const path = objectPath("indexes", sumOf(OTHER));
  t.notOk((await putNear(watched, path, OTHER, sumOf(NEAR), NEAR)).isDelta, "a delta itself");
  t.ok((await store.whole.has(path)) && (await store.get(path)).equals(OTHER));
});

test("a note of what is near leads to what is whole, or nowhere", async (t) => {
  const { root, store } = await storeOf(t);
  const parts = ["package", "one"];
  t.equal(await findNear(store, parts), undefined);
  await noteNear(store, parts, sumOf(BASE));
  t.equal(await findNear(store, parts), sumOf(BASE));
  t.equal(await findNear(store, ["package", "two"]), undefined);
  await putNear(store, indexPath, NEAR, sumOf(BASE));
  await putNear(store, locatorPath, NEAR, sumOf(BASE));
  await noteNear(store, parts, sumOf(NEAR));
  t.equal(await findNear(store, parts), undefined, "a delta");
  const [name] = (fs.readdirSync(`${root}/near`, { recursive: true }) as string[]).filter(
    (path) => path.length > 3,
  );
  for (const text of ["", "null", "{}", '{"near":7}', "x".repeat(10_000)]) {
    fs.writeFileSync(`${root}/near/${name}`, text);
    t.equal(await findNear(store, parts), undefined, text.slice(0, 20));
  }
});
