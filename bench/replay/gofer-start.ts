// gofer-start: from the exec of a gofer to the end of its mounts JSON, without a sandbox: our stub and server against stock
// runsc's own gofer, each in new namespaces and with the arguments and FDs that runsc would give, interleaved in one run.
//
// Expected cost: the stock gofer re-executes itself once (48 to 52 ms in all on the reference machine); ours is Node.js's start
// (30 ms) and one bundled file. What unshare itself takes is measured beside and in all figures alike. Needs root and runsc;
// fixtures as for hot-start.

import { type ChildProcess, execFileSync, spawn, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, openSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { NATIVE_DIRECTORY, native } from "../../lib/sys/native.ts";
import type { Bench } from "../run.ts";

const CLI = fileURLToPath(new URL("../../lib/cli/main.js", import.meta.url));
const GOFER = fileURLToPath(new URL("../../gofer.cjs", import.meta.url));
const RUNS = 20;
const SOCK_STREAM = 1;
const UNSHARE = ["--mount", "--pid", "--net", "--ipc", "--uts", "--fork"];

function socketPair(): [number, number] {
  const out = new Int32Array(2);
  if (native.socketPair(SOCK_STREAM, out) < 0) throw new Error("no socket pair");
  return [out[0]!, out[1]!];
}

/** Milliseconds until the gofer has written its mounts and closed them. */
async function startOnce(
  words: readonly string[],
  config: string,
  env: NodeJS.ProcessEnv,
): Promise<number> {
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
  let got = 0;
  for (let n = native.readFd(mounts, bytes); n > 0; n = native.readFd(mounts, bytes)) got += n;
  const tookMs = performance.now() - startedMs;
  native.closeFd(mounts);
  native.closeFd(io);
  await ended(child);
  if (got === 0) throw new Error(`${words[0]} wrote no mounts`);
  return tookMs;
}

/** A gofer ends when its connections do. */
function ended(child: ChildProcess): Promise<void> {
  return new Promise((resolve) => {
    if (child.exitCode !== null) resolve();
    child.once("exit", () => resolve());
  });
}

function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[values.length >> 1]!;
}

export const bench: Bench = async (emit, { isQuick }) => {
  const fixtures = process.env["BURROW_FIXTURES"];
  if (process.getuid?.() !== 0 || fixtures === undefined || !existsSync(join(fixtures, "root"))) {
    emit({ skipped: "needs root, and BURROW_FIXTURES=DIR after fixtures/base.sh DIR" });
    return;
  }
  const runsc = process.env["BURROW_RUNSC"] ?? "runsc";
  const flags = spawnSync(runsc, ["flags"], { encoding: "utf8" });
  const isOld = !`${flags.stdout}${flags.stderr}`.includes("directfs");
  const work = mkdtempSync(join(tmpdir(), "burrow-start-"));
  const { NODE_EXTRA_CA_CERTS: _, ...caller } = process.env;
  const env: NodeJS.ProcessEnv = {
    ...caller,
    BURROW_STATE: `${work}/state`,
    BURROW_CACHE: `${work}/cache`,
    BURROW_STORE: `${work}/store`,
    BURROW_NODE: process.execPath,
    BURROW_GOFER: GOFER,
  };
  try {
    const cli = (...args: string[]) =>
      execFileSync(process.execPath, [CLI, ...args], { env, encoding: "utf8" }).trim();
    const base = cli("layer", "import", "--quiet", "--snapshot", join(fixtures, "base.tar"));
    cli("bundle", "--base", base, "--id", "bench", join(work, "ours"), "true");
    const root = (path: string) =>
      JSON.stringify({
        ociVersion: "1.0.2",
        root: { path, readonly: true },
        mounts: [],
        process: { args: ["true"], cwd: "/" },
      });
    mkdirSync(join(work, "stock"));
    writeFileSync(join(work, "stock/config.json"), root(join(fixtures, "root")));
    writeFileSync(join(work, "ours/config.json"), root(`${work}/state/mounts/bench`));
    const confs = isOld ? [] : ["--gofer-mount-confs=lisafs:none"];
    const words = (program: string, bundle: string) => [
      "bash",
      "-c",
      `exec -a runsc-gofer "$@"`,
      "gofer",
      program,
      `--root=${work}/root`,
      "--network=none",
      "gofer",
      "--bundle",
      join(work, bundle),
      ...confs,
      "--spec-fd=3",
      "--mounts-fd=4",
      "--io-fds=5",
    ];
    const modes = [
      { mode: "stock", config: join(work, "stock/config.json"), words: words(runsc, "stock") },
      {
        mode: "burrow",
        config: join(work, "ours/config.json"),
        words: words(join(NATIVE_DIRECTORY, "burrow-stub"), "ours"),
      },
    ];
    const took = new Map<string, number[]>(modes.map(({ mode }) => [mode, []]));
    const bare: number[] = [];
    for (let round = 0; round <= (isQuick ? 2 : RUNS); round++) {
      for (const { mode, config, words: line } of modes) {
        const ms = await startOnce(line, config, env);
        if (round > 0) took.get(mode)!.push(ms);
      }
      const startedMs = performance.now();
      execFileSync("unshare", [...UNSHARE, "--", "bash", "-c", "exec true"]);
      bare.push(performance.now() - startedMs);
    }
    const version = execFileSync(runsc, ["--version"], { encoding: "utf8" })
      .split("\n")[0]!
      .replace("runsc version ", "");
    for (const [mode, all] of took) {
      const round = (value: number) => Number(value.toFixed(1));
      emit({
        mode,
        runsc: version,
        runs: all.length,
        medianMs: round(median(all)),
        minMs: round(Math.min(...all)),
        maxMs: round(Math.max(...all)),
        unshareMs: round(median(bare)),
        ratio: Number((median(all) / median(took.get("stock")!)).toFixed(3)),
      });
    }
  } finally {
    execFileSync(process.execPath, [CLI, "daemon", "stop"], { env, stdio: "ignore" });
    rmSync(work, { recursive: true, force: true });
  }
};
