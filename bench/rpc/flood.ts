// flood: what a sandbox that asks as fast as it can does to another's calls: both on one server, or each on its own, in turns, and without
// it. The server's loop takes one request of each channel in turn, so beside a flood a call waits for one request of each of its channels
// at most: as short as the victim's, or listings of 200 names, the longest that a sentry asks for often. The CPU that a flood takes from all
// alike is seen beside a server of the flood's own. Needs root and the stub.

import { fileURLToPath } from "node:url";
import { isMainThread, Worker, workerData } from "node:worker_threads";
import { Mid } from "../../lib/wire/lisafs/mid.ts";
import { open, walkTo } from "../../test/suite/lisafs-calls.ts";
import type { LisafsClient } from "../../test/suite/lisafs-client.ts";
import { noShared, SharedScene } from "../../test/suite/shared-scene.ts";
import { sleep, until } from "../../test/suite/wait.ts";
import type { Bench } from "../run.ts";

const ROUNDS = 7;
const CALLS = 2_000;
/** A pause now and then, as a sandbox has, so that the flood gets its way. */
const BURST = 20;
/** Of a flood, between two looks at whether it goes on. */
const STRETCH = 50;
/** A negative count lists from the beginning. */
const LISTED_BYTES = 64 * 1024;
const FILES = Object.fromEntries(Array.from({ length: 200 }, (_, i) => [`d/f${i}`, `${i}`]));

interface Flood {
  readonly kind: "walks" | "listings";
  readonly directory: string;
  readonly env: Record<string, string>;
  /** [0]: 1 while it is to flood, 2 when it is to end; [1]: requests that it made. */
  readonly flags: Int32Array;
}

class Teardowns {
  readonly #all: (() => void | Promise<void>)[] = [];

  teardown(action: () => void | Promise<void>): void {
    this.#all.push(action);
  }

  async run(): Promise<void> {
    for (const action of this.#all.reverse()) await action();
  }
}

/** A path's attributes. */
function ask(client: LisafsClient): void {
  client.call(Mid.WalkStat, { fd: client.rootFd, names: ["", "d", "f7"], nameCount: 3 });
}

async function flood({ kind, directory, env, flags }: Flood): Promise<void> {
  const t = new Teardowns();
  const stub = await new SharedScene(t, directory).startStub(env, []);
  const client = stub.clients[0]!;
  const { fd } = open(client, walkTo(client, "d"));
  const list = () => client.call(Mid.Getdents64, { fd, count: -LISTED_BYTES });
  const again = kind === "walks" ? () => ask(client) : list;
  Atomics.store(flags, 1, 1);
  while (Atomics.load(flags, 0) !== 2) {
    if (Atomics.load(flags, 0) === 0) {
      await sleep(1);
      continue;
    }
    for (let i = 0; i < STRETCH; i++) again();
    Atomics.add(flags, 1, STRETCH);
  }
  await stub.end();
  await t.run();
}

/** Latencies of calls, us, ascending. */
async function latencies(client: LisafsClient, calls: number): Promise<Float64Array> {
  const took = new Float64Array(calls);
  for (let i = 0; i < calls; i++) {
    if (i % BURST === 0) await sleep(1);
    const startedMs = performance.now();
    ask(client);
    took[i] = (performance.now() - startedMs) * 1000;
  }
  return took.sort();
}

function least(values: readonly number[]): number {
  return Number(Math.min(...values).toFixed(1));
}

function middle(values: readonly number[]): number {
  return Number([...values].sort((a, b) => a - b)[values.length >> 1]!.toFixed(1));
}

export const bench: Bench = async (emit, { isQuick }) => {
  if (noShared !== false) return emit({ skipped: noShared });
  const t = new Teardowns();
  try {
    const scene = new SharedScene(t, FILES);
    await Promise.all([scene.startBroker(), scene.startStandby()]);
    const victim = (await scene.startStub({}, [])).clients[0]!;
    const kinds = (["walks", "listings"] as const).flatMap((kind) => [
      { kind, isShared: true },
      { kind, isShared: false },
    ]);
    const floods = kinds.map(({ kind, isShared }) => {
      const flags = new Int32Array(new SharedArrayBuffer(8));
      const env = isShared ? {} : { BURROW_SHARED: "" };
      const data: Flood = { kind, directory: scene.directory, env, flags };
      const mode = `${kind}, ${isShared ? "the same server" : "another"}`;
      const worker = new Worker(fileURLToPath(import.meta.url), { workerData: data });
      const ended = new Promise((resolve) => worker.once("exit", resolve));
      return { mode, flags, ended };
    });
    for (const { flags } of floods) await until(() => Atomics.load(flags, 1) > 0);
    const took = new Map<string, { p50: number[]; p99: number[]; asked: number }>();
    for (let round = 0; round <= (isQuick ? 1 : ROUNDS); round++) {
      for (const { mode, flags } of [{ mode: "none", flags: new Int32Array(2) }, ...floods]) {
        const before = Atomics.load(flags, 1);
        Atomics.store(flags, 0, 1);
        const all = await latencies(victim, CALLS);
        Atomics.store(flags, 0, 0);
        const each = took.get(mode) ?? { p50: [], p99: [], asked: 0 };
        took.set(mode, each);
        if (round === 0) continue;
        each.p50.push(all[CALLS >> 1]!);
        each.p99.push(all[Math.floor(CALLS * 0.99)]!);
        each.asked += Atomics.load(flags, 1) - before;
      }
    }
    for (const { flags, ended } of floods) {
      Atomics.store(flags, 0, 2);
      await ended;
    }
    for (const [mode, { p50, p99, asked }] of took)
      emit({
        flood: mode,
        calls: CALLS * p50.length,
        floodRequests: asked,
        p50Us: middle(p50),
        p99Us: middle(p99),
        leastP99Us: least(p99),
      });
  } finally {
    await t.run();
  }
};

if (!isMainThread) await flood(workerData as Flood);
