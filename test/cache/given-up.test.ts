// A partial file that one ask gives up, since the disk has no space for what it wants: who waits for other blocks of it gets them all the
// same, from memory.

import fs from "node:fs";
import { test } from "tap";
import { BurrowError } from "../../lib/base/error.ts";
import { BLOCK_BYTES } from "../../lib/base/limits.ts";
import { openCache } from "../../lib/cache/cache.ts";
import { Fetcher } from "../../lib/cache/fetcher.ts";
import { AnswerState } from "../../lib/cache/mailbox-wire.ts";
import { PartialFile } from "../../lib/cache/partial-file.ts";
import { Sources } from "../../lib/daemon/sources.ts";
import { noise, publish, TestNode } from "../suite/daemon-node.ts";
import { until } from "../suite/wait.ts";

test("who waits for a file that another ask gives up has it from memory", async (t) => {
  const node = new TestNode();
  t.teardown(() => node.close());
  const content = noise(32 * BLOCK_BYTES, 3);
  const { digest, row } = await publish(node.store, { large: content });
  const cache = openCache(node.cache);
  cache.startUp(false);
  const fetcher = new Fetcher(cache, { memoryBytes: 64 * 1024 * 1024, background: false });
  t.teardown(() => fetcher.close());
  const sources = new Sources(cache, node.state, (origin) => fetcher.origins.get(origin).reader);
  const from = { snapshot: digest, origin: node.store };
  const source = await sources.open(from, AbortSignal.timeout(60_000));
  // The first lands only when it may.
  const { land } = PartialFile.prototype;
  let isLanding = false;
  let goOn: () => void = () => undefined;
  const mayLand = new Promise<void>((resolve) => {
    goOn = resolve;
  });
  PartialFile.prototype.land = async function (this: PartialFile) {
    isLanding = true;
    await mayLand;
    return await land.call(this);
  };
  t.teardown(() => {
    PartialFile.prototype.land = land;
  });
  const waiting = fetcher.ask(source, row("large"), 0, 1);
  t.ok(await until(() => isLanding));
  const { reserve } = cache.room;
  cache.room.reserve = async () => {
    throw new BurrowError("BURROW_NO_SPACE", "no space");
  };
  const other = fetcher.ask(source, row("large"), 24, 1);
  t.ok(await until(() => fs.readdirSync(`${node.cache}/partial`).length === 0), "given up");
  cache.room.reserve = reserve;
  goOn();
  for (const [block, asked] of [
    [24, other],
    [0, waiting],
  ] as const) {
    const { errno, state, hostFd } = await asked;
    t.same({ errno, state }, { errno: 0, state: AnswerState.partialHere }, `block ${block}`);
    if (hostFd < 0) continue;
    const bytes = Buffer.alloc(BLOCK_BYTES);
    fs.readSync(hostFd, bytes, 0, BLOCK_BYTES, block * BLOCK_BYTES);
    fs.closeSync(hostFd);
    t.ok(bytes.equals(content.subarray(block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES)));
  }
});
