// Bytes that are asked for: of streams, files and programs, and through a feed, held against what went in. Nothing is left behind.

import fs from "node:fs";
import { join } from "node:path";
import { Readable } from "node:stream";
import fc from "fast-check";
import { test } from "tap";
import { ByteFeed } from "../../lib/ingest/byte-feed.ts";
import { type ByteSource, FileBytes, sourceOf, streamOf } from "../../lib/ingest/byte-source.ts";
import { Program } from "../../lib/sys/program.ts";
import { RUNS, SEED } from "../layer/trees.ts";
import { noise } from "../suite/daemon-node.ts";

const CONTENT = noise(3_000_000);

function openFds(): number {
  return fs.readdirSync("/proc/self/fd").length;
}

/** All that a source has, asked for `step` bytes at a time. */
async function all(source: Pick<ByteSource, "read">, step: number): Promise<Buffer> {
  const parts: Buffer[] = [];
  const into = Buffer.alloc(step);
  for (;;) {
    const count = await source.read(into);
    if (count === 0) return Buffer.concat(parts);
    parts.push(Buffer.from(into.subarray(0, count)));
  }
}

function started(file: string, ...args: string[]): Program {
  const program = Program.start(file, args);
  if (typeof program === "number") throw new Error(`${file}: ${program}`);
  return program;
}

test("a stream as a source, and a source as a stream", async (t) => {
  const plain = () => Readable.from([CONTENT.subarray(0, 10), CONTENT.subarray(10)]);
  for (const step of [7_000, 1 << 20, 5_000_000]) {
    t.ok((await all(sourceOf(plain()), step)).equals(CONTENT), `by ${step}`);
  }
  const parts: Buffer[] = [];
  for await (const part of streamOf(sourceOf(plain()))) parts.push(part as Buffer);
  t.ok(Buffer.concat(parts).equals(CONTENT));
  const failing = plain();
  const source = sourceOf(failing);
  failing.destroy(new Error("the disk is gone"));
  await new Promise(setImmediate);
  await t.rejects(all(source, 100), { message: "the disk is gone" });
});

test("ranges of a file, and what is behind its end", async (t) => {
  const path = join(t.testdir(), "file");
  fs.writeFileSync(path, CONTENT);
  const fds = openFds();
  for (const [start, length] of [
    [0, CONTENT.length],
    [1000, 300_000],
    [CONTENT.length - 10, 500],
    [CONTENT.length + 5, 500],
    [10, 0],
  ] as const) {
    const source = new FileBytes(path, { start, length });
    const wanted = CONTENT.subarray(start, start + length);
    t.ok((await all(source, 65_536)).equals(wanted), `${length} bytes at ${start}`);
    source.close();
  }
  const closed = new FileBytes(path);
  const reading = closed.read(Buffer.alloc(1000));
  closed.close();
  t.equal(await reading, 1000, "a read under way ends before its file is closed");
  await t.rejects(async () => await closed.read(Buffer.alloc(1000)), /was closed/);
  t.equal(openFds(), fds, "nothing stays open");
  await t.rejects(all(new FileBytes(join(t.testdirName, "none")), 10), { code: "ENOENT" });
});

test("a feed gives what came, in pieces of any length", async (t) => {
  const asked = fc.array(fc.integer({ min: 100, max: 2_900_000 }), { minLength: 1, maxLength: 20 });
  const property = fc.asyncProperty(
    asked,
    fc.integer({ min: 5_000, max: 2_000_000 }),
    async (lengths, step) => {
      let offset = 0;
      const source: ByteSource = {
        read(into) {
          const count = Math.min(into.length, step, CONTENT.length - offset);
          into.set(CONTENT.subarray(offset, offset + count));
          offset += count;
          return count;
        },
        close() {},
      };
      const feed = new ByteFeed(source, () => undefined);
      let at = 0;
      for (let i = 0; at < CONTENT.length; i++) {
        const length = Math.min(lengths[i % lengths.length]!, CONTENT.length - at);
        let bytes = feed.take(length);
        while (bytes === undefined) {
          if (!(await feed.more(length))) return false;
          bytes = feed.take(length);
        }
        if (!bytes.equals(CONTENT.subarray(at, at + length))) return false;
        at += length;
      }
      return feed.buffered === 0 && !(await feed.more()) && feed.byteCount === CONTENT.length;
    },
  );
  await t.resolves(fc.assert(property, { numRuns: RUNS / 10, seed: SEED }));
});

test("a feed gives a piece that is larger than its buffer", async (t) => {
  const feed = new ByteFeed(sourceOf(Readable.from([CONTENT])), () => undefined);
  while (feed.take(CONTENT.length) === undefined) await feed.more(CONTENT.length);
  t.equal(feed.byteCount, CONTENT.length);
});

test("a program gets all bytes and gives all bytes", async (t) => {
  // The first program may take an FD that the process keeps for all that follow.
  const before = started("true");
  await all(before, 100);
  await before.ended;
  const fds = openFds();
  for (const step of [10_000, 1 << 20]) {
    const cat = started("cat");
    const reading = all(cat, step);
    for (let at = 0; at < CONTENT.length; at += 400_000)
      t.ok(await cat.write(CONTENT.subarray(at, at + 400_000)));
    cat.endInput();
    t.ok((await reading).equals(CONTENT), `by ${step}`);
    t.equal(await cat.ended, undefined);
  }
  t.equal(openFds(), fds, "its pipes are closed");
});

test("how a program ends", async (t) => {
  const failed = started("sh", "-c", "echo why >&2; exit 3");
  t.equal((await all(failed, 100)).length, 0);
  t.equal(await failed.ended, "why");
  const silent = started("sh", "-c", "exit 3");
  t.equal((await all(silent, 100)).length, 0);
  t.equal(await silent.ended, "ended by exit code 3");
  const deaf = started("sh", "-c", "exec <&-; echo said; exit 0");
  t.equal((await all(deaf, 100)).toString(), "said\n");
  t.equal(await deaf.write(CONTENT), false, "it reads no more");
  t.equal(await deaf.ended, undefined);
  const killed = started("sleep", "1000");
  const reading = all(killed, 100);
  killed.kill();
  t.equal((await reading).length, 0);
  t.equal(await killed.ended, "ended by signal 9");
  killed.kill();
  t.equal(Program.start("/nonexistent/program", []), -2);
});
