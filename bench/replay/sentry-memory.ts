// sentry-memory: what a sentry holds of a large file that was not donated (pitfall F3), and what a small dcache costs an import (F5).
// The counts are the result; the times are context.
//
// Expected: PRead brings 1 MiB at a time into the sentry's page cache, so its memory is bounded by that cache, not by the file; the
// import walks some 2,000 names once, whatever the dcache. Needs root, runsc and the fixtures, as hot-start does.

import { spawn } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import { mkdirSync, openSync, readdirSync, readFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Bench } from "../run.ts";
import { type Setup, setUp } from "./setup.ts";

const CLI = fileURLToPath(new URL("../../burrow.cjs", import.meta.url));
const MIB = 1024 * 1024;
const PYTHON = "/opt/env/bin/python3";
const HASH = `import hashlib
h = hashlib.sha256()
with open("/stage/big/file", "rb", buffering=0) as f:
    while part := f.read(1 << 20): h.update(part)
print(h.hexdigest())`;

interface Ran {
  readonly out: string;
  readonly seconds: number;
  readonly requests: Readonly<Record<string, number>>;
  /** The most that the sandbox's process had resident. */
  readonly sentryPeakBytes: number;
}

/** Peak of the runsc-sandbox processes below `root` of runsc, while they live. */
function sentryPeak(marker: string): number {
  let peak = 0;
  for (const pid of readdirSync("/proc").filter((name) => /^\d+$/.test(name))) {
    try {
      const words = readFileSync(`/proc/${pid}/cmdline`, "latin1");
      if (!words.startsWith("runsc-sandbox") || !words.includes(marker)) continue;
      const status = readFileSync(`/proc/${pid}/status`, "latin1");
      peak = Math.max(peak, Number(/VmHWM:\s+(\d+)/.exec(status)?.[1] ?? 0) * 1024);
    } catch {} // it ended meanwhile
  }
  return peak;
}

async function run({ env, work }: Setup, flags: readonly string[], program: string): Promise<Ran> {
  const stats = join(work, "stats.json");
  const words = ["--no-warnings", CLI, "run", ...flags, "--stats-file", stats];
  const child = spawn(process.execPath, [...words, "--", PYTHON, "-c", program], {
    env,
    stdio: ["ignore", "pipe", "inherit"],
  });
  let out = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    out += text;
  });
  let peak = 0;
  const timer = setInterval(() => {
    peak = Math.max(peak, sentryPeak(work));
  }, 50);
  const [code] = (await once(child, "exit")) as [number | null];
  clearInterval(timer);
  if (code !== 0) throw new Error(`burrow run ended with ${code}`);
  const { seconds, counters } = JSON.parse(readFileSync(stats, "utf8")) as {
    seconds: number;
    counters: { requests: Record<string, number> };
  };
  return { out: out.trim(), seconds, requests: counters.requests, sentryPeakBytes: peak };
}

/** A file of random bytes at `path`: its sha256. */
function writeNoise(path: string, mebibytes: number): string {
  const hash = createHash("sha256");
  const fd = openSync(path, "wx");
  for (let i = 0; i < mebibytes; i++) {
    const part = randomBytes(MIB);
    hash.update(part);
    writeSync(fd, part);
  }
  return hash.digest("hex");
}

export const bench: Bench = async (emit, { isQuick }) => {
  const setup = setUp();
  if (typeof setup === "string") return emit({ skipped: setup });
  const { version: runsc, work } = setup;
  try {
    const view = setup.importView();
    mkdirSync(join(work, "big"));
    const fileMib = isQuick ? 64 : 1024;
    const digest = writeNoise(join(work, "big/file"), fileMib);
    const idle = await run(setup, view, "pass");
    const big = await run(setup, [...view, "--stage", `big=${join(work, "big")}`], HASH);
    emit({
      case: "a cold file read in 1 MiB pieces",
      runsc,
      fileMib,
      isRight: big.out === digest,
      preads: big.requests["PRead"] ?? 0,
      seconds: Number(big.seconds.toFixed(2)),
      idleSentryPeakMib: Math.round(idle.sentryPeakBytes / MIB),
      sentryPeakMib: Math.round(big.sentryPeakBytes / MIB),
    });
    if (setup.isOld) return; // it has no --dcache
    for (const dcache of [500, 1000, 100_000]) {
      const flags = [...view, "--runsc-flag", `--dcache=${dcache}`];
      const { requests, seconds } = await run(setup, flags, "import numpy, pandas");
      emit({
        case: "import numpy, pandas",
        runsc,
        dcache,
        walks: requests["Walk"] ?? 0,
        opens: requests["OpenAt"] ?? 0,
        seconds: Number(seconds.toFixed(2)),
      });
    }
  } finally {
    setup.dispose();
  }
};
