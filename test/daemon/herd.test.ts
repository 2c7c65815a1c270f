// A hundred sandboxes that start one cold environment at once: each byte is fetched once, by few requests (pitfalls D4, D9).

import { test } from "tap";
import { noise, type Published } from "../suite/daemon-node.ts";
import { scene } from "../suite/daemon-scene.ts";

const CLIENTS = 100;
const MB = 1_000_000;

/** Packages as an import reads them: small files in runs, and libraries between them. */
const FILES = Object.fromEntries([
  ...Array.from({ length: 400 }, (_, i) => [`small${i}`, noise(20_000 + i, i + 1)] as const),
  ...Array.from({ length: 5 }, (_, i) => [`library${i}`, noise(4 * MB + i, 500 + i)] as const),
]);

/** Rows in the order of an import: some small files of a package, then its library. */
function orderOf(published: Published): number[] {
  return Array.from({ length: 5 }, (_, i) => [
    ...Array.from({ length: 40 }, (_, k) => published.row(`small${80 * i + 2 * k}`)),
    published.row(`library${i}`),
  ]).flat();
}

test("a hundred clients fetch each byte once, 2 MB or more with each request", async (t) => {
  const { node, server, published, mountId } = await scene(t, FILES);
  await node.start();
  server.delayMs = 10;
  const rows = orderOf(published);
  const clients = await Promise.all(Array.from({ length: CLIENTS }, () => node.connect(mountId)));
  let failures = 0;
  const run = async (client: (typeof clients)[0]) => {
    for (const row of rows) if ((await client.askBlob(0, row)).errno !== 0) failures++;
  };
  await Promise.all(clients.map(run));
  t.equal(failures, 0);
  const { origins } = await node.settled();
  const { requests, bytes, hedges } = origins[server.url]!;
  const packed = Object.values(FILES).reduce((sum, { length }) => sum + length, 0);
  t.ok(bytes <= packed * 1.05, `${bytes} bytes of ${packed}, the index and its locator on top`);
  t.ok(bytes >= packed * 0.9, "nearly all of it was wanted");
  // The index and its locator are two; hedges depend on what else this machine does.
  const counted = requests - hedges - 2;
  t.ok(bytes / counted >= 2 * MB, `${counted} requests for ${bytes} bytes`);
});
