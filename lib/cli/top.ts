// burrow top: what the daemon of this node does, each second, in a terminal or as lines. The terminal is as it was however this ends.
// Control plane.

import { setTimeout as sleep } from "node:timers/promises";
import { type Command, Option } from "commander";
import { BurrowError } from "../base/error.ts";
import { daemonStatus } from "../cache/client.ts";
import { plainUrl } from "../ingest/conda/record.ts";
import { bar } from "./board.ts";
import { addCommonOptions, type Context, contextOf } from "./context.ts";
import { onInterrupt } from "./interrupt.ts";
import { showBytes, shown, table } from "./output.ts";
import { parseSeconds } from "./query.ts";
import { directRows, sharedRows } from "./sharing.ts";
import { type TopFigures, type TopOrigin, type TopStatus, topFigures } from "./top-figures.ts";

interface TopOptions {
  interval: string;
  once?: boolean;
  json?: boolean;
}

const HELP = `
Rates are of the time since the last look, sums since the daemon's start. On a terminal q or Ctrl-C
ends it; into a pipe it prints one block each time, with --json one line. WAITING: how many requests
of a view waited for bytes on average; LOCAL: of the files that it read, how many were on this node
by then. Origins and views are shown to root and the daemon's own user.

Examples:
  burrow top
  burrow top --once
  burrow top --json --interval 10 >> node.jsonl`;

/** The longest that Node.js waits in one go is 24 days. */
const INTERVAL_MAX_MS = 86_400_000;

export function addTop(program: Command): void {
  addCommonOptions(program.command("top"))
    .description("show what the daemon of the cache is doing")
    .addOption(new Option("--interval <SECONDS>", "time between looks").default("1"))
    .option("--once", "look once, over one interval, and end; exits 1 when no daemon runs")
    .addHelpText("after", HELP)
    .action(async (options: TopOptions) => {
      const context = contextOf(options);
      const intervalMs = parseSeconds(options.interval, "--interval");
      if (intervalMs < 100 || intervalMs > INTERVAL_MAX_MS)
        throw new BurrowError("BURROW_USAGE", "--interval: from 0.1 seconds to a day");
      if (options.once === true) await once(context, intervalMs);
      else if (process.stdout.isTTY === true && !context.isJson)
        await onScreen(context, intervalMs);
      else await asLines(context, intervalMs);
    });
}

/** Two looks at the daemon: what it did between them. Undefined when none runs. */
class Looks {
  readonly #cache: string;
  #last: { readonly status: TopStatus; readonly atMs: number } | undefined;

  constructor({ cache }: Context) {
    this.#cache = cache;
  }

