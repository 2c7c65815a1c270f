// burrow run: the main job in one line: a command in a gVisor sandbox over an environment, stages and a base. Control plane.

import { join } from "node:path";
import { type Command, Option } from "commander";
import type { Digest } from "../base/digest.ts";
import { BurrowError } from "../base/error.ts";
import { Asker } from "../cache/asker.ts";
import { cachePath } from "../cache/layout.ts";
import { readRegular } from "../cache/regular-file.ts";
import { Index } from "../layer/index.ts";
import { Count, showCounters } from "../serve/counters.ts";
import { checkCommand } from "./command-defaults.ts";
import { type Context, contextOf } from "./context.ts";
import { type Fetched, failedReads, fetchedBetween, fetchedSoFar, readFailure } from "./fetched.ts";
import { keepDaemon } from "./keep-daemon.ts";
import { memoryKills, memoryNote } from "./memory-kill.ts";
import { ociSpec, type QuerySpec } from "./oci-spec.ts";
import { checkWritable, counted, Progress, report, showBytes, table, writeText } from "./output.ts";
import {
  addQueryOptions,
  checkQuery,
  collect,
  type Prepared,
  prepare,
  type QueryOptions,
} from "./prepare.ts";
import { parseSeconds } from "./query.ts";
import {
  type Ending,
  lateEnding,
  RUNTIME_FAILED,
  refusedEnding,
  successorNote,
  unconnectedEnding,
} from "./run-failure.ts";
import { RunTrace, TRACE_OPTION } from "./run-trace.ts";
import { type Run, type Watch, withRun } from "./runs.ts";
import { cgroupFlags, runSandbox, type SandboxResult, START_MS } from "./sandbox.ts";

interface RunOptions extends QueryOptions {
  platform?: string;
  network: string;
  runscFlag?: string[];
  startTimeout: string;
  stats?: boolean;
  statsFile?: string;
  trace?: string;
}

const EXAMPLES = `
Without a command, an image's Entrypoint and Cmd are run; its variables, directory and user hold where none are given. It runs
without capabilities, with a read-only root (but see --writable) and /tmp of its own.

The command's exit code is passed on, 128 + n when signal n ended it. Burrow's own: 126, the command can't be executed; 127, there
is no such command in the sandbox; 128, runsc could not start it (or the command's own); 1, it failed before that; 2, wrong usage.

Examples:
  burrow run --base rootfs.tar -- /bin/cat /etc/os-release
  burrow run --base image.tar
  burrow run --base sha256:… --env explicit.txt -- python3 -c 'import numpy'
  burrow run --base sha256:… --env sha256:… --stage data=/srv/orders --stats -- python3 /stage/data/query.py
  burrow run --base sha256:… --env sha256:… --trace start.jsonl -- python3 -c 'import pandas'
  burrow run --base sha256:… --env sha256:… --writable 1G --user 0 -- pip install --no-index /stage/wheels/own.whl`;

export function addRun(program: Command): void {
  addQueryOptions(program.command("run"))
    .description("run a command in a sandbox")
    .argument("[command...]", "after --; an image as base has one of its own")
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
    .option(
      "--upper <DIR>",
      "as --writable, with the changes kept in a folder, for the next run over the same or burrow layer keep",
    )
    .option("--runsc-flag <FLAG>", "one more global flag for runsc; repeatable", collect)
    .option(
      "--start-timeout <SECONDS>",
      "how long the sandbox may take to start",
      String(START_MS / 1000),
    )
    .option("--stats", "print what the run took to stderr; as JSON with --json")
    .option("--stats-file <FILE>", "write the same as JSON")
    .option(
      `${TRACE_OPTION} <FILE>`,
      "write what the start did, request by request, for burrow trace",
    )
    .passThroughOptions()
    .addHelpText("after", EXAMPLES)
    .action(async (command: string[], options: RunOptions) => {
      const context = contextOf(options);
      await checkCommand(command, options.base);
      await checkQuery(context, options);
      process.exitCode = await withRun(context, (run, watch) =>
        runQuery(context, run, command, options, watch),
      );
    });
}

