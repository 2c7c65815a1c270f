// Tenants that share a node: what one says of a blob, and what its origin does, must not reach another. A stage's manifest may name
// any digest, with any size and any digests of blocks; an index is believed by who brought it, and by nobody else.

import fs from "node:fs";
import { type Test, test } from "tap";
import { Errno } from "../../lib/base/errno.ts";
import { BLOCK_BYTES } from "../../lib/base/limits.ts";
import { keepIndex, openCache } from "../../lib/cache/cache.ts";
import { type FetchAnswer, Fetcher, type FetcherOptions } from "../../lib/cache/fetcher.ts";
import { AnswerState } from "../../lib/cache/mailbox-wire.ts";
import type { Source } from "../../lib/cache/pieces.ts";
import { setSeal } from "../../lib/cache/seal.ts";
import { Progress } from "../../lib/cli/output.ts";
import { importStageIndex } from "../../lib/cli/stage.ts";
import { LazyFiles } from "../../lib/daemon/lazy-files.ts";
import { Sources } from "../../lib/daemon/sources.ts";
import { BLOB_BYTES, Blob, Header, Table } from "../../lib/layer/format.ts";
import { digestOf } from "../../lib/store/hash.ts";
import { NO_TENANT } from "../../lib/store/object-pin.ts";
import { type Files, noise, publish, TestNode } from "../suite/daemon-node.ts";
import { until } from "../suite/wait.ts";

const BLOCKS = 12;
const LIBRARY = noise(BLOCKS * BLOCK_BYTES, 7);
const LIE = Buffer.alloc(LIBRARY.length, "EVIL");
const DEADLINE = AbortSignal.timeout(600_000);

/** A file of a stage as its manifest has it: `bytes` under the digest of others. */
interface Claim {
  readonly bytes: Buffer;
  readonly digest: string;
  /** What is said of blocks in place of the truth. */
  readonly blocks?: readonly string[];
}

function blocksOf(bytes: Buffer): string[] {
  const count = Math.ceil(bytes.length / BLOCK_BYTES);
  return Array.from({ length: count }, (_, i) =>
    digestOf(bytes.subarray(i * BLOCK_BYTES, (i + 1) * BLOCK_BYTES)),
  );
}

/** A node with a fetcher, files in an honest store, and who reads them. */
async function shared(t: Test, files: Files, options: FetcherOptions = {}) {
  const node = new TestNode();
  t.teardown(() => node.close());
  const published = await publish(node.store, files);
  const cache = openCache(node.cache);
  cache.startUp(false);
  const events: { event: string; facts: Readonly<Record<string, unknown>> }[] = [];
  const log = (event: string, facts: Readonly<Record<string, unknown>>) =>
    void events.push({ event, facts });
  const fetcher = new Fetcher(cache, { background: false, log, ...options });
  t.teardown(() => fetcher.close());
  const sources = new Sources(cache, node.state, (origin) => fetcher.origins.get(origin).reader);
  const open = (of: { snapshot: typeof published.digest; origin: string }) =>
    sources.open(of, DEADLINE);
  const victim = await open({ snapshot: published.digest, origin: node.store });
  /** Another tenant's stage; its files are rows in the order of their digests. */
  const stage = async (...claims: Claim[]): Promise<Source> => {
    const origin = fs.mkdtempSync(`${node.root}/stage-`);
    const listed = claims.map(({ bytes, digest, blocks }, i) => {
      fs.writeFileSync(`${origin}/f${i}`, bytes);
      const cut = bytes.length > 1024 * 1024 ? (blocks ?? blocksOf(bytes)) : undefined;
      const facts = { path: `f${i}`, size: bytes.length, sha256: `sha256:${digest}` };
      return cut ? { ...facts, blocks: cut.map((block) => `sha256:${block}`) } : facts;
    });
    const manifest = { format: 1, files: listed, symlinks: [], directories: [] };
    fs.writeFileSync(`${origin}/burrow-stage.json`, JSON.stringify(manifest));
    const snapshot = await importStageIndex(cache, origin, new Progress(true, false), NO_TENANT);
    const source = await open({ snapshot, origin });
    const named = Array.from({ length: source.table.count }, (_, i) => source.table.digestAt(i));
    t.same(named, claims.map(({ digest }) => digest).sort(), "the index says what the stage does");
    return source;
  };
  const row = (name: string) => published.row(name);
  return { node, cache, fetcher, sources, open, victim, stage, published, row, events };
}

/** What a gofer reads of blocks that it was told to be present. */
function readBlock(cache: string, answer: FetchAnswer, path: string, block: number): Buffer {
  const { state, name, hostFd } = answer;
  const isPartial = state === AnswerState.partial;
  const fd = hostFd >= 0 ? hostFd : fs.openSync(isPartial ? `${cache}/partial/${name}` : path, "r");
  const out = Buffer.alloc(BLOCK_BYTES);
  fs.readSync(fd, out, 0, out.length, block * BLOCK_BYTES);
  fs.closeSync(fd);
  return out;
}

