// gofer-start: from the exec of a gofer to the end of its mounts JSON, without a sandbox: our stub and server against stock
// runsc's own gofer, each in new namespaces and with the arguments and FDs that runsc would give, interleaved in one run.
//
// Expected cost: the stock gofer re-executes itself once (48 to 52 ms in all on the reference machine); ours is Node.js's start
// (30 ms) and one bundled file, or a few messages with a standby that waits for it, or with a server that serves others of the tenant
// already. What unshare itself takes is measured beside and in all figures alike. Needs root and runsc; fixtures as for hot-start.

import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { mkdirSync, openSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { NATIVE_DIRECTORY, native } from "../../lib/sys/native.ts";
import { until } from "../../test/suite/wait.ts";
import type { Bench } from "../run.ts";
import { median, type Setup, SHARING, setUp } from "./setup.ts";

const GOFER = fileURLToPath(new URL("../../gofer.cjs", import.meta.url));
const RUNS = 20;
/** Until the daemon has a broker, too. */
const BROKER_MS = 2_000;
const SOCK_STREAM = 1;
const UNSHARE = ["--mount", "--pid", "--net", "--ipc", "--uts", "--fork"];

function socketPair(): [number, number] {
  const out = new Int32Array(2);
  if (native.socketPair(SOCK_STREAM, out) < 0) throw new Error("no socket pair");
  return [out[0]!, out[1]!];
}

/** A gofer that has written its mounts; it ends when its connections do. */
export interface StartedGofer {
  readonly child: ChildProcess;
  readonly tookMs: number;
  /** The sandbox's end of its connection. */
  readonly io: number;
  end(): Promise<void>;
}

/** Starts a gofer and waits, blocking, until it has written its mounts and closed them. */
export function startGofer(
  words: readonly string[],
  config: string,
  env: NodeJS.ProcessEnv,
): StartedGofer {
  const spec = openSync(config, "r");
  const [mounts, mountsChild] = socketPair();
  const [io, ioChild] = socketPair();
  const startedMs = performance.now();
  const child = spawn("unshare", [...UNSHARE, "--", ...words], {
    stdio: ["ignore", "ignore", "ignore", spec, mountsChild, ioChild],
    env,
  });
  for (const fd of [spec, mountsChild, ioChild]) native.closeFd(fd);
  const bytes = Buffer.alloc(64 * 1024);
  // unshare keeps a copy of the pipe while it waits for its child, so the array's end stands for the end of file.
  let got = 0;
  for (let n = 1; n > 0 && !bytes.toString("latin1", 0, got).trimEnd().endsWith("]"); got += n) {
    n = Math.max(0, native.readFd(mounts, bytes.subarray(got)));
  }
  const tookMs = performance.now() - startedMs;
  native.closeFd(mounts);
  const end = () => {
    native.closeFd(io);
    return ended(child);
  };
  if (got === 0) throw new Error(`${words[0]} wrote no mounts`);
  return { child, tookMs, io, end };
}

/** A gofer ends when its connections do. */
function ended(child: ChildProcess): Promise<void> {
  return new Promise((resolve) => {
    if (child.exitCode !== null) resolve();
    child.once("exit", () => resolve());
  });
}

/** Our mounts come from a view, the peer's from the same files unpacked: a config.json for each. */
function writeConfigs({ cli, importBase, fixtures, work }: Setup): { ours: string; stock: string } {
  const base = importBase();
  cli("bundle", "--base", base, "--id", "bench", join(work, "ours"), "true");
  mkdirSync(join(work, "stock"));
  const write = (bundle: string, root: string): string => {
    const spec = {
      ociVersion: "1.0.2",
      root: { path: root, readonly: true },
      mounts: [],
      process: { args: ["true"], cwd: "/" },
    };
    const path = join(work, bundle, "config.json");
    writeFileSync(path, JSON.stringify(spec));
    return path;
  };
  return {
    ours: write("ours", `${work}/state/mounts/bench`),
    stock: write("stock", join(fixtures, "root")),
  };
}

/** The command line that runsc would exec, with argv[0] as it would be: of a gofer that serves, where the sandbox could do without. */
function goferWords(program: string, config: string, { isOld, work }: Setup): string[] {
  const confs = isOld ? [] : ["--gofer-mount-confs=lisafs:none"];
  const serves = isOld ? [] : ["--directfs=false"];
  const flags = [`--root=${work}/root`, "--network=none", ...serves];
  const tail = ["gofer", "--bundle", dirname(config)];
  const fds = ["--spec-fd=3", "--mounts-fd=4", "--io-fds=5"];
  return [
    "bash",
    "-c",
    'exec -a runsc-gofer "$@"',
    "gofer",
    program,
    ...flags,
    ...tail,
    ...confs,
    ...fds,
  ];
}

export interface GoferMode {
  readonly mode: string;
  readonly config: string;
  readonly words: readonly string[];
  readonly env: NodeJS.ProcessEnv;
}

/** The mode in which sandboxes have one server. */
export const SHARED = "burrow, shared";

/** Each way to have a gofer: stock, a standby's, a child's, one that others have too. */
export function goferModes(setup: Setup): GoferMode[] {
  const env = { ...setup.env, BURROW_NODE: process.execPath, BURROW_GOFER: GOFER };
  const standby = { ...env, BURROW_STANDBYS: `${setup.work}/cache/standby` };
  const { ours, stock } = writeConfigs(setup);
  const stub = join(NATIVE_DIRECTORY, "burrow-stub");
  return [
    { mode: "stock", config: stock, words: goferWords(setup.runsc, stock, setup), env },
    { mode: "burrow, standby", config: ours, words: goferWords(stub, ours, setup), env: standby },
    { mode: "burrow, child", config: ours, words: goferWords(stub, ours, setup), env },
    {
      mode: SHARED,
      config: ours,
      words: goferWords(stub, ours, setup),
      env: { ...standby, BURROW_SHARED: "1", BURROW_TENANT: "bench" },
    },
  ];
}

export const bench: Bench = async (emit, { isQuick }) => {
  const setup = setUp(SHARING);
  if (typeof setup === "string") return emit({ skipped: setup });
  try {
    const modes = goferModes(setup);
    setup.startDaemon();
    const took = new Map<string, number[]>(modes.map(({ mode }) => [mode, []]));
    const bare: number[] = [];
    await sleep(BROKER_MS);
    for (let round = 0; round <= (isQuick ? 2 : RUNS); round++) {
      for (const { mode, config, words, env } of modes) {
        await setup.standby();
        const gofer = startGofer(words, config, env);
        // The broker says it a moment after the server has begun.
        const isShared = () => setup.servers().some(({ stubs }) => stubs.length === 1);
        if (round > 0 && mode === SHARED && !(await until(isShared))) throw new Error("not shared");
        await gofer.end();
        if (round > 0) took.get(mode)!.push(gofer.tookMs);
      }
      const startedMs = performance.now();
      execFileSync("unshare", [...UNSHARE, "--", "bash", "-c", "exec true"]);
      bare.push(performance.now() - startedMs);
    }
    const round = (value: number) => Number(value.toFixed(1));
    for (const [mode, all] of took) {
      emit({
        mode,
        runsc: setup.version,
        runs: all.length,
        medianMs: round(median(all)),
        minMs: round(Math.min(...all)),
        maxMs: round(Math.max(...all)),
        unshareMs: round(median(bare)),
        ratio: Number((median(all) / median(took.get("stock")!)).toFixed(3)),
      });
    }
  } finally {
    setup.dispose();
  }
};
