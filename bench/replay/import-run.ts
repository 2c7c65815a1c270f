// What hot-start and warm-start share: `import numpy, pandas` (and sklearn, where it is) in a sandbox, by Burrow and by stock runsc with its own gofer (and, where the
// revision has it, directfs) over the same files unpacked on local disk, in turns; seconds and CPU time.

import { execFileSync } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { NATIVE_DIRECTORY } from "../../lib/sys/native.ts";
import type { Bench } from "../run.ts";
import { CpuGroup } from "./cpu-group.ts";
import { median, type Setup, setUp } from "./setup.ts";

interface Mode {
  readonly name: string;
  readonly program: string;
  readonly flags: readonly string[];
  readonly bundle: string;
  readonly env?: Readonly<Record<string, string>>;
}

interface Sample {
  readonly importSeconds: number;
  readonly runSeconds: number;
  /** Of the whole run: runsc, sandbox and gofer, user and system. Not a number where it can't be told. */
  readonly cpuSeconds: number;
}

/** Burrow's bundle over a store made of the fixtures, and the peer's over the same files unpacked. */
function makeBundles(setup: Setup): { ours: string; stock: string } {
  const { work, cli, importWorkload } = setup;
  const { imports, root } = setup.workload;
  const ours = join(work, "ours");
  const program = `import time;t=time.time();import ${imports};print(time.time()-t)`;
  const start = ["/opt/env/bin/python3", "-c", program];
  cli("bundle", ...importWorkload(), "--user", "0", "--id", "bench", ours, "--", ...start);
  const spec = JSON.parse(readFileSync(join(ours, "config.json"), "utf8")) as {
    root: { path: string };
    mounts: { destination: string; source: string }[];
  };
  // The peer serves the same mounts: its root unpacked, its /tmp a folder of the host's.
  const stock = join(work, "stock");
  const tmp = join(work, "tmp");
  for (const folder of [stock, tmp]) mkdirSync(folder);
  spec.root.path = root;
  for (const mount of spec.mounts) if (mount.destination === "/tmp") mount.source = tmp;
  writeFileSync(join(stock, "config.json"), JSON.stringify(spec));
  return { ours, stock };
}

function modes({ runsc, isOld }: Setup, bundles: { ours: string; stock: string }): Mode[] {
  const launcher = join(NATIVE_DIRECTORY, "burrow-runsc");
  const ours = { name: "burrow", program: launcher, flags: [], bundle: bundles.ours };
  // As on a node that has no server ready: queries come too fast, or no daemon is up yet.
  const child = { ...ours, name: "burrow, no standby", env: { BURROW_STANDBYS: "" } };
  if (isOld)
    return [{ name: "stock", program: runsc, flags: [], bundle: bundles.stock }, ours, child];
  const noOverlay = "--overlay2=none";
  const direct = { ...ours, name: "burrow, directfs", flags: ["--directfs=true"] };
  return [
    {
      name: "stock",
      program: runsc,
      flags: ["--directfs=false", noOverlay],
      bundle: bundles.stock,
    },
    ours,
    child,
    direct,
    { name: "stock directfs", program: runsc, flags: [noOverlay], bundle: bundles.stock },
  ];
}

async function runOnce(
  mode: Mode,
  work: string,
  id: string,
  env: NodeJS.ProcessEnv,
): Promise<Sample> {
  const platform = env["BURROW_PLATFORM"];
  const flags = platform === undefined ? [] : [`--platform=${platform}`];
  const common = [`--root=${join(work, "root")}`, "--network=none", "--ignore-cgroups", ...flags];
  const words = [mode.program, ...common, ...mode.flags, "run", `--bundle=${mode.bundle}`, id];
  const group = CpuGroup.make(`burrow-${id}`);
  const [program, ...rest] = group?.wrap(words) ?? words;
  const started = performance.now();
  let out = "";
  let runSeconds = 0;
  let cpuSeconds = Number.NaN;
  try {
    out = execFileSync(program!, rest, {
      env: { ...env, ...mode.env },
      encoding: "utf8",
      stdio: ["ignore", "pipe", "inherit"],
    });
    runSeconds = (performance.now() - started) / 1000;
  } finally {
    cpuSeconds = (await group?.end()) ?? Number.NaN;
  }
  return { importSeconds: Number(out.trim()), runSeconds, cpuSeconds };
}

/** `runs` rounds in turns; `prepare` is called before each run, when nothing else of ours is at work. */
export async function compareImports(
  emit: Parameters<Bench>[0],
  runs: number,
  environment: string | undefined,
  prepare: () => void,
): Promise<void> {
  const setup = setUp({}, environment);
  if (typeof setup === "string") return emit({ skipped: setup });
  const { work, env, isOld, workload } = setup;
  try {
    const all = modes(setup, makeBundles(setup));
    setup.startDaemon();
    const samples = new Map<string, Sample[]>(all.map(({ name }) => [name, []]));
    // The first round fills the caches and is not counted.
    for (let round = 0; round <= runs; round++) {
      // Each in turn goes first: the end of one run may be in the way of the next one's start.
      const turn = round % all.length;
      for (const [i, mode] of [...all.slice(turn), ...all.slice(0, turn)].entries()) {
        await setup.standby();
        prepare();
        const sample = await runOnce(mode, work, `start-${process.pid}-${round}-${i}`, env);
        if (round > 0) samples.get(mode.name)!.push(sample);
      }
    }
    const platform = env["BURROW_PLATFORM"] ?? (isOld ? "ptrace" : "systrap");
    report(emit, samples, { imports: workload.imports, runsc: setup.version, platform });
  } finally {
    setup.dispose();
  }
}

function report(
  emit: Parameters<Bench>[0],
  samples: ReadonlyMap<string, readonly Sample[]>,
  facts: Readonly<Record<string, string>>,
): void {
  const round = (value: number) => Number(value.toFixed(3));
  const stock = samples.get("stock")!;
  for (const [mode, each] of samples) {
    const of = (field: keyof Sample, all = each) => all.map((sample) => sample[field]);
    const ratio = (field: keyof Sample) => round(median(of(field)) / median(of(field, stock)));
    const hasCpu = !of("cpuSeconds").some(Number.isNaN);
    emit({
      mode,
      ...facts,
      runs: each.length,
      importMedianSeconds: round(median(of("importSeconds"))),
      importMinSeconds: round(Math.min(...of("importSeconds"))),
      importMaxSeconds: round(Math.max(...of("importSeconds"))),
      importRatio: ratio("importSeconds"),
      runMedianSeconds: round(median(of("runSeconds"))),
      runRatio: ratio("runSeconds"),
      ...(hasCpu
        ? {
            cpuMedianSeconds: round(median(of("cpuSeconds"))),
            cpuMinSeconds: round(Math.min(...of("cpuSeconds"))),
            cpuRatio: ratio("cpuSeconds"),
          }
        : {}),
    });
  }
}
