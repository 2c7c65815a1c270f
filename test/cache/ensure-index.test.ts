// What must be here before a start can be looked at is asked for at once: of a far origin each is a round trip.

import { test } from "tap";
import type { Digest } from "../../lib/base/digest.ts";
import type { BurrowError } from "../../lib/base/error.ts";
import { ensureIndex, openCache } from "../../lib/cache/cache.ts";
import { objectPath } from "../../lib/store/layout.ts";
import { openOrigin } from "../../lib/store/open.ts";
import type { Backend } from "../../lib/store/store.ts";
import { noise, publish, TestNode } from "../suite/daemon-node.ts";

/** An origin that answers when so many have asked. */
function gathering(origin: Backend, count: number): { reader: Backend; asked: string[] } {
  const asked: string[] = [];
  let open: () => void = () => undefined;
  const areAsked = new Promise<void>((resolve) => {
    open = resolve;
  });
  const reader: Backend = {
    origin: origin.origin,
    get: async (path, options) => {
      asked.push(path);
      if (asked.length >= count) open();
      await areAsked;
      return await origin.get(path, options);
    },
    has: (path, signal) => origin.has(path, signal),
    close: () => origin.close(),
  };
  return { reader, asked };
}

test("a snapshot's index and its locator are asked for at once", async (t) => {
  const node = new TestNode();
  t.teardown(() => node.close());
  const { digest } = await publish(node.store, { a: noise(1_000, 1) });
  const cache = openCache(node.cache);
  const { reader, asked } = gathering(openOrigin(node.store), 2);
  const bytes = await ensureIndex(cache, node.store, digest, { reader });
  t.ok(bytes.length > 0);
  t.same(new Set(asked), new Set([objectPath("indexes", digest), objectPath("locators", digest)]));
  await ensureIndex(cache, node.store, digest, { reader });
  t.equal(asked.length, 2, "nothing of what is here");
});

test("of a snapshot that isn't there the index's failure is told", async (t) => {
  const node = new TestNode();
  t.teardown(() => node.close());
  await publish(node.store, { a: noise(1_000, 1) });
  const { reader } = gathering(openOrigin(node.store), 2);
  const missing = ensureIndex(openCache(node.cache), node.store, "0".repeat(64) as Digest, {
    reader,
  });
  const error = (await missing.catch((why: unknown) => why)) as BurrowError;
  t.equal(error.class, "notFound");
  t.match(error.context["path"], /^indexes\//);
});
