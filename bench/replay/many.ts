// many: 20 sandboxes that import numpy and pandas, and 100 that run `python3 -c pass`, of one environment at once: on a node with nothing of
// it (a store behind HTTP, 5 ms before each answer), again with all in the cache, and by stock runsc over the same files unpacked. All wait,
// once they are up, until memory has been read: wall time until the last is up, PSS of gofers and of all, and how often a page of the
// environment's files is in memory.
//
// Expected: each byte is fetched once, whoever asks. A page that many map counts once in the sum of their PSS (man proc_pid_smaps), so
// that sum, over what it is with one sandbox, is the number of copies: 1.0, as of a stock gofer over one directory. Needs root, runsc and the fixtures, as
// hot-start does, and some 60 MiB of memory a sandbox.

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { stopDaemon } from "../../lib/cache/client.ts";
import { NATIVE_DIRECTORY } from "../../lib/sys/native.ts";
import type { Bench } from "../run.ts";
import type { Sent } from "./origin.ts";
import { OriginProcess } from "./origin-process.ts";
import { median, type Setup, setUp } from "./setup.ts";

const CLI = fileURLToPath(new URL("../../burrow.cjs", import.meta.url));
const DELAY_MS = 5;
const PYTHON = "/opt/env/bin/python3";
const WAIT = "import sys;print('up',flush=True);sys.stdin.read()";
const LOADS = [
  { sandboxes: 20, quick: 2, what: "import numpy, pandas", program: `import numpy,pandas;${WAIT}` },
  { sandboxes: 100, quick: 4, what: "python -c pass", program: WAIT },
];

/** One way to start a sandbox: a program with its flags, and a bundle for each. */
interface Mode {
  readonly name: string;
  readonly program: string;
  readonly flags: readonly string[];
  /** A new one each time. */
  bundle(): string;
  /** Files whose pages are counted lie below it. */
  readonly files: string;
}

const GOFER = /^(runsc-gofer|[^\0]*\/node)\0/;

interface Memory {
  readonly rssMiB: number;
  readonly pssMiB: number;
}

/** Pids of a process and of all below it. */
function family(pid: number): number[] {
  const tasks = listed(`/proc/${pid}/task`);
  const children = tasks.flatMap((task) =>
    text(`/proc/${pid}/task/${task}/children`).split(" ").filter(Boolean),
  );
  return [pid, ...children.flatMap((child) => family(Number(child)))];
}

function listed(folder: string): string[] {
  try {
    return fs.readdirSync(folder);
  } catch {
    return []; // it ended meanwhile
  }
}

function text(path: string): string {
  try {
    return fs.readFileSync(path, "utf8");
  } catch {
    return "";
  }
}

/** MiB of all that a process maps. */
function memoryOf(pid: number): Memory {
  return summed(text(`/proc/${pid}/smaps_rollup`));
}

/** MiB of what it maps of some files. By inode: the paths are of the mount namespace that opened them. */
function filesOf(pid: number, inodes: ReadonlySet<string>): Memory {
  const mappings = text(`/proc/${pid}/smaps`).split(/^(?=[0-9a-f]+-[0-9a-f]+ )/m);
  const inodeOf = (mapping: string) => /^\S+ \S+ \S+ \S+ (\d+)/.exec(mapping)?.[1] ?? "0";
  return summed(mappings.filter((mapping) => inodes.has(inodeOf(mapping))).join(""));
}

function summed(smaps: string): Memory {
  const of = (field: string) =>
    [...smaps.matchAll(new RegExp(`^${field}:\\s+(\\d+) kB`, "gm"))].reduce(
      (sum, [, kib]) => sum + Number(kib) / 1024,
      0,
    );
  return { rssMiB: of("Rss"), pssMiB: of("Pss") };
}

function inodesBelow(folder: string): Set<string> {
  const names = fs.readdirSync(folder, { recursive: true, encoding: "utf8" });
  return new Set(
    names.map((name) => `${fs.lstatSync(join(folder, name), { throwIfNoEntry: false })?.ino}`),
  );
}

class Crowd {
  readonly #children: ChildProcess[] = [];
  /** Sandboxes that ended before they were up: what they say is on stderr. */
  failed = 0;

