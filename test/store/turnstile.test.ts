// That those who wait for one thing go on a few in each turn of the loop: counted, whatever a turn takes.

import { setImmediate as turn } from "node:timers/promises";
import { test } from "tap";
import { Turnstile } from "../../lib/store/turnstile.ts";

test("many who wait for one thing pass a few in a turn of the loop, in their order", async (t) => {
  const turnstile = new Turnstile(10);
  const passed: number[] = [];
  const thing = turn();
  const all = Array.from({ length: 95 }, async (_, i) => {
    await thing;
    await turnstile.pass();
    passed.push(i);
  });
  await thing;
  let seen = 0;
  let turns = 0;
  for (; passed.length < all.length && turns < 100; turns++) {
    await turn();
    t.ok(passed.length - seen <= 20, "those of a turn, and where this one begins between two");
    seen = passed.length;
  }
  await Promise.all(all);
  t.ok(turns >= 5, `${turns} turns`);
  t.same(
    passed,
    passed.toSorted((a, b) => a - b),
  );
});

test("who comes alone passes at once, and in the next turn again", async (t) => {
  const turnstile = new Turnstile(1);
  t.equal(turnstile.pass(), undefined);
  let hasPassed = false;
  void turnstile.pass()?.then(() => {
    hasPassed = true;
  });
  await Promise.resolve();
  t.notOk(hasPassed, "the second of a turn waits");
  while (!hasPassed) await turn();
  await turn();
  await turn();
  t.equal(turnstile.pass(), undefined);
});
