// Mutated 9P messages, 10^5 in the gate and 10^6 in the long half: each is answered or taken back, no handler throws, memory stays
// where it was. BURROW_SEED repeats a run.

import { test } from "tap";
import { Type } from "../../lib/wire/ninep/type.ts";
import { isLong } from "../suite/long.ts";
import { NinepScene } from "../suite/ninep-scene.ts";
import { isSanitized } from "../suite/served.ts";
import { NinepMutator } from "./ninep.ts";

const COUNT = isLong ? 1_000_000 : 50_000;
const GROWTH_MAX_BYTES = 32 << 20;
const BATCH = 32;
const SEED = Number(process.env["BURROW_SEED"] ?? (Date.now() % 0xffff_fff0) + 1);

const FILES = { f: "content of f", "d/g": Buffer.alloc(5000, "g"), l: "-> f", gone: "gone" };

test(`mutated messages are answered, seed ${SEED}`, (t) => {
  const scene = new NinepScene(t, { files: FILES, missing: ["gone"] });
  const mutator = new NinepMutator(SEED);
  const honest = scene.client();
  const client = scene.connect();
  client.version(16_384);
  let before = 0;
  let answered = 0;
  for (let done = 0; done < COUNT; done += BATCH) {
    // Tags 0 to 31: a duplicate is refused, and a flush may name one that is under way.
    const tags = Array.from({ length: BATCH }, (_, i) => i);
    for (const tag of tags) client.sendRaw(mutator.next(tag));
    // A last one, which nothing before it may hold up.
    const last = client.send(Type.flush, { otherTag: 0 }, 0x999);
    client.await(last);
    for (const tag of tags) if (client.take(tag) !== undefined) answered++;
    if (client.isClosed) {
      t.fail(`the server hung up after ${done} messages`);
      break;
    }
    // What was renewed by a mutated Tversion would be another session's: start again now and then.
    if (done % 4096 === 0) {
      client.version(16_384);
      honest.client.getattr(honest.root);
    }
    if (done === BATCH * 600) before = process.memoryUsage().rss;
  }
  t.ok(
    answered > 0.98 * COUNT,
    `${answered} of ${COUNT} were answered, the others are waiting or were flushed`,
  );
  const grown = process.memoryUsage().rss - before;
  if (!isSanitized)
    t.ok(grown < GROWTH_MAX_BYTES, `RSS grew by ${(grown / 2 ** 20).toFixed(1)} MiB`);
  t.equal(scene.logged.filter((line) => line.includes("bug in")).join("\n"), "");
  t.equal(honest.client.readAll(honest.client.open(honest.root, "f")).toString(), FILES.f);
  client.version(8192);
  t.ok(client.attach() > 0, "it is served as ever");
  t.end();
});