  /** Starts all at once; seconds until the last has said that it is up. */
  async start(setup: Setup, mode: Mode, count: number): Promise<number> {
    const bundles = Array.from({ length: count }, () => mode.bundle());
    const startedMs = performance.now();
    await Promise.all(
      bundles.map(async (bundle, i) => {
        const common = [`--root=${setup.work}/root`, "--network=none", "--ignore-cgroups"];
        const words = [
          ...common,
          ...mode.flags,
          "run",
          `--bundle=${bundle}`,
          `many-${process.pid}-${i}`,
        ];
        const child = spawn(mode.program, words, {
          env: setup.env,
          stdio: ["pipe", "pipe", "inherit"],
        });
        this.#children.push(child);
        const isUp = await Promise.race([once(child.stdout, "data"), once(child, "close")]);
        if (String(isUp[0]).trim() !== "up") this.failed++;
      }),
    );
    return (performance.now() - startedMs) / 1000;
  }

  /** What each sandbox's processes map: runsc, sentry and application, and its gofer, apart. */
  memory(files: string) {
    const inodes = inodesBelow(files);
    const each = this.#children.map((child) => {
      const pids = family(child.pid!);
      // The stub bears the name of what it replaced; its server is Node.js. The sentry has "gofer" among its flags only.
      const isGofer = pids.map((pid) => GOFER.test(text(`/proc/${pid}/cmdline`)));
      const sum = (of: readonly number[]) => of.map(memoryOf).reduce(add, NONE);
      const mapped = pids.map((pid) => filesOf(pid, inodes)).reduce(add, NONE);
      return {
        all: sum(pids).pssMiB,
        gofer: sum(pids.filter((_, i) => isGofer[i])).pssMiB,
        mapped,
      };
    });
    const mapped = each.map((one) => one.mapped).reduce(add, NONE);
    return {
      goferPssMiB: median(each.map(({ gofer }) => gofer)),
      sandboxPssMiB: median(each.map(({ all }) => all)),
      filesRssMiB: mapped.rssMiB,
      filesPssMiB: mapped.pssMiB,
    };
  }

  async end(): Promise<void> {
    for (const child of this.#children) child.stdin?.end();
    const late = setTimeout(() => {
      for (const child of this.#children) child.kill("SIGKILL");
    }, 120_000);
    await Promise.all(
      this.#children.map((child) =>
        child.exitCode === null && child.signalCode === null ? once(child, "exit") : undefined,
      ),
    );
    clearTimeout(late);
  }
}

const NONE: Memory = { rssMiB: 0, pssMiB: 0 };

function add(a: Memory, b: Memory): Memory {
  return { rssMiB: a.rssMiB + b.rssMiB, pssMiB: a.pssMiB + b.pssMiB };
}

/** Bytes of the same place of the same object that were sent more than once. */
function sentAgain(sent: readonly Sent[]): number {
  let bytes = 0;
  for (const path of new Set(sent.map((one) => one.path))) {
    const all = sent.filter((one) => one.path === path).sort((a, b) => a.first - b.first);
    let covered = 0;
    for (const { first, end } of all) {
      bytes += Math.max(0, Math.min(covered, end) - first);
      covered = Math.max(covered, end);
    }
  }
  return bytes;
}

/** Waits until nothing more is fetched in the background. */
async function quiet(origin: OriginProcess): Promise<void> {
  for (let before = -1; ; await sleep(2_000)) {
    const { requests } = await origin.facts();
    if (requests === before) return;
    before = requests;
  }
}

/** The command line in a process of its own. */
async function cli({ env }: Setup, ...words: readonly string[]): Promise<void> {
  const child = spawn(process.execPath, [CLI, ...words], {
    env,
    stdio: ["ignore", "ignore", "inherit"],
  });
  const [code] = (await once(child, "exit")) as [number | null];
  if (code !== 0) throw new Error(`burrow ${words.join(" ")}: exit ${code}`);
}

