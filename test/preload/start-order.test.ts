// Start order: a new layer's packs have what starts will read first, and what is hardly ever read last; the same for the same content,
// however it came.

import { test } from "tap";
import type { BlobRef } from "../../lib/base/blob.ts";
import type { Digest } from "../../lib/base/digest.ts";
import type { LayerEntry } from "../../lib/layer/entry.ts";
import { finishLayer } from "../../lib/preload/start-order.ts";
import { expandChunk } from "../../lib/store/codec.ts";
import { digestOf } from "../../lib/store/hash.ts";
import { readLocator } from "../../lib/store/known.ts";
import { Locator } from "../../lib/store/locator.ts";
import { encodeLocator, placeAt } from "../../lib/store/locator-writer.ts";
import { memoryBackend } from "../../lib/store/memory.ts";
import { readPackRows } from "../../lib/store/pack.ts";
import { openPackWriter } from "../../lib/store/pack-writer.ts";
import type { WritableBackend } from "../../lib/store/store.ts";
import { entriesOf, noise } from "../suite/daemon-node.ts";
import { elf } from "../suite/elf-file.ts";

const LIB = "lib/python3.11";
const SITE = `${LIB}/site-packages`;
/** No two of the same content. */
const FILES: Readonly<Record<string, Buffer>> = {
  "include/big.h": noise(300_000, 1),
  [`${SITE}/able/tests/test_a.py`]: noise(200_000, 2),
  [`${SITE}/able/data.bin`]: noise(1_500_000, 3),
  [`${SITE}/able/unused.py`]: Buffer.from("pass # unused"),
  [`${SITE}/able/core.py`]: Buffer.from("from . import deep"),
  [`${SITE}/able/deep.py`]: Buffer.from("import json, zlib2"),
  [`${SITE}/able/__init__.py`]: Buffer.from("from .core import x\nimport baker"),
  [`${SITE}/baker.cpython-311-x86_64-linux-gnu.so`]: elf({ needed: [], bytes: 40_000 }),
  [`${LIB}/json/__init__.py`]: Buffer.from("from . import decoder"),
  [`${LIB}/json/decoder.py`]: Buffer.from("pass # decoder"),
  [`${LIB}/rarely.py`]: Buffer.from("pass # rarely"),
  [`${LIB}/encodings/__init__.py`]: Buffer.from("from . import aliases"),
  [`${LIB}/encodings/aliases.py`]: Buffer.from("pass # aliases"),
  [`${LIB}/os.py`]: Buffer.from("pass # os"),
  "bin/python3.11": elf({ needed: ["libown.so.1"], runpath: "$ORIGIN/../lib", bytes: 50_000 }),
  "lib/libown.so.1": elf({ needed: [], bytes: 60_000 }),
};

interface Made {
  readonly store: WritableBackend;
  readonly digest: Digest;
  readonly packs: readonly string[];
  /** Paths as their content lies. */
  readonly laid: readonly string[];
}

async function layerOf(names: readonly string[], packBytes?: number): Promise<Made> {
  const store = memoryBackend();
  const writer = await openPackWriter(store, packBytes === undefined ? {} : { packBytes });
  const refs = new Map<string, BlobRef>();
  for (const name of names) refs.set(name, await writer.addBytes(FILES[name]!));
  const entries: LayerEntry[] = entriesOf(refs);
  const { digest } = await finishLayer(writer, entries);
  const packs: string[] = [];
  for await (const path of store.list("packs")) packs.push(path);
  const pathOf = new Map([...refs].map(([path, ref]) => [ref.digest, path]));
  const laid = new Set<string>();
  for (const path of packs)
    for (const { blob } of readPackRows(await store.get(path))) laid.add(pathOf.get(blob)!);
  return { store, digest, packs, laid: [...laid] };
}

