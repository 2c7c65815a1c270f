// hot-start: `import numpy, pandas` (and sklearn, where fixtures/sklearn.sh has put it) in a sandbox, everything in the page cache: Burrow
// against stock runsc with its own gofer (and, where the revision has it, directfs) over the same files unpacked on local disk,
// interleaved in one run.
//
// Expected cost: about 3,400 RPCs, of which 1,000 donate a file; both gofers see the same requests, so the ratio is handler time
// plus wake-ups. Needs root, runsc and the fixtures: fixtures/check.sh DIR first, then BURROW_FIXTURES=DIR. $BURROW_RUNSC picks
// the revision, $BURROW_PLATFORM the platform.

import { execFileSync } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { NATIVE_DIRECTORY } from "../../lib/sys/native.ts";
import type { Bench } from "../run.ts";
import { median, type Setup, setUp, workloadOf } from "./setup.ts";

const RUNS = 12;

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
}

/** Burrow's bundle over a store made of the fixtures, and the peer's over the same files unpacked. */
function makeBundles({ fixtures, work, cli, importWorkload }: Setup): {
  ours: string;
  stock: string;
} {
  const ours = join(work, "ours");
  const { imports, root } = workloadOf(fixtures);
  const program = `import time;t=time.time();import ${imports};print(time.time()-t)`;
  const python = "/opt/env/bin/python3";
  cli(
    "bundle",
    ...importWorkload(),
    "--user",
    "0",
    "--id",
    "bench",
    ours,
    "--",
    python,
    "-c",
    program,
  );
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
  return [
    {
      name: "stock",
      program: runsc,
      flags: ["--directfs=false", noOverlay],
      bundle: bundles.stock,
    },
    ours,
    child,
    { name: "stock directfs", program: runsc, flags: [noOverlay], bundle: bundles.stock },
  ];
}

function runOnce(mode: Mode, work: string, id: string, env: NodeJS.ProcessEnv): Sample {
  const platform = env["BURROW_PLATFORM"];
  const flags = platform === undefined ? [] : [`--platform=${platform}`];
  const common = [`--root=${join(work, "root")}`, "--network=none", "--ignore-cgroups", ...flags];
  const started = performance.now();
  const out = execFileSync(
    mode.program,
    [...common, ...mode.flags, "run", `--bundle=${mode.bundle}`, id],
    {
      env: { ...env, ...mode.env },
      encoding: "utf8",
      stdio: ["ignore", "pipe", "inherit"],
    },
  );
  return { importSeconds: Number(out.trim()), runSeconds: (performance.now() - started) / 1000 };
}

export const bench: Bench = async (emit, { isQuick }) => {
  const setup = setUp();
  if (typeof setup === "string") return emit({ skipped: setup });
  const { work, env, isOld } = setup;
  try {
    const all = modes(setup, makeBundles(setup));
    setup.startDaemon();
    const samples = new Map<string, Sample[]>(all.map(({ name }) => [name, []]));
    // The first round fills the caches and is not counted.
    for (let round = 0; round <= (isQuick ? 1 : RUNS); round++) {
      // Each in turn goes first: the end of one run may be in the way of the next one's start.
      const turn = round % all.length;
      for (const [i, mode] of [...all.slice(turn), ...all.slice(0, turn)].entries()) {
        await setup.standby();
        const sample = runOnce(mode, work, `hot-${process.pid}-${round}-${i}`, env);
        if (round > 0) samples.get(mode.name)!.push(sample);
      }
    }
    const platform = env["BURROW_PLATFORM"] ?? (isOld ? "ptrace" : "systrap");
    const { imports } = workloadOf(setup.fixtures);
    report(emit, samples, { imports, runsc: setup.version, platform });
  } finally {
    setup.dispose();
  }
};

function report(
  emit: Parameters<Bench>[0],
  samples: ReadonlyMap<string, readonly Sample[]>,
  facts: Readonly<Record<string, string>>,
): void {
  const stock = samples.get("stock")!;
  for (const [mode, each] of samples) {
    const imports = each.map((sample) => sample.importSeconds);
    const runs = each.map((sample) => sample.runSeconds);
    const round = (value: number) => Number(value.toFixed(3));
    emit({
      mode,
      ...facts,
      runs: each.length,
      importMedianSeconds: round(median(imports)),
      importMinSeconds: round(Math.min(...imports)),
      importMaxSeconds: round(Math.max(...imports)),
      importRatio: round(median(imports) / median(stock.map((sample) => sample.importSeconds))),
      runMedianSeconds: round(median(runs)),
      runRatio: round(median(runs) / median(stock.map((sample) => sample.runSeconds))),
    });
  }
}
