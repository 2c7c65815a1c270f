// What demand has to bear from prefetching: small cold blobs and 4 KiB of a large file, cold and hot, asked for at a steady rate with
// nothing else on the link, and with large blobs on their way in the background; in turns, each with a cache of its own.
//
// Expected: a cold ask brings 512 KiB, which a link of 1 Gbit/s carries in 4.3 ms, with some ms of CPU; behind a background request that
// has just begun it would take as long again as that.

import { randomBytes } from "node:crypto";
import fs from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { BLOCK_BYTES } from "../../lib/base/limits.ts";
import { Mid } from "../../lib/wire/lisafs/mid.ts";
import { type Published, publish, TestNode } from "../../test/suite/daemon-node.ts";
import { open, walkTo } from "../../test/suite/lisafs-calls.ts";
import { serveMount } from "../../test/suite/served.ts";
import type { Bench } from "../run.ts";
import { Ends, startOrigin } from "./ends.ts";

const MIB = 1024 * 1024;
const LINK_MBIT = 1000;
/** Time on the link of 1 Gbit/s and 5 ms away, and on one that is next door. */
const LATENCIES_MS = [0, 5];
/** From one ask to the next of three: a small blob, a cold block, a hot one. */
const GAPS_MS = [25, 250];
/** No two of them in one run of neighbours (FETCH_RUN_BYTES). */
const SMALL_BYTES = 600 * 1024;
const APART_BLOCKS = 8;
const BACKGROUND_MIB = 96;
/** Of each kind in a turn, and turns: with few of them p99 is the slowest one, and says nothing. */
const ASKS = 100;
const ROUNDS = 4;
/** At the wider gap a turn would take minutes. */
const FEW_ASKS = 10;
/** What is hot costs little: so many in a row. */
const HOT_IN_A_ROW = 4;

type Kind = "small blob, cold" | "4 KiB, cold" | "4 KiB, hot";
const KINDS: readonly Kind[] = ["small blob, cold", "4 KiB, cold", "4 KiB, hot"];
type Times = Record<Kind, number[]>;

interface Turn {
  readonly gapMs: number;
  readonly asks: number;
  readonly isLoaded: boolean;
}

/** Milliseconds of each ask of a daemon with an empty cache; and how fast the background was. */
async function turn(
  node: TestNode,
  url: string,
  published: Published,
  { gapMs, asks, isLoaded }: Turn,
): Promise<{ times: Times; backgroundMib: number; seconds: number }> {
  const ends = new Ends();
  node.cache = fs.mkdtempSync(`${node.root}/cache-`);
  const times: Times = { "small blob, cold": [], "4 KiB, cold": [], "4 KiB, hot": [] };
  try {
    const daemon = await node.start({ background: isLoaded });
    ends.teardown(async () => {
      const gone = new Promise((resolve) => daemon.once("exit", resolve));
      daemon.kill("SIGKILL");
      await gone;
      fs.rmSync(node.cache, { recursive: true });
    });
    const mountId = node.mount(url, published.digest);
    const { client } = await serveMount(ends, node, mountId);
    const { fd } = open(client, walkTo(client, "random"));
    const asker = await node.connect(mountId);
    const rowOf = (name: string) => published.row(name);
    const pread = (offset: number) =>
      client.callBeside(Mid.PRead, { fd, offset, count: 4096 }).then(({ errno }) => errno);
    const ask: Record<Kind, (i: number) => Promise<number>> = {
      "small blob, cold": (i) => asker.askBlob(0, rowOf(`small${i}`)).then(({ errno }) => errno),
      // From the end on: what streams the file behind them comes from its start.
      "4 KiB, cold": (i) => pread((asks + 1 - i) * APART_BLOCKS * BLOCK_BYTES),
      // By a call that blocks, of some 20 us: beside a loop each would take the millisecond after which that looks.
      "4 KiB, hot": () =>
        Promise.resolve(client.call(Mid.PRead, { fd, offset: 0, count: 4096 }).errno),
    };
    // What is first takes the index, the locator and code that isn't compiled.
    for (const kind of KINDS) await ask[kind](asks);
    if (isLoaded) await asker.askBlocks(0, rowOf("background"), 0, 1);
    const begunMs = performance.now();
    for (let i = 0; i < asks * KINDS.length; i++) {
      const kind = KINDS[i % KINDS.length]!;
      for (let j = 0; j < (kind === "4 KiB, hot" ? HOT_IN_A_ROW : 1); j++) {
        const startedMs = performance.now();
        const errno = await ask[kind](Math.floor(i / KINDS.length));
        if (errno !== 0) throw new Error(`${kind}: errno ${errno}`);
        times[kind].push(performance.now() - startedMs);
      }
      await sleep(Math.max(0, begunMs + (i + 1) * gapMs - performance.now()));
    }
    const seconds = (performance.now() - begunMs) / 1000;
    const { fetch } = await node.status();
    return { times, backgroundMib: (fetch["blocks"]! * BLOCK_BYTES) / MIB, seconds };
  } finally {
    await ends.run();
  }
}

