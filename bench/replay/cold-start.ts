// cold-start: `import numpy, pandas` (and sklearn, where fixtures/sklearn.sh has put it) in a sandbox on a node that has nothing of its
// environment yet, beside the same files unpacked on local disk (nothing in the page cache) and beside fetching everything, unpacking
// and running: by tar and a plain linker, and by what pixi installs with (fixtures/rattler.sh), from a lock and with a solve. The store
// and the channel are behind HTTP with so many ms before each answer.
// Burrow runs without a profile, and with one that an earlier start on another node has learned; both by its gofer and, where the revision
// has it, under directfs, as does the peer. Each run is a line of its own when it has ended (`round`); a bench that is cut off sums up what
// it has. --ms and --mbit are combined: each of the one with each of the other. A round of one link takes some 60 s.
//
// Expected: some 180 asks one after the other without a profile, so their round trips; with one some 40 ranges, four at a time. The page
// cache is dropped before each run but for the store and the channel, which stand for other machines, and the installers. Nothing is removed before the end
// (1 GB for each round and link): for a minute or more ext4 passes over inodes of removed files one by one when it makes new ones, which
// was a fifth of the CPU time of a daemon. Needs root, runsc and the fixtures, as hot-start does.

import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { daemonStatus, stopDaemon } from "../../lib/cache/client.ts";
import type { PrefetchFigures } from "../../lib/daemon/prefetched.ts";
import type { Bench, BenchOptions } from "../run.ts";
import { Origin } from "./origin.ts";
import { median, type Setup, setUp } from "./setup.ts";
import { INSTALLERS, rattlerOf, type Whole } from "./whole.ts";
import type { Workload } from "./workload.ts";

const CLI = fileURLToPath(new URL("../../burrow.cjs", import.meta.url));
const PYTHON = "/opt/env/bin/python3";
/** Of a workload's imports: the seconds they take, and when they began. */
const programOf = (imports: string) =>
  `import time;t=time.time();import ${imports};print(time.time()-t,t)`;
/** To the store and the channel: before each answer, and what the link carries at most (0: no limit). */
const LINKS: readonly Link[] = [
  { delayMs: 0, megabits: 0 },
  { delayMs: 5, megabits: 0 },
  { delayMs: 20, megabits: 0 },
  { delayMs: 5, megabits: 1000 },
  { delayMs: 20, megabits: 200 },
];
const QUICK_LINK: Link = { delayMs: 20, megabits: 0 };
const ROUNDS = 3;

interface Link {
  readonly delayMs: number;
  readonly megabits: number;
}

interface Sample {
  readonly importSeconds: number;
  /** From the command to the import's first line: of burrow run that and the sandbox's start, of "fetch, unpack, run" the first two. */
  readonly beforeSeconds: number;
  readonly runSeconds: number;
  readonly requests: number;
  readonly bytes: number;
  /** Of first reads those that found all here, and of the bytes brought ahead those that were used: shares. */
  readonly local?: number;
  readonly used?: number;
}

/** What is on this machine's disk isn't in memory; what stands for another machine's is. */
function dropCaches(keep: readonly string[]): void {
  execFileSync("sync");
  fs.writeFileSync("/proc/sys/vm/drop_caches", "3");
  for (const folder of keep)
    execFileSync("sh", ["-c", 'find "$1" -type f -exec cat {} + >/dev/null', "sh", folder]);
}

type Timed = Pick<Sample, "importSeconds" | "beforeSeconds" | "runSeconds">;

/** What a command took that prints what programOf says. */
async function timed(words: readonly string[], env: NodeJS.ProcessEnv): Promise<Timed> {
  const startedAt = Date.now() / 1000;
  const startedMs = performance.now();
  const child = spawn(words[0]!, words.slice(1), { env, stdio: ["ignore", "pipe", "inherit"] });
  let out = "";
  child.stdout.on("data", (bytes: Buffer) => {
    out += bytes.toString();
  });
  const [code] = (await once(child, "close")) as [number | null];
  if (code !== 0) throw new Error(`${words.join(" ")}: exit ${code}`);
  const seconds = (performance.now() - startedMs) / 1000;
  const [importSeconds = 0, beganAt = 0] = out.trim().split(" ").map(Number);
  return { importSeconds, beforeSeconds: beganAt - startedAt, runSeconds: seconds };
}

