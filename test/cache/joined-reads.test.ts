// A read that several wait for ends by the deadline of who began it: the others go on in their own time. Control plane.

import { type Test, test } from "tap";
import { openCache } from "../../lib/cache/cache.ts";
import { Fetcher } from "../../lib/cache/fetcher.ts";
import { Sources } from "../../lib/daemon/sources.ts";
import { noise } from "../suite/daemon-node.ts";
import { scene } from "../suite/daemon-scene.ts";
import { until } from "../suite/wait.ts";

const patient = () => new AbortController().signal;

/** Two that read the same of an origin that hangs until the first of them has given up. */
async function readTwice<T>(
  t: Test,
  server: Awaited<ReturnType<typeof scene>>["server"],
  read: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const before = server.requests.length;
  server.fault = () => "stall-headers";
  const first = new AbortController();
  const begun = t.rejects(read(first.signal), { code: "BURROW_TIMEOUT" });
  const joined = read(patient());
  t.ok(await until(() => server.requests.length > before), "it is asked for");
  server.fault = () => "none";
  first.abort();
  await begun;
  return await joined;
}

test("who joins a read isn't held to the deadline of who began it", async (t) => {
  const { node, server, published } = await scene(t, { file: noise(5_000, 1) });
  const cache = openCache(node.cache);
  cache.startUp(false);
  const fetcher = new Fetcher(cache);
  t.teardown(() => fetcher.close());
  const { origins } = fetcher;
  const sources = new Sources(cache, node.state, (origin) => origins.get(origin).reader);
  const from = { snapshot: published.digest, origin: server.url };
  const locator = await readTwice(t, server, (signal) =>
    origins.locator(server.url, published.digest, signal),
  );
  t.ok(locator.find(published.refs.get("file")!.digest) >= 0, "a locator");
  const { table } = await readTwice(t, server, (signal) => sources.open(from, signal));
  t.equal(table.count, 1, "an index");
});
