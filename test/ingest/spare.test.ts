// Memory that is used again: what was given back is taken next, and never while someone still writes to it or reads it.

import { test } from "tap";
import { ByteFeed } from "../../lib/ingest/byte-feed.ts";
import type { ByteSource } from "../../lib/ingest/byte-source.ts";
import { Spare } from "../../lib/ingest/spare.ts";
import { compressChunk, keptOf } from "../../lib/store/codec.ts";
import { digestOf } from "../../lib/store/hash.ts";
import { PackBuilder, readPackRows } from "../../lib/store/pack.ts";
import { noise } from "../suite/daemon-node.ts";

test("one that was given back is taken next, and by one alone", (t) => {
  const spare = new Spare(100);
  const [first, second] = [spare.take(), spare.take()];
  t.not(first, second);
  spare.give(first);
  t.equal(spare.take(), first);
  t.not(spare.take(), first);
  t.end();
});

/** A source whose reads are answered by hand. */
function byHand(): ByteSource & { answer(bytes: string): void } {
  let waiting: { into: Buffer; resolve: (count: number) => void } | undefined;
  return {
    read: (into) =>
      new Promise((resolve) => {
        waiting = { into, resolve };
      }),
    close() {},
    answer(bytes) {
      const { into, resolve } = waiting!;
      resolve(into.write(bytes));
    },
  };
}

test("a feed that is closed under a read keeps its memory from others", async (t) => {
  const late = byHand();
  const closed = new ByteFeed(late, () => undefined);
  const reading = closed.more();
  closed.close();
  const source = byHand();
  const feed = new ByteFeed(source, () => undefined);
  const more = feed.more();
  source.answer("of the second");
  t.equal(await more, true);
  late.answer("LATE, and of another");
  t.equal(await reading, false, "what comes after its end is nothing");
  t.equal(closed.buffered, 0);
  t.equal(feed.take(13)?.toString(), "of the second");
  const filling = byHand();
  const filled = new ByteFeed(filling, () => undefined);
  const fill = filled.fill(100);
  filled.close();
  filling.answer("late");
  await fill;
  t.equal(filled.buffered, 0);
  t.equal(await filled.more(), false);
});

test("packs in memory that was used are the same, and a pack that isn't stored yet is left alone", (t) => {
  const build = (words: readonly string[]) => {
    const builder = new PackBuilder();
    for (const word of words) {
      const bytes = Buffer.from(word.repeat(1000));
      const packed = keptOf(compressChunk(bytes));
      const chunk = digestOf(bytes);
      builder.append(chunk, bytes.length, [{ chunk, block: 0, length: bytes.length, packed }]);
    }
    return builder;
  };
  const words = ["a word", "another", noise(600).toString("latin1")];
  const first = build(words);
  const { digest, bytes } = first.seal();
  const kept = Buffer.from(bytes);
  const beside = build(words.toReversed()).seal();
  t.ok(bytes.equals(kept), "not released: nobody else's");
  t.not(beside.bytes.buffer, bytes.buffer);
  first.release();
  const again = build(words).seal();
  t.equal(again.bytes.buffer, bytes.buffer, "released: the next one's");
  t.equal(again.digest, digest);
  t.ok(again.bytes.equals(kept));
  t.equal(readPackRows(again.bytes).length, 3);
  t.end();
});
