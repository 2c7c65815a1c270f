// What the first reading in order of a large file that isn't donated takes, over a link: 1 MiB at a time, by PRead, from an empty cache, by
// the daemon as it is shipped; beside a plain GET of the same pack right before. $BURROW_PREAD_MIB: the file's length. $BURROW_OTHER: another
// build's burrow.cjs, whose daemon takes turns with this one's.
//
// Expected: what the link gives. The start costs some tens of milliseconds (index, locator, code that isn't compiled yet, little
// read ahead), which a longer file makes up for. CPU: of a MiB some 3 ms of all threads, of which the link takes 8.4.

import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import http from "node:http";
import { fileURLToPath } from "node:url";
import { isDaemonUp } from "../../lib/cache/client.ts";
import { Mid } from "../../lib/wire/lisafs/mid.ts";
import { exited, noise, publish, TestNode } from "../../test/suite/daemon-node.ts";
import { open, walkTo } from "../../test/suite/lisafs-calls.ts";
import type { LisafsClient } from "../../test/suite/lisafs-client.ts";
import { serveMount } from "../../test/suite/served.ts";
import { until } from "../../test/suite/wait.ts";
import type { Bench, Result } from "../run.ts";
import { median } from "../samples.ts";
import { Ends, startOrigin } from "./ends.ts";

const MIB = 1024 * 1024;
const LINK_MBIT = 1000;
const ROUNDS = 7;
const CLI = fileURLToPath(new URL("../../burrow.cjs", import.meta.url));
/** What a first reading is over after: the rest is the steady state. */
const START_MIB = 8;

/** MiB/s of a plain GET: what there is to have. */
async function plainGet(url: string): Promise<number> {
  const startedMs = performance.now();
  const [response] = (await once(http.get(url), "response")) as [http.IncomingMessage];
  let bytes = 0;
  for await (const part of response) bytes += (part as Buffer).length;
  return mibPerSecond(bytes, startedMs);
}

function mibPerSecond(bytes: number, sinceMs: number): number {
  return bytes / MIB / ((performance.now() - sinceMs) / 1000);
}

function firstPack(store: string): string {
  const [shard] = fs.readdirSync(`${store}/packs`);
  return `packs/${shard}/${fs.readdirSync(`${store}/packs/${shard}`)[0]}`;
}

/** CPU milliseconds of a process: its main thread, and all of them. man proc_pid_schedstat(5). */
function cpuOf(pid: number): { main: number; all: number } {
  const ms = (thread: string) =>
    Number(fs.readFileSync(`/proc/${pid}/task/${thread}/schedstat`, "latin1").split(" ")[0]) / 1e6;
  const threads = fs.readdirSync(`/proc/${pid}/task`).map((thread) => ms(thread));
  return { main: ms(String(pid)), all: threads.reduce((sum, each) => sum + each, 0) };
}

interface Read {
  readonly startMs: number;
  readonly steadyMibPerSecond: number;
  readonly mibPerSecond: number;
}

/** A file read in order, 1 MiB at a time. */
async function readInOrder(client: LisafsClient, fd: number, bytes: number): Promise<Read> {
  const startedMs = performance.now();
  let steadyMs = startedMs;
  for (let offset = 0; offset < bytes; offset += MIB) {
    if (offset === START_MIB * MIB) steadyMs = performance.now();
    const count = Math.min(MIB, bytes - offset);
    const { errno } = await client.callBeside(Mid.PRead, { fd, offset, count });
    if (errno !== 0) throw new Error(`PRead: errno ${errno}`);
  }
  return {
    startMs: steadyMs - startedMs,
    steadyMibPerSecond: mibPerSecond(bytes - START_MIB * MIB, steadyMs),
    mibPerSecond: mibPerSecond(bytes, startedMs),
  };
}

