// lazy: large files that are not on the node yet, by PRead and from the daemon's lazy mount: `import numpy, pandas` by a first and a
// second sandbox, read(2) of a stage file, and what 20 sandboxes take. The daemon completes nothing behind their backs
// (--no-background), so that both ways stay what they are. docs/design/0010-lazy-mount.md has the figures.
//
// Expected: a page that PRead brought is one sandbox's own, and read(2) asks for it each time; one from the mount is the kernel's, asked
// for once and shared. A first read costs the mount one more hop (the daemon answers the kernel, not the gofer). Needs root, /dev/fuse,
// runsc and the fixtures, as hot-start does.

import { type ChildProcess, spawn } from "node:child_process";
import { randomFillSync } from "node:crypto";
import { once } from "node:events";
import { closeSync, mkdirSync, openSync, readdirSync, readFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { daemonStatus, stopDaemon } from "../../lib/cache/client.ts";
import { sleep } from "../../test/suite/wait.ts";
import type { Bench } from "../run.ts";
import { median, type Setup, setUp } from "./setup.ts";

const CLI = fileURLToPath(new URL("../../burrow.cjs", import.meta.url));
const MIB = 1024 * 1024;
const PYTHON = "/opt/env/bin/python3";
const WAYS = { pread: [], lazy: ["--lazy-mount"] } as const;
type Way = keyof typeof WAYS;

const IMPORT = "import time;t=time.time();import numpy,pandas;print(time.time()-t)";
const STAY = "import numpy, pandas, sys; print(1, flush=True); sys.stdin.read()";
/** 4 KiB reads all over the file, then 1 MiB reads of its first quarter; both twice. Prints seconds of the four. */
const READS = `import os, random, time
f = os.open("/stage/big/file", os.O_RDONLY)
size = os.fstat(f).st_size
random.seed(5)
places = [random.randrange(size >> 12) << 12 for _ in range(1024)]
def timed(run):
    started = time.time(); run(); print(time.time() - started)
def small():
    for at in places: os.pread(f, 4096, at)
def large():
    for at in range(0, size >> 2, 1 << 20): os.pread(f, 1 << 20, at)
for run in (small, small, large, large): timed(run)`;

/** A node of its own: an empty cache and a daemon. */
class Node {
  readonly env: NodeJS.ProcessEnv;
  readonly #cache: string;

  private constructor(env: NodeJS.ProcessEnv, cache: string) {
    this.env = env;
    this.#cache = cache;
  }

  static async start({ env, work }: Setup, way: Way, name: string): Promise<Node> {
    const cache = join(work, name);
    const node = new Node({ ...env, BURROW_CACHE: cache }, cache);
    const flags = ["--idle", "0", "--standbys", "0", "--no-background", ...WAYS[way]];
    spawn(process.execPath, [CLI, "daemon", "start", ...flags], {
      env: node.env,
      stdio: "ignore",
      detached: true,
    }).unref();
    while ((await daemonStatus(cache).catch(() => undefined)) === undefined) await sleep(20);
    return node;
  }

  /** A sandbox that runs a program; `until` how much it has to print. */
  launch(flags: readonly string[], program: string): ChildProcess {
    return spawn(process.execPath, [CLI, "run", ...flags, "--", PYTHON, "-c", program], {
      env: this.env,
      stdio: ["pipe", "pipe", "inherit"],
    });
  }

  /** The numbers that a program prints. */
  async run(flags: readonly string[], program: string): Promise<number[]> {
    const child = this.launch(flags, program);
    const [out, [code]] = await Promise.all([text(child), once(child, "exit")]);
    if (code !== 0) throw new Error(`burrow run ended with ${code}`);
    return out.trim().split("\n").map(Number);
  }

  async fetchedMib(): Promise<number> {
    const status = await daemonStatus(this.#cache);
    const bytes = Object.values(status?.origins ?? {}).reduce((sum, one) => sum + one.bytes, 0);
    return Math.round(bytes / MIB);
  }

  async stop(): Promise<void> {
    await stopDaemon(this.#cache);
  }
}

async function text(child: ChildProcess): Promise<string> {
  let out = "";
  for await (const part of child.stdout!) out += String(part);
  return out;
}

function writeNoise(path: string, mebibytes: number): void {
  const fd = openSync(path, "wx");
  const part = Buffer.alloc(MIB);
  for (let i = 0; i < mebibytes; i++) writeSync(fd, randomFillSync(part));
  closeSync(fd);
}

/** Memory of processes and all that they started, each shared page counted by its share. man proc_pid_smaps_rollup(5). */
function proportionalMib(roots: readonly number[]): number {
  const children = new Map<number, number[]>();
  for (const name of readdirSync("/proc").filter((entry) => /^\d+$/.test(entry))) {
    try {
      const stat = readFileSync(`/proc/${name}/stat`, "latin1");
      const parent = Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[1]);
      children.set(parent, [...(children.get(parent) ?? []), Number(name)]);
    } catch {} // it ended meanwhile
  }
  let kib = 0;
  const pids = [...roots];
  for (const pid of pids) {
    pids.push(...(children.get(pid) ?? []));
    try {
      kib += Number(
        /^Pss:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/smaps_rollup`, "latin1"))?.[1] ?? 0,
      );
    } catch {}
  }
  return kib / 1024;
}

export const bench: Bench = async (emit, { isQuick }) => {
  const setup = setUp();
  if (typeof setup === "string") return emit({ skipped: setup });
  const { version: runsc, work } = setup;
  try {
    const view = setup.importView();
    const rounds = isQuick ? 1 : 6;
    const seconds: Record<Way, number[][]> = { pread: [], lazy: [] };
    const fetched: Record<Way, number[]> = { pread: [], lazy: [] };
    for (let round = 0; round < rounds; round++) {
      for (const way of Object.keys(WAYS) as Way[]) {
        const node = await Node.start(setup, way, `import-${way}-${round}`);
        const first = await node.run(view, IMPORT);
        fetched[way].push(await node.fetchedMib());
        seconds[way].push([first[0]!, (await node.run(view, IMPORT))[0]!]);
        await node.stop();
      }
    }
    for (const way of Object.keys(WAYS) as Way[]) {
      const of = (i: number) => Number(median(seconds[way].map((pair) => pair[i]!)).toFixed(3));
      const figures = {
        firstSeconds: of(0),
        secondSeconds: of(1),
        fetchedMib: median(fetched[way]),
      };
      emit({ case: "import numpy, pandas", way, runsc, rounds, ...figures });
    }
    mkdirSync(join(work, "big"));
    const fileMib = isQuick ? 64 : 2048;
    writeNoise(join(work, "big/file"), fileMib);
    for (const way of Object.keys(WAYS) as Way[]) {
      const node = await Node.start(setup, way, `reads-${way}`);
      const stage = ["--stage", `big=${join(work, "big")}`];
      const [small = 0, again = 0, large = 0, largeAgain = 0] = await node.run(
        [...view, ...stage],
        READS,
      );
      const mibPerSecond = (took: number) => Math.round(fileMib / 4 / took);
      emit({
        case: "a stage file",
        way,
        runsc,
        fileMib,
        firstSmallUs: Math.round((small / 1024) * 1e6),
        secondSmallUs: Math.round((again / 1024) * 1e6),
        firstLargeMibPerSecond: mibPerSecond(large),
        secondLargeMibPerSecond: mibPerSecond(largeAgain),
      });
      await node.stop();
    }
    const count = isQuick ? 2 : 20;
    for (const way of Object.keys(WAYS) as Way[]) {
      const node = await Node.start(setup, way, `memory-${way}`);
      const sandboxes: ChildProcess[] = [];
      for (let i = 0; i < count; i++) {
        const sandbox = node.launch(view, STAY);
        sandboxes.push(sandbox);
        await once(sandbox.stdout!, "data");
      }
      const mib = proportionalMib(sandboxes.map(({ pid }) => pid!));
      emit({ case: "memory", way, runsc, sandboxes: count, mibEach: Math.round(mib / count) });
      for (const sandbox of sandboxes) sandbox.stdin!.end();
      await Promise.all(sandboxes.map((sandbox) => once(sandbox, "exit")));
      await node.stop();
    }
  } finally {
    setup.dispose();
  }
};
