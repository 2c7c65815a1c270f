// Random damage to a sound archive: it is taken as some tree that an index can hold, or refused with BURROW_BAD_ARCHIVE. It never
// hangs: tar-stream, given a size of null or a directory with content, would wait for ever if it were trusted with them.

import fc from "fast-check";
import { test } from "tap";
import { BurrowError } from "../../lib/base/error.ts";
import { IndexKind } from "../../lib/layer/format.ts";
import { writeIndex } from "../../lib/layer/writer.ts";
import { entry, gnuLong, imported, pax, tar } from "../ingest/archives.ts";
import { RUNS, SEED } from "../layer/trees.ts";

const SOUND = tar(
  { name: "./", type: "5" },
  { name: "./d/", type: "5", mtime: 1_700_000_000 },
  pax({ mtime: "1.5", "SCHILY.xattr.user.a": "value", path: "d/long-name" }),
  { name: "d/f", content: "content ".repeat(100) },
  { name: "d/h", type: "1", linkname: "d/long-name" },
  gnuLong(`d/${"n".repeat(120)}`, "L"),
  { name: "d/n", content: "x" },
  { name: "d/l", type: "2", linkname: "f" },
  { name: "d/.wh.gone" },
  entry({ name: "end" }),
);
const HANG_MS = 5_000;

async function check(archive: Buffer, pieceBytes: number): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const hang = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error("it hangs")), HANG_MS);
  });
  try {
    const options = { whiteouts: "oci", devices: "skip", maxBytes: 1 << 20 } as const;
    const entries = await Promise.race([imported(archive, options, pieceBytes), hang]);
    writeIndex(IndexKind.layer, entries);
  } catch (error) {
    if (!(error instanceof BurrowError) || error.code !== "BURROW_BAD_ARCHIVE") throw error;
  } finally {
    clearTimeout(timer);
  }
}

/** Sets the checksums of all blocks that may be headers, so that damage gets past it. */
function mended(archive: Buffer): Buffer {
  for (let at = 0; at + 512 <= archive.length; at += 512) {
    const block = archive.subarray(at, at + 512);
    if (block.toString("latin1", 257, 262) !== "ustar") continue;
    block.write("        ", 148, "latin1");
    const sum = block.reduce((total, byte) => total + byte, 0);
    block.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148, "latin1");
  }
  return archive;
}

const offset = fc.integer({ min: 0, max: SOUND.length - 1 });
const pieces = fc.constantFrom(1 << 20, 512, 333);
const OPTIONS = { numRuns: RUNS * 2, seed: SEED };

test("the sound archive is taken", async (t) => {
  t.equal((await imported(SOUND, { whiteouts: "oci" })).length, 8);
  t.ok(mended(Buffer.from(SOUND)).equals(SOUND));
});

test("flipped bytes, with checksums that agree", { timeout: 600_000 }, async (t) => {
  t.comment(`seed ${SEED}`);
  const flips = fc.array(fc.tuple(offset, fc.nat({ max: 255 })), { minLength: 1, maxLength: 6 });
  const property = fc.asyncProperty(flips, pieces, async (all, pieceBytes) => {
    const archive = Buffer.from(SOUND);
    for (const [at, value] of all) archive[at] = value;
    await check(mended(archive), pieceBytes);
  });
  await t.resolves(fc.assert(property, OPTIONS));
});

test("header fields replaced", { timeout: 600_000 }, async (t) => {
  t.comment(`seed ${SEED}`);
  const block = fc.integer({ min: 0, max: SOUND.length / 512 - 1 });
  // name, mode, uid, gid, size, mtime, type, linkname, magic, devices, prefix
  const field = fc.constantFrom(0, 100, 108, 116, 124, 136, 156, 157, 257, 329, 337, 345);
  const value = fc.oneof(
    fc.constantFrom(
      "0",
      "5",
      "1",
      "g",
      "x",
      "L",
      "K",
      "7777777777777",
      "-1",
      " 1",
      "../",
      "/",
      "\xff",
      "zz",
    ),
    fc.constantFrom(
      "\x80\0\0\0\0\0\0\0\0\0\x02\0",
      "\xff\xff\xff\xff\xff\xff\xff\xff",
      "\x81\x01",
      "\0\0\0\0\0\0\0\0",
    ),
    fc
      .uint8Array({ minLength: 1, maxLength: 12 })
      .map((bytes) => Buffer.from(bytes).toString("latin1")),
  );
  const changes = fc.array(fc.tuple(block, field, value), { minLength: 1, maxLength: 3 });
  const property = fc.asyncProperty(changes, pieces, async (all, pieceBytes) => {
    const archive = Buffer.from(SOUND);
    for (const [at, start, text] of all) archive.write(text, at * 512 + start, "latin1");
    await check(mended(archive), pieceBytes);
  });
  await t.resolves(fc.assert(property, OPTIONS));
});

test("blocks moved, doubled and dropped", { timeout: 600_000 }, async (t) => {
  t.comment(`seed ${SEED}`);
  const order = fc.array(fc.integer({ min: 0, max: SOUND.length / 512 - 1 }), { maxLength: 30 });
  const property = fc.asyncProperty(order, pieces, async (all, pieceBytes) => {
    const archive = Buffer.concat(all.map((at) => SOUND.subarray(at * 512, at * 512 + 512)));
    await check(archive, pieceBytes);
  });
  await t.resolves(fc.assert(property, OPTIONS));
});