/** A bundle for the peers: the files at `root`, with stock runsc's own gofer. */
function peerBundle({ work }: Setup, root: string, program: string): string {
  const bundle = join(work, "peer");
  fs.rmSync(bundle, { recursive: true, force: true });
  fs.mkdirSync(bundle, { recursive: true });
  const spec = {
    ociVersion: "1.0.0",
    process: {
      user: { uid: 0, gid: 0 },
      cwd: "/",
      env: ["PATH=/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE=1"],
      args: [PYTHON, "-c", program],
    },
    root: { path: root, readonly: true },
    mounts: [{ destination: "/proc", type: "proc", source: "proc" }],
    linux: { namespaces: ["pid", "network", "ipc", "uts", "mount"].map((type) => ({ type })) },
  };
  fs.writeFileSync(join(bundle, "config.json"), JSON.stringify(spec));
  return bundle;
}

interface HowAhead {
  /** Whether it starts with what an earlier start on another node has learned. */
  readonly isProfiled: boolean;
  readonly profiles: "on" | "off";
  readonly foresight: "on" | "off";
  /** The sandbox works on its view itself. */
  readonly isDirect?: boolean;
}

const AHEAD = {
  "burrow, nothing ahead": { isProfiled: false, profiles: "off", foresight: "off" },
  burrow: { isProfiled: false, profiles: "on", foresight: "on" },
  "burrow, profile": { isProfiled: true, profiles: "on", foresight: "on" },
  "burrow, directfs": { isProfiled: false, profiles: "on", foresight: "on", isDirect: true },
  "burrow, directfs, profile": {
    isProfiled: true,
    profiles: "on",
    foresight: "on",
    isDirect: true,
  },
} as const satisfies Record<string, HowAhead>;
const MODES = [
  "local disk",
  "local disk, directfs",
  ...(Object.keys(AHEAD) as (keyof typeof AHEAD)[]),
  ...(Object.keys(INSTALLERS) as (keyof typeof INSTALLERS)[]),
] as const;
type Mode = (typeof MODES)[number];

class ColdStart {
  readonly #setup: Setup;
  readonly #origin: Origin;
  readonly #url: string;
  readonly #view: readonly string[];
  readonly #workload: Workload;
  readonly #program: string;
  #count = 0;
  #profiles = "";

  constructor(setup: Setup, origin: Origin, url: string) {
    this.#setup = setup;
    this.#origin = origin;
    this.#url = url;
    this.#view = setup.importWorkload();
    this.#workload = setup.workload;
    this.#program = programOf(this.#workload.imports);
  }

  /** Has a node learn a profile, which those after it are given. */
  async learn(): Promise<void> {
    await this.#burrow(AHEAD["burrow, profile"]);
    this.#profiles = join(this.#setup.work, `cache${this.#count - 1}`, "profiles");
  }

