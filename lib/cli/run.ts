// burrow run: the main job in one line: a command in a gVisor sandbox over an environment, stages and a base. Control plane.

import { appendFileSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type Command, Option } from "commander";
import type { Digest } from "../base/digest.ts";
import { daemonStatus, ensureDaemon } from "../cache/client.ts";
import { cachePath } from "../cache/layout.ts";
import { Index } from "../layer/index.ts";
import { Count, showCounters } from "../serve/counters.ts";
import { type Context, contextOf } from "./context.ts";
import { onInterrupt } from "./interrupt.ts";
import { ociSpec } from "./oci-spec.ts";
import { NOT_ROOT, showBytes, table } from "./output.ts";
import { addQueryOptions, collect, type Prepared, prepare, type QueryOptions } from "./prepare.ts";
import { newRunId, removeMounts } from "./query.ts";
import { runSandbox, type SandboxResult } from "./sandbox.ts";

interface RunOptions extends QueryOptions {
  platform?: string;
  network: string;
  runscFlag?: string[];
  stats?: boolean;
  statsFile?: string;
}

const EXAMPLES = `
The command's exit code is passed on (128: runsc could not start it). It runs without capabilities, with a read-only root and /tmp of its own.

Examples:
  burrow run --base rootfs.tar -- /bin/cat /etc/os-release
  burrow run --base sha256:… --env explicit.txt -- python3 -c 'import numpy'
  burrow run --base sha256:… --env sha256:… --stage data=/srv/orders --stats -- python3 /stage/data/query.py`;

export function addRun(program: Command): void {
  addQueryOptions(program.command("run"))
    .description("run a command in a sandbox")
    .argument("<command...>", "after --")
    .addOption(
      new Option("--platform <NAME>", "runsc's platform (default: runsc's own)").choices([
        "systrap",
        "ptrace",
        "kvm",
      ]),
    )
    .addOption(
      new Option("--network <KIND>", "runsc's network")
        .choices(["none", "sandbox", "host"])
        .default("none"),
    )
    .option("--runsc-flag <FLAG>", "one more global flag for runsc", collect)
    .option("--stats", "print what the run took to stderr; as JSON with --json")
    .option("--stats-file <FILE>", "write the same as JSON")
    .passThroughOptions()
    .addHelpText("after", EXAMPLES)
    .action(async (command: string[], options: RunOptions) => {
      process.exitCode = await run(contextOf(options), command, options);
    });
}

async function run(context: Context, command: string[], options: RunOptions): Promise<number> {
  const id = newRunId();
  const bundle = join(context.state, "runs", id);
  const clean = () => {
    rmSync(bundle, { recursive: true, force: true });
    removeMounts(context, id);
  };
  const stopWatching = onInterrupt(clean);
  let exitCode: number;
  try {
    exitCode = await runQuery(context, { id, bundle, command, options, stopWatching });
  } catch (error) {
    stopWatching();
    try {
      clean();
    } catch {} // why it failed is worth more than what then can't be removed
    throw error;
  }
  stopWatching();
  clean();
  return exitCode;
}

interface Query {
  readonly id: string;
  readonly bundle: string;
  readonly command: readonly string[];
  readonly options: RunOptions;
  /** The sandbox listens to signals from now on. */
  readonly stopWatching: () => void;
}

async function runQuery(context: Context, query: Query): Promise<number> {
  const startedMs = performance.now();
  const { id, bundle, options } = query;
  const { statsFile } = options;
  // Rather now than after the command has run.
  if (statsFile !== undefined) appendFileSync(statsFile, "");
  const prepared = await prepare(context, id, options);
  mkdirSync(bundle, { recursive: true, mode: 0o700 });
  const isTerminal = process.stdin.isTTY === true && process.stdout.isTTY === true;
  const spec = ociSpec(prepared.spec(query.command, isTerminal));
  writeFileSync(join(bundle, "config.json"), JSON.stringify(spec), { mode: 0o600 });
  const preparedMs = performance.now();
  const preparedAtMs = Date.now();
  const isMeasured = options.stats === true || statsFile !== undefined;
  const before = isMeasured ? await fetchedSoFar(context.cache) : NOTHING;
  const flags = runscFlags(options);
  const stopKeeping = keepDaemon(context);
  const sandbox = { id, bundle, runscFlags: flags, isTerminal };
  const running = runSandbox(context, sandbox).finally(stopKeeping);
  query.stopWatching(); // runSandbox listens by now: between two listeners a signal would be lost
  const result = await running;
  if (result.counters[Count.connections] === 0) sayWhy(result);
  if (result.exitCode !== 0) await sayFailure(context, preparedAtMs);
  if (!isMeasured) return result.exitCode;
  const after = await fetchedSoFar(context.cache);
  const stats = {
    ...statsOf(context, prepared, result, before, after),
    prepareSeconds: (preparedMs - startedMs) / 1000,
  };
  if (statsFile !== undefined) writeFileSync(statsFile, `${JSON.stringify(stats)}\n`);
  if (options.stats) {
    process.stderr.write(`${context.isJson ? JSON.stringify(stats) : showStats(stats)}\n`);
  }
  return result.exitCode;
}

