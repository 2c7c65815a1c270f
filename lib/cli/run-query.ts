// One run of a prepared query: its bundle, its sandbox, and what came of it. It prints nothing: burrow run says it to people, the API
// to programs. Control plane.

import { join } from "node:path";
import type { Readable, Writable } from "node:stream";
import type { Digest } from "../base/digest.ts";
import type { BurrowError } from "../base/error.ts";
import { Asker } from "../cache/asker.ts";
import { cachePath } from "../cache/layout.ts";
import { readRegular } from "../cache/regular-file.ts";
import { Index } from "../layer/index.ts";
import { Count, showCounters } from "../serve/counters.ts";
import type { Context } from "./context.ts";
import { type Fetched, failedReads, fetchedBetween, fetchedSoFar, readFailure } from "./fetched.ts";
import { keepDaemon } from "./keep-daemon.ts";
import { memoryKills, memoryNote } from "./memory-kill.ts";
import { ociSpec, type QuerySpec } from "./oci-spec.ts";
import { writeText } from "./output.ts";
import type { Prepared } from "./prepare.ts";
import {
  type Ending,
  lateEnding,
  RUNTIME_FAILED,
  refusedEnding,
  successorNote,
  unconnectedEnding,
} from "./run-failure.ts";
import type { RunStats } from "./run-stats.ts";
import type { RunTrace } from "./run-trace.ts";
import type { Run, Watch } from "./runs.ts";
import { cgroupFlags, runSandbox, type SandboxResult } from "./sandbox.ts";
import { sharingOf } from "./sharing.ts";

/** How a query is run: beside what its preparation says. */
export interface Manner {
  readonly command: readonly string[];
  readonly isTerminal: boolean;
  /** runsc's network: none, sandbox or host. */
  readonly network: string;
  /** runsc's own when missing. */
  readonly platform?: string | undefined;
  /** Further global flags for runsc. */
  readonly runscFlags: readonly string[];
  /** As burrow run --memory has it. */
  readonly memory?: string | undefined;
  readonly startMs: number;
  /** As SandboxOptions have it. */
  readonly tenant?: string | undefined;
  readonly isMeasured: boolean;
  /** Notes what the start does, and is written when it has ended. */
  readonly trace?: RunTrace | undefined;
  /** Where the command's output goes in place of this process's: see SandboxOptions. */
  readonly stdout?: Writable;
  readonly stderr?: Writable;
  readonly stdin?: Readable | undefined;
  readonly abort?: AbortSignal | undefined;
  /** Signals of this process are its own business: none is passed on. */
  readonly keepsSignals?: boolean;
}

/** What came of a run. */
export interface QueryEnd {
  /** Of the command, or Burrow's own where it did not start. */
  readonly exitCode: number;
  /** Why the command did not start. */
  readonly failure?: BurrowError;
  /** Why reads failed in the sandbox. */
  readonly readFailure?: BurrowError;
  /** What people should know. */
  readonly notes: readonly string[];
  /** Of a run that was to be measured. */
  readonly stats?: RunStats;
}

/** Runs the query to its end. `watch` stops listening to signals while the sandbox gets them. */
export async function runQuery(
  context: Context,
  { id, folder: bundle }: Run,
  prepared: Prepared,
  manner: Manner,
  watch: Watch,
): Promise<QueryEnd> {
  const { trace } = manner;
  await trace?.watch(context, prepared.mounts.id);
  Asker.announce(context.cache, prepared.mounts.id);
  const query = prepared.spec(manner.command, manner.isTerminal);
  writeText(join(bundle, "config.json"), JSON.stringify(ociSpec(query)), 0o600);
  const before = await fetchedSoFar(context.cache, id);
  const stopKeeping = keepDaemon(context);
  const killsBefore = memoryKills();
  const running = runSandbox(context, {
    ...manner,
    ...trace?.sandbox,
    id,
    bundle,
    runscFlags: runscFlags(manner),
  }).finally(stopKeeping);
  watch.stop(); // runSandbox listens by now: between two listeners a signal would be lost
  const ended = await running;
  watch.start(); // it listens no more, and asking for figures may take a while
  const { exitCode, failure } = ended.isLate
    ? lateEnding(manner.startMs)
    : endingOf(context, prepared, query, ended);
  await trace?.write(context, { command: query.command, exitCode });
  const notes = [
    memoryNote(exitCode, memoryKills() - killsBefore, manner.memory),
    successorNote(ended.counters[Count.restarts]!),
  ].filter((note) => note !== undefined);
  const failed = failedReads(ended.counters);
  const end = { exitCode, notes, ...(failure === undefined ? {} : { failure }) };
  if (!manner.isMeasured && failed === 0) return end;
  const fetched = fetchedBetween(before, await fetchedSoFar(context.cache, id));
  return {
    ...end,
    ...(failed > 0 ? { readFailure: readFailure(failed, fetched, context) } : {}),
    ...(manner.isMeasured
      ? { stats: statsOf(context, prepared, { ...ended, exitCode }, fetched, manner.tenant) }
      : {}),
  };
}

function runscFlags(manner: Manner): string[] {
  const { network, memory, platform } = manner;
  const flags = [...cgroupFlags(memory), `--network=${network}`];
  flags.push(...manner.runscFlags);
  if (platform !== undefined) flags.push(`--platform=${platform}`);
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
  tenant: string | undefined,
): RunStats {
  return {
    seconds: Math.round(result.seconds * 1000) / 1000,
    exitCode: result.exitCode,
    counters: showCounters(result.counters),
    fetched: { requests, bytes },
    ...(tenant === undefined ? {} : { sharing: sharingOf(result.goferLog) }),
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
