// Sandbox: one run of a bundle under burrow-runsc: started, waited for, signals passed on, all of it removed. Control plane.

import { type ChildProcess, execFile, spawn } from "node:child_process";
import { existsSync, fstatSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { constants } from "node:os";
import { join } from "node:path";
import { pipeline, type Readable, type Writable } from "node:stream";
import { BurrowError } from "../base/error.ts";
import { COUNTER_BYTES, COUNTER_COUNT, Count } from "../serve/counters.ts";
import { ioError } from "../store/node-error.ts";
import { NATIVE_DIRECTORY } from "../sys/native.ts";
import type { Context } from "./context.ts";
import { writeText } from "./output.ts";

export interface SandboxOptions {
  readonly id: string;
  readonly bundle: string;
  /** Global flags for runsc, e.g. --platform=systrap. */
  readonly runscFlags: readonly string[];
  /** The command has this process's terminal: runsc passes signals on by itself. */
  readonly isTerminal: boolean;
  /** What the command prints goes here, and is ended, instead of to this process's stdout; then it has no stdin either. */
  readonly stdout?: Writable;
  /** The same for what the command and runsc complain of. */
  readonly stderr?: Writable;
  /** A file of TRACE_BYTES in which its gofer notes all requests. */
  readonly tracePath?: string;
  /** Beside `stdout`: the command's stdin, and its end. */
  readonly stdin?: Readable | undefined;
  /** How long the sandbox may take until it asks for its first file; START_MS when missing. */
  readonly startMs?: number;
  /** It may share a server with other sandboxes of this tenant. */
  readonly tenant?: string | undefined;
  /** Fired, it ends the sandbox at once. */
  readonly abort?: AbortSignal | undefined;
  /** Signals of this process are its own business: none is passed on. */
  readonly keepsSignals?: boolean;
  /** Called with runsc's pid; what it returns is called at the end. */
  readonly onStart?: (pid: number) => () => void;
}

export interface SandboxResult {
  /** Of the command; 128 + n when the sandbox was ended by signal n. */
  readonly exitCode: number;
  readonly seconds: number;
  /** lib/serve/counters.ts, as the gofer left them. */
  readonly counters: Float64Array;
  /** What the gofer logged: reasons for a failed start. */
  readonly goferLog: string;
  /** It was ended, having asked for nothing in all the time that it had to start. */
  readonly isLate: boolean;
}

const SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2"] as const;
const ENDING: readonly NodeJS.Signals[] = ["SIGINT", "SIGTERM", "SIGHUP"];
/** How long a command may take to end after SIGTERM or SIGHUP. */
const GRACE_MS = 10_000;
/** How long runsc may take to send a signal or remove what it keeps of a sandbox. */
const RUNSC_MS = 10_000;

/** A start takes a second or two. One that never comes: KVM within some virtual machines. */
export const START_MS = 60_000;

/** Flags for a sandbox with a limit of memory, or none: what needs no cgroup runs where there are none. */
export function cgroupFlags(memory: string | undefined): string[] {
  return memory === undefined ? ["--ignore-cgroups"] : [];
}

/**
 * A sandbox writes to a file at an offset of its own, over what others wrote there, and shuts a socket down for all who share it
 * (a service manager's log): give it a stream of its own instead.
 */
function streamFor(fd: number): "inherit" | "pipe" {
  const facts = fstatSync(fd);
  return facts.isFile() || facts.isSocket() ? "pipe" : "inherit";
}

/** The variables but for those of AWS's tools: sandbox and gofer fetch nothing, so they get no keys that could be read out of them. */
function withoutCredentials(env: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  return Object.fromEntries(Object.entries(env).filter(([name]) => !name.startsWith("AWS_")));
}

/** One runsc by its launcher, with the state of this node's sandboxes. */
class Runsc {
  readonly #launcher = join(NATIVE_DIRECTORY, "burrow-runsc");
  readonly #root: string;
  readonly #env: NodeJS.ProcessEnv;

  constructor(context: Context, env: NodeJS.ProcessEnv = process.env) {
    if (!existsSync(this.#launcher)) {
      const advice = "is not built; run: npm run build";
      throw new BurrowError("BURROW_NOT_FOUND", `${this.#launcher} ${advice}`);
    }
    this.#root = join(context.state, "runsc");
    this.#env = withoutCredentials(env);
  }

  /** Out of the terminal's process group unless it has the terminal: Ctrl-C is for us to pass on, or runsc dies first. */
  run({ bundle, id, runscFlags, isTerminal, ...own }: SandboxOptions): ChildProcess {
    const args = [`--root=${this.#root}`, ...runscFlags, "run", `--bundle=${bundle}`, id];
    return spawn(this.#launcher, args, {
      stdio: [
        own.stdin ? "pipe" : own.stdout ? "ignore" : "inherit",
        own.stdout ? "pipe" : streamFor(1),
        own.stderr ? "pipe" : streamFor(2),
      ],
      // Killed, we can't end it any more.
      env: { ...this.#env, BURROW_PARENT: String(process.pid) },
      detached: !isTerminal,
    });
  }

  /** Whether the command was there to get the signal. */
  async kill(id: string, signal: NodeJS.Signals): Promise<boolean> {
    return await this.#call("kill", id, String(constants.signals[signal]));
  }

  /** Removes what runsc keeps of a sandbox when it didn't do so itself: it was killed. */
  async delete(id: string): Promise<void> {
    if (!existsSync(this.#root)) return;
    // Newer revisions have a control socket here, which stays when runsc is killed before it has written its state.
    const left = readdirSync(this.#root).filter(
      (name) => name.startsWith(`${id}_sandbox:`) || name === `runsc-${id}.sock`,
    );
    if (left.some((name) => name.endsWith(".state"))) await this.#call("delete", "--force", id);
    for (const name of left) rmSync(join(this.#root, name), { force: true });
  }

  #call(...words: string[]): Promise<boolean> {
    const options = { env: this.#env, timeout: RUNSC_MS };
    return new Promise((resolve) => {
      execFile(this.#launcher, [`--root=${this.#root}`, ...words], options, (error) =>
        resolve(error === null),
      );
    });
  }
}

/**
 * Passes signals on to the sandbox's command until the returned function is called. What has not begun is ended at once, as is what
 * is told a second time to end.
 */
function passSignals(runsc: Runsc, child: ChildProcess, options: SandboxOptions): () => void {
  let timer: NodeJS.Timeout | undefined;
  let isEnding = false;
  const pass = (signal: NodeJS.Signals) => {
    if (options.isTerminal) {
      if (signal !== "SIGINT") child.kill(signal);
      return;
    }
    const isEnd = ENDING.includes(signal);
    if (isEnd && isEnding) {
      child.kill("SIGKILL"); // the sandbox dies with it
      return;
    }
    if (isEnd) isEnding = true;
    if (isEnd && signal !== "SIGINT") timer = setTimeout(() => child.kill("SIGKILL"), GRACE_MS);
    runsc.kill(options.id, signal).then((isPassed) => {
      if (!isPassed && isEnd) child.kill(signal);
    });
  };
  for (const signal of SIGNALS) process.on(signal, pass);
  return () => {
    clearTimeout(timer);
    for (const signal of SIGNALS) process.off(signal, pass);
  };
}

/**
 * Copies what the sandbox wrote to a stream of ours. When that fails, the sandbox sees a broken pipe: of a reader that went away it
 * hears so as any command does, anything else is a failure of ours.
 */
function copyOutput(child: ChildProcess, options: SandboxOptions): { failure?: Error } {
  const seen: { failure?: Error } = {};
  for (const name of ["stdout", "stderr"] as const) {
    const from = child[name];
    if (from === null) continue;
    const own = options[name];
    if (own !== undefined) {
      own.on("error", (error) => {
        seen.failure ??= error;
        from.destroy();
      });
      // Who destroys it says nothing more: what isn't read would have the sandbox wait for ever.
      if (own.destroyed) from.destroy();
      own.on("close", () => from.destroy());
      // It may be the same for both.
      from.pipe(own, { end: false });
      child.once("close", () => own.end());
      continue;
    }
    // Ours alone: main's listener would end us while the sandbox runs.
    process[name].removeAllListeners("error").on("error", (error: NodeJS.ErrnoException) => {
      if (error.code !== "EPIPE" && error.code !== "ECONNRESET") seen.failure ??= error;
      from.destroy();
    });
    from.pipe(process[name], { end: false });
  }
  return seen;
}

/** Has nothing of a sandbox be there, when its run was killed. */
export async function deleteSandbox(context: Context, id: string): Promise<void> {
  await new Runsc(context).delete(id);
}

/** Runs the bundle to its end, whatever that is: nothing of the sandbox is there afterwards. */
export async function runSandbox(
  context: Context,
  options: SandboxOptions,
): Promise<SandboxResult> {
  const countersPath = join(options.bundle, "counters");
  const logPath = join(options.bundle, "gofer.log");
  // Written out: on a full disk a hole in what the gofer maps would be its SIGBUS.
  writeText(countersPath, "\0".repeat(COUNTER_BYTES), 0o600);
  writeText(logPath, "", 0o600);
  const runsc = new Runsc(context, {
    ...process.env,
    BURROW_STATE: context.state,
    BURROW_CACHE: context.cache,
    BURROW_COUNTERS: countersPath,
    BURROW_LOG: logPath,
    ...(options.tracePath === undefined ? {} : { BURROW_TRACE: options.tracePath }),
    BURROW_NODE: process.env["BURROW_NODE"] || process.execPath,
    BURROW_SHARED: options.tenant === undefined ? undefined : "1",
    BURROW_TENANT: options.tenant,
  });
  const startedMs = performance.now();
  const child = runsc.run(options);
  const output = copyOutput(child, options);
  if (child.stdin !== null && options.stdin !== undefined)
    pipeline(options.stdin, child.stdin, () => {}); // who reads no further than it likes closes it
  const stopPassing = options.keepsSignals === true ? () => {} : passSignals(runsc, child, options);
  const end = () => child.kill("SIGKILL"); // the sandbox dies with it
  options.abort?.addEventListener("abort", end);
  // Fired before it was listened to it says nothing more.
  if (options.abort?.aborted === true) end();
  let isLate = false;
  const starting = setTimeout(() => {
    isLate = requestsIn(countersPath) === 0;
    if (isLate) end();
  }, options.startMs ?? START_MS);
  const stopWatching = child.pid === undefined ? undefined : options.onStart?.(child.pid);
  try {
    const exitCode = await new Promise<number>((resolve, reject) => {
      child.once("error", reject);
      child.once("close", (code, signal) =>
        resolve(code ?? 128 + constants.signals[signal ?? "SIGKILL"]),
      );
    });
    if (output.failure !== undefined) {
      const place = options.stdout === undefined ? "stdout or stderr" : options.bundle;
      throw ioError("can't write what the command printed", place, output.failure);
    }
    const counters = readCounters(countersPath);
    const seconds = (performance.now() - startedMs) / 1000;
    return { exitCode, seconds, counters, goferLog: readFileSync(logPath, "utf8"), isLate };
  } finally {
    clearTimeout(starting);
    options.abort?.removeEventListener("abort", end);
    stopWatching?.();
    await runsc.delete(options.id);
    stopPassing();
  }
}

/** What the gofer has counted, at any time. */
function readCounters(path: string): Float64Array {
  const bytes = readFileSync(path);
  const counters = new Float64Array(COUNTER_COUNT);
  for (let i = 0; i < COUNTER_COUNT; i++) counters[i] = bytes.readDoubleLE(8 * i);
  return counters;
}

/** Requests that the sandbox has made of its gofer. */
function requestsIn(path: string): number {
  return readCounters(path)
    .subarray(0, Count.errors)
    .reduce((sum, count) => sum + count, 0);
}
