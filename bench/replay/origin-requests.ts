// origin-requests: what an origin is asked for when many sandboxes start one cold environment at once: requests, bytes, and how many
// bytes a request brings. The asks are those of a real import, recorded between a gofer and the daemon; 100 clients replay them, each
// one after the other, against a daemon with an empty cache, over HTTP with 20 ms before each answer.
//
// Expected: each byte is fetched once, so bytes stay those of one client, or a little more where runs are longer; the bar is one
// request for 2 MB at most. Needs root, runsc and the fixtures, as hot-start does.

import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { renameSync } from "node:fs";
import net from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { Asker } from "../../lib/cache/asker.ts";
import { daemonStatus, isDaemonUp, stopDaemon } from "../../lib/cache/client.ts";
import { socketPath } from "../../lib/cache/layout.ts";
import {
  type AskFields,
  decodeAsk,
  Frame,
  frameBytes,
  frameType,
} from "../../lib/cache/mailbox-wire.ts";
import type { Bench } from "../run.ts";
import { Origin, type Sent } from "./origin.ts";
import { type Setup, setUp } from "./setup.ts";

const CLI = fileURLToPath(new URL("../../burrow.cjs", import.meta.url));
const PYTHON = "/opt/env/bin/python3";
const DELAY_MS = 20;
/** Between the starts of two clients: a hundred in half a second. */
const STAGGER_MS = 5;

const isOfPack = ({ path }: Sent) => path.startsWith("/store/packs/");

/** Bytes that were sent more than once. */
function repeated(ranges: readonly Sent[]): number {
  const sorted = [...ranges].sort((a, b) => a.path.localeCompare(b.path) || a.first - b.first);
  let [path, at, sum] = ["", 0, 0];
  for (const range of sorted) {
    if (range.path !== path) [path, at] = [range.path, 0];
    sum += Math.max(0, Math.min(at, range.end) - range.first);
    at = Math.max(at, range.end);
  }
  return sum;
}

/**
 * Stands between gofers and the daemon of a cache, and notes what they ask. FDs don't pass: what the daemon answers from memory, since the
 * disk is full or hung for a moment, isn't had through it.
 */
async function record(cache: string): Promise<{ asks: AskFields[]; close(): void }> {
  const path = socketPath(cache);
  renameSync(path, `${path}.real`);
  const asks: AskFields[] = [];
  const server = net.createServer((socket) => {
    const real = net.connect(`${path}.real`);
    let pending: Buffer = Buffer.alloc(0);
    socket.on("data", (bytes) => {
      pending = Buffer.concat([pending, bytes]);
      for (;;) {
        const length = frameBytes(pending, 0, pending.length);
        if (length <= 0) return;
        const type = frameType(pending, 0);
        const ask = { snapshot: 0, row: 0, first: 0, count: 0 };
        const isAsk = type === Frame.askBlob || type === Frame.askBlocks;
        if (isAsk && decodeAsk(pending, 0, length, ask) >= 0) asks.push(ask);
        pending = pending.subarray(length);
      }
    });
    socket.pipe(real).pipe(socket);
    for (const end of [socket, real]) end.on("error", () => [socket, real].map((s) => s.destroy()));
  });
  server.listen(path);
  await once(server, "listening");
  const close = () => {
    server.close();
    renameSync(`${path}.real`, path);
  };
  return { asks, close };
}

function startDaemon({ env, work }: Setup, cache: string): ChildProcess {
  const words = [CLI, "daemon", "start", "--idle", "0", "--standbys", "0"];
  const own = ["--no-profiles", "--no-foresight", "--cache", cache];
  return spawn(process.execPath, [...words, ...own, "--state", `${work}/state`], {
    env,
    stdio: "ignore",
  });
}

async function up(cache: string): Promise<void> {
  while (!(await isDaemonUp(cache))) await sleep(20);
}

