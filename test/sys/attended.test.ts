// Time in which this process has listened: what is due waits for what has come, and a loop that was kept from its events hears them first.

import { test } from "tap";
import { attendedMs, Patience } from "../../lib/sys/attended.ts";
import { sleep, until } from "../suite/wait.ts";

/** Keeps this thread from its events. */
function block(ms: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
}

test("who hears nothing for that long is told, once", async (t) => {
  let calls = 0;
  const startedMs = performance.now();
  new Patience(250, () => calls++);
  t.ok(await until(() => calls > 0));
  t.ok(performance.now() - startedMs >= 249);
  await sleep(300);
  t.equal(calls, 1);
});

test("a stretch in which the loop didn't turn is no silence", async (t) => {
  let isOver = false;
  let heard = 0;
  const patience = new Patience(1_000, () => {
    isOver = true;
  });
  // What came meanwhile takes several turns to be heard.
  const steps = (async () => {
    for (; heard < 3; heard++) await sleep(0);
  })();
  const beforeMs = attendedMs();
  block(1_500);
  t.ok(attendedMs() - beforeMs < 1_000, "no more of it counts than a turn");
  await steps;
  t.equal(isOver, false);
  patience.end();
  await sleep(1_200);
  t.equal(isOver, false, "nobody waits any more");
});

test("what was heard last counts", async (t) => {
  let isOver = false;
  const patience = new Patience(20_000, () => {
    isOver = true;
  });
  await sleep(150);
  patience.renew();
  await sleep(150);
  t.equal(isOver, false);
  patience.end();
});
