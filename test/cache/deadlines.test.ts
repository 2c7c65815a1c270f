// A deadline ends work whatever the collector of garbage does meanwhile: Node.js 20 loses those of AbortSignal.any().

import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { test } from "tap";
import { newFetchCounters } from "../../lib/cache/counters.ts";
import { inTime } from "../../lib/cache/deadlines.ts";
import type { CacheDirectory } from "../../lib/cache/directory.ts";
import { FetchContext } from "../../lib/cache/fetch-context.ts";
import type { Origins } from "../../lib/cache/origins.ts";
import { sleep, until } from "../suite/wait.ts";

setFlagsFromString("--expose-gc");
const collect = runInNewContext("gc") as () => void;

const SOURCE = { origin: "/store" };

/** `heardMs`: when the origin last sent something. */
function context(
  silentMs: number,
  mostMs = 0,
  heardMs: () => number = () => Number.NEGATIVE_INFINITY,
): FetchContext {
  return new FetchContext(
    { root: "/" } as CacheDirectory,
    { heardMs: (_name: string) => heardMs() } as Origins,
    newFetchCounters(),
    () => undefined,
    { silentMs, mostMs },
  );
}

test("the signal of a deadline fires, also when garbage was collected before", async (t) => {
  const made = context(300);
  const fired: number[] = [];
  const onAbort = () => void fired.push(performance.now());
  await sleep(1); // A timer counts from when the loop last looked at the clock.
  const startedAt = performance.now();
  for (let i = 0; i < 10; i++)
    made.deadline(SOURCE).signal.addEventListener("abort", onAbort, { once: true });
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
  for (let i = 0; i < 10; i++)
    made.deadline(SOURCE).signal.addEventListener("abort", onAbort, { once: true });
  collect();
  made.stop();
  t.equal(fired, 10);
  t.ok(made.deadline(SOURCE).signal.aborted);
});

test("while an origin sends, who waits for it isn't given up before the longest time", async (t) => {
  const made = context(100, 700, () => performance.now());
  await sleep(1);
  const startedMs = performance.now();
  const { signal } = made.deadline(SOURCE);
  t.ok(await until(() => signal.aborted));
  const tookMs = performance.now() - startedMs;
  t.ok(tookMs > 600, `given up after ${tookMs.toFixed(0)} ms`);
});

test("when it falls silent, its patience counts from what was last heard", async (t) => {
  await sleep(1);
  const startedMs = performance.now();
  const lastMs = startedMs + 300;
  const made = context(400, 600_000, () => Math.min(performance.now(), lastMs));
  const deadline = made.deadlineOfAsk(SOURCE.origin);
  t.ok(await until(() => deadline.signal.aborted));
  t.ok(performance.now() >= lastMs + 400 - 1);
  t.match(deadline.reason, /for 400 ms nothing came/);
});

test("what ended in time is not given up, and work that goes on past its time is told why", async (t) => {
  let heardMs = 0;
  const made = context(50, 0, () => heardMs);
  {
    using deadline = made.deadlineOfAsk(SOURCE.origin);
    t.equal(await inTime(Promise.resolve(7), deadline), 7);
    heardMs = performance.now() + 1e9;
    deadline.signal.addEventListener("abort", () => t.fail("it ended"));
  }
  const late = made.deadlineOfAsk(SOURCE.origin);
  heardMs = 0;
  let failure: unknown;
  inTime(new Promise(() => {}), late).catch((error: unknown) => {
    failure = error;
  });
  t.ok(await until(() => failure !== undefined));
  t.match(failure, { code: "BURROW_TIMEOUT" });
});
