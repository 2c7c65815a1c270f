// burrow env compile: byte code, post-link scripts and activation of an environment, done once in a sandbox and kept as one more layer
// of it. What `conda install` does on the host with the packages' own code is done here where it can hurt nobody. Control plane.

import type { Command } from "commander";
import { type Digest, parseDigest, showDigest } from "../base/digest.ts";
import { BurrowError } from "../base/error.ts";
import { entriesOf } from "../layer/entries.ts";
import type { Index } from "../layer/index.ts";
import { layerOf, mergeIndexes } from "../layer/merge.ts";
import { startFiles } from "../preload/start-files.ts";
import { finishLayer } from "../preload/start-order.ts";
import type { DeltaStore } from "../store/deltas.ts";
import { KnownBlobs } from "../store/known.ts";
import { openOrigin, refuseReadOnly, writingStore } from "../store/open.ts";
import { openPackWriter } from "../store/pack-writer.ts";
import type { WritableBackend } from "../store/store.ts";
import { type CaptureJob, type CaptureReport, capture } from "./capture.ts";
import { addCommonOptions, type Context, collect, contextOf } from "./context.ts";
import { findDigest } from "./digests.ts";
import { areVariables, rootOfCompiled } from "./env-root.ts";
import {
  type Environment,
  type EnvironmentPackage,
  findImport,
  noteImport,
  readEnvironment,
} from "./environment.ts";
import { counted, Progress, type ProgressLine, print } from "./output.ts";
import { publishEnvironment } from "./package-profiles.ts";
import { resolveBase } from "./prepare.ts";
import { parseSize, parseTimeout } from "./query.ts";
import { readIndex } from "./read-index.ts";
import { cgroupFlags } from "./sandbox.ts";
import { findDamage, REPAIR } from "./store-verify.ts";

interface CompileOptions {
  base: string;
  bytecode: boolean;
  scripts: boolean;
  activate: boolean;
  memory?: string;
  timeout: string;
  repair?: boolean;
  runscFlag?: string[];
  quiet?: boolean;
}

/** Part of the key of what was captured: change it when the same job gives something else. */
const CAPTURE_VERSION = "1";
const TICK_MS = 1000;

const HELP = `
Runs in a sandbox over the environment, as root without capabilities and without a network, with the
base's tools: each package's post-link script, Python for what has no byte code, and
etc/conda/activate.d. What they change below the prefix becomes one more layer, what activation sets
becomes variables of "burrow run --env". The same environment and base give the same digest. The
environment itself stays as it is.

Examples:
  burrow env compile --base sha256:… sha256:…
  env=$(burrow env compile --base $base --no-scripts $(burrow env create explicit.txt))`;

/** Adds the command to "env". */
export function addEnvCompile(env: Command): void {
  addCommonOptions(env.command("compile"))
    .argument("<snapshot>", "digest that env create printed, or its first digits")
    .description("add byte code and what its packages' scripts make; print the new digest")
    .requiredOption("--base <BASE>", "root file system to do it on: as for burrow run")
    .option("--no-bytecode", "don't compile Python files")
    .option("--no-scripts", "don't run post-link scripts")
    .option("--no-activate", "don't capture variables of activation")
    .option("--memory <SIZE>", "memory limit of the sandbox (needs cgroups)")
    .option("--timeout <SECONDS>", "how long the job may take", "3600")
    .option("--runsc-flag <FLAG>", "one more global flag for runsc; repeatable", collect)
    .option("--repair", REPAIR)
    .option("--quiet", "no progress")
    .addHelpText("after", HELP)
    .action(async (text: string, options: CompileOptions & { json?: boolean }) => {
      await compile(contextOf(options), text, options);
    });
}

/** What is noted of a job that was done: its layer's facts. */
type Captured = Pick<CaptureReport, "compiled" | "notCompiledCount" | "variables"> & {
  readonly scripts: readonly string[];
};

interface Compiled {
  readonly snapshot: Digest;
  readonly environment: Environment;
  readonly timeoutMs: number;
}

async function compile(context: Context, text: string, options: CompileOptions): Promise<void> {
  const progress = new Progress(options.quiet === true, context.isJson);
  if (options.memory !== undefined) parseSize(options.memory, "--memory");
  const timeoutMs = parseTimeout(options.timeout, "--timeout");
  refuseReadOnly(context.store);
  const { snapshot, environment } = await findPlain(
    context,
    await findDigest(context, text),
    progress,
  );
  const damaged = options.repair ? await findDamage(context, progress) : new Set<string>();
  await writingStore(
    context.store,
    "env compile",
    (store) => compileIn(store, context, { snapshot, environment, timeoutMs }, options, progress),
    damaged,
  );
}