const blockOf = (bytes: Buffer, block: number) =>
  bytes.subarray(block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES);

for (const medium of ["disk", "memory"]) {
  test(`blocks that were right by a lying index are nobody else's, on ${medium}`, async (t) => {
    const memoryBytes = 64 * 1024 * 1024;
    const { node, cache, fetcher, victim, stage, row, published } = await shared(
      t,
      { library: LIBRARY },
      { memoryBytes },
    );
    const { digest } = published.refs.get("library")!;
    const evil = await stage({ bytes: LIE, digest });
    if (medium === "memory") cache.room.limitBytes = 1;
    const path = node.blobPath(digest);
    const read = async (source: Source, at: number, block: number) => {
      const answer = await fetcher.ask(source, at, block, 1);
      t.equal(answer.errno, 0);
      return readBlock(node.cache, answer, path, block);
    };
    t.ok((await read(evil, 0, 3)).equals(blockOf(LIE, 3)), "it may lie to itself");
    for (const block of [3, 4]) {
      t.ok((await read(victim, row("library"), block)).equals(blockOf(LIBRARY, block)), `${block}`);
      t.ok((await read(evil, 0, block)).equals(blockOf(LIE, block)), "still, to itself");
    }
    t.equal((await fetcher.ask(evil, 0, 0, 0)).errno, Errno.EIO, "but all of it is no such blob");
    const whole = await fetcher.ask(victim, row("library"), 0, 0);
    t.equal(whole.errno, 0);
    t.ok(readBlock(node.cache, whole, path, 5).equals(blockOf(LIBRARY, 5)));
    t.equal(whole.hostFd >= 0, medium === "memory");
  });
}

test("a lie about the size of a large blob is the liar's own", async (t) => {
  const { node, fetcher, victim, stage, row, published } = await shared(t, { library: LIBRARY });
  const { digest } = published.refs.get("library")!;
  const longer = Buffer.concat([LIBRARY, LIBRARY]);
  for (const bytes of [LIBRARY.subarray(0, 6 * BLOCK_BYTES), longer]) {
    const evil = await stage({ bytes, digest });
    t.equal((await fetcher.ask(evil, 0, 2, 1)).errno, 0);
    const answer = await fetcher.ask(victim, row("library"), BLOCKS - 1, 1);
    t.equal(answer.errno, 0);
    const got = readBlock(node.cache, answer, node.blobPath(digest), BLOCKS - 1);
    t.ok(got.equals(blockOf(LIBRARY, BLOCKS - 1)));
  }
});

test("what two honest indexes say of a blob is one file", async (t) => {
  const { fetcher, victim, stage, row, published } = await shared(t, { library: LIBRARY });
  const same = await stage({ bytes: LIBRARY, digest: published.refs.get("library")!.digest });
  const { name } = await fetcher.ask(victim, row("library"), 0, 1);
  t.equal((await fetcher.ask(same, 0, BLOCKS - 1, 1)).name, name);
  t.equal(fetcher.partials, 1);
});

test("a background stream brings the truth beside one that can't end", async (t) => {
  const { node, fetcher, victim, stage, row, published } = await shared(
    t,
    { library: LIBRARY },
    { background: true },
  );
  const { digest } = published.refs.get("library")!;
  const blocks = [...blocksOf(LIE).slice(0, -1), "ab".repeat(32)];
  const evil = await stage({ bytes: LIE, digest, blocks });
  t.equal((await fetcher.ask(evil, 0, 0, 1)).errno, 0);
  await until(() => fetcher.isIdle);
  const answer = await fetcher.ask(victim, row("library"), 2, 1);
  t.ok(readBlock(node.cache, answer, node.blobPath(digest), 2).equals(blockOf(LIBRARY, 2)));
  t.ok(await until(() => fs.existsSync(node.blobPath(digest))));
  t.ok(fs.readFileSync(node.blobPath(digest)).equals(LIBRARY));
});

