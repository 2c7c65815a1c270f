// The memory tier gives back what it takes: a blob that was dropped costs nothing once nobody has it open, and those used longest ago make
// place for others.

import fs from "node:fs";
import { test } from "tap";
import type { Digest } from "../../lib/base/digest.ts";
import { Lingering } from "../../lib/cache/lingering.ts";
import { MemoryTier, openForReading } from "../../lib/cache/memory-tier.ts";
import { digestOf } from "../../lib/store/hash.ts";
import { noise } from "../suite/daemon-node.ts";
import { until } from "../suite/wait.ts";

const BLOB_BYTES = 20_000;

function put(memory: MemoryTier, seed: number): Promise<Digest> {
  const bytes = noise(BLOB_BYTES, seed);
  const digest = digestOf(bytes);
  return memory.put(digest, bytes).then(() => digest);
}

/** Files of memory that this process has open. */
function openBlobs(): number {
  const links = fs.readdirSync("/proc/self/fd").map((fd) => {
    try {
      return fs.readlinkSync(`/proc/self/fd/${fd}`);
    } catch {
      return "";
    }
  });
  return links.filter((link) => link.includes("burrow-blob")).length;
}

test("a dropped blob takes memory as long as somebody has it open", async (t) => {
  const memory = new MemoryTier(1024 * 1024);
  const free = memory.room.freeBytes;
  const unused = await put(memory, 1);
  memory.drop(unused);
  t.same([openBlobs(), memory.room.freeBytes], [0, free], "nobody had it");
  const used = await put(memory, 2);
  const hostFd = memory.open(used);
  memory.drop(used);
  memory.lingering.look();
  t.ok(memory.room.freeBytes <= free - BLOB_BYTES, "it is counted");
  t.ok(fs.readFileSync(hostFd).equals(noise(BLOB_BYTES, 2)), "and whole");
  t.throws(() => fs.writeSync(hostFd, "x"), { code: "EBADF" });
  fs.closeSync(hostFd);
  memory.lingering.look();
  t.same([openBlobs(), memory.room.freeBytes], [0, free], "it is gone with its last user");
  memory.close();
});

test("what was used longest ago makes place", async (t) => {
  const memory = new MemoryTier(6 * BLOB_BYTES);
  const digests: Digest[] = [];
  for (let i = 0; i < 40; i++) digests.push(await put(memory, i));
  t.ok(memory.has(digests.at(-1)!) && !memory.has(digests[0]!));
  t.ok(memory.read(digests.at(-1)!)?.equals(noise(BLOB_BYTES, 39)));
  t.equal(openBlobs(), memory.facts.blobs);
  memory.close();
  t.equal(openBlobs(), 0);
});

test("what sandboxes have open stays within the limit, however many files it is", async (t) => {
  const files = 350;
  const memory = new MemoryTier(files * BLOB_BYTES, 100_000);
  const held: number[] = [];
  const digests: Digest[] = [];
  let refused: unknown;
  for (let i = 0; i < 2 * files && refused === undefined; i++) {
    try {
      const digest = await put(memory, i);
      digests.push(digest);
      held.push(memory.open(digest));
    } catch (error) {
      refused = error;
    }
  }
  t.match(refused, { code: "BURROW_NO_SPACE" });
  t.ok(held.length < files, `${held.length} files are all there is memory for`);
  t.ok(
    digests.every((digest) => memory.has(digest)),
    "none gives way in vain",
  );
  const closed = held.splice(100, 50);
  for (const hostFd of closed) fs.closeSync(hostFd);
  // Who found nothing that can go looks again after a moment.
  const puts = async (seed: number) => (await put(memory, seed).catch(() => "")) !== "";
  for (let i = 0; i < 40; i++) t.ok(await until(() => puts(10_000 + i)));
  t.ok(memory.has(digests[0]!) && !memory.has(digests[100]!), "what nobody has goes");
  for (const hostFd of held) fs.closeSync(hostFd);
  memory.close();
  t.same([openBlobs(), memory.facts.usedBytes], [0, 0]);
});

test("no more FDs are taken than a share of those there are", async (t) => {
  const memory = new MemoryTier(1024 * 1024 * 1024, 64);
  const digests: Digest[] = [];
  for (let i = 0; i < 40; i++) digests.push(await put(memory, i));
  t.equal(openBlobs(), 16, "a quarter");
  t.same([memory.has(digests.at(-1)!), memory.has(digests[0]!)], [true, false], "the last ones");
  const others = noise(BLOB_BYTES, 39);
  t.ok(memory.read(digests.at(-1)!)?.equals(others));
  memory.close();
  t.same([openBlobs(), memory.facts.usedBytes], [0, 0]);
});

test("no more FDs are taken, although all are in use", async (t) => {
  const memory = new MemoryTier(1024 * 1024 * 1024, 64);
  const held: number[] = [];
  for (let i = 0; i < 16; i++) held.push(memory.open(await put(memory, i)));
  await t.rejects(put(memory, 16), { code: "BURROW_NO_SPACE" });
  for (const hostFd of held) fs.closeSync(hostFd);
  await put(memory, 17);
  t.equal(openBlobs(), 16);
  memory.close();
});

test("files without a name are counted as long as they are open, however many they are", async (t) => {
  const { room } = new MemoryTier(0);
  const lingering = new Lingering(room, fs.closeSync, 100_000);
  const memory = new MemoryTier(1024 * 1024);
  const files = Array.from({ length: 400 }, () => memory.create(BLOB_BYTES));
  const held = files.map(openForReading);
  for (const fd of files) lingering.take(fd, BLOB_BYTES);
  lingering.look();
  t.equal(room.facts.lingeringBytes, files.length * BLOB_BYTES);
  for (const hostFd of held.splice(100)) fs.closeSync(hostFd);
  for (let looks = 0; looks < 3; looks++) lingering.look();
  t.equal(room.facts.lingeringBytes, 100 * BLOB_BYTES, "each is looked at in turn");
  for (const hostFd of held) fs.closeSync(hostFd);
  lingering.close();
  t.same([room.facts.lingeringBytes, openBlobs()], [0, 0]);
});
