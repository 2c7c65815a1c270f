// Sandbox: one run of a bundle under burrow-runsc: started, waited for, signals passed on, everything removed. Control plane.

import { spawn } from "node:child_process";
import {
  closeSync,
  existsSync,
  fstatSync,
  ftruncateSync,
  openSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { constants } from "node:os";
import { join } from "node:path";
import { BurrowError } from "../base/error.ts";
import { COUNTER_BYTES, COUNTER_COUNT } from "../serve/counters.ts";
import { NATIVE_DIRECTORY } from "../sys/native.ts";
import type { Context } from "./context.ts";

export interface SandboxOptions {
  readonly id: string;
  readonly bundle: string;
  /** Global flags for runsc, e.g. --platform=systrap. */
  readonly runscFlags: readonly string[];
}

export interface SandboxResult {
  /** Of the command; 128 + n when the sandbox was ended by signal n. */
  readonly exitCode: number;
  readonly seconds: number;
  /** lib/serve/counters.ts, as the gofer left them. */
  readonly counters: Float64Array;
  /** What the gofer logged: reasons for a failed start. */
  readonly goferLog: string;
}

const FORWARDED = ["SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2"] as const;

/** A sandbox writes to a file at an offset of its own, over what others wrote there: give it a pipe instead. */
function streamFor(fd: number): "inherit" | "pipe" {
  return fstatSync(fd).isFile() ? "pipe" : "inherit";
}

/** Runs the bundle to its end. Ctrl-C reaches runsc through the terminal; other signals are passed on. */
export async function runSandbox(
  context: Context,
  options: SandboxOptions,
): Promise<SandboxResult> {
  const launcher = join(NATIVE_DIRECTORY, "burrow-runsc");
  if (!existsSync(launcher)) {
    throw new BurrowError("BURROW_NOT_FOUND", `${launcher} is not built; run: npm run build`);
  }
  const countersPath = join(options.bundle, "counters");
  const logPath = join(options.bundle, "gofer.log");
  const file = openSync(countersPath, "w", 0o600);
  ftruncateSync(file, COUNTER_BYTES);
  closeSync(file);
  writeFileSync(logPath, "", { mode: 0o600 });
  const args = [
    `--root=${join(context.state, "runsc")}`,
    ...options.runscFlags,
    "run",
    `--bundle=${options.bundle}`,
    options.id,
  ];
  const env = {
    ...process.env,
    BURROW_STATE: context.state,
    BURROW_CACHE: context.cache,
    BURROW_COUNTERS: countersPath,
    BURROW_LOG: logPath,
    BURROW_NODE: process.env["BURROW_NODE"] ?? process.execPath,
  };
  const startedMs = performance.now();
  const child = spawn(launcher, args, { stdio: ["inherit", streamFor(1), streamFor(2)], env });
  child.stdout?.pipe(process.stdout, { end: false });
  child.stderr?.pipe(process.stderr, { end: false });
  const forward = (signal: NodeJS.Signals) => child.kill(signal);
  const ignore = () => {};
  for (const signal of FORWARDED) process.on(signal, forward);
  process.on("SIGINT", ignore);
  try {
    const exitCode = await new Promise<number>((resolve, reject) => {
      child.once("error", reject);
      child.once("close", (code, signal) =>
        resolve(code ?? 128 + constants.signals[signal ?? "SIGKILL"]),
      );
    });
    const bytes = readFileSync(countersPath);
    const counters = new Float64Array(COUNTER_COUNT);
    for (let i = 0; i < COUNTER_COUNT; i++) counters[i] = bytes.readDoubleLE(8 * i);
    const seconds = (performance.now() - startedMs) / 1000;
    return { exitCode, seconds, counters, goferLog: readFileSync(logPath, "utf8") };
  } finally {
    for (const signal of FORWARDED) process.off(signal, forward);
    process.off("SIGINT", ignore);
    rmSync(countersPath, { force: true });
  }
}
