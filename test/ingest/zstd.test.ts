// zstd in this process: frames one after the other, windows that are too large, little input that is very much output, what is given
// back, and the program in the library's place.

import { execFileSync } from "node:child_process";
import { test } from "tap";
import type { ByteSource } from "../../lib/ingest/byte-source.ts";
import { decompressedBytes } from "../../lib/ingest/decompress.ts";
import { native } from "../../lib/sys/native.ts";

const CONTENT = Buffer.from(Array.from({ length: 3_000 }, (_, i) => `${i * 7919} `).join(""));
const hasLibrary = typeof native.openZstd(20) !== "number";
const options = hasLibrary ? {} : { skip: "there is no libzstd.so.1" };

function zstd(input: Buffer, ...args: string[]): Buffer {
  return execFileSync("zstd", ["-qc", ...args], { input, maxBuffer: 1 << 28, stdio: "pipe" });
}

/** Bytes in pieces, some at once and some later. */
function pieces(bytes: Buffer, pieceBytes: number): ByteSource & { isClosed: boolean } {
  let at = 0;
  return {
    isClosed: false,
    read(into) {
      const count = bytes.copy(into, 0, at, Math.min(bytes.length, at + pieceBytes));
      at += count;
      return (at / pieceBytes) & 1 ? count : Promise.resolve(count);
    },
    close() {
      this.isClosed = true;
    },
  };
}

async function all(source: ByteSource, outBytes = 10_000): Promise<Buffer> {
  const parts: Buffer[] = [];
  const into = Buffer.alloc(outBytes);
  for (;;) {
    const count = await source.read(into);
    if (count === 0) return Buffer.concat(parts);
    parts.push(Buffer.from(into.subarray(0, count)));
  }
}

test("any pieces in, any pieces out, and frames one after the other", options, async (t) => {
  const skippable = Buffer.from("502a4d1803000000616263", "hex");
  const empty = zstd(Buffer.alloc(0));
  const frames = Buffer.concat([zstd(CONTENT), skippable, empty, zstd(CONTENT, "-19"), empty]);
  for (const [inBytes, outBytes] of [
    [3, 5000],
    [7, 1000],
    [64, 100],
    [1 << 20, 1 << 20],
  ] as const) {
    const input = pieces(frames, inBytes);
    const source = decompressedBytes(input, "zst", "a.tar");
    const out = await all(source, outBytes);
    t.ok(out.equals(Buffer.concat([CONTENT, CONTENT])), `${inBytes} in, ${outBytes} out`);
    t.ok(input.isClosed, "the source goes with the end");
    t.equal(await source.read(Buffer.alloc(10)), 0, "which stays the end");
  }
  const source = decompressedBytes(pieces(empty, 100), "zst", "a.tar");
  t.equal((await all(source)).length, 0, "nothing, well packed");
});

test("windows up to 128 MiB, and no larger one", options, async (t) => {
  const bad = { code: "BURROW_BAD_ARCHIVE", message: /window/ };
  // RFC 8878 section 3.1.1.1: no content size, no checksum; a window of 2^(10 + 18) bytes; then a last raw block of one byte.
  const [largest, tooLarge] = ["28b52ffd008809000061", "28b52ffd009009000061"];
  const of = (hex: string) => decompressedBytes(pieces(Buffer.from(hex, "hex"), 100), "zst", "a");
  t.equal((await all(of(largest))).toString(), "a");
  await t.rejects(all(of(tooLarge)), bad);
});

test(
  "other work has its turn while a little input becomes very much output",
  options,
  async (t) => {
    const bomb = zstd(Buffer.alloc(100 << 20));
    t.ok(bomb.length < 64 << 10, "all of it comes in one piece");
    const source = decompressedBytes(pieces(bomb, bomb.length), "zst", "a.tar");
    const into = Buffer.alloc(1 << 20);
    let turns = 0;
    const count = () => {
      turns++;
      next = setImmediate(count);
    };
    let next = setImmediate(count);
    while ((await source.read(into)) > 0);
    clearImmediate(next);
    t.ok(turns >= 5, `${turns} turns`);
  },
);

test("closed in the midst, with and without a read under way", options, async (t) => {
  const packed = zstd(CONTENT);
  const closed = decompressedBytes(pieces(packed, 100), "zst", "a.tar");
  t.ok((await closed.read(Buffer.alloc(100))) > 0);
  closed.close();
  closed.close();
  t.throws(() => closed.read(Buffer.alloc(10)), /closed/);
  let answer: ((count: number) => void) | undefined;
  const stalled: ByteSource = {
    read: () =>
      new Promise((resolve) => {
        answer = resolve;
      }),
    close() {},
  };
  const source = decompressedBytes(stalled, "zst", "a.tar");
  const reading = source.read(Buffer.alloc(100));
  source.close();
  answer!(0);
  await t.rejects(Promise.resolve(reading), "it is neither content nor an end");
});

test("without the library its program does the same", async (t) => {
  const { openZstd } = native;
  native.openZstd = () => -38;
  t.teardown(() => {
    native.openZstd = openZstd;
  });
  const out = await all(decompressedBytes(pieces(zstd(CONTENT), 5000), "zst", "a.tar"));
  t.ok(out.equals(CONTENT));
  const path = process.env["PATH"];
  process.env["PATH"] = "/nonexistent";
  const missing = decompressedBytes(pieces(zstdOf(path!), 5000), "zst", "a.tar");
  await t.rejects(all(missing), { code: "BURROW_UNSUPPORTED", message: /Debian package zstd/ });
  process.env["PATH"] = path;
});

function zstdOf(path: string): Buffer {
  return execFileSync("zstd", ["-qc"], { input: CONTENT, env: { PATH: path }, stdio: "pipe" });
}