/** The asks of clients, each of which has all of them answered in order: seconds until the last was. */
async function replay(
  cache: string,
  mount: string,
  asks: readonly AskFields[],
  clients: number,
): Promise<{ seconds: number; failures: number }> {
  const startedMs = performance.now();
  let failures = 0;
  const run = async (i: number) => {
    await sleep(i * STAGGER_MS);
    const asker = await Asker.open(cache, mount);
    for (const { snapshot, row, first, count } of asks) {
      const asked =
        count === 0 ? asker.blob(snapshot, row) : asker.blocks(snapshot, row, first, count);
      if ((await asked) !== 0) failures++;
    }
    asker.close();
  };
  await Promise.all(Array.from({ length: clients }, (_, i) => run(i)));
  return { seconds: (performance.now() - startedMs) / 1000, failures };
}

export const bench: Bench = async (emit, { isQuick }) => {
  const setup = setUp();
  if (typeof setup === "string") return emit({ skipped: setup });
  const { env, work, fixtures, cli } = setup;
  const origin = new Origin({ store: `${work}/store` });
  origin.begin(DELAY_MS);
  try {
    const base = setup.importBase();
    const lock = `${fixtures}/channel/explicit.txt`;
    const environment = cli("env", "create", lock);
    const store = `${await origin.listen()}/store`;
    env["BURROW_STORE"] = store;
    const id = "bench-origin-requests";
    // In a process beside this one, which serves the store meanwhile.
    const words = ["bundle", "--base", base, "--env", environment, "--id", id];
    const bundle = spawn(process.execPath, [CLI, ...words, `${work}/bundle`, "--", "true"], {
      env,
    });
    await once(bundle, "exit");
    const asks = await recorded(setup, base, environment);
    for (const clients of isQuick ? [1, 20] : [1, 10, 100]) {
      const cache = `${work}/cold-${clients}`;
      origin.begin(DELAY_MS);
      const daemon = startDaemon(setup, cache);
      await up(cache);
      const { seconds, failures } = await replay(cache, id, asks, clients);
      let status = await daemonStatus(cache);
      while (status?.now.isIdle === false) {
        await sleep(50);
        status = await daemonStatus(cache);
      }
      const figures = status!.origins[store]!;
      const rss = execFileSync("grep", ["VmHWM", `/proc/${daemon.pid}/status`], {
        encoding: "utf8",
      });
      emit({
        clients,
        asks: asks.length,
        failures,
        requests: figures.requests,
        hedges: figures.hedges,
        fetchedMb: Math.round(figures.bytes / 1e5) / 10,
        repeatedMb: Math.round(repeated(origin.sent.filter(isOfPack)) / 1e5) / 10,
        mbPerRequest: Math.round(figures.bytes / figures.requests / 1e4) / 100,
        seconds: Math.round(seconds * 100) / 100,
        daemonPeakMib: Math.round(Number(/\d+/.exec(rss)?.[0]) / 1024),
      });
      await stopDaemon(cache);
    }
  } finally {
    origin.close();
    setup.dispose();
  }
};

/** What one sandbox with an empty cache asks for while it imports. */
async function recorded(setup: Setup, base: string, environment: string): Promise<AskFields[]> {
  const { env, work } = setup;
  const cache = `${work}/recorded`;
  startDaemon(setup, cache);
  await up(cache);
  const { asks, close } = await record(cache);
  const words = [CLI, "run", "--cache", cache, "--base", base, "--env", environment];
  const program = "import numpy, pandas; print(pandas.__version__)";
  const child = spawn(process.execPath, [...words, "--", PYTHON, "-c", program], {
    env,
    stdio: ["ignore", "ignore", "inherit"],
  });
  const [code] = (await once(child, "exit")) as [number | null];
  close();
  if (code !== 0) {
    const why =
      "of what the daemon has in memory alone, on a disk that hung, nothing can be recorded";
    throw new Error(`burrow run ended with ${code}: ${why}`);
  }
  await stopDaemon(cache);
  return asks;
}
