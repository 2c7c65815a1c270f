// Capture: runs a job in a sandbox over an environment with a writable upper (runsc's own, in the sandbox's memory) and has what it
// changed below the prefix come out as layer entries. Nothing that comes out is believed: it is bounded, its owners, modes and times
// are ours, and it can name nothing outside the prefix. Control plane.

import { createReadStream, createWriteStream } from "node:fs";
import { open } from "node:fs/promises";
import { totalmem } from "node:os";
import { join } from "node:path";
import { pipeline } from "node:stream/promises";
import { BurrowError } from "../base/error.ts";
import { ARCHIVE_BYTES_MAX } from "../base/limits.ts";
import { importTar } from "../ingest/tar.ts";
import type { LayerEntry } from "../layer/entry.ts";
import { Count } from "../serve/counters.ts";
import type { BlobSink } from "../store/blob-sink.ts";
import { DRIVER } from "./capture-driver.ts";
import type { Context } from "./context.ts";
import { guard } from "./guard.ts";
import { Bound, Murmur } from "./job-output.ts";
import { keepDaemon } from "./keep-daemon.ts";
import { ociSpec } from "./oci-spec.ts";
import { writeText } from "./output.ts";
import { type Prepared, prepare } from "./prepare.ts";
import type { QueryOptions } from "./query-settings.ts";
import { lateEnding } from "./run-failure.ts";
import { type Run, type Watch, withRun } from "./runs.ts";
import { runSandbox, START_MS } from "./sandbox.ts";

/** What the driver is told. */
export interface CaptureJob {
  readonly prefix: string;
  readonly isCompiled: boolean;
  readonly isActivated: boolean;
  /** Post-link scripts below the prefix, in their order. */
  readonly scripts: readonly {
    readonly name: string;
    readonly version: string;
    readonly buildNumber: string;
    readonly script: string;
  }[];
}

/** What the driver says it did. */
export interface CaptureReport {
  readonly compiled: number;
  readonly notCompiled: readonly string[];
  readonly notCompiledCount: number;
  readonly scripts: readonly { readonly name: string; readonly exitCode: number }[];
  readonly variables: Readonly<Record<string, string>>;
}

export interface CaptureOptions {
  readonly query: QueryOptions;
  readonly runscFlags: readonly string[];
  /** Seconds since the epoch that every captured file gets: the same job gives the same layer. */
  readonly mtimeSec: number;
  /** How long the job may take. */
  readonly timeoutMs: number;
  readonly sink: BlobSink;
}

/** A report has some 100 bytes a variable, and 1,000 paths. */
const REPORT_MAX_BYTES = 4 * 1024 * 1024;
const VARIABLES_MAX = 1_000;
/** Of the host: compilers and installers run a few dozen. */
const PROCESSES_MAX = 512;
/** Of this machine's, for a job without a limit of its own. */
const MEMORY_PART = 0.5;
const TOO_MUCH = {
  processes: `had over ${PROCESSES_MAX} processes`,
  memory: "took more than half of this machine's memory; --memory sets a limit of its own",
} as const;
const OUTPUT = "captured";
/** What scripts have to say to people. */
const SAID_MAX_CHARS = 1024 * 1024;

/**
 * Runs the job and gives what came of it. BURROW_CAPTURE when it failed, or printed what it would not; BURROW_TIMEOUT when it took too
 * long.
 */
export async function capture(
  context: Context,
  job: CaptureJob,
  options: CaptureOptions,
): Promise<{ report: CaptureReport; entries: LayerEntry[] }> {
  return await withRun(context, async (run, watch) => {
    const prepared = await prepare(context, run.id, options.query);
    await runDriver(context, run, prepared, job, options, watch);
    return await readOutput(join(run.folder, OUTPUT), options);
  });
}

