// The cache directory as the CLI uses it, the seal, and the mailbox's frames.

import fs from "node:fs";
import { tmpdir } from "node:os";
import fc from "fast-check";
import { type Test, test } from "tap";
import type { Digest } from "../../lib/base/digest.ts";
import {
  ensureIndex,
  evict,
  heldWhole,
  keepIndex,
  listBlobs,
  openCache,
  statCache,
  verifyCache,
} from "../../lib/cache/cache.ts";
import { CacheDirectory } from "../../lib/cache/directory.ts";
import * as wire from "../../lib/cache/mailbox-wire.ts";
import { isSealed, sealOf } from "../../lib/cache/seal.ts";
import { digestOf } from "../../lib/store/hash.ts";
import { encodeLocator } from "../../lib/store/locator-writer.ts";
import { native } from "../../lib/sys/native.ts";
import { noise, publish } from "../suite/daemon-node.ts";

function temporary(t: Test): string {
  const root = fs.mkdtempSync(`${tmpdir()}/burrow-cache-`);
  t.teardown(() => fs.rmSync(root, { recursive: true, force: true }));
  return root;
}

test("an index is fetched, verified, sealed; a broken one comes again", async (t) => {
  const root = temporary(t);
  const { digest, index } = await publish(`${root}/store`, { a: noise(100) });
  const cache = openCache(`${root}/cache`);
  await t.rejects(ensureIndex(cache, `${root}/store`, "ab".repeat(32) as Digest), {
    code: "BURROW_NOT_FOUND",
  });
  t.same(await ensureIndex(cache, `${root}/store`, digest), Buffer.from(index.bytes));
  const folder = fs.openSync(`${root}/cache/indexes`, "r");
  const fd = native.openBlob(folder, Buffer.from(digest, "hex"), 0, -1);
  t.ok(fd >= 0, "the gofer's open takes it");
  native.closeFd(fd);
  fs.closeSync(folder);
  const path = cache.path("indexes", digest);
  fs.chmodSync(path, 0o644);
  fs.writeFileSync(path, "broken");
  t.equal(await heldWhole(cache, "indexes", digest), undefined, "dropped");
  t.ok(await ensureIndex(cache, `${root}/store`, digest));
  // Right seal, wrong bytes: indexes are hashed at every use.
  const { atime, mtime } = fs.statSync(path);
  fs.chmodSync(path, 0o644);
  fs.writeFileSync(path, Buffer.alloc(index.bytes.length));
  fs.utimesSync(path, atime, mtime);
  t.equal(await heldWhole(cache, "indexes", digest), undefined);
  fs.rmSync(`${root}/store/indexes`, { recursive: true });
  await t.rejects(ensureIndex(cache, `${root}/store`, digest), { code: "BURROW_NOT_FOUND" });
  t.equal(await keepIndex(cache, index.bytes, encodeLocator([])), digest);
  t.ok(await ensureIndex(cache, `${root}/store`, digest), "kept ones need no origin");
});

test("a cache of another format, or none, is refused", (t) => {
  const root = temporary(t);
  t.throws(() => CacheDirectory.open(`${root}/none`, false), { code: "BURROW_IO", errno: 2 });
  openCache(`${root}/cache`);
  for (const folder of ["blobs", "partial", "indexes", "."]) {
    t.equal(fs.statSync(`${root}/cache/${folder}`).mode & 0o777, 0o755, folder);
  }
  // Of programs before and after this one, and what none of them writes. An unknown one is left as it is.
  const others = ['{"format":10}', '{"format":0}', '{"format":2,"reads":{"format":1}}'];
  for (const text of [...others, '{"format":"1"}', '[{"format":1}]', '"format":1}', "1"]) {
    fs.writeFileSync(`${root}/cache/burrow-cache.json`, text);
    t.throws(() => openCache(`${root}/cache`), { code: "BURROW_UNSUPPORTED" }, text);
    t.equal(fs.readFileSync(`${root}/cache/burrow-cache.json`, "utf8"), text);
  }
  fs.writeFileSync(`${root}/cache/burrow-cache.json`, '{ "format": 1 }');
  openCache(`${root}/cache`);
  t.end();
});

test("a marker that a power cut left empty is written anew", (t) => {
  const root = temporary(t);
  const marker = `${root}/cache/burrow-cache.json`;
  openCache(`${root}/cache`);
  const text = fs.readFileSync(marker);
  fs.writeFileSync(marker, "");
  openCache(`${root}/cache`);
  t.same(fs.readFileSync(marker), text);
  t.end();
});

test("a starting daemon spares what a live process is writing, and nothing else", (t) => {
  const root = `${temporary(t)}/cache`;
  const cache = openCache(root);
  const name = `${"ab".repeat(32)}.${process.ppid}.0123456789abcdef`;
  for (const path of [`tmp/${name}`, "tmp/x", `tmp/${"ab".repeat(32)}.4194305.01`, "partial/y"]) {
    fs.writeFileSync(`${root}/${path}`, "");
  }
  t.equal(cache.startUp(false), true, "first start: nothing is vouched for");
  t.same(fs.readdirSync(`${root}/tmp`), [name]);
  t.same(fs.readdirSync(`${root}/partial`), []);
  t.equal(cache.startUp(false), false);
  t.equal(cache.startUp(true), true);
  t.end();
});

