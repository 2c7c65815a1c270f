// Bench: the one entry: `node dist/bench/run.js [--quick] [NAME…]` runs the benches named (all without a name) and prints
// JSON lines: one result each, with what it ran on. --quick: few rounds, to see that it works; its figures say nothing.

import { readFileSync } from "node:fs";
import { cpus, release } from "node:os";

/** One line of output: what was measured (case and its parameters) and figures, units last in the names. */
export type Result = Readonly<Record<string, string | number | boolean>>;

/** Runs a bench to its end and emits its results as they come. */
export type Bench = (emit: (result: Result) => void, options: BenchOptions) => Promise<void>;

export interface BenchOptions {
  readonly isQuick: boolean;
}

/** Every bench by name. Loaded when it is run: a broken one spoils nothing else. */
const BENCHES: Readonly<Record<string, () => Promise<{ bench: Bench }>>> = {
  wait: () => import("./micro/wait.ts"),
  worker: () => import("./micro/worker.ts"),
  touches: () => import("./micro/touches.ts"),
  dedup: () => import("./micro/dedup.ts"),
  merge: () => import("./micro/merge.ts"),
  fuse: () => import("./micro/fuse.ts"),
  mount: () => import("./micro/mount.ts"),
  "cli-start": () => import("./replay/cli-start.ts"),
  ingest: () => import("./micro/ingest.ts"),
  pread: () => import("./rpc/pread.ts"),
  ninep: () => import("./rpc/ninep.ts"),
  tmpfs: () => import("./rpc/tmpfs.ts"),
  demand: () => import("./rpc/demand.ts"),
  "big-cache": () => import("./replay/big-cache.ts"),
  "gofer-start": () => import("./replay/gofer-start.ts"),
  "gofer-memory": () => import("./replay/gofer-memory.ts"),
  "hot-start": () => import("./replay/hot-start.ts"),
  "sentry-memory": () => import("./replay/sentry-memory.ts"),
  "cold-start": () => import("./replay/cold-start.ts"),
  lazy: () => import("./replay/lazy.ts"),
  "origin-requests": () => import("./replay/origin-requests.ts"),
};

/** Machine, kernel and Node.js in one line: figures of different ones aren't compared. */
function machine(): string {
  const model = /^model name\s*: (.*)$/m.exec(readFileSync("/proc/cpuinfo", "utf8"))?.[1];
  const shown = `${cpus().length} x ${model ?? process.arch}`;
  return `${shown}, Linux ${release()}, Node.js ${process.versions.node}`;
}

async function main(): Promise<number> {
  const words = process.argv.slice(2);
  const isQuick = words.includes("--quick");
  const names = words.filter((word) => !word.startsWith("-"));
  const unknown = names.filter((name) => BENCHES[name] === undefined);
  if (unknown.length > 0 || words.some((word) => word.startsWith("-") && word !== "--quick")) {
    const known = Object.keys(BENCHES).join(", ");
    process.stderr.write(`usage: node dist/bench/run.js [--quick] [NAME…]\nbenches: ${known}\n`);
    return 2;
  }
  const on = machine();
  for (const name of names.length > 0 ? names : Object.keys(BENCHES)) {
    const { bench } = await BENCHES[name]!();
    await bench(
      (result) => process.stdout.write(`${JSON.stringify({ bench: name, ...result, on })}\n`),
      {
        isQuick,
      },
    );
  }
  return 0;
}

process.exitCode = await main();