async function startDaemon(node: TestNode, program: string): Promise<ChildProcess> {
  const words = ["daemon", "start", "--idle", "0", "--standbys", "0", "--no-profiles"];
  const folders = ["--cache", node.cache, "--state", node.state];
  const child = node.spawnCommand([process.execPath, program, ...words, ...folders]);
  await until(() => isDaemonUp(node.cache));
  return child;
}

/** The most that a process had in memory, MiB. man proc_pid_status(5). */
function peakOf(pid: number): number {
  const status = fs.readFileSync(`/proc/${pid}/status`, "latin1");
  return Number(/^VmHWM:\s+(\d+)/m.exec(status)?.[1]) / 1024;
}

interface Round extends Read {
  readonly peakMib: number;
  readonly link: number;
  readonly main: number;
  readonly all: number;
}

/** One reading by a daemon with an empty cache, and the GET before it. */
async function round(
  node: TestNode,
  { program, url, digest, bytes }: { program: string; url: string; digest: string; bytes: number },
): Promise<Round> {
  const ends = new Ends();
  node.cache = fs.mkdtempSync(`${node.root}/cache-`);
  try {
    const daemon = await startDaemon(node, program);
    ends.teardown(async () => {
      daemon.kill("SIGTERM");
      await exited(daemon);
      fs.rmSync(node.cache, { recursive: true });
    });
    const { client } = await serveMount(ends, node, node.mount(url, digest as never));
    const { fd } = open(client, walkTo(client, "large"));
    const link = await plainGet(`${url}/${firstPack(node.store)}`);
    const before = cpuOf(daemon.pid!);
    const read = await readInOrder(client, fd, bytes);
    const after = cpuOf(daemon.pid!);
    const peakMib = peakOf(daemon.pid!);
    return { ...read, link, peakMib, main: after.main - before.main, all: after.all - before.all };
  } finally {
    await ends.run();
  }
}

function figures(rounds: readonly Round[]): Result {
  const of = (pick: (round: Round) => number, digits = 0) =>
    Number(median(rounds.map(pick)).toFixed(digits));
  const shares = rounds.map(({ mibPerSecond, link }) => mibPerSecond / link);
  return {
    rounds: rounds.length,
    plainGetMibPerSecond: of(({ link }) => link),
    coldMibPerSecond: of(({ mibPerSecond }) => mibPerSecond),
    coldOfLink: Number(median(shares).toFixed(2)),
    leastOfLink: Number(Math.min(...shares).toFixed(2)),
    bestOfLink: Number(Math.max(...shares).toFixed(2)),
    firstMs: of(({ startMs }) => startMs),
    steadyOfLink: of(({ steadyMibPerSecond, link }) => steadyMibPerSecond / link, 2),
    mainCpuMs: of(({ main }) => main),
    allCpuMs: of(({ all }) => all),
    peakMib: of(({ peakMib }) => peakMib),
  };
}

export const bench: Bench = async (emit, { isQuick }) => {
  const sizes = process.env["BURROW_PREAD_MIB"]?.split(",").map(Number) ?? [64, 256];
  const other = process.env["BURROW_OTHER"];
  const programs = [
    { build: "this", program: CLI, rounds: [] as Round[] },
    ...(other === undefined ? [] : [{ build: "other", program: other, rounds: [] as Round[] }]),
  ];
  for (const fileMib of isQuick ? [16] : sizes) {
    const ends = new Ends();
    const node = new TestNode();
    ends.teardown(() => node.close());
    try {
      const bytes = fileMib * MIB;
      const { digest } = await publish(node.store, { large: noise(bytes, 3) });
      const url = await startOrigin(ends, node.store, LINK_MBIT);
      for (let i = 0; i < (isQuick ? 1 : ROUNDS); i++) {
        for (const { program, rounds } of programs)
          rounds.push(await round(node, { program, url, digest, bytes }));
      }
      for (const { build, rounds } of programs) {
        const all = rounds.splice(0);
        emit({ case: "in order, cold", build, fileMib, linkMbit: LINK_MBIT, ...figures(all) });
      }
    } finally {
      await ends.run();
    }
  }
};
