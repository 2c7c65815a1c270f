// A deadline ends work whatever the collector of garbage does meanwhile: Node.js 20 loses those of AbortSignal.any().

import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { test } from "tap";
import { newFetchCounters } from "../../lib/cache/counters.ts";
import type { CacheDirectory } from "../../lib/cache/directory.ts";
import { FetchContext } from "../../lib/cache/fetch-context.ts";
import type { Origins } from "../../lib/cache/origins.ts";
import { sleep, until } from "../suite/wait.ts";

setFlagsFromString("--expose-gc");
const collect = runInNewContext("gc") as () => void;

function context(deadlineMs: number): FetchContext {
  return new FetchContext(
    { root: "/" } as CacheDirectory,
    {} as Origins,
    newFetchCounters(),
    () => undefined,
    deadlineMs,
  );
}

test("the signal of a deadline fires, also when garbage was collected before", async (t) => {
  const made = context(300);
  const fired: number[] = [];
  const onAbort = () => void fired.push(performance.now());
  await sleep(1); // A timer counts from when the loop last looked at the clock.
  const startedAt = performance.now();
  for (let i = 0; i < 10; i++) made.deadline().addEventListener("abort", onAbort, { once: true });
  for (let i = 0; i < 4; i++) {
    await sleep(20);
    collect();
  }
  t.ok(await until(() => fired.length === 10), `${fired.length} of 10 fired`);
  t.ok(Math.min(...fired) - startedAt > 250, "not before its time");
});

test("all of them fire when the work is stopped, and what is asked for later has", async (t) => {
  const made = context(60_000);
  let fired = 0;
  const onAbort = () => {
    fired++;
  };
  for (let i = 0; i < 10; i++) made.deadline().addEventListener("abort", onAbort, { once: true });
  collect();
  made.stop();
  t.equal(fired, 10);
  t.ok(made.deadline().aborted);
});