  async run(mode: Mode, { delayMs, megabits }: Link): Promise<Sample> {
    this.#origin.begin(delayMs, megabits * 1e6);
    const { store, fixtures } = this.#setup;
    const folders = this.#workload.wheels.slice(0, 1).map((path) => join(path, ".."));
    const installers = [join(fixtures, "rattler")].filter((folder) => fs.existsSync(folder));
    dropCaches([store, join(fixtures, "channel"), ...folders, ...installers]);
    const how = (AHEAD as Readonly<Record<string, HowAhead>>)[mode];
    const ran = how === undefined ? await this.#peer(mode) : await this.#burrow(how);
    const { sent } = this.#origin;
    const bytes = sent.reduce((sum, { first, end }) => sum + end - first, 0);
    return { ...ran, requests: this.#origin.requests, bytes };
  }

  /** Stock runsc over unpacked files, which may be fetched and unpacked first. */
  async #peer(mode: Mode): Promise<Timed> {
    const { work, runsc, isOld, env } = this.#setup;
    const install = (INSTALLERS as Readonly<Record<string, (whole: Whole) => Promise<void>>>)[mode];
    const local = { root: this.#workload.root, seconds: 0 };
    const { root, seconds } = install === undefined ? local : await this.#installed(install);
    const bundle = peerBundle(this.#setup, root, this.#program);
    const id = `cold-${process.pid}-${this.#count++}`;
    const flags = [`--root=${work}/root`, "--network=none", "--ignore-cgroups"];
    const isDirect = mode === "local disk, directfs";
    const own = isOld ? [] : [`--directfs=${isDirect}`, "--overlay2=none"];
    const ran = await timed([runsc, ...flags, ...own, "run", `--bundle=${bundle}`, id], env);
    const { beforeSeconds, runSeconds } = ran;
    return { ...ran, beforeSeconds: beforeSeconds + seconds, runSeconds: runSeconds + seconds };
  }

  /** A new root, and what it took to make it. */
  async #installed(install: (whole: Whole) => Promise<void>) {
    const [aside, root] = ["got", "unpacked"].map((name) => {
      const folder = join(this.#setup.work, `${name}${this.#count}`);
      fs.mkdirSync(folder);
      return folder;
    }) as [string, string];
    const { fixtures } = this.#setup;
    const { wheels } = this.#workload;
    const startedMs = performance.now();
    await install({ fixtures, url: this.#url, wheels, aside, root });
    return { root, seconds: (performance.now() - startedMs) / 1000 };
  }

  /** On a node with a daemon, and nothing in its cache but perhaps profiles. */
  async #burrow({
    isProfiled,
    profiles,
    foresight,
    isDirect = false,
  }: HowAhead): Promise<Omit<Sample, "requests" | "bytes">> {
    const { work } = this.#setup;
    const cache = join(work, `cache${this.#count++}`);
    const env = {
      ...this.#setup.env,
      BURROW_CACHE: cache,
      BURROW_STORE: `${this.#url}/store`,
      BURROW_PROFILES: profiles,
      BURROW_FORESIGHT: foresight,
    };
    const words = [CLI, "daemon", "start", "--idle", "0"];
    const daemon = spawn(process.execPath, words, { env, stdio: "ignore" });
    const exited = new Promise<void>((resolve) => daemon.once("exit", () => resolve()));
    const isOut = () => daemon.exitCode !== null || daemon.signalCode !== null;
    const status = async () => (await daemonStatus(cache).catch(() => undefined)) as Status;
    while (((await status())?.now.standbys ?? 0) === 0) {
      if (isOut()) throw new Error(`the daemon ended: ${daemon.signalCode ?? daemon.exitCode}`);
      await sleep(20);
    }
    if (isProfiled && this.#profiles !== "")
      fs.cpSync(this.#profiles, join(cache, "profiles"), { recursive: true });
    const start = [PYTHON, "-c", this.#program];
    const direct = isDirect ? ["--directfs"] : [];
    const run = ["run", "--quiet", ...this.#view, ...direct, "--user", "0", "--", ...start];
    try {
      const ran = await timed([process.execPath, CLI, ...run], env);
      // What a start leaves to be fetched is of it, too.
      while (!isOut() && (await status())?.now.isIdle === false) await sleep(50);
      return { ...ran, ...(isDirect ? {} : sharesOf(await status())) };
    } finally {
      while (isProfiled && !isDirect && !isOut() && isLearning(await status())) await sleep(50);
      await stopDaemon(cache);
      await exited;
    }
  }
}

type Status =
  | {
      readonly profiles: { readonly unsaved: number };
      readonly now: {
        readonly connections: number;
        readonly standbys: number;
        readonly isIdle: boolean;
      };
      readonly prefetch?: PrefetchFigures;
    }
  | undefined;

function isLearning(status: Status): boolean {
  return status !== undefined && (status.profiles.unsaved > 0 || status.now.connections > 1);
}

/** None of a daemon that isn't told what is used, as under directfs. */
function sharesOf(status: Status): Pick<Sample, "local" | "used"> {
  const {
    touches = 0,
    localTouches = 0,
    prefetchedBytes = 0,
    usedBytes = 0,
  } = status?.prefetch ?? {};
  return {
    ...(touches > 0 ? { local: localTouches / touches } : {}),
    ...(prefetchedBytes > 0 ? { used: usedBytes / prefetchedBytes } : {}),
  };
}

function linksOf({ isQuick, delaysMs, megabits }: BenchOptions): readonly Link[] {
  if (delaysMs === undefined && megabits === undefined) return isQuick ? [QUICK_LINK] : LINKS;
  return (megabits ?? [0]).flatMap((link) =>
    (delaysMs ?? [QUICK_LINK.delayMs]).map((delayMs) => ({ delayMs, megabits: link })),
  );
}

export const bench: Bench = async (emit, options) => {
  const setup = setUp({}, options.environment);
  if (typeof setup === "string") return emit({ skipped: setup });
  const { store, fixtures, version, isOld } = setup;
  const rattler = rattlerOf(fixtures);
  emit({ mode: "rattler", ...rattler });
  const modes = MODES.filter(
    (mode) =>
      !(isOld && mode.includes("directfs")) && !("skipped" in rattler && mode.includes("rattler")),
  );
  const folders = { store, channel: join(fixtures, "channel"), fixtures };
  const origin = new Origin(folders);
  const { isQuick, rounds = isQuick ? 1 : ROUNDS, signal, tell } = options;
  const links = linksOf(options);
  const samples = new Map<string, Sample[]>();
  try {
    const cold = new ColdStart(setup, origin, await origin.listen());
    await cold.learn();
    for (let round = 1; round <= rounds; round++)
      for (const link of links)
        for (const mode of modes) {
          if (signal.aborted) return;
          try {
            const sample = await cold.run(mode, link);
            const key = keyOf(link, mode);
            samples.set(key, [...(samples.get(key) ?? []), sample]);
            tell({ round, mode, ...link, ...shown(sample) });
          } catch (error) {
            // A signal is often for all processes of a job: then it is no run's failure.
            if (signal.aborted) return;
            // One run of many: the others stand.
            tell({ round, mode, ...link, failed: String(error) });
          }
        }
  } finally {
    for (const link of links) for (const mode of MODES) report(emit, samples, link, mode, version);
    origin.close();
    setup.dispose();
  }
};

function keyOf({ delayMs, megabits }: Link, mode: Mode): string {
  return `${delayMs} ${megabits} ${mode}`;
}

const rounded = (value: number) => Number(value.toFixed(3));

function shown({ importSeconds, beforeSeconds, runSeconds, requests, bytes, ...shares }: Sample) {
  return {
    importSeconds: rounded(importSeconds),
    beforeSeconds: rounded(beforeSeconds),
    runSeconds: rounded(runSeconds),
    requests,
    megabytes: rounded(bytes / 1e6),
    ...Object.fromEntries(Object.entries(shares).map(([name, share]) => [name, rounded(share)])),
  };
}

function report(
  emit: Parameters<Bench>[0],
  samples: ReadonlyMap<string, readonly Sample[]>,
  link: Link,
  mode: Mode,
  runsc: string,
): void {
  const each = samples.get(keyOf(link, mode));
  if (each === undefined) return;
  const of = (field: keyof Sample, some: readonly Sample[] = each) =>
    median(some.flatMap((sample) => sample[field] ?? []));
  const ratio = (name: string, field: keyof Sample, peer: Mode) => {
    const peers = samples.get(keyOf(link, peer));
    return peers === undefined ? {} : { [name]: rounded(of(field) / of(field, peers)) };
  };
  const seconds = each.map(({ importSeconds }) => importSeconds);
  emit({
    mode,
    ...link,
    runsc,
    runs: each.length,
    importMedianSeconds: rounded(of("importSeconds")),
    importMinSeconds: rounded(Math.min(...seconds)),
    importMaxSeconds: rounded(Math.max(...seconds)),
    ...ratio("importRatio", "importSeconds", "local disk"),
    beforeMedianSeconds: rounded(of("beforeSeconds")),
    runMedianSeconds: rounded(of("runSeconds")),
    ...ratio("runRatio", "runSeconds", "local disk"),
    /** Of the whole command, to fetching all, unpacking and running it. */
    ...ratio("toFetchAll", "runSeconds", "fetch, unpack, run"),
    ...ratio("toRattler", "runSeconds", "rattler install, run"),
    requests: of("requests"),
    megabytes: rounded(of("bytes") / 1e6),
    ...(each[0]?.local === undefined ? {} : { local: rounded(of("local")) }),
    ...(each[0]?.used === undefined ? {} : { used: rounded(of("used")) }),
  });
}
