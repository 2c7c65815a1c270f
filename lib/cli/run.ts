// burrow run: the main job in one line: a command in a gVisor sandbox over an environment, stages and a base. Control plane.

import { type Command, Option } from "commander";
import { checkCommand } from "./command-defaults.ts";
import { type Context, collect, contextOf } from "./context.ts";
import { checkWritable, counted, Progress, report, showBytes, table, writeText } from "./output.ts";
import { addQueryOptions, checkQuery, prepare } from "./prepare.ts";
import { parseTimeout } from "./query.ts";
import type { QueryOptions } from "./query-settings.ts";
import { runQuery } from "./run-query.ts";
import type { RunStats } from "./run-stats.ts";
import { RunTrace, TRACE_OPTION } from "./run-trace.ts";
import { type Run, type Watch, withRun } from "./runs.ts";
import { START_MS } from "./sandbox.ts";
import { directFlags, sharingTenant, showSharing } from "./sharing.ts";

interface RunOptions extends QueryOptions {
  platform?: string;
  network: string;
  runscFlag?: string[];
  startTimeout: string;
  stats?: boolean;
  statsFile?: string;
  shared?: boolean;
  directfs?: boolean;
  trace?: string;
}

const EXAMPLES = `
Without a command, an image's Entrypoint and Cmd are run; its variables, directory and user hold
where none are given. It runs without capabilities, with a read-only root (but see --writable) and
/tmp of its own.

The command's exit code is passed on, 128 + n when signal n ended it. Burrow's own: 126, the command
can't be executed; 127, there is no such command in the sandbox; 128, runsc could not start it (or
the command's own); 1, it failed before that; 2, wrong usage.

Examples:
  burrow run --base rootfs.tar -- /bin/cat /etc/os-release
  burrow run --base image.tar
  burrow run --base sha256:… --env explicit.txt -- python3 -c 'import numpy'
  burrow run --base sha256:… --env sha256:… --stage data=/srv/orders --stats -- python3 /stage/data/query.py
  burrow run --base sha256:… --env sha256:… --trace start.jsonl -- python3 -c 'import pandas'
  burrow run --base sha256:… --env sha256:… --shared --tenant acme --stats -- python3 -c 'import numpy'
  burrow run --base sha256:… --env sha256:… --directfs -- python3 -c 'import pandas'
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
    .option(
      "--shared",
      "share a warm server with other sandboxes of --tenant, where the daemon keeps some ($BURROW_SHARED=1)",
    )
    .option(
      "--directfs",
      "have the sandbox work on the view as a mount of the kernel's, without asking a gofer (docs/directfs.md)",
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
        runAndSay(context, run, command, options, watch),
      );
    });
}

async function runAndSay(
  context: Context,
  run: Run,
  command: string[],
  options: RunOptions,
  watch: Watch,
): Promise<number> {
  const startedMs = performance.now();
  const { statsFile } = options;
  const startMs = parseTimeout(options.startTimeout, "--start-timeout");
  const direct = directFlags(options.directfs === true, options, options.shared === true);
  const tenant = sharingTenant(options.shared === true, options.tenant);
  // Rather now than after the command has run.
  if (statsFile !== undefined) checkWritable(statsFile, "--stats-file");
  const progress = new Progress(options.quiet === true, context.isJson);
  using trace =
    options.trace === undefined
      ? undefined
      : new RunTrace(run, options.trace, { startMs: startedMs, progress });
  const prepared = await prepare(context, run.id, options, command);
  using _kept = prepared.kept;
  const preparedMs = performance.now();
  const manner = {
    command,
    isTerminal: process.stdin.isTTY === true && process.stdout.isTTY === true,
    network: options.network,
    platform: options.platform,
    runscFlags: [...direct, ...(options.runscFlag ?? [])],
    memory: options.memory,
    startMs,
    tenant,
    isMeasured: options.stats === true || statsFile !== undefined,
    trace,
  };
  const ended = await runQuery(context, run, prepared, manner, watch);
  if (ended.failure !== undefined) report(ended.failure, context.isJson);
  for (const note of ended.notes) new Progress(false, context.isJson).line(note);
  if (ended.readFailure !== undefined) report(ended.readFailure, context.isJson);
  if (ended.stats === undefined) return ended.exitCode;
  const stats = { ...ended.stats, prepareSeconds: (preparedMs - startedMs) / 1000 };
  if (statsFile !== undefined) writeText(statsFile, `${JSON.stringify(stats)}\n`);
  if (options.stats) {
    process.stderr.write(`${context.isJson ? JSON.stringify(stats) : showStats(stats)}\n`);
  }
  return ended.exitCode;
}

function showStats(stats: RunStats & { prepareSeconds: number }): string {
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
    ...(stats.sharing === undefined ? [] : [["server", showSharing(stats.sharing)]]),
    ["donated", counted(others["donated"] ?? 0, "file")],
    [
      "RPCs",
      Object.entries(requests)
        .map(([name, count]) => `${name} ${count}`)
        .join(", "),
    ],
  ]);
}
