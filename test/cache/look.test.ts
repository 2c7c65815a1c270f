// Looks: what is asked for side by side is looked at together, and never more at once than a turn of the loop can bear.

import { test } from "tap";
import type { Digest } from "../../lib/base/digest.ts";
import { openCache } from "../../lib/cache/cache.ts";
import { Looks } from "../../lib/cache/look.ts";
import { digestOf } from "../../lib/store/hash.ts";
import { temporary } from "../suite/served.ts";

const FILES = 1_000;
const AT_ONCE = 128;

test("many files are looked at in several goes, few asks in one", async (t) => {
  const cache = openCache(`${temporary(t)}/cache`);
  const contents = Array.from({ length: FILES }, (_, i) => Buffer.from(`${i}`));
  const digests: Digest[] = contents.map((each) => digestOf(each));
  for (let i = 0; i < FILES; i += 100) await cache.writeSealed("blobs", digests[i]!, contents[i]!);
  let goes = 0;
  const { disk } = cache;
  const run = disk.run.bind(disk);
  disk.run = (lane, ...rest) => {
    // What was written is closed beside it.
    if (lane === "look") goes++;
    return run(lane, ...rest);
  };
  const looks = new Looks(disk, cache.root);
  const looked = digests.map((digest) => ({ folder: "blobs" as const, digest, size: -1 }));
  const wanted = digests.map((_, i) => (i % 100 === 0 ? "sealed" : "missing"));
  t.same(await looks.at(looked), wanted);
  t.ok(goes >= FILES / AT_ONCE, `${goes}`);
  goes = 0;
  const few = [looked.slice(0, 10), looked.slice(10, 20), looked.slice(20, 30)];
  t.same((await Promise.all(few.map((each) => looks.at(each)))).flat(), wanted.slice(0, 30));
  t.ok(goes < few.length, `${goes}`);
  t.same(await looks.at([]), []);
});
