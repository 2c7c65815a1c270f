// What a second JavaScript thread costs: its start, its memory, and a hop to it and back. The rejected design of
// docs/design/0001-threads.md, a worker for each channel, pays the first two per channel and the hop per request.
//
// Expected: tens of milliseconds and several MiB a worker (an isolate of its own); a hop is two futex wakes.

import { once } from "node:events";
import { memoryUsage } from "node:process";
import { Worker } from "node:worker_threads";
import type { Bench } from "../run.ts";
import { median, quantiles } from "../samples.ts";

const WORKERS = 8;
const ROUNDS = 20_000;

/** [0] is the turn: 0 ours, 1 the worker's, 2 over. */
const PARTNER = `
const { workerData, parentPort } = require("node:worker_threads");
const turn = new Int32Array(workerData);
parentPort.postMessage("up");
for (;;) {
  Atomics.wait(turn, 0, 0);
  if (Atomics.load(turn, 0) === 2) break;
  Atomics.store(turn, 0, 0);
  Atomics.notify(turn, 0);
}`;

export const bench: Bench = async (emit, { isQuick }) => {
  const workers: { worker: Worker; turn: Int32Array }[] = [];
  const startsMs: number[] = [];
  const before = memoryUsage.rss();
  for (let i = 0; i < WORKERS; i++) {
    const turn = new Int32Array(new SharedArrayBuffer(4));
    const startedMs = performance.now();
    const worker = new Worker(PARTNER, { eval: true, workerData: turn.buffer });
    await once(worker, "message");
    startsMs.push(performance.now() - startedMs);
    workers.push({ worker, turn });
  }
  const rssEachMib = (memoryUsage.rss() - before) / WORKERS / 2 ** 20;
  emit({
    case: "start",
    workers: WORKERS,
    medianMs: Number(median(startsMs).toFixed(1)),
    rssEachMib: Number(rssEachMib.toFixed(1)),
  });
  const { turn } = workers[0]!;
  const durationsMs = new Float64Array(isQuick ? 200 : ROUNDS);
  for (let i = 0; i < durationsMs.length; i++) {
    const startedMs = performance.now();
    Atomics.store(turn, 0, 1);
    Atomics.notify(turn, 0);
    Atomics.wait(turn, 0, 1);
    durationsMs[i] = performance.now() - startedMs;
  }
  emit({ case: "hop and back", rounds: durationsMs.length, ...quantiles(durationsMs) });
  for (const each of workers) {
    const ended = once(each.worker, "exit");
    Atomics.store(each.turn, 0, 2);
    Atomics.notify(each.turn, 0);
    await ended;
  }
};