/** The command sees an errno; why the daemon could not fetch is said here. Another run's fetch may have been the last. */
async function sayFailure(context: Context, sinceMs: number): Promise<void> {
  const status = await daemonStatus(context.cache).catch(() => undefined);
  const { lastFailure } = status ?? {};
  if (lastFailure === undefined || lastFailure.atMs < sinceMs) return;
  process.stderr.write(`burrow: a fetch failed while it ran: ${lastFailure.error}\n`);
}

/** How often a run looks whether the daemon is still there: its asks wait 30 s at most. */
const KEEP_MS = 1_000;

/** Starts a daemon anew when it dies under the sandbox, until the returned function is called: its gofer asks again. */
function keepDaemon(context: Context): () => void {
  let isBusy = false;
  const timer = setInterval(() => {
    if (isBusy) return;
    isBusy = true;
    // One that can't be started is tried again; meanwhile the gofer answers what needs it with EIO at its deadline.
    ensureDaemon({ cache: context.cache, state: context.state })
      .catch(() => {})
      .finally(() => {
        isBusy = false;
      });
  }, KEEP_MS);
  timer.unref();
  return () => clearInterval(timer);
}

function runscFlags(options: RunOptions): string[] {
  const flags = ["--ignore-cgroups", `--network=${options.network}`, ...(options.runscFlag ?? [])];
  if (options.memory !== undefined) flags.shift();
  if (options.platform !== undefined) flags.push(`--platform=${options.platform}`);
  return flags;
}

/** A sandbox that never connected: the gofer's own log has the reason, or runsc said why it did not come to that. */
function sayWhy(result: SandboxResult): void {
  if (result.goferLog !== "") process.stderr.write(result.goferLog);
  if (process.getuid?.() !== 0) process.stderr.write(`burrow: ${NOT_ROOT}\n`);
}

interface Fetched {
  readonly requests: number;
  readonly bytes: number;
}

const NOTHING: Fetched = { requests: 0, bytes: 0 };

/** What the daemon has fetched since it started. A daemon that doesn't say is no reason to fail a run. */
async function fetchedSoFar(cache: string): Promise<Fetched> {
  const status = await daemonStatus(cache).catch(() => undefined);
  const meters = Object.values(status?.origins ?? {});
  return {
    requests: meters.reduce((sum, meter) => sum + meter.requests, 0),
    bytes: meters.reduce((sum, meter) => sum + meter.bytes, 0),
  };
}

function statsOf(
  context: Context,
  prepared: Prepared,
  result: SandboxResult,
  before: Fetched,
  after: Fetched,
) {
  return {
    seconds: result.seconds,
    exitCode: result.exitCode,
    counters: showCounters(result.counters),
    fetched: {
      requests: Math.max(0, after.requests - before.requests), // less: another daemon
      bytes: Math.max(0, after.bytes - before.bytes),
    },
    viewBytes: prepared.snapshots.reduce((sum, digest) => sum + contentBytes(context, digest), 0),
  };
}

function contentBytes(context: Context, digest: Digest): number {
  const index = new Index(readFileSync(cachePath(context.cache, "indexes", digest)));
  let bytes = 0;
  for (let row = 0; row < index.blobCount; row++) bytes += index.blobSize(row);
  return bytes;
}

function showStats(stats: ReturnType<typeof statsOf> & { prepareSeconds: number }): string {
  const { requests, others } = stats.counters;
  return table([
    [
      "time to result",
      `${stats.seconds.toFixed(2)} s after ${stats.prepareSeconds.toFixed(2)} s of preparing`,
    ],
    ["fetched", `${showBytes(stats.fetched.bytes)} in ${stats.fetched.requests} requests`],
    ["view", showBytes(stats.viewBytes)],
    ["donated", `${others["donated"] ?? 0} files`],
    [
      "RPCs",
      Object.entries(requests)
        .map(([name, count]) => `${name} ${count}`)
        .join(", "),
    ],
  ]);
}
