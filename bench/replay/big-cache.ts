// big-cache: the start of a daemon over a cache of millions of files, beside one over an empty cache, in turns: from its exec until it
// accepts connections, until a hit and a miss are answered, and how long others wait while it surveys the cache in the background.
//
// Expected: Node.js's start and the program's modules, 100 to 200 ms; a hit is an open and fstat, a miss some ms of its origin; folders
// are listed and looked at by threads, so the loop has what makes 10,000 names out of a folder, some ms. $BURROW_BIG_CACHE=DIR: a cache
// that was filled before, or is filled and kept.

import { randomBytes } from "node:crypto";
import fs from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { openCache } from "../../lib/cache/cache.ts";
import { daemonStatus, isDaemonUp } from "../../lib/cache/client.ts";
import { exited, publish, TestNode } from "../../test/suite/daemon-node.ts";
import type { Bench } from "../run.ts";
import { median } from "../samples.ts";

const CLI = fileURLToPath(new URL("../../burrow.cjs", import.meta.url));
const FILES = 5_000_000;
const SHARDS = 256;
const ROUNDS = 3;
/** A limit is what makes it count; none is reached. */
const LIMIT = "1T";

/** Makes blobs of what an earlier daemon took for suspects: as after a boot in which all were used. */
function settle(root: string): void {
  for (const shard of fs.readdirSync(`${root}/suspect`)) {
    const [suspects, blobs] = [`${root}/suspect/${shard}`, `${root}/blobs/${shard}`];
    if (fs.existsSync(blobs)) {
      for (const name of fs.readdirSync(blobs))
        fs.renameSync(`${blobs}/${name}`, `${suspects}/${name}`);
      fs.rmdirSync(blobs);
    }
    fs.renameSync(suspects, blobs);
  }
}

/** Empty files by the names of blobs: what counts is how many there are. */
function fill(root: string, files: number): void {
  openCache(root);
  settle(root);
  for (let shard = 0; shard < SHARDS; shard++) {
    const folder = `${root}/blobs/${shard.toString(16).padStart(2, "0")}`;
    fs.mkdirSync(folder, { recursive: true });
    for (let i = fs.readdirSync(folder).length; i < files / SHARDS; i++) {
      const name = `${folder.slice(-2)}${randomBytes(31).toString("hex")}`;
      fs.closeSync(fs.openSync(`${folder}/${name}`, "wx", 0o444));
    }
  }
}

interface Figures {
  readonly readyMs: number;
  readonly hitMs: number;
  readonly missMs: number;
  /** The slowest STATUS, and the slowest hit, until all was counted. */
  readonly statusMaxMs: number;
  readonly hitMaxMs: number;
  readonly surveyMs: number;
  readonly loopMaxMs: number;
  readonly loopP99Ms: number;
  readonly residentMib: number;
}

interface Turn {
  readonly node: TestNode;
  readonly mountId: string;
  readonly hit: number;
  readonly miss: number;
  readonly words: readonly string[];
}

async function turn({ node, mountId, hit, miss, words }: Turn): Promise<Figures> {
  const { cache, state } = node;
  const startedMs = performance.now();
  const sinceMs = () => performance.now() - startedMs;
  const args = ["daemon", "start", "--cache", cache, "--state", state, "--cache-bytes", LIMIT];
  const child = node.spawnCommand([process.execPath, CLI, ...args, "--standbys", "0", ...words]);
  try {
    while (!(await isDaemonUp(cache))) await sleep(1);
    const readyMs = sinceMs();
    const client = await node.connect(mountId);
    const ask = async (row: number) => {
      const { errno } = await client.askBlob(0, row);
      if (errno !== 0) throw new Error(`errno ${errno}`);
    };
    await ask(hit);
    const hitMs = sinceMs();
    await ask(miss);
    const missMs = sinceMs();
    let [statusMaxMs, hitMaxMs] = [0, 0];
    for (;;) {
      const beforeMs = performance.now();
      const status = await daemonStatus(cache);
      const betweenMs = performance.now();
      await ask(hit);
      statusMaxMs = Math.max(statusMaxMs, betweenMs - beforeMs);
      hitMaxMs = Math.max(hitMaxMs, performance.now() - betweenMs);
      if (status?.room.isSurveyed !== true) {
        await sleep(5);
        continue;
      }
      const { loop, process: own } = status as unknown as {
        loop: { maxMs: number; p99Ms: number };
        process: { residentBytes: number };
      };
      const [loopMaxMs, loopP99Ms] = [loop.maxMs, loop.p99Ms];
      const residentMib = own.residentBytes / 2 ** 20;
      const surveyMs = sinceMs();
      return {
        readyMs,
        hitMs,
        missMs,
        statusMaxMs,
        hitMaxMs,
        surveyMs,
        loopMaxMs,
        loopP99Ms,
        residentMib,
      };
    }
  } finally {
    child.kill("SIGTERM");
    await exited(child);
  }
}

export const bench: Bench = async (emit, { isQuick }) => {
  const node = new TestNode();
  const files = isQuick ? 20_000 : FILES;
  const kept = isQuick ? undefined : process.env["BURROW_BIG_CACHE"];
  const big = kept ?? `${node.root}/big`;
  try {
    fill(big, files);
    const published = await publish(node.store, {
      hit: randomBytes(20_000),
      ...Object.fromEntries(
        Array.from({ length: 64 }, (_, i) => [`miss${i}`, randomBytes(1024 * 1024)]),
      ),
    });
    const caches = { empty: `${node.root}/empty`, big };
    const mounts = Object.entries(caches).map(([name, cache]) => {
      node.cache = cache;
      return { name, cache, mountId: node.mount(node.store, published.digest) };
    });
    const words = { "same boot": [], "another boot": ["--suspect"] };
    let missed = 0;
    for (const [start, more] of Object.entries(words)) {
      const all = new Map<string, Figures[]>(mounts.map(({ name }) => [name, []]));
      for (let round = 0; round <= (isQuick ? 1 : ROUNDS); round++) {
        missed++;
        for (const { name, cache, mountId } of mounts) {
          node.cache = cache;
          if (round > 0) settle(cache);
          const rows = { hit: published.row("hit"), miss: published.row(`miss${missed}`) };
          const figures = await turn({ node, mountId, ...rows, words: more });
          // The first round brings what is a hit from then on.
          if (round > 0) all.get(name)!.push(figures);
        }
      }
      for (const [name, figures] of all) emit({ cache: name, start, files, ...summary(figures) });
    }
  } finally {
    await node.close();
  }
};

/** The median of each figure, and the worst of the start's. */
function summary(all: readonly Figures[]): Record<string, number> {
  const keys = Object.keys(all[0]!) as (keyof Figures)[];
  const round = (figure: number) => Number(figure.toFixed(1));
  const figures = keys.map((key) => [key, round(median(all.map((one) => one[key])))]);
  const worst = round(Math.max(...all.map(({ hitMs }) => hitMs)));
  return { ...Object.fromEntries(figures), hitWorstMs: worst, rounds: all.length };
}
