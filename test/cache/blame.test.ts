// Who is to blame for content with another digest: a place that sent other bytes than were right, and nobody when it is the locator that
// leads astray, or bytes that all have.

import fs from "node:fs";
import { type Test, test } from "tap";
import { Errno } from "../../lib/base/errno.ts";
import { BLOCK_BYTES } from "../../lib/base/limits.ts";
import { ensureIndex, openCache } from "../../lib/cache/cache.ts";
import { Fetcher } from "../../lib/cache/fetcher.ts";
import { Sources } from "../../lib/daemon/sources.ts";
import { Locator } from "../../lib/store/locator.ts";
import { encodeLocator, placeAt } from "../../lib/store/locator-writer.ts";
import { parseOrigins } from "../../lib/store/origins-file.ts";
import { noise, publish, TestNode } from "../suite/daemon-node.ts";
import { OriginServer } from "../suite/origin-server.ts";

const FILES = {
  ...Object.fromEntries(Array.from({ length: 6 }, (_, i) => [`f${i}`, noise(700_000, i + 1)])),
  large: noise(8 * BLOCK_BYTES, 70),
  twin: noise(8 * BLOCK_BYTES, 71),
};
const NAMES = Object.keys(FILES);

/** A node that reads a store at two places, and the means to have its locator lie. */
async function twoPlaces(t: Test) {
  const node = new TestNode();
  t.teardown(() => node.close());
  const { digest, row, refs } = await publish(node.store, FILES);
  const servers = [await OriginServer.start(node.store), await OriginServer.start(node.store)];
  for (const server of servers) t.teardown(() => server.close());
  const [own, mirror] = servers as [OriginServer, OriginServer];
  const cache = openCache(node.cache);
  cache.startUp(false);
  const plan = { format: 1, origins: { [own.url]: { mirrors: [mirror.url] } } };
  const fetcher = new Fetcher(cache, { background: false, origins: parseOrigins(plan) });
  t.teardown(() => fetcher.close());
  await ensureIndex(cache, node.store, digest);
  /** Has each file lie where the next one does, in the locator of this node or of the store too. */
  const lie = () => {
    const path = cache.path("locators", digest);
    const locator = new Locator(fs.readFileSync(path));
    const places = Array.from({ length: locator.blobCount }, (_, i) => placeAt(locator, i));
    const next = (i: number) =>
      [...places.slice(i + 1), ...places].find(
        ({ chunks }) => chunks.length === places[i]!.chunks.length,
      )!;
    const lies = encodeLocator(places.map((place, i) => ({ ...place, chunks: next(i).chunks })));
    fs.writeFileSync(path, lies);
    fs.writeFileSync(`${node.store}/locators/${digest.slice(0, 2)}/${digest}`, lies);
  };
  const sources = new Sources(cache, node.state, (origin) => fetcher.origins.get(origin).reader);
  const source = await sources.open(
    { snapshot: digest, origin: own.url },
    new AbortController().signal,
  );
  const ask = async (name: string) => (await fetcher.ask(source, row(name), 0, 0)).errno;
  const places = () => fetcher.origins.figures()[own.url]!.places;
  const path = (name: string) => node.blobPath(refs.get(name)!.digest);
  return { node, own, mirror, fetcher, lie, ask, places, path };
}

test("a locator that leads astray puts no honest place to rest", async (t) => {
  const { fetcher, lie, ask, places } = await twoPlaces(t);
  lie();
  for (const name of NAMES) t.equal(await ask(name), Errno.EIO, name);
  t.ok(fetcher.counters.mismatches >= NAMES.length);
  t.match(places(), [
    { state: "up", rests: 0, mismatches: 0 },
    { state: "up", rests: 0, mismatches: 0 },
  ]);
});

test("bytes that all places have wrong are no place's", async (t) => {
  const { node, ask, places } = await twoPlaces(t);
  const [shard] = fs.readdirSync(`${node.store}/packs`);
  const [pack] = fs.readdirSync(`${node.store}/packs/${shard}`);
  const path = `${node.store}/packs/${shard}/${pack}`;
  const bytes = fs.readFileSync(path);
  fs.chmodSync(path, 0o644);
  fs.writeFileSync(
    path,
    bytes.map((byte, i) => (i % 1000 === 0 ? byte ^ 1 : byte)),
  );
  for (const name of NAMES) t.equal(await ask(name), Errno.EIO, name);
  t.match(places(), [{ rests: 0 }, { rests: 0 }]);
});

for (const isCrowd of [false, true]) {
  test(`a place that sends other bytes is found out${isCrowd ? ", in a crowd too" : ""}`, async (t) => {
    const { own, mirror, ask, places, path } = await twoPlaces(t);
    own.fault = (at) => (at.startsWith("packs/") ? "flip" : "none");
    const rounds = isCrowd ? [...NAMES, ...NAMES, ...NAMES] : NAMES;
    if (isCrowd) for (const errno of await Promise.all(rounds.map(ask))) t.equal(errno, 0);
    else for (const name of rounds) t.equal(await ask(name), 0, name);
    for (const [name, bytes] of Object.entries(FILES))
      t.ok(fs.readFileSync(path(name)).equals(bytes), name);
    t.match(places(), [
      { name: own.url, state: "resting", why: /another digest/ },
      { name: mirror.url, state: "up", rests: 0, mismatches: 0 },
    ]);
  });
}

test("what one place sends wrong once, and nobody else has, comes right from it again", async (t) => {
  const { own, mirror, ask, path } = await twoPlaces(t);
  let flips = 1;
  own.fault = (at) => (at.startsWith("packs/") && flips-- > 0 ? "flip" : "none");
  mirror.fault = () => "reset";
  t.equal(await ask("f0"), 0);
  t.ok(fs.readFileSync(path("f0")).equals(FILES["f0" as keyof typeof FILES]));
});