  /** Undefined, too, when it is the first that finds a daemon. */
  async look(): Promise<TopFigures | undefined> {
    const before = this.#last;
    // One that is just ending answers nobody: it is as good as gone.
    const status = await daemonStatus(this.#cache).catch(() => undefined);
    const atMs = performance.now();
    this.#last = status === undefined ? undefined : { status: status as TopStatus, atMs };
    if (status === undefined || before === undefined) return undefined;
    return topFigures(before.status, status as TopStatus, (atMs - before.atMs) / 1_000);
  }

  get hasDaemon(): boolean {
    return this.#last !== undefined;
  }
}

async function once(context: Context, intervalMs: number): Promise<void> {
  const looks = new Looks(context);
  await looks.look();
  if (looks.hasDaemon) await sleep(intervalMs);
  const figures = looks.hasDaemon ? await looks.look() : undefined;
  if (figures === undefined)
    throw new BurrowError("BURROW_DAEMON", "no daemon runs", { context: { cache: context.cache } });
  write(context, figures);
}

function write(context: Context, figures: TopFigures): void {
  process.stdout.write(context.isJson ? `${JSON.stringify(figures)}\n` : `${show(figures)}\n\n`);
}

/** Until the reader goes away or a signal ends it. */
async function asLines(context: Context, intervalMs: number): Promise<void> {
  const looks = new Looks(context);
  for (let isSaid = false; ; await sleep(intervalMs)) {
    const figures = await looks.look();
    if (figures !== undefined) write(context, figures);
    if (looks.hasDaemon) isSaid = false;
    else if (!isSaid) {
      process.stderr.write(context.isJson ? '{"note":"no daemon runs"}\n' : "no daemon runs\n");
      isSaid = true;
    }
  }
}

/** xterm's: another screen and back, the cursor away and there, to the left upper corner, clear to the end of line and screen. */
const OTHER_SCREEN = "\x1b[?1049h\x1b[?25l";
const OWN_SCREEN = "\x1b[?25h\x1b[?1049l";
const HOME = "\x1b[H";
const CLEAR_LINE = "\x1b[K";
const CLEAR_BELOW = "\x1b[J";

async function onScreen(context: Context, intervalMs: number): Promise<void> {
  const ending = new AbortController();
  const restore = takeScreen(() => ending.abort());
  const looks = new Looks(context);
  try {
    while (!ending.signal.aborted) {
      const figures = await looks.look();
      const waits = looks.hasDaemon ? "the first look" : `no daemon serves ${context.cache}`;
      draw(figures === undefined ? waits : show(figures));
      // The second look comes soon: a screen without figures is of no use.
      const ms = figures === undefined && looks.hasDaemon ? Math.min(300, intervalMs) : intervalMs;
      await sleep(ms, undefined, { signal: ending.signal }).catch(() => undefined);
    }
  } finally {
    restore();
  }
}

/** Takes the terminal, until the returned function is called, a signal comes or the process ends by whatever. */
function takeScreen(end: () => void): () => void {
  const { stdin, stdout } = process;
  const onKeys = (keys: Buffer) => {
    if (keys.includes("q") || keys.includes("\x03")) end();
  };
  let isTaken = true;
  const restore = () => {
    if (!isTaken) return;
    isTaken = false;
    process.off("exit", restore);
    stopListening();
    stdin.off("data", onKeys);
    if (stdin.isTTY) stdin.setRawMode(false);
    stdin.pause();
    stdout.write(OWN_SCREEN);
  };
  const stopListening = onInterrupt(restore);
  process.on("exit", restore);
  if (stdin.isTTY) {
    stdin.setRawMode(true);
    stdin.on("data", onKeys);
  }
  stdout.write(OTHER_SCREEN);
  return restore;
}

function draw(text: string): void {
  const { columns, rows } = process.stdout;
  const lines = text.split("\n").slice(0, Math.max(1, (rows || 24) - 1));
  // A line that wraps would be two.
  const cut = lines.map(
    (line) => `${line.slice(0, Math.max(1, (columns || 80) - 1))}${CLEAR_LINE}`,
  );
  process.stdout.write(`${HOME}${cut.join("\r\n")}${CLEAR_BELOW}`);
}

/** For people. */
function show(of: TopFigures): string {
  const limit = of.cacheLimitBytes;
  const cache = limit === 0 ? "" : ` of ${showBytes(limit)} ${bar(of.cacheUsedBytes, limit)}`;
  const memory = of.memoryTierBytes === 0 ? "" : `, ${showBytes(of.memoryTierBytes)} in memory`;
  const lazy =
    of.lazyReadsPerSecond === 0 ? "" : `, lazy reads ${perSecond(of.lazyReadsPerSecond)}`;
  const waste = `${showBytes(of.prefetchedBytes)}, ${share(of.prefetchUsedShare)} of it used`;
  const head = table([
    [
      "daemon",
      `pid ${of.pid}, up ${showSeconds(of.upMs)}, ${of.isIdle ? "idle" : "fetching"}, ${of.connections} connected, ${of.standbys} ready`,
    ],
    [
      "itself",
      `${share(of.cpuShare)} of a CPU, ${showBytes(of.residentBytes)}, late by ${of.loopDelayMs.toFixed(0)} ms at p99`,
    ],
    ...sharedRows(of.shared),
    ...directRows(of.direct),
    ["cache", `${showBytes(of.cacheUsedBytes)}${cache}${memory}`],
    ["fetching", `${rateOf(of.bytesPerSecond)} in ${perSecond(of.requestsPerSecond)}`],
    [
      "asks",
      `${perSecond(of.asksPerSecond)}, hits on disk ${perSecond(of.diskHitsPerSecond)}${lazy}; ${of.asks} in all, ${of.failedAsks} failed`,
    ],
    [
      "reads",
      `${perSecond(of.firstReadsPerSecond)} first ones; ${share(of.localShare)} of all were here`,
    ],
    ["ahead", waste],
  ]);
  return `${head}\n\n${table(originRows(of.origins))}\n\n${table(viewRows(of))}`;
}

function originRows(origins: readonly TopOrigin[]): string[][] {
  const head = ["ORIGIN", "BYTES", "REQUESTS", "DEMAND", "BACKGROUND", "SUM", "FAILED"];
  const rows = origins.map((each) => [
    shown(plainUrl(each.name)),
    rateOf(each.bytesPerSecond),
    perSecond(each.requestsPerSecond),
    `${each.demand}+${each.demandQueued}`,
    `${each.background}+${each.backgroundQueued}`,
    `${showBytes(each.bytes)} in ${each.requests}`,
    `${each.failures}`,
  ]);
  return [head, ...rows];
}

function viewRows({ views }: TopFigures): string[][] {
  const head = ["VIEW", "ASKS", "WAITING", "FETCHED", "WAITED", "LOCAL", "FAILED"];
  const rows = views.map((each) => [
    shown(each.name),
    perSecond(each.asksPerSecond),
    each.waiting.toFixed(1),
    showBytes(each.fetchedBytes),
    showSeconds(each.blockedMs),
    share(each.localShare),
    `${each.failedAsks}`,
  ]);
  return [head, ...rows];
}

const perSecond = (rate: number) => `${rate < 10 ? rate.toFixed(1) : rate.toFixed(0)}/s`;
const rateOf = (bytes: number) => `${showBytes(Math.round(bytes))}/s`;
const share = (of: number | null) => (of === null ? "-" : `${Math.round(100 * of)}%`);
const showSeconds = (ms: number) => `${(ms / 1_000).toFixed(ms < 100_000 ? 1 : 0)} s`;