async function compileIn(
  store: DeltaStore,
  context: Context,
  { snapshot, environment, timeoutMs }: Compiled,
  options: CompileOptions,
  progress: Progress,
): Promise<void> {
  const known = await KnownBlobs.load(store);
  const base = await resolveBase(context, options.base, progress, store);
  const index = await readIndex(store, snapshot);
  const job = jobOf(environment, options);
  const key = ["capture", CAPTURE_VERSION, snapshot, base.snapshot, JSON.stringify(job)];
  const work = { snapshot, base: base.snapshot, index, job };
  const noted = await findImport<Captured>(store, key);
  const done =
    noted !== undefined && areVariables(noted.facts?.variables)
      ? noted
      : await ticking(progress, "the job runs in a sandbox", () =>
          run(context, store, known, work, { ...options, timeoutMs }, key),
        );
  const { layer, facts } = done;
  const root = rootOfCompiled(index, layer, facts.variables);
  const stack = [index, await readIndex(store, layer), layerOf([root])];
  const writer = await openPackWriter(store, { known });
  const parts = [...environment.packages, ...(environment.wheels ?? [])];
  const layers = [...parts.map((each) => parseDigest(each.layer)!), layer];
  const merged = mergeIndexes(stack);
  const { digest } = await writer.writeSnapshot(merged, layers, startFiles(merged));
  const made = {
    ...environment,
    variables: facts.variables,
    compiled: {
      from: showDigest(snapshot),
      base: showDigest(base.snapshot),
      layer: showDigest(layer),
    },
  };
  await publishEnvironment(store, digest, made, progress);
  const { compiled, notCompiledCount, scripts, variables } = facts;
  progress.line(
    `${counted(compiled, "file")} compiled, ${notCompiledCount} that Python can't; post-link scripts: ${
      scripts.join(", ") || "none"
    }; variables: ${Object.keys(variables).join(", ") || "none"}`,
  );
  const shown = showDigest(digest);
  print(context.isJson, { snapshot: shown, layer: showDigest(layer), ...facts }, shown);
}

/** The environment, or the one that it was compiled from: to compile it once more would add nothing but a layer. */
async function findPlain(context: Context, named: Digest, progress: ProgressLine) {
  const origin = openOrigin(context.store);
  const environment = await readEnvironment(origin, named);
  if (environment.kept !== undefined) {
    const what = `${showDigest(named)} was kept of sandboxes that changed an environment`;
    const advice = "compile the environment, and have a sandbox change that";
    throw new BurrowError("BURROW_UNSUPPORTED", `${what}: ${advice}`);
  }
  const from = parseDigest(environment.compiled?.from ?? "");
  if (from === undefined) return { snapshot: named, environment };
  const what = `${showDigest(named).slice(0, 19)} is compiled already`;
  progress.line(`${what}: ${showDigest(from).slice(0, 19)}, which it was made of, is taken`);
  return { snapshot: from, environment: await readEnvironment(origin, from) };
}

/** Does work that says nothing of itself: shown with its time. */
async function ticking<T>(
  progress: ProgressLine,
  what: string,
  work: () => Promise<T>,
): Promise<T> {
  progress.begin(what);
  const startedMs = Date.now();
  const tick = () => progress.update(`${what}: ${Math.round((Date.now() - startedMs) / 1000)} s`);
  const timer = setInterval(tick, TICK_MS);
  try {
    return await work();
  } finally {
    clearInterval(timer);
    progress.end();
  }
}

function jobOf({ prefix, packages }: Environment, options: CompileOptions): CaptureJob {
  const scriptOf = ({ name, version, build }: EnvironmentPackage) => ({
    name,
    version,
    buildNumber: /(?:^|_)(\d+)$/.exec(build)?.[1] ?? "0",
    script: `bin/.${name}-post-link.sh`,
  });
  return {
    prefix,
    isCompiled: options.bytecode,
    isActivated: options.activate,
    scripts: options.scripts ? packages.map(scriptOf) : [],
  };
}

interface Job {
  readonly snapshot: Digest;
  readonly base: Digest;
  readonly index: Index;
  readonly job: CaptureJob;
}

/** Has the job done, and its layer written and noted. */
async function run(
  context: Context,
  store: WritableBackend,
  known: KnownBlobs,
  { snapshot, base, index, job }: Job,
  options: CompileOptions & { readonly timeoutMs: number },
  key: readonly string[],
): Promise<{ layer: Digest; facts: Captured }> {
  const writer = await openPackWriter(store, { known });
  const { report, entries } = await capture(context, job, {
    sink: writer,
    mtimeSec: newestOf(index),
    timeoutMs: options.timeoutMs,
    runscFlags: [...cgroupFlags(options.memory), ...(options.runscFlag ?? [])],
    query: {
      base: showDigest(base),
      env: showDigest(snapshot),
      tmpSize: "1G",
      cwd: "/",
      user: "0:0",
      quiet: true,
      ...(options.memory === undefined ? {} : { memory: options.memory }),
    },
  });
  const failed = report.scripts.find(({ exitCode }) => exitCode !== 0);
  if (failed !== undefined) {
    const what = `the post-link script of ${failed.name} ended with ${failed.exitCode}`;
    throw new BurrowError("BURROW_CAPTURE", `${what}; --no-scripts leaves them out`);
  }
  const { digest: layer } = await finishLayer(writer, entries, index);
  const { compiled, notCompiledCount, variables } = report;
  const scripts = report.scripts.map(({ name }) => name);
  const facts = { compiled, notCompiledCount, variables, scripts };
  await noteImport(store, key, layer, facts);
  return { layer, facts };
}

/** Of all times of an environment the newest: what is made of its files is not older than they are. */
function newestOf(index: Index): number {
  let newest = 0;
  for (const { mtimeSec } of entriesOf(index)) newest = Math.max(newest, mtimeSec);
  return newest;
}