/** MiB/s of a blob that comes in the background when nobody asks for anything. */
async function prefetch(node: TestNode, url: string, published: Published): Promise<number> {
  node.cache = fs.mkdtempSync(`${node.root}/cache-`);
  const daemon = await node.start({ background: true });
  const gone = new Promise((resolve) => daemon.once("exit", resolve));
  try {
    const asker = await node.connect(node.mount(url, published.digest));
    await asker.askBlocks(0, published.row("background"), 0, 1);
    const blocks = async () => (await node.status()).fetch["blocks"]!;
    // Past the rest after the demand for its first block, and before the blob is whole.
    await sleep(1_100);
    const [before, startedMs] = [await blocks(), performance.now()];
    await sleep(300);
    return (
      (((await blocks()) - before) * BLOCK_BYTES) / MIB / ((performance.now() - startedMs) / 1000)
    );
  } finally {
    daemon.kill("SIGKILL");
    await gone;
    fs.rmSync(node.cache, { recursive: true });
  }
}

function at(sorted: readonly number[], share: number): number {
  return Number(sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))]!.toFixed(3));
}

export const bench: Bench = async (emit, { isQuick }) => {
  const [rounds, asks] = isQuick ? [1, 3] : [ROUNDS, ASKS];
  const ends = new Ends();
  const node = new TestNode();
  ends.teardown(() => node.close());
  try {
    const small = Array.from({ length: asks + 1 }, (_, i): [string, Buffer] => [
      `small${i}`,
      randomBytes(SMALL_BYTES),
    ]);
    const published = await publish(node.store, {
      ...Object.fromEntries(small),
      random: randomBytes((asks + 2) * APART_BLOCKS * BLOCK_BYTES),
      background: randomBytes((isQuick ? 8 : BACKGROUND_MIB) * MIB),
    });
    for (const latencyMs of LATENCIES_MS) {
      const url = await startOrigin(ends, node.store, LINK_MBIT, latencyMs);
      for (const gapMs of GAPS_MS) {
        const all = { idle: emptyTimes(), loaded: emptyTimes() };
        let background = 0;
        for (let round = 0; round < rounds; round++) {
          for (const isLoaded of [false, true]) {
            const few = gapMs > 100 ? Math.min(FEW_ASKS, asks) : asks;
            const got = await turn(node, url, published, { gapMs, asks: few, isLoaded });
            const into = isLoaded ? all.loaded : all.idle;
            for (const kind of KINDS) into[kind].push(...got.times[kind]);
            if (isLoaded) background += got.backgroundMib / got.seconds / rounds;
          }
        }
        for (const kind of KINDS) {
          const [idle, loaded] = [all.idle[kind], all.loaded[kind]].map((times) =>
            times.sort((a, b) => a - b),
          ) as [number[], number[]];
          emit({
            case: kind,
            linkMbit: LINK_MBIT,
            latencyMs,
            gapMs,
            asks: idle.length,
            idleP50Ms: at(idle, 0.5),
            loadedP50Ms: at(loaded, 0.5),
            idleP99Ms: at(idle, 0.99),
            loadedP99Ms: at(loaded, 0.99),
            ratioP50: Number((at(loaded, 0.5) / at(idle, 0.5)).toFixed(2)),
            ratioP99: Number((at(loaded, 0.99) / at(idle, 0.99)).toFixed(2)),
            blocksMibPerSecond: Math.round(background),
          });
        }
      }
      const rate = isQuick ? 0 : await prefetch(node, url, published);
      emit({ case: "prefetch alone", latencyMs, mibPerSecond: Math.round(rate) });
    }
  } finally {
    await ends.run();
  }
};

function emptyTimes(): Times {
  return { "small blob, cold": [], "4 KiB, cold": [], "4 KiB, hot": [] };
}