/** Bundles of ours for a program: the mounts of one, again and again, under names of their own. */
async function oursFor(setup: Setup, view: readonly string[], program: string): Promise<Mode> {
  const { work, env } = setup;
  const id = `m${Date.now()}`;
  const first = join(work, id);
  const start = ["--", PYTHON, "-c", program];
  await cli(setup, "bundle", "--quiet", ...view, "--user", "0", "--id", id, first, ...start);
  const config = fs.readFileSync(join(first, "config.json"), "utf8");
  const mounts = join(env["BURROW_STATE"]!, "mounts");
  let made = 0;
  return {
    name: "burrow",
    program: join(NATIVE_DIRECTORY, "burrow-runsc"),
    flags: [],
    files: env["BURROW_CACHE"]!,
    bundle: () => {
      const own = `${id}n${made++}`;
      for (const kind of ["", "-tmp"])
        fs.cpSync(join(mounts, id + kind), join(mounts, own + kind), { recursive: true });
      fs.mkdirSync(join(work, own), { recursive: true });
      const text = config.replaceAll(`mounts/${id}`, `mounts/${own}`);
      fs.writeFileSync(join(work, own, "config.json"), text);
      return join(work, own);
    },
  };
}

/** The same spec over the files unpacked. */
function stockOf(setup: Setup, ours: string): Mode {
  const spec = JSON.parse(fs.readFileSync(join(ours, "config.json"), "utf8")) as {
    root: { path: string };
    mounts: { destination: string; source: string }[];
  };
  spec.root.path = join(setup.fixtures, "check");
  let made = 0;
  return {
    name: "stock",
    program: setup.runsc,
    flags: setup.isOld ? [] : ["--directfs=false", "--overlay2=none"],
    files: spec.root.path,
    bundle: () => {
      const folder = join(setup.work, `stock-${process.pid}-${made++}`);
      const tmp = join(folder, "tmp");
      fs.mkdirSync(tmp, { recursive: true });
      for (const mount of spec.mounts) if (mount.destination === "/tmp") mount.source = tmp;
      fs.writeFileSync(join(folder, "config.json"), JSON.stringify(spec));
      return folder;
    },
  };
}

const round = (value: number) => Number(value.toFixed(2));

/** A crowd of so many, from its start to its end. */
async function measure(setup: Setup, origin: OriginProcess, mode: Mode, count: number) {
  await origin.begin(DELAY_MS);
  const crowd = new Crowd();
  try {
    const wallSeconds = await crowd.start(setup, mode, count);
    await sleep(1_000); // servers have done what follows their mounts
    const memory = crowd.memory(mode.files);
    const { requests, sent } = await origin.facts();
    const bytes = sent.reduce((sum, { first, end }) => sum + end - first, 0);
    return {
      sandboxes: count,
      failed: crowd.failed,
      wallSeconds: round(wallSeconds),
      goferPssMiB: round(memory.goferPssMiB),
      sandboxPssMiB: round(memory.sandboxPssMiB),
      filesRssMiB: round(memory.filesRssMiB),
      filesPssMiB: round(memory.filesPssMiB),
      requests,
      fetchedMB: round(bytes / 1e6),
      fetchedAgainMB: round(sentAgain(sent) / 1e6),
    };
  } finally {
    await crowd.end();
  }
}

export const bench: Bench = async (emit, { isQuick }) => {
  const setup = setUp();
  if (typeof setup === "string") return emit({ skipped: setup });
  const origin = await OriginProcess.start({ store: join(setup.work, "store") });
  try {
    const view = setup.importView();
    // A standby is a child of the daemon's: with servers that are their stubs' own, each sandbox's processes are one family.
    setup.env["BURROW_STANDBYS"] = "";
    setup.env["BURROW_STORE"] = `${origin.url}/store`;
    for (const { sandboxes, quick, what, program } of LOADS) {
      setup.startDaemon();
      await setup.standby();
      await cli(setup, "cache", "clear");
      const ours = await oursFor(setup, view, program);
      const stock = stockOf(setup, ours.bundle());
      const count = isQuick ? quick : sandboxes;
      const common = { case: what, runsc: setup.version };
      const cold = await measure(setup, origin, ours, count);
      emit({ ...common, mode: "burrow, cold", ...cold });
      await quiet(origin);
      for (const mode of [ours, stock]) {
        // What one sandbox maps of the files is what a copy is reckoned by.
        const one = await measure(setup, origin, mode, 1);
        const all = await measure(setup, origin, mode, count);
        const copies = round(all.filesPssMiB / one.filesPssMiB);
        emit({ ...common, mode: mode.name === "burrow" ? "burrow, hot" : "stock", ...all, copies });
      }
      await stopDaemon(setup.env["BURROW_CACHE"]!);
    }
  } finally {
    await stopDaemon(setup.env["BURROW_CACHE"]!);
    origin.close();
    setup.dispose();
  }
};