test("a lazy file is of who asked for it, also to the next daemon", async (t) => {
  const { cache, fetcher, victim, stage, row, published, open } = await shared(t, {
    library: LIBRARY,
  });
  const evil = await stage({ bytes: LIE, digest: published.refs.get("library")!.digest });
  let files = new LazyFiles(cache, fetcher, open);
  t.teardown(() => files.close());
  const nameOf = (source: Source, at: number) =>
    files.nameOf(source, at) ?? files.add(source, at, () => undefined);
  const read = async (name: string, block: number) => {
    const { node } = files.lookup(name)!;
    t.equal(await files.fetch(node, block * BLOCK_BYTES, 4096), 0);
    const out = Buffer.alloc(4096);
    t.equal(files.read(node, block * BLOCK_BYTES, out), out.length);
    return out;
  };
  const lie = nameOf(evil, 0);
  t.ok((await read(lie, 3)).equals(blockOf(LIE, 3).subarray(0, 4096)));
  const truth = nameOf(victim, row("library"));
  t.not(truth, lie);
  t.ok((await read(truth, 3)).equals(blockOf(LIBRARY, 3).subarray(0, 4096)));
  t.equal(nameOf(evil, 0), lie);

  const held = files.held();
  const { suffix } = files;
  files.close();
  files = new LazyFiles(cache, fetcher, open);
  files.takeOver({ suffix, files: held });
  t.equal(nameOf(victim, row("library")), truth, "the same file to who had it");
  for (const block of [3, 4]) {
    t.ok((await read(truth, block)).equals(blockOf(LIBRARY, block).subarray(0, 4096)));
    t.ok((await read(lie, block)).equals(blockOf(LIE, block).subarray(0, 4096)));
  }
  const other = await stage({ bytes: LIE, digest: published.refs.get("library")!.digest });
  t.notOk([lie, truth].includes(nameOf(other, 0)), "of another origin it is another");
});

test("blobs that share digests of blocks can't make endless work", async (t) => {
  const { cache, fetcher, open, stage } = await shared(t, { library: LIBRARY });
  const other = noise(5 * BLOCK_BYTES, 8);
  const honest = await stage(
    { bytes: LIBRARY, digest: digestOf(LIBRARY) },
    { bytes: other, digest: digestOf(other) },
  );
  const index = Buffer.from(fs.readFileSync(cache.path("indexes", honest.snapshot)));
  const blobs = index.readUInt32LE(Header.tables + 8 * Table.blobs + 4);
  for (const row of [0, 1]) {
    index.writeBigUInt64LE(BigInt(LIBRARY.length), blobs + row * BLOB_BYTES + Blob.size);
    index.writeUInt32LE(0, blobs + row * BLOB_BYTES + Blob.firstBlock);
    index.writeUInt32LE(BLOCKS, blobs + row * BLOB_BYTES + Blob.blockCount);
  }
  const locator = fs.readFileSync(cache.path("locators", honest.snapshot));
  const lying = await open({
    snapshot: await keepIndex(cache, index, locator),
    origin: honest.origin,
  });
  await fetcher.ask(lying, 0, 0, 1);
  t.not(fetcher.lastFailure?.code, "BURROW_BAD_INDEX", "as many as there are");
  for (let round = 0; round < 2; round++) {
    t.equal((await fetcher.ask(lying, 1, 0, 1)).errno, Errno.EIO);
    t.equal(fetcher.lastFailure?.code, "BURROW_BAD_INDEX");
  }
});

test("an index with a wrong size harms no file, only who brought it", async (t) => {
  const small = noise(9000, 3);
  const { node, fetcher, victim, stage, row, published, events } = await shared(t, {
    small,
    library: LIBRARY,
  });
  const names = ["small", "library"];
  const digests = names.map((name) => published.refs.get(name)!.digest);
  for (const name of names) t.equal((await fetcher.ask(victim, row(name), 0, 0)).errno, 0);
  const evil = await stage(
    { bytes: Buffer.alloc(9001), digest: digests[0]! },
    { bytes: Buffer.alloc(10), digest: digests[1]! },
  );
  for (let round = 0; round < 2; round++) {
    for (const at of [0, 1]) {
      events.length = 0;
      t.equal((await fetcher.ask(evil, at, 0, 0)).errno, Errno.EIO);
      t.equal(fetcher.lastFailure?.code, "BURROW_BAD_INDEX");
      t.match(events, [{ event: "ask failed", facts: { snapshot: `sha256:${evil.snapshot}` } }]);
    }
  }
  t.equal(fetcher.counters.dropped, 0);
  fs.renameSync(node.store, `${node.store}.away`);
  for (const name of names) t.equal((await fetcher.ask(victim, row(name), 0, 0)).errno, 0, name);
  fs.renameSync(`${node.store}.away`, node.store);

  // A file that was cut by what keeps its seal is another thing: found wrong, dropped, fetched again.
  const path = node.blobPath(digests[0]!);
  fs.chmodSync(path, 0o644);
  fs.truncateSync(path, 100);
  fs.chmodSync(path, 0o444);
  const fd = fs.openSync(path, "r");
  setSeal(fd, digests[0]!);
  fs.closeSync(fd);
  t.equal((await fetcher.ask(victim, row("small"), 0, 0)).errno, 0);
  t.ok(fs.readFileSync(path).equals(small));
  t.equal(fetcher.counters.dropped, 1);
});