async function runDriver(
  context: Context,
  { id, folder }: Run,
  prepared: Prepared,
  job: CaptureJob,
  { runscFlags, timeoutMs, query: { memory } }: CaptureOptions,
  watch: Watch,
): Promise<void> {
  // Without what the environment's site would run. Names in sets are in one order, or byte code would differ from run to run.
  const command = ["python3", "-s", "-S", "-B", "-X", "utf8", "-c", DRIVER, JSON.stringify(job)];
  const plainSpec = prepared.spec(command, false);
  const spec = {
    ...plainSpec,
    env: { ...plainSpec.env, PYTHONHASHSEED: "0" },
    isRootWritable: true,
  };
  writeText(join(folder, "config.json"), JSON.stringify(ociSpec(spec)), 0o600);
  const flags = ["--network=none", "--overlay2=root:memory", ...runscFlags];
  const bound = new Bound(ARCHIVE_BYTES_MAX);
  const written = pipeline(bound, createWriteStream(join(folder, OUTPUT), { mode: 0o600 }));
  written.catch(() => {}); // awaited below
  // With --memory its cgroup has the say.
  const memoryBytes = memory === undefined ? totalmem() * MEMORY_PART : Number.POSITIVE_INFINITY;
  const bounds = { processes: PROCESSES_MAX, memoryBytes };
  const said = new Murmur((text) => process.stderr.write(text), SAID_MAX_CHARS);
  const abort = new AbortController();
  let ended: BurrowError | undefined;
  const end = (code: "BURROW_TIMEOUT" | "BURROW_CAPTURE", why: string) => {
    ended ??= new BurrowError(code, `the job in the sandbox ${why}`);
    abort.abort();
  };
  const late = `was not done after ${timeoutMs / 1000} s; --timeout gives it longer`;
  const timer = setTimeout(() => end("BURROW_TIMEOUT", late), timeoutMs);
  const running = runSandbox(context, {
    id,
    bundle: folder,
    runscFlags: flags,
    isTerminal: false,
    stdout: bound,
    stderr: said,
    abort: abort.signal,
    onStart: (pid) => guard(pid, bounds, (what) => end("BURROW_CAPTURE", TOO_MUCH[what])),
  }).finally(keepDaemon(context));
  watch.stop(); // runSandbox listens by now
  const { exitCode, goferLog, counters, isLate } = await running.finally(() => clearTimeout(timer));
  watch.start();
  if (ended !== undefined && exitCode !== 0) throw ended;
  if (isLate) throw lateEnding(START_MS).failure;
  await written;
  if (exitCode === 0) return;
  const isUnexplained = counters[Count.connections] === 0 && goferLog !== "";
  const causes: Readonly<Record<number, string>> = {
    128: ": is there a python3, 3.6 or later, in it or in the base?",
    137: ": it was killed, perhaps for want of memory (--memory)",
  };
  const why = causes[exitCode] ?? "";
  throw new BurrowError("BURROW_CAPTURE", `the job in the sandbox ended with ${exitCode}${why}`, {
    cause: isUnexplained ? new Error(goferLog.trim()) : undefined,
  });
}

async function readOutput(path: string, { sink, mtimeSec }: CaptureOptions) {
  const head = Buffer.alloc(REPORT_MAX_BYTES);
  await using file = await open(path);
  const { bytesRead } = await file.read(head, 0, head.length, 0);
  const end = head.subarray(0, bytesRead).indexOf(0x0a);
  if (end < 0) throw new BurrowError("BURROW_CAPTURE", "the job printed no report");
  const report = parseReport(head.toString("utf8", 0, end));
  const entries: LayerEntry[] = [];
  const tar = createReadStream(path, { start: end + 1, highWaterMark: 1 << 20 });
  for await (const entry of importTar(tar, { sink, name: "what was captured", whiteouts: "oci" })) {
    entries.push(plain(entry, mtimeSec));
  }
  return { report, entries };
}

/** An entry with attributes of ours: packages have no owner, set-id bits or extended attributes either. */
function plain({ xattrs: _, ...entry }: LayerEntry, mtimeSec: number): LayerEntry {
  const isDirectory = entry.type === "directory";
  return {
    ...entry,
    mode: isDirectory ? 0o755 : entry.mode & 0o777,
    uid: 0,
    gid: 0,
    mtimeSec: isDirectory ? 0 : mtimeSec,
    mtimeNs: 0,
  };
}

function parseReport(text: string): CaptureReport {
  const bad = (why: string) => new BurrowError("BURROW_CAPTURE", `the job's report is bad: ${why}`);
  let value: CaptureReport;
  try {
    value = JSON.parse(text) as CaptureReport;
  } catch {
    throw bad("no JSON");
  }
  const { compiled, notCompiled, notCompiledCount, scripts, variables } = value ?? {};
  const isCount = (count: unknown) => Number.isSafeInteger(count) && Number(count) >= 0;
  if (!isCount(compiled) || !isCount(notCompiledCount)) throw bad("counts");
  if (!Array.isArray(notCompiled) || !notCompiled.every((path) => typeof path === "string"))
    throw bad("paths");
  const isScript = (each: unknown) => {
    const { name, exitCode } = (each ?? {}) as Partial<CaptureReport["scripts"][number]>;
    return typeof name === "string" && Number.isInteger(exitCode);
  };
  if (!Array.isArray(scripts) || !scripts.every(isScript)) throw bad("scripts");
  const all = Object.entries(variables ?? {});
  const isVariable = ([name, value]: [string, unknown]) =>
    /^[A-Za-z_][A-Za-z0-9_]*$/.test(name) && typeof value === "string" && !value.includes("\0");
  if (all.length > VARIABLES_MAX) throw bad(`over ${VARIABLES_MAX} variables`);
  // A shell's functions (BASH_FUNC_x%%) are no variables that a command could be given.
  const kept = Object.fromEntries(all.filter(isVariable));
  return { compiled, notCompiled, notCompiledCount, scripts, variables: kept };
}
