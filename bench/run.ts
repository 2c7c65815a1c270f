// Bench: the one entry: `npm run --silent bench -- [--quick] [NAME…]` runs the benches named (all without a name) and prints JSON lines to
// stdout: one result each, with what it ran on; after each bench its results as a table to stderr. --list: what there is, and which
// yardsticks each measures. --quick: few rounds, to see that it works; its figures say nothing.

import { readFileSync } from "node:fs";
import { cpus, loadavg, release } from "node:os";
import { table } from "../lib/cli/output.ts";
import { BENCHES } from "./list.ts";

/** One line of output: what was measured (case and its parameters) and figures, units last in the names. */
export type Result = Readonly<Record<string, string | number | boolean>>;

/** Runs a bench to its end and emits its results as they come. */
export type Bench = (emit: (result: Result) => void, options: BenchOptions) => Promise<void>;

export interface BenchOptions {
  readonly isQuick: boolean;
}

const USAGE = "usage: npm run --silent bench -- [--list] [--quick] [NAME…]";

/** Machine, kernel and Node.js in one line: figures of different ones aren't compared. */
function machine(): string {
  const model = /^model name\s*: (.*)$/m.exec(readFileSync("/proc/cpuinfo", "utf8"))?.[1];
  const shown = `${cpus().length} x ${model ?? process.arch}`;
  return `${shown}, Linux ${release()}, Node.js ${process.versions.node}`;
}

function list(): string {
  const rows = Object.entries(BENCHES).map(([name, { what, yardsticks }]) => [
    name,
    what,
    yardsticks.join("; "),
  ]);
  return table([["BENCH", "WHAT", "YARDSTICKS"], ...rows]);
}

/** Results as a table: a column for each field that one of them has, in the order of first use. */
function rendered(results: readonly Result[]): string {
  const fields = [...new Set(results.flatMap((result) => Object.keys(result)))];
  const cell = (value: Result[string] | undefined) => (value === undefined ? "" : String(value));
  return table([fields, ...results.map((result) => fields.map((field) => cell(result[field])))]);
}

async function main(): Promise<number> {
  const words = process.argv.slice(2);
  const options = words.filter((word) => word.startsWith("-"));
  const names = words.filter((word) => !word.startsWith("-"));
  const unknown = names.filter((name) => !Object.hasOwn(BENCHES, name));
  if (unknown.length > 0 || options.some((word) => !["--quick", "--list"].includes(word))) {
    const what = unknown.length > 0 ? `no bench is called ${unknown.join(", ")}\n` : "";
    process.stderr.write(`${what}${USAGE}\nbenches: ${Object.keys(BENCHES).join(", ")}\n`);
    return 2;
  }
  if (options.includes("--list")) {
    process.stdout.write(`${list()}\n`);
    return 0;
  }
  const on = machine();
  for (const name of names.length > 0 ? names : Object.keys(BENCHES)) {
    const { bench } = await BENCHES[name]!.load();
    const results: Result[] = [];
    const load = loadavg()[0]!.toFixed(1);
    const emit = (result: Result) => {
      results.push(result);
      process.stdout.write(`${JSON.stringify({ bench: name, ...result, on, load })}\n`);
    };
    await bench(emit, { isQuick: options.includes("--quick") });
    process.stderr.write(`\n${name}, ${on}, load ${load}\n${rendered(results)}\n`);
  }
  return 0;
}

process.exitCode = await main();
