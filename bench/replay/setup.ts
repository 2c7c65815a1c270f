// What the benches with a runsc share: a throw-away state, cache and store, the command line over them, and facts of the peer.

import { execFileSync, spawn, spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { daemonStatus } from "../../lib/cache/client.ts";
import { readServers, type ServerList } from "../../lib/gofer/server-list.ts";
import { type Workload, workloadOf } from "./workload.ts";

const CLI = fileURLToPath(new URL("../../burrow.cjs", import.meta.url));

export interface Setup {
  readonly fixtures: string;
  readonly runsc: string;
  readonly version: string;
  /** A revision without directfs and mount confs: 2022. */
  readonly isOld: boolean;
  readonly work: string;
  readonly workload: Workload;
  /** Of all that is imported. */
  readonly store: string;
  readonly env: NodeJS.ProcessEnv;
  cli(...args: string[]): string;
  /** The digest of a snapshot of the fixtures' base root. */
  importBase(): string;
  /** The flags of a view of that base and of the fixtures' environment. */
  importView(): string[];
  /** The same with the workload's wheels, and byte code of them as pip would make it. */
  importWorkload(): string[];
  /** Starts the daemon of the cache, for as long as the bench runs. */
  startDaemon(): void;
  /** Waits until a server stands by: then nothing else of ours is at work. */
  standby(): Promise<void>;
  /** The servers that sandboxes share. */
  servers(): ServerList;
  dispose(): void;
}

/** For benches of shared servers: daemons keep a broker. */
export const SHARING = { BURROW_SHARED_SANDBOXES: "30" };

/** Why it can't run, or what it runs with: root, and $BURROW_FIXTURES = DIR after fixtures/check.sh DIR. */
export function setUp(
  settings: Readonly<Record<string, string>> = {},
  environment?: string,
): Setup | string {
  const fixtures = process.env["BURROW_FIXTURES"];
  if (process.getuid?.() !== 0 || fixtures === undefined || !existsSync(join(fixtures, "check"))) {
    return "needs root, and BURROW_FIXTURES=DIR after fixtures/check.sh DIR";
  }
  const runsc = process.env["BURROW_RUNSC"] ?? "runsc";
  const flags = spawnSync(runsc, ["flags"], { encoding: "utf8" });
  const version = execFileSync(runsc, ["--version"], { encoding: "utf8" });
  const workload = workloadOf(fixtures, environment);
  const work = mkdtempSync(join(tmpdir(), "burrow-bench-"));
  const { store = join(work, "store") } = workload;
  // Settings of the caller's Node.js are not what is measured; the stub drops them too.
  const { NODE_EXTRA_CA_CERTS: _, ...caller } = process.env;
  const env: NodeJS.ProcessEnv = {
    ...caller,
    BURROW_STATE: `${work}/state`,
    BURROW_CACHE: `${work}/cache`,
    BURROW_STORE: store,
    ...settings,
  };
  const cli = (...args: string[]) =>
    execFileSync(process.execPath, [CLI, ...args], { env, encoding: "utf8" }).trim();
  const importBase = () =>
    cli("layer", "import", "--quiet", "--snapshot", join(fixtures, "base.tar"));
  return {
    fixtures,
    runsc,
    version: version.split("\n")[0]!.replace("runsc version ", ""),
    isOld: !`${flags.stdout}${flags.stderr}`.includes("directfs"),
    work,
    workload,
    store,
    env,
    cli,
    importBase,
    importView: () => {
      const environment = cli("env", "create", "--quiet", join(fixtures, "channel/explicit.txt"));
      return ["--base", importBase(), "--env", environment];
    },
    importWorkload: () => {
      const { wheels } = workload;
      const base = importBase();
      const lock = join(fixtures, "channel/explicit.txt");
      const environment = cli("env", "create", "--quiet", lock, ...wheels);
      if (wheels.length === 0) return ["--base", base, "--env", environment];
      const words = ["--quiet", "--base", base, "--no-scripts", environment];
      return ["--base", base, "--env", cli("env", "compile", ...words)];
    },
    startDaemon: () => {
      const words = [CLI, "daemon", "start", "--idle", "0"];
      spawn(process.execPath, words, { env, stdio: "ignore", detached: true }).unref();
    },
    standby: async () => {
      for (;;) {
        const status = await daemonStatus(`${work}/cache`);
        if ((status?.now.standbys ?? 0) > 0) return;
        await sleep(50);
      }
    },
    servers: () => readServers(`${work}/cache`),
    dispose: () => {
      cli("daemon", "stop");
      rmSync(work, { recursive: true, force: true });
    },
  };
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}
