// cold-start: `import numpy, pandas` (and sklearn, where fixtures/sklearn.sh has put it) in a sandbox on a node that has nothing of its
// environment yet, beside the same files unpacked on local disk (nothing in the page cache) and beside fetching everything, unpacking
// and running, which is what `conda install` and pip do. The store and the channel are behind HTTP with so many ms before each answer.
// Burrow runs without a profile, and with one that an earlier start on another node has learned.
//
// Expected: some 180 asks one after the other without a profile, so their round trips; with one some 40 ranges, four at a time. The page
// cache is dropped before each run but for the store and the channel, which stand for other machines. Needs root, runsc and the
// fixtures, as hot-start does.

import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import { join, relative } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { daemonStatus, stopDaemon } from "../../lib/cache/client.ts";
import { inParallel } from "../../lib/store/parallel.ts";
import type { Bench } from "../run.ts";
import { Origin } from "./origin.ts";
import { median, type Setup, setUp, type Workload, workloadOf } from "./setup.ts";

const CLI = fileURLToPath(new URL("../../burrow.cjs", import.meta.url));
const PYTHON = "/opt/env/bin/python3";
/** Of a workload's imports: the seconds they take. */
const programOf = (imports: string) =>
  `import time;t=time.time();import ${imports};print(time.time()-t)`;
/** To the store and the channel: before each answer, and what the link carries at most (0: no limit). */
const LINKS: readonly Link[] = [
  { delayMs: 0, megabits: 0 },
  { delayMs: 5, megabits: 0 },
  { delayMs: 20, megabits: 0 },
  { delayMs: 5, megabits: 1000 },
  { delayMs: 20, megabits: 200 },
];
const QUICK_LINK: Link = { delayMs: 20, megabits: 0 };
const ROUNDS = 5;
const FETCHES = 8;

interface Link {
  readonly delayMs: number;
  readonly megabits: number;
}

interface Sample {
  readonly importSeconds: number;
  readonly runSeconds: number;
  readonly requests: number;
  readonly bytes: number;
}

/** What is on this machine's disk isn't in memory; what stands for another machine's is. */
function dropCaches(keep: readonly string[]): void {
  execFileSync("sync");
  fs.writeFileSync("/proc/sys/vm/drop_caches", "3");
  for (const folder of keep)
    execFileSync("sh", ["-c", 'find "$1" -type f -exec cat {} + >/dev/null', "sh", folder]);
}

/** What a command prints, and how long it took. */
async function timed(
  words: readonly string[],
  env: NodeJS.ProcessEnv,
): Promise<{ out: string; seconds: number }> {
  const startedMs = performance.now();
  const child = spawn(words[0]!, words.slice(1), { env, stdio: ["ignore", "pipe", "inherit"] });
  let out = "";
  child.stdout.on("data", (bytes: Buffer) => {
    out += bytes.toString();
  });
  const [code] = (await once(child, "close")) as [number | null];
  if (code !== 0) throw new Error(`${words.join(" ")}: exit ${code}`);
  return { out, seconds: (performance.now() - startedMs) / 1000 };
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
}

