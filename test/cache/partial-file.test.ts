// The file of a large blob on its way: who waits for the disk to take what was written.

import fs from "node:fs";
import { test } from "tap";
import { openCache } from "../../lib/cache/cache.ts";
import { PartialFile } from "../../lib/cache/partial-file.ts";
import { digestOf } from "../../lib/store/hash.ts";

test("who comes while a landing is under way shares the next, and all hear of one that fails", async (t) => {
  const cache = openCache(t.testdir());
  cache.startUp(false);
  const file = new PartialFile(cache, undefined, { digest: digestOf(Buffer.from("x")), size: 99 });
  await file.make(() => true);
  const order: string[] = [];
  const note = (name: string) => () => void order.push(name);
  const first = file.land().then(note("first"));
  await Promise.resolve();
  await Promise.resolve();
  const second = file.land();
  t.equal(file.land(), second, "one for all who came meanwhile");
  await Promise.all([first, second.then(note("second"))]);
  t.same(order, ["first", "second"], "one after the other");
  t.not(file.land(), second, "what was written since is for another");
  const fd = file.takeFd();
  const gone = [file.land(), file.land()];
  for (const { status } of await Promise.allSettled(gone)) t.equal(status, "rejected");
  await file.remove(fd);
  t.notOk(fs.existsSync(file.path));
});
