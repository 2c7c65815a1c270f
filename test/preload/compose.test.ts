// Owns: proof that what was read of a snapshot is told apart by layers and put together for another one. Plane: control.

import { test } from "tap";
import type { Digest } from "../../lib/base/digest.ts";
import { asksOfLayer, composed } from "../../lib/preload/compose.ts";

const rows = (...blobs: string[]) => ({
  blobCount: blobs.length,
  blobDigest: (row: number) => blobs[row]! as Digest,
});
const ask = (row: number, first = 0, count = 0) => ({ row, first, count });

test("by content, in order, and only what there is", async (t) => {
  const python = rows("p0", "p1", "p2");
  const numpy = rows("n0", "empty", "n1");
  const pandas = rows("d0", "empty");
  const learned = rows("d0", "p1", "n1", "n0", "made", "p0", "p2", "empty");
  const asks = [ask(5), ask(2, 4, 1), ask(4), ask(1), ask(2, 9, 2), ask(7), ask(99)];
  const of = (layer: ReturnType<typeof rows>) => asksOfLayer(asks, learned, layer);
  t.same(of(python), [ask(0), ask(1)]);
  t.same(of(numpy), [ask(2, 4, 1), ask(2, 9, 2), ask(1)]);
  t.same(of(pandas), [ask(1)], "what several have each has");
  t.same(of(rows("other")), []);

  const layer = (name: string) => name.repeat(64) as Digest;
  const other = rows("x", "n1", "p1", "p0");
  const known = [
    { layer: layer("1"), index: python, asks: [...of(python), ask(77)] },
    { layer: layer("2"), index: pandas, asks: of(pandas) },
    { layer: layer("3"), index: numpy, asks: of(numpy) },
  ];
  t.same(composed(other, known), [
    { layer: layer("1"), asks: [ask(3), ask(2)] },
    { layer: layer("3"), asks: [ask(1, 4, 1), ask(1, 9, 2)] },
  ]);
});