const AHEAD = {
  "burrow, nothing ahead": { isProfiled: false, profiles: "off", foresight: "off" },
  burrow: { isProfiled: false, profiles: "on", foresight: "on" },
  "burrow, profile": { isProfiled: true, profiles: "on", foresight: "on" },
} as const satisfies Record<string, HowAhead>;
const MODES = [
  "local disk",
  ...(Object.keys(AHEAD) as (keyof typeof AHEAD)[]),
  "fetch, unpack, run",
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
    this.#workload = workloadOf(setup.fixtures);
    this.#program = programOf(this.#workload.imports);
  }

  /** Has a node learn a profile, which those after it are given. */
  async learn(): Promise<void> {
    const { cache } = await this.#burrow(AHEAD["burrow, profile"]);
    this.#profiles = join(cache, "profiles");
  }

  async run(mode: Mode, { delayMs, megabits }: Link): Promise<Sample> {
    const { work, fixtures, runsc } = this.#setup;
    this.#origin.begin(delayMs, megabits * 1e6);
    const keep = [join(work, "store"), join(fixtures, "channel")];
    let result: { out: string; seconds: number };
    if (mode in AHEAD) {
      dropCaches(keep);
      result = await this.#burrow(AHEAD[mode as keyof typeof AHEAD]);
    } else {
      const isFetched = mode === "fetch, unpack, run";
      dropCaches(keep);
      const fetched = isFetched
        ? await this.#fetchAll()
        : { root: this.#workload.root, seconds: 0 };
      const bundle = peerBundle(this.#setup, fetched.root, this.#program);
      const id = `cold-${process.pid}-${this.#count++}`;
      const flags = [`--root=${work}/root`, "--network=none", "--ignore-cgroups"];
      const own = this.#setup.isOld ? [] : ["--directfs=false", "--overlay2=none"];
      const ran = await timed(
        [runsc, ...flags, ...own, "run", `--bundle=${bundle}`, id],
        this.#setup.env,
      );
      result = { out: ran.out, seconds: ran.seconds + fetched.seconds };
      if (isFetched) fs.rmSync(fetched.root, { recursive: true, force: true });
    }
    const { sent } = this.#origin;
    const bytes = sent.reduce((sum, { first, end }) => sum + end - first, 0);
    const requests = this.#origin.requests;
    return { importSeconds: Number(result.out), runSeconds: result.seconds, requests, bytes };
  }

  /** On a node with a daemon, and nothing in its cache but perhaps profiles. */
  async #burrow({
    isProfiled,
    profiles,
    foresight,
  }: HowAhead): Promise<{ out: string; seconds: number; cache: string }> {
    const { work } = this.#setup;
    const cache = join(work, `cache${this.#count++}`);
    const env = {
      ...this.#setup.env,
      BURROW_CACHE: cache,
      BURROW_STORE: `${this.#url}/store`,
      BURROW_PROFILES: profiles,
      BURROW_FORESIGHT: foresight,
    };
    const daemon = spawn(process.execPath, [CLI, "daemon", "start", "--idle", "0"], {
      env,
      stdio: "ignore",
    });
    while (((await daemonStatus(cache).catch(() => undefined))?.now.standbys ?? 0) === 0)
      await sleep(20);
    if (isProfiled && this.#profiles !== "")
      fs.cpSync(this.#profiles, join(cache, "profiles"), { recursive: true });
    const words = [
      "run",
      "--quiet",
      ...this.#view,
      "--user",
      "0",
      "--",
      PYTHON,
      "-c",
      this.#program,
    ];
    try {
      return { ...(await timed([process.execPath, CLI, ...words], env)), cache };
    } finally {
      while (isProfiled && (await isLearning(cache))) await sleep(50);
      await stopDaemon(cache);
      if (daemon.exitCode === null) await once(daemon, "exit");
      if (this.#profiles !== "") fs.rmSync(cache, { recursive: true, force: true });
    }
  }

  /** The base and all packages, fetched side by side, and unpacked into a new root. */
  async #fetchAll(): Promise<{ root: string; seconds: number }> {
    const { work, fixtures } = this.#setup;
    const startedMs = performance.now();
    const got = join(work, "got");
    const root = join(work, "unpacked");
    fs.mkdirSync(join(got, "channel"), { recursive: true });
    fs.mkdirSync(root);
    const list = fs.readFileSync(join(fixtures, "channel/explicit.txt"), "utf8");
    const archives = [...list.matchAll(/[^/\s]+\/[^/\s]+\.(?:conda|tar\.bz2)(?=#|\s|$)/g)].map(
      ([path]) => path,
    );
    const wheels = this.#workload.wheels.map((path) => relative(fixtures, path));
    const all = ["base.tar", ...archives.map((path) => `channel/${path}`), ...wheels];
    await inParallel(all, FETCHES, async (path) => {
      const from = path.startsWith("channel/") ? path : `fixtures/${path}`;
      const response = await fetch(`${this.#url}/${from}`);
      if (!response.ok) throw new Error(`${from}: ${response.status}`);
      const file = join(got, path);
      fs.mkdirSync(join(file, ".."), { recursive: true });
      fs.writeFileSync(file, Buffer.from(await response.arrayBuffer()));
    });
    execFileSync("tar", ["-xf", join(got, "base.tar"), "-C", root]);
    const here = list.replaceAll(join(fixtures, "channel"), join(got, "channel"));
    fs.writeFileSync(join(got, "explicit.txt"), here);
    const link = fileURLToPath(new URL("../../../fixtures/link.py", import.meta.url));
    const words = ["-B", link, join(got, "explicit.txt"), root, "/opt/env", join(got, "pkgs")];
    execFileSync(join(fixtures, "venv/bin/python"), words, { stdio: "ignore" });
    if (wheels.length > 0) {
      const target = join(root, "opt/env/lib/python3.11/site-packages");
      const install = ["-q", "install", "--no-deps", "--no-index", "--target", target];
      const files = wheels.map((path) => join(got, path));
      execFileSync(join(fixtures, "venv/bin/pip"), [...install, ...files], { stdio: "ignore" });
    }
    fs.rmSync(got, { recursive: true, force: true });
    return { root, seconds: (performance.now() - startedMs) / 1000 };
  }
}

async function isLearning(cache: string): Promise<boolean> {
  const status = (await daemonStatus(cache)) as unknown as {
    profiles: { unsaved: number };
    now: { connections: number };
  };
  return status.profiles.unsaved > 0 || status.now.connections > 1;
}

export const bench: Bench = async (emit, { isQuick }) => {
  const setup = setUp();
  if (typeof setup === "string") return emit({ skipped: setup });
  const { work, fixtures } = setup;
  const origin = new Origin({
    store: join(work, "store"),
    channel: join(fixtures, "channel"),
    fixtures,
  });
  try {
    const cold = new ColdStart(setup, origin, await origin.listen());
    await cold.learn();
    const samples = new Map<string, Sample[]>();
    for (let round = 0; round < (isQuick ? 1 : ROUNDS); round++)
      for (const link of isQuick ? [QUICK_LINK] : LINKS)
        for (const mode of MODES) {
          const key = keyOf(link, mode);
          samples.set(key, [...(samples.get(key) ?? []), await cold.run(mode, link)]);
        }
    for (const link of isQuick ? [QUICK_LINK] : LINKS)
      for (const mode of MODES) report(emit, samples, link, mode, setup.version);
  } finally {
    origin.close();
    setup.dispose();
  }
};

function keyOf({ delayMs, megabits }: Link, mode: Mode): string {
  return `${delayMs} ${megabits} ${mode}`;
}

function report(
  emit: Parameters<Bench>[0],
  samples: ReadonlyMap<string, readonly Sample[]>,
  link: Link,
  mode: Mode,
  runsc: string,
): void {
  const each = samples.get(keyOf(link, mode))!;
  const local = samples.get(keyOf(link, "local disk"))!;
  const whole = samples.get(keyOf(link, "fetch, unpack, run"))!;
  const of = (field: keyof Sample, some = each) => median(some.map((sample) => sample[field]));
  const round = (value: number) => Number(value.toFixed(3));
  emit({
    mode,
    ...link,
    runsc,
    runs: each.length,
    importMedianSeconds: round(of("importSeconds")),
    importMinSeconds: round(Math.min(...each.map(({ importSeconds }) => importSeconds))),
    importMaxSeconds: round(Math.max(...each.map(({ importSeconds }) => importSeconds))),
    importRatio: round(of("importSeconds") / of("importSeconds", local)),
    runMedianSeconds: round(of("runSeconds")),
    runRatio: round(of("runSeconds") / of("runSeconds", local)),
    /** Of the whole command, to fetching all, unpacking and running it. */
    toFetchAll: round(of("runSeconds") / of("runSeconds", whole)),
    requests: of("requests"),
    megabytes: round(of("bytes") / 1e6),
  });
}