test("verify drops what is wrong, evict what was used longest ago", async (t) => {
  const cache = openCache(`${temporary(t)}/cache`);
  const contents = [1, 2, 3].map((seed) => noise(1000, seed));
  const digests = contents.map(digestOf);
  for (const [i, content] of contents.entries())
    await cache.writeSealed("blobs", digests[i]!, content);
  t.match(statCache(cache), { blobs: 3, blobBytes: 3000, suspects: 0 });
  const path = cache.path("blobs", digests[1]!);
  const { atime, mtime } = fs.statSync(path);
  fs.chmodSync(path, 0o644);
  fs.writeFileSync(path, Buffer.alloc(1000));
  fs.utimesSync(path, atime, mtime);
  t.same(await verifyCache(cache), { checked: 3, wrong: [digests[1]] });
  t.equal([...listBlobs(cache)].length, 2);
  t.same(await evict(cache, 5000), { blobs: 0, bytes: 0 });
  t.same(await evict(cache, 1500), { blobs: 1, bytes: 1000 });
  t.equal(statCache(cache).blobs, 1);
});

test("the seal is a function of the digest and breaks with any change", async (t) => {
  const digest = `ffffffff${"ee6b2800"}${"0".repeat(48)}` as Digest;
  t.same(sealOf(digest), { sec: 0x7fffffff, nsec: 0xee6b2800 % 1_000_000_000 });
  t.same(sealOf("0".repeat(64) as Digest), { sec: 0, nsec: 0 });
  const cache = openCache(`${temporary(t)}/cache`);
  const bytes = noise(5000);
  const name = digestOf(bytes);
  await cache.writeSealed("blobs", name, bytes);
  const path = cache.path("blobs", name);
  const check = (size: number) => {
    const fd = fs.openSync(path, "r");
    try {
      return isSealed(fd, name, size);
    } finally {
      fs.closeSync(fd);
    }
  };
  t.equal(check(5000), true);
  t.equal(check(-1), true);
  t.equal(check(4999), false);
  const { atime, mtime } = fs.statSync(path);
  fs.chmodSync(path, 0o644);
  t.equal(check(5000), false, "writable");
  fs.chmodSync(path, 0o444);
  fs.utimesSync(path, atime, new Date(mtime.getTime() + 1));
  t.equal(check(5000), false, "touched");
  t.equal(await cache.revive("blobs", name), 5000);
  t.equal(check(5000), true);
});

test("frames: what is encoded is decoded; any bytes are a frame, none yet, or refused", (t) => {
  const u32 = fc.integer({ min: 0, max: 0xffff_ffff });
  const out = Buffer.alloc(wire.FRAME_MAX_BYTES);
  fc.assert(
    fc.property(
      u32,
      u32,
      u32,
      u32,
      fc.integer({ min: 1, max: 0xffff_ffff }),
      (id, snapshot, row, first, count) => {
        const length = wire.encodeAskBlocks(out, id, { snapshot, row, first, count });
        const ask = { snapshot: 0, row: 0, first: 0, count: 0 };
        t.equal(wire.frameBytes(out, 0, length), length);
        t.equal(wire.frameBytes(out, 0, length - 1), 0);
        t.equal(wire.decodeAsk(out, 0, length, ask), 0);
        t.same([wire.frameId(out, 0), ask], [id, { snapshot, row, first, count }]);
      },
    ),
    { numRuns: 50 },
  );
  const answer = { errno: 5, state: 2, name: "abc.0123" };
  const got = { errno: 0, state: 0, name: "" };
  const length = wire.encodeAnswer(out, 9, answer);
  t.equal(wire.decodeAnswer(out, 0, length, got), 0);
  t.same(got, answer);
  for (const name of ["../x", ".hidden", "a/b", "a\0b"]) {
    const bad = wire.encodeAnswer(out, 9, { ...answer, name });
    t.equal(wire.decodeAnswer(out, 0, bad, got), -5, JSON.stringify(name));
  }
  const hello = wire.encodeHello(out, 1, "mount.1");
  t.equal(wire.helloMountId(out, 0, hello), "mount.1");
  t.equal(wire.helloVersion(out, 0, hello), wire.MAILBOX_VERSION);
  t.notOk(wire.helloHearsWork(out, 0));
  wire.encodeHello(out, 1, "mount.1", true);
  t.ok(wire.helloHearsWork(out, 0));
  t.ok(wire.helloTakesFiles(out, 0));
  t.equal(wire.encodeHello(Buffer.alloc(10), 1, "mount.1"), -105);
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
      const frame = wire.frameBytes(bytes, 0, bytes.length);
      if (frame < wire.FRAME_BYTES || frame > bytes.length) return frame === 0 || frame === -5;
      wire.decodeAnswer(bytes, 0, frame, got);
      wire.decodeAsk(bytes, 0, frame, { snapshot: 0, row: 0, first: 0, count: 0 });
      wire.helloMountId(bytes, 0, frame);
      wire.helloVersion(bytes, 0, frame);
      wire.welcomeErrno(bytes, 0, frame);
      return true;
    }),
    { numRuns: 2000 },
  );
  t.end();
});