async function runQuery(
  context: Context,
  run: Run,
  command: string[],
  options: RunOptions,
  watch: Watch,
): Promise<number> {
  const startedMs = performance.now();
  const { id, folder: bundle } = run;
  const { statsFile } = options;
  const startMs = parseStart(options.startTimeout);
  // Rather now than after the command has run.
  if (statsFile !== undefined) checkWritable(statsFile, "--stats-file");
  using trace =
    options.trace === undefined ? undefined : new RunTrace(run, options.trace, startedMs);
  const prepared = await prepare(context, id, options, command);
  using _kept = prepared.kept;
  await trace?.watch(context, prepared.mounts.id);
  trace?.mark("prepared");
  Asker.announce(context.cache, prepared.mounts.id);
  const isTerminal = process.stdin.isTTY === true && process.stdout.isTTY === true;
  const query = prepared.spec(command, isTerminal);
  writeText(join(bundle, "config.json"), JSON.stringify(ociSpec(query)), 0o600);
  const preparedMs = performance.now();
  const isMeasured = options.stats === true || statsFile !== undefined;
  const before = await fetchedSoFar(context.cache, id);
  const flags = runscFlags(options, query);
  const stopKeeping = keepDaemon(context);
  const onStart = () => {
    trace?.mark("runsc");
    return () => trace?.mark("end");
  };
  const tracing = trace === undefined ? {} : { tracePath: trace.requestsPath, onStart };
  const sandbox = { id, bundle, runscFlags: flags, isTerminal, startMs, ...tracing };
  const killsBefore = memoryKills();
  const running = runSandbox(context, sandbox).finally(stopKeeping);
  watch.stop(); // runSandbox listens by now: between two listeners a signal would be lost
  const ended = await running;
  watch.start(); // it listens no more, and asking for figures may take a while
  const { exitCode, failure } = ended.isLate
    ? lateEnding(startMs)
    : endingOf(context, prepared, query, ended);
  if (failure !== undefined) report(failure, context.isJson);
  const note = memoryNote(exitCode, memoryKills() - killsBefore, options.memory);
  if (note !== undefined) new Progress(false, context.isJson).line(note);
  const progress = new Progress(options.quiet === true, context.isJson);
  await trace?.write(context, prepared.mounts.id, { command: query.command, exitCode }, progress);
  const successors = successorNote(ended.counters[Count.restarts]!);
  if (successors !== undefined) new Progress(false, context.isJson).line(successors);
  const result = { ...ended, exitCode };
  const failed = failedReads(result.counters);
  if (!isMeasured && failed === 0) return result.exitCode;
  const fetched = fetchedBetween(before, await fetchedSoFar(context.cache, id));
  if (failed > 0) report(readFailure(failed, fetched, context), context.isJson);
  if (!isMeasured) return result.exitCode;
  const stats = {
    ...statsOf(context, prepared, result, fetched),
    prepareSeconds: (preparedMs - startedMs) / 1000,
  };
  if (statsFile !== undefined) writeText(statsFile, `${JSON.stringify(stats)}\n`);
  if (options.stats) {
    process.stderr.write(`${context.isJson ? JSON.stringify(stats) : showStats(stats)}\n`);
  }
  return result.exitCode;
}

/** Node.js counts no further than 24 days. */
const START_MAX_MS = 24 * 86_400_000;

function parseStart(text: string): number {
  const ms = parseSeconds(text, "--start-timeout");
  if (ms > 0 && ms <= START_MAX_MS) return ms;
  throw new BurrowError("BURROW_USAGE", `--start-timeout: ${text} is not over 0 and up to 24 days`);
}

function runscFlags(options: RunOptions, { binds }: QuerySpec): string[] {
  const { network, memory, runscFlag = [] } = options;
  const flags = [...cgroupFlags(memory), `--network=${network}`];
  // Others may work in a directory that the sandbox writes to: each must see what the other does.
  const isShared = Object.values(binds).some((bind) => !bind.isReadOnly);
  if (isShared) flags.push("--file-access-mounts=shared");
  flags.push(...runscFlag);
  if (options.platform !== undefined) flags.push(`--platform=${options.platform}`);
  return flags;
}

/** The command's exit code, but 127 or 126 for one that runsc could not start: to runsc itself all of that is 128. */
function endingOf(
  context: Context,
  { snapshots, places }: Prepared,
  { command, cwd, env, uid, gid, binds }: QuerySpec,
  { exitCode, counters, goferLog }: SandboxResult,
): Ending {
  if (counters[Count.connections] === 0) return unconnectedEnding(exitCode, goferLog);
  if (exitCode !== RUNTIME_FAILED) return { exitCode };
  let indexes: Index[];
  try {
    indexes = snapshots.map((digest) => openIndex(context, digest));
  } catch {
    return { exitCode }; // gone from the cache meanwhile
  }
  const grafts = indexes.map((index, i) => ({ at: places[i]!, index }));
  const unknown = ["/proc", "/dev", "/sys", "/tmp", ...Object.keys(binds)];
  const started = { command: command[0]!, cwd, path: env["PATH"] ?? "", uid, gid };
  return refusedEnding({ grafts, unknown }, started);
}

function statsOf(
  context: Context,
  prepared: Prepared,
  result: SandboxResult,
  { requests, bytes }: Fetched,
) {
  return {
    seconds: Math.round(result.seconds * 1000) / 1000,
    exitCode: result.exitCode,
    counters: showCounters(result.counters),
    fetched: { requests, bytes },
    viewBytes: prepared.snapshots.reduce((sum, digest) => sum + contentBytes(context, digest), 0),
  };
}

function openIndex(context: Context, digest: Digest): Index {
  return new Index(readRegular(cachePath(context.cache, "indexes", digest)));
}

function contentBytes(context: Context, digest: Digest): number {
  const index = openIndex(context, digest);
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
    [
      "fetched",
      `${showBytes(stats.fetched.bytes)} in ${counted(stats.fetched.requests, "request")}`,
    ],
    ["view", showBytes(stats.viewBytes)],
    ["donated", counted(others["donated"] ?? 0, "file")],
    [
      "RPCs",
      Object.entries(requests)
        .map(([name, count]) => `${name} ${count}`)
        .join(", "),
    ],
  ]);
}