test("what starts read comes first, what nothing reads last", async (t) => {
  const { laid, store, digest } = await layerOf(Object.keys(FILES));
  t.same(new Set(laid), new Set(Object.keys(FILES)));
  const at = (path: string) => laid.indexOf(path);
  const inOrder = (...paths: string[]) =>
    t.same(
      [...paths].sort((a, b) => at(a) - at(b)),
      paths,
      paths.join(" < "),
    );
  inOrder("bin/python3.11", "lib/libown.so.1", `${LIB}/encodings/__init__.py`);
  inOrder(`${LIB}/encodings/aliases.py`, `${SITE}/able/__init__.py`, `${SITE}/able/deep.py`);
  for (const read of ["able/core.py", "able/deep.py", "able/__init__.py"])
    inOrder(`${SITE}/${read}`, `${SITE}/able/unused.py`, `${SITE}/able/data.bin`);
  inOrder(`${LIB}/json/decoder.py`, `${LIB}/rarely.py`);
  t.same(new Set(laid.slice(-2)), new Set(["include/big.h", `${SITE}/able/tests/test_a.py`]));
  const locator = await readLocator(store, digest);
  t.equal(locator.blobCount, laid.length);
});

test("the same files make the same packs, in whatever order they come", async (t) => {
  const names = Object.keys(FILES);
  const one = await layerOf(names);
  const other = await layerOf([...names].reverse());
  t.same(other.packs, one.packs);
  t.equal(other.digest, one.digest);
});

test("what doesn't fit is packed as it comes, and found all the same", async (t) => {
  const { store, digest, packs, laid } = await layerOf(Object.keys(FILES), 250_000);
  t.ok(packs.length > 2, `${packs.length} packs`);
  t.same(new Set(laid), new Set(Object.keys(FILES)));
  t.equal((await readLocator(store, digest)).blobCount, laid.length);
});

test("byte code lies before its text", async (t) => {
  const code = `${SITE}/solo/__pycache__/m.cpython-311.pyc`;
  const files = { [`${SITE}/solo/m.py`]: noise(400_000, 8), [code]: noise(400_000, 9) };
  const store = memoryBackend();
  const writer = await openPackWriter(store);
  const refs = new Map<string, BlobRef>();
  for (const [name, bytes] of Object.entries(files)) refs.set(name, await writer.addBytes(bytes));
  await finishLayer(writer, entriesOf(refs));
  for await (const path of store.list("packs")) {
    const rows = readPackRows(await store.get(path));
    t.same(
      rows.map(({ blob }) => blob),
      [refs.get(code), refs.get(`${SITE}/solo/m.py`)].map((ref) => ref!.digest),
    );
  }
});

test("it is told up to where starts read a pack, and who merges or reads locators finds it", async (t) => {
  const { store, digest } = await layerOf(Object.keys(FILES));
  const locator = await readLocator(store, digest);
  t.equal(locator.packCount, 1);
  const end = locator.startOf(0);
  const isOfStart = new Map<string, boolean>();
  for (const [path, bytes] of Object.entries(FILES)) {
    const { offset, stored, isOfStart: is } = locator.chunkAt(locator.find(digestOf(bytes)), 0);
    isOfStart.set(path, is === true);
    t.equal(offset + stored <= end, is, path);
  }
  for (const path of ["bin/python3.11", `${LIB}/encodings/aliases.py`, `${SITE}/able/deep.py`])
    t.equal(isOfStart.get(path), true, path);
  for (const path of ["include/big.h", `${LIB}/rarely.py`, `${SITE}/able/unused.py`])
    t.equal(isOfStart.get(path), false, path);
  const rows = Array.from({ length: locator.blobCount }, (_, row) => placeAt(locator, row));
  t.ok(encodeLocator(rows).equals(locator.bytes), "the same again");
  const plain = rows.map((row) => ({
    ...row,
    chunks: row.chunks.map(({ isOfStart: _, ...chunk }) => chunk),
  }));
  const older = new Locator(encodeLocator(plain));
  t.equal(older.startOf(0), 0, "as they were before");
  t.equal(older.bytes.length, locator.bytes.length - 4);
});

