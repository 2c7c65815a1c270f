// hot-start: `import numpy, pandas` in a sandbox, everything in the page cache: Burrow against stock runsc with its own gofer (and,
// where the revision has it, directfs) over the same files unpacked on local disk, interleaved in one run.
//
// Expected cost: about 3,400 RPCs, of which 1,000 donate a file; both gofers see the same requests, so the ratio is handler time
// plus wake-ups. Needs root, runsc and the fixtures: fixtures/check.sh DIR first, then BURROW_FIXTURES=DIR. $BURROW_RUNSC picks
// the revision, $BURROW_PLATFORM the platform.

import { execFileSync, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { NATIVE_DIRECTORY } from "../../lib/sys/native.ts";
import type { Bench } from "../run.ts";

const CLI = fileURLToPath(new URL("../../lib/cli/main.js", import.meta.url));
const PROGRAM = "import time;t=time.time();import numpy,pandas;print(time.time()-t)";
const RUNS = 12;

interface Mode {
  readonly name: string;
  readonly program: string;
  readonly flags: readonly string[];
  readonly bundle: string;
}

interface Sample {
  readonly importSeconds: number;
  readonly runSeconds: number;
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

/** Burrow's bundle over a store made of the fixtures, and the peer's over the same files unpacked. */
function makeBundles(
  fixtures: string,
  work: string,
  env: NodeJS.ProcessEnv,
): { ours: string; stock: string } {
  const cli = (...args: string[]) =>
    execFileSync(process.execPath, [CLI, ...args], { env, encoding: "utf8" }).trim();
  const base = cli("layer", "import", "--quiet", "--snapshot", join(fixtures, "base.tar"));
  const environment = cli("env", "create", "--quiet", join(fixtures, "channel/explicit.txt"));
  const ours = join(work, "ours");
  const python = "/opt/env/bin/python3";
  cli(
    "bundle",
    "--base",
    base,
    "--env",
    environment,
    "--user",
    "0",
    "--id",
    "bench",
    ours,
    "--",
    python,
    "-c",
    PROGRAM,
  );
  const spec = JSON.parse(readFileSync(join(ours, "config.json"), "utf8")) as {
    root: { path: string };
    mounts: { destination: string; source: string }[];
  };
  // The peer serves the same mounts: its root unpacked, its /tmp a folder of the host's tmpfs.
  const stock = join(work, "stock");
  mkdirSync(stock);
  spec.root.path = join(fixtures, "check");
  for (const mount of spec.mounts)
    if (mount.destination === "/tmp") mount.source = mkdtempSync("/dev/shm/burrow-bench-");
  writeFileSync(join(stock, "config.json"), JSON.stringify(spec));
  return { ours, stock };
}

function modes(runsc: string, bundles: { ours: string; stock: string }, isOld: boolean): Mode[] {
  const launcher = join(NATIVE_DIRECTORY, "burrow-runsc");
  const ours = { name: "burrow", program: launcher, flags: [], bundle: bundles.ours };
  if (isOld) return [{ name: "stock", program: runsc, flags: [], bundle: bundles.stock }, ours];
  const noOverlay = "--overlay2=none";
  return [
    {
      name: "stock",
      program: runsc,
      flags: ["--directfs=false", noOverlay],
      bundle: bundles.stock,
    },
    ours,
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
      env,
      encoding: "utf8",
      stdio: ["ignore", "pipe", "inherit"],
    },
  );
  return { importSeconds: Number(out.trim()), runSeconds: (performance.now() - started) / 1000 };
}

export const bench: Bench = async (emit, { isQuick }) => {
  const fixtures = process.env["BURROW_FIXTURES"];
  if (process.getuid?.() !== 0 || fixtures === undefined || !existsSync(join(fixtures, "check"))) {
    emit({ skipped: "needs root, and BURROW_FIXTURES=DIR after fixtures/check.sh DIR" });
    return;
  }
  const runsc = process.env["BURROW_RUNSC"] ?? "runsc";
  const version = execFileSync(runsc, ["--version"], { encoding: "utf8" })
    .split("\n")[0]!
    .replace("runsc version ", "");
  const flags = spawnSync(runsc, ["flags"], { encoding: "utf8" });
  const isOld = !`${flags.stdout}${flags.stderr}`.includes("directfs");
  const work = mkdtempSync(join(tmpdir(), "burrow-hot-"));
  const { NODE_EXTRA_CA_CERTS: _, ...caller } = process.env;
  const env: NodeJS.ProcessEnv = {
    ...caller,
    BURROW_STATE: `${work}/state`,
    BURROW_CACHE: `${work}/cache`,
    BURROW_STORE: `${work}/store`,
  };
  try {
    const all = modes(runsc, makeBundles(fixtures, work, env), isOld);
    const samples = new Map<string, Sample[]>(all.map(({ name }) => [name, []]));
    // The first round fills the caches and is not counted.
    for (let round = 0; round <= (isQuick ? 1 : RUNS); round++) {
      for (const [i, mode] of all.entries()) {
        const sample = runOnce(mode, work, `hot-${process.pid}-${round}-${i}`, env);
        if (round > 0) samples.get(mode.name)!.push(sample);
      }
    }
    report(emit, samples, {
      runsc: version,
      platform: env["BURROW_PLATFORM"] ?? (isOld ? "ptrace" : "systrap"),
    });
  } finally {
    execFileSync(process.execPath, [CLI, "daemon", "stop"], { env, stdio: "ignore" });
    rmSync(work, { recursive: true, force: true });
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
