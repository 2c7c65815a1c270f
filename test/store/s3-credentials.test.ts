// Credentials that expire again and again while many read: reads wait for new ones, which are asked for once and not by each of them
// (pitfall D1).

import fs from "node:fs";
import { test } from "tap";
import { Budget } from "../../lib/store/budget.ts";
import { openOrigin } from "../../lib/store/open.ts";
import { keyFile } from "../suite/key-file.ts";
import { service } from "../suite/s3-server.ts";

const READERS = 20;
const ROUNDS = 3;

test("twenty readers, keys that expire three times: three new ones are asked for", async (t) => {
  const server = await service(t);
  const content = Buffer.alloc(100_000, "some content ");
  fs.writeFileSync(`${server.root}/box/x`, content);
  const keys = keyFile(t, 0.2);
  const renew = (round: number) => {
    for (const each of server.keys.values()) each.isExpired = true;
    server.keys.set(`KEY${round}`, { secret: "SECRET" });
    keys.give(`KEY${round}`);
  };
  const budget = new Budget({ share: 0.1, perSecond: 100, most: READERS });
  const backend = openOrigin(`${server.address("box")}&profile=p`, { tries: 8, budget });
  t.teardown(() => backend.close());
  renew(0);
  let read = 0;
  let goal = READERS;
  let isOver = false;
  const reader = async (i: number) => {
    while (!isOver) {
      const range = { offset: 100 * i, length: 500 };
      const got = await backend.get("x", { range });
      if (!got.equals(content.subarray(range.offset, range.offset + 500))) t.fail("wrong bytes");
      read++;
      if (read < goal) continue;
      // Each had its turn: the keys expire under those that are on their way.
      const round = keys.asked();
      if (round > ROUNDS) isOver = true;
      else renew(round);
      goal = read + 3 * READERS;
    }
  };
  await Promise.all(Array.from({ length: READERS }, (_, i) => reader(i)));
  t.equal(keys.asked(), ROUNDS + 1, "the first, and one for each that expired");
  const refused = server.files.requests.length - read;
  t.ok(refused <= READERS * ROUNDS, `${refused} refused: one a reader for each that expired`);
});
