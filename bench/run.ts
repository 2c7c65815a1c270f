// Bench: the one entry: `npm run --silent bench -- [--quick] [NAME…]` runs the benches named (all without a name) and prints JSON lines to
// stdout: one result each, with what it ran on; after each bench its results as a table to stderr. --list: what there is, and which
// yardsticks each measures. --quick: few rounds, to see that it works; its figures say nothing. --rounds N; --ms and --mbit: links of
// benches that have some; --environment: of those that start one. Ended by a signal it has the bench say what it has by then, and clean up; by a second one, or after 30 s, it ends at once.

import { readFileSync } from "node:fs";
import { constants, cpus, loadavg, release } from "node:os";
import { parseArgs } from "node:util";
import { table } from "../lib/cli/output.ts";
import { BENCHES } from "./list.ts";
import { ENVIRONMENTS } from "./replay/workload.ts";

/** One line of output: what was measured (case and its parameters) and figures, units last in the names. */
export type Result = Readonly<Record<string, string | number | boolean>>;

/** Runs a bench to its end and emits its results as they come. */
export type Bench = (emit: (result: Result) => void, options: BenchOptions) => Promise<void>;

export interface BenchOptions {
  readonly isQuick: boolean;
  /** How often each case is run; undefined: as the bench has it. */
  readonly rounds?: number | undefined;
  /** Before each answer of an origin, ms, and what its link carries, Mbit/s (0: no limit): of benches that have links. */
  readonly delaysMs?: readonly number[] | undefined;
  readonly megabits?: readonly number[] | undefined;
  /** Which environment starts are of, and what they import of it (replay/workload.ts); undefined: the small one. */
  readonly environment?: string | undefined;
  /** A part of what will be a result: a line of its own on stdout, at once, and in no table. */
  tell(part: Result): void;
  /** Fires when it is to end: what it has by then is to be emitted. */
  readonly signal: AbortSignal;
}

const USAGE = `usage: npm run --silent bench -- [--list] [--quick] [--rounds N] [--ms 0,5,20] [--mbit 0,200,1000]
  [--environment ${ENVIRONMENTS.join("|")}] [NAME…]
--ms and --mbit are for cold-start; --rounds and --environment for that, hot-start and warm-start
benches: ${Object.keys(BENCHES).join(", ")}`;
/** Who was told to end has so long for it. */
const GRACE_MS = 30_000;
const SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

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

interface Asked {
  readonly names: readonly string[];
  readonly isListed: boolean;
  readonly isHelp: boolean;
  readonly options: Omit<BenchOptions, "tell" | "signal">;
}

/** Throws of words that it doesn't understand. */
function asked(words: readonly string[]): Asked {
  const text = { type: "string" } as const;
  const flag = { type: "boolean", default: false } as const;
  const links = { ms: text, mbit: text };
  const lists = { list: flag, help: flag };
  const known = { ...lists, quick: flag, rounds: text, ...links, environment: text };
  const { values, positionals } = parseArgs({
    args: [...words],
    options: known,
    allowPositionals: true,
  });
  const [rounds] = numbers(values.rounds) ?? [];
  const delaysMs = numbers(values.ms);
  const megabits = numbers(values.mbit);
  const { quick: isQuick, environment, list: isListed, help: isHelp } = values;
  if (environment !== undefined && !ENVIRONMENTS.includes(environment))
    throw new RangeError(`no environment is called ${environment}`);
  const unknown = positionals.filter((name) => !Object.hasOwn(BENCHES, name));
  if (unknown.length > 0) throw new RangeError(`no bench is called ${unknown.join(", ")}`);
  const options = { isQuick, rounds, delaysMs, megabits, environment };
  return { names: positionals, isListed, isHelp, options };
}

/** Of a list with commas; throws where it is none. */
function numbers(list: string | undefined): number[] | undefined {
  const all = list?.split(",").map((each) => (each === "" ? Number.NaN : Number(each)));
  if (all?.some((each) => !(each >= 0))) throw new RangeError(`${list}: no numbers`);
  return all;
}

async function main(): Promise<number> {
  let wanted: Asked;
  try {
    wanted = asked(process.argv.slice(2));
  } catch (error) {
    // Node.js goes on with advice about words that begin with a hyphen.
    const [what] = (error as Error).message.split(". ");
    process.stderr.write(`bench: ${what}\n${USAGE}\n`);
    return 2;
  }
  if (wanted.isHelp) {
    process.stdout.write(`${USAGE}\n`);
    return 0;
  }
  if (wanted.isListed) {
    process.stdout.write(`${list()}\n`);
    return 0;
  }
  const ending = new AbortController();
  let exitCode = 0;
  for (const name of SIGNALS)
    process.on(name, () => {
      exitCode = 128 + constants.signals[name];
      if (ending.signal.aborted) process.exit(exitCode);
      process.stderr.write(`bench: ${name}: ends with what it has; once more ends it at once\n`);
      ending.abort();
      // Most benches have nothing to tell before their end.
      setTimeout(() => process.exit(exitCode), GRACE_MS).unref();
    });
  for (const name of wanted.names.length > 0 ? wanted.names : Object.keys(BENCHES)) {
    if (!ending.signal.aborted) await run(name, { ...wanted.options, signal: ending.signal });
  }
  return exitCode;
}

async function run(name: string, options: Omit<BenchOptions, "tell">): Promise<void> {
  const on = machine();
  const { bench } = await BENCHES[name]!.load();
  const results: Result[] = [];
  const load = loadavg()[0]!.toFixed(1);
  const tell = (part: Result) =>
    process.stdout.write(`${JSON.stringify({ bench: name, ...part, on, load })}\n`);
  const emit = (result: Result) => {
    results.push(result);
    tell(result);
  };
  await bench(emit, { ...options, tell });
  process.stderr.write(`\n${name}, ${on}, load ${load}\n${rendered(results)}\n`);
}

// What nobody settles any more ends a process without a word but an exit code.
process.once("beforeExit", () => {
  if (process.exitCode !== undefined) return;
  process.stderr.write("bench: nothing is left that it could wait for, and it has not ended\n");
  process.exitCode = 1;
});
process.exitCode = await main();