test("of a large library what is read when it is loaded lies together, and all of it comes back", async (t) => {
  const big = elf({ needed: ["libother.so"], bytes: 9_000_000 });
  noise(8_500_000, 7).copy(big, 100_000);
  const small = noise(600_000, 8);
  const store = memoryBackend();
  const writer = await openPackWriter(store);
  const refs = new Map<string, BlobRef>();
  refs.set("share/data", await writer.addBytes(small));
  refs.set("lib/libbig.so.1", await writer.addBytes(big));
  const { digest } = await finishLayer(writer, entriesOf(refs));
  const locator = await readLocator(store, digest);
  const row = locator.find(digestOf(big));
  const chunks = Array.from({ length: locator.chunkCount(row) }, (_, k) => locator.chunkAt(row, k));
  const first = chunks.filter(({ isOfStart }) => isOfStart === true);
  t.ok(first.length >= 2 && first.length <= 4, `${first.length} of ${chunks.length}`);
  t.ok(chunks[0]!.isOfStart && chunks.at(-1)!.isOfStart, "tables, and what is written");
  const packed = await store.get(chunks[0]!.path);
  const content = chunks.map(({ offset, stored, length, codec }) =>
    expandChunk(codec, packed.subarray(offset, offset + stored), length),
  );
  t.equal(digestOf(Buffer.concat(content)), refs.get("lib/libbig.so.1")!.digest);
  t.equal(locator.chunkAt(locator.find(digestOf(small)), 0).isOfStart, false);
});

test("parts of a package whose top imports little are starts, too, but for its tests", async (t) => {
  const files = {
    [`${SITE}/wide/__init__.py`]: Buffer.from("pass # wide"),
    [`${SITE}/wide/left/__init__.py`]: Buffer.from("from . import deep"),
    [`${SITE}/wide/left/deep.py`]: noise(300_000, 8),
    [`${SITE}/wide/left/alone.py`]: noise(300_000, 9),
    [`${SITE}/wide/tests/__init__.py`]: Buffer.from("pass # tests"),
  };
  const startsOf = async (top: string) => {
    const all = { ...files, [`${SITE}/wide/core.py`]: noise(400_000, 10) };
    all[`${SITE}/wide/__init__.py`] = Buffer.from(top);
    const store = memoryBackend();
    const writer = await openPackWriter(store);
    const refs = new Map<string, BlobRef>();
    for (const [name, bytes] of Object.entries(all)) refs.set(name, await writer.addBytes(bytes));
    const { digest } = await finishLayer(writer, entriesOf(refs));
    const locator = await readLocator(store, digest);
    const isStart = (name: string) =>
      locator.chunkAt(locator.find(refs.get(name)!.digest), 0).isOfStart === true;
    return Object.keys(all).filter(isStart);
  };
  const part = ["__init__.py", "deep.py"].map((name) => `${SITE}/wide/left/${name}`);
  const scant = await startsOf("pass # little");
  t.same(new Set(scant), new Set([`${SITE}/wide/__init__.py`, ...part]));
  const own = await startsOf("from . import core");
  t.same(new Set(own), new Set([`${SITE}/wide/__init__.py`, `${SITE}/wide/core.py`]));
});

test("what sysconfig imports by a name of its own is Python's start", async (t) => {
  const facts = `${LIB}/_sysconfigdata__x86_64-linux-gnu.py`;
  const store = memoryBackend();
  const writer = await openPackWriter(store);
  const refs = new Map<string, BlobRef>();
  const files = { [facts]: noise(100_000, 1), [`${LIB}/zoo.py`]: noise(600_000, 2) };
  for (const [name, bytes] of Object.entries(files)) refs.set(name, await writer.addBytes(bytes));
  const { digest } = await finishLayer(writer, entriesOf(refs));
  const locator = await readLocator(store, digest);
  for (const [name, { digest: blob }] of refs)
    t.equal(locator.chunkAt(locator.find(blob), 0).isOfStart, name === facts, name);
});
