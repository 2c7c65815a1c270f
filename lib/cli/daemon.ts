// burrow daemon start | stop | reload | status | metrics. Control plane.

import { resolve } from "node:path";
import type { Command } from "commander";
import { BurrowError } from "../base/error.ts";
import { SHARED_SANDBOXES_MAX } from "../base/limits.ts";
import {
  type DaemonStatus,
  daemonStatus,
  type PlaceStatus,
  reloadDaemon,
  stopDaemon,
} from "../cache/client.ts";
import { DAEMON_DEFAULTS, type DaemonConfig, daemonConfig } from "../daemon/config.ts";
import { exposition } from "../daemon/exposition.ts";
import { logToStderr } from "../daemon/log.ts";
import { parseMetricsAddress } from "../daemon/metrics-server.ts";
import { runDaemon } from "../daemon/supervisor.ts";
import { addCommonOptions, type Context, contextOf, makeFolders } from "./context.ts";
import { counted, print, showBytes, table } from "./output.ts";
import { parseSeconds, parseSize } from "./query.ts";
import { directRows, sharedRows } from "./sharing.ts";

interface StartOptions {
  idle: string;
  cacheBytes?: string;
  memoryBytes?: string;
  background: boolean;
  profiles: boolean;
  foresight: boolean;
  precedence: boolean;
  suspect?: boolean;
  standbys?: string;
  shared?: string | true;
  lazyMount?: boolean;
  metrics?: string;
  metricsNames?: boolean;
  origins?: string;
  json?: boolean;
}

const EXAMPLES = `
One daemon serves one cache directory. It is started by whoever needs it and ends when it is idle;
under a service manager use --idle 0. SIGTERM and SIGINT end it at once; sandboxes wait and ask the
next one. SIGHUP has it read --origins and credentials again. It logs JSON lines to stderr.

Example:
  burrow daemon start --cache /var/cache/burrow --idle 0`;

/** A few: each is a process of some 60 MiB. BURROW_USAGE. */
function parseStandbys(text: string | undefined): number {
  if (text === undefined) return DAEMON_DEFAULTS.standbys;
  if (/^\d{1,2}$/.test(text)) return Number(text);
  throw new BurrowError("BURROW_USAGE", `--standbys: "${text}" is no number from 0 to 99`);
}

/** Sandboxes of a shared server; 0: none is shared. As --cache-bytes, from the environment too. BURROW_USAGE. */
function parseShared(given: string | true | undefined): number {
  const variable = process.env["BURROW_SHARED_SANDBOXES"] || undefined;
  if (given === true) return SHARED_SANDBOXES_MAX;
  const text = given ?? variable ?? "0";
  if (/^\d{1,2}$/.test(text) && Number(text) <= SHARED_SANDBOXES_MAX) return Number(text);
  const option = given === undefined ? "BURROW_SHARED_SANDBOXES" : "--shared";
  const what = `${option}: "${text}" is no number from 0 to ${SHARED_SANDBOXES_MAX}`;
  throw new BurrowError("BURROW_USAGE", what);
}

/** The limit of the cache: as given, else the environment's, so that a daemon that a launch starts has it too. 0: none. BURROW_USAGE. */
function cacheLimit(given: string | undefined): number {
  const variable = process.env["BURROW_CACHE_BYTES"] || undefined;
  if (given !== undefined) return sizeOrNone(given, "--cache-bytes");
  return variable === undefined ? 0 : sizeOrNone(variable, "BURROW_CACHE_BYTES");
}

function sizeOrNone(text: string, option: string): number {
  return text === "0" ? 0 : parseSize(text, option);
}

function memoryLimit(given: string | undefined): number {
  return given === undefined ? DAEMON_DEFAULTS.memoryBytes : sizeOrNone(given, "--memory-bytes");
}

/** Options of a daemon that is asked for beside one that runs would not hold. BURROW_DAEMON. */
async function refuseSecond({ cache }: Context, command: Command): Promise<void> {
  const own = [
    "idle",
    "cacheBytes",
    "memoryBytes",
    "lazyMount",
    "metrics",
    "metricsNames",
    "origins",
    "background",
    "profiles",
    "foresight",
    "precedence",
    "standbys",
    "shared",
    "suspect",
  ];
  const given = own.filter((name) => command.getOptionValueSource(name) === "cli");
  const status = given.length === 0 ? undefined : await daemonStatus(cache).catch(() => undefined);
  if (status === undefined) return;
  const flags = command.options.filter((option) => given.includes(option.attributeName()));
  const what = `a daemon serves it already (pid ${status.pid}), for which ${flags.map(({ long }) => long).join(", ")} would not hold`;
  throw new BurrowError("BURROW_DAEMON", `${what}; burrow daemon stop ends it`, {
    context: { cache },
  });
}

export function addDaemon(program: Command): void {
  const daemon = program.command("daemon").description("the fetcher of this node");
  addCommonOptions(daemon.command("start"))
    .description("serve the cache in the foreground until idle or told to end")
    .option(
      "--idle <SECONDS>",
      "end after this long without work; 0: never",
      String(DAEMON_DEFAULTS.idleMs / 1000),
    )
    .option(
      "--cache-bytes <SIZE>",
      "what the cache may take of its disk ($BURROW_CACHE_BYTES; default: all but a twentieth)",
    )
    .option(
      "--memory-bytes <SIZE>",
      "what may be kept in memory while the disk is full or fails (default: 256M)",
    )
    .option("--no-background", "fetch only the blocks of large files that are asked for")
    .option("--no-profiles", "learn nothing of how sandboxes start, and use nothing learned")
    .option(
      "--no-foresight",
      "don't look at what a command imports, to fetch it ahead of its start",
    )
    .option("--no-precedence", "take no higher priority than the sandboxes that wait for it")
    .option("--standbys <N>", "servers to keep ready for the next sandboxes (default: 1, for root)")
    .option(
      "--shared [N]",
      `let up to N sandboxes of one tenant that ask for it share a server (default: ${SHARED_SANDBOXES_MAX}, the most)`,
    )
    .option(
      "--lazy-mount",
      "let sandboxes map large files while they are fetched (root, /dev/fuse)",
    )
    .option(
      "--metrics <ADDRESS>",
      "serve metrics over HTTP at unix:/PATH or tcp:127.0.0.1:PORT, path /metrics",
    )
    .option(
      "--metrics-names",
      "name origins and views over TCP, too: any user of this machine can ask there",
    )
    .option("--origins <FILE>", "where else origins lie, as JSON (default: $BURROW_ORIGINS)")
    .option("--suspect", "verify every cached file again before it is used")
    .addHelpText("after", EXAMPLES)
    .action(async (options: StartOptions, command: Command) => {
      const context = contextOf(options);
      if (options.metrics !== undefined) parseMetricsAddress(options.metrics);
      await refuseSecond(context, command);
      makeFolders(context.state);
      process.exitCode = await runDaemon(configOf(options, context), logToStderr);
    });
  addOthers(daemon);
}

/** What the daemon is told: by options, else by the environment, so that one that a launch starts has it too. BURROW_USAGE. */
function configOf(options: StartOptions, context: Context): DaemonConfig {
  return daemonConfig({
    cache: context.cache,
    state: context.state,
    idleMs: parseSeconds(options.idle, "--idle"),
    limitBytes: cacheLimit(options.cacheBytes),
    memoryBytes: memoryLimit(options.memoryBytes),
    background: options.background,
    profiles: options.profiles && process.env["BURROW_PROFILES"] !== "off",
    foresight: options.foresight && process.env["BURROW_FORESIGHT"] !== "off",
    precedence: options.precedence && process.env["BURROW_PRECEDENCE"] !== "off",
    suspect: options.suspect === true,
    standbys: parseStandbys(options.standbys),
    shared: parseShared(options.shared),
    lazyMount: options.lazyMount === true,
    metrics: options.metrics ?? "",
    metricsNames: options.metricsNames === true,
    origins: options.origins ? resolve(options.origins) : (process.env["BURROW_ORIGINS"] ?? ""),
  });
}

function addOthers(daemon: Command): void {
  addCommonOptions(daemon.command("stop"))
    .description("end the daemon of the cache, if one runs")
    .addHelpText("after", "\nExample:\n  burrow daemon stop --cache /var/cache/burrow")
    .action(async (options) => {
      const context = contextOf(options);
      const wasUp = await stopDaemon(context.cache);
      print(context.isJson, { stopped: wasUp }, wasUp ? "stopped" : "none runs");
    });
  addCommonOptions(daemon.command("reload"))
    .description("have the daemon of the cache read its file of origins and credentials again")
    .addHelpText(
      "after",
      `
Nothing that is open or on its way is lost. A file that can't be used is refused, and what was there
before holds.

Example:
  burrow daemon reload --cache /var/cache/burrow`,
    )
    .action(async (options) => {
      const context = contextOf(options);
      if (!(await reloadDaemon(context.cache))) throw noDaemon(context);
      print(context.isJson, { reloaded: true }, "reloaded");
    });
  addCommonOptions(daemon.command("status"))
    .description("what the daemon of the cache has done; exits 1 when none runs")
    .addHelpText("after", "\nExample:\n  burrow daemon status --json")
    .action(async (options) => {
      const context = contextOf(options);
      const status = await daemonStatus(context.cache);
      print(context.isJson, status ?? null, status === undefined ? "none runs" : show(status));
      if (status === undefined) process.exitCode = 1;
    });
  addCommonOptions(daemon.command("metrics"))
    .description("what the daemon of the cache has done, in the text format of Prometheus")
    .addHelpText(
      "after",
      "\nExample:\n  burrow daemon metrics > /var/lib/node_exporter/textfile/burrow.prom",
    )
    .action(async (options) => {
      const context = contextOf(options);
      if (context.isJson)
        throw new BurrowError(
          "BURROW_USAGE",
          "metrics are Prometheus' text: burrow daemon status --json has the figures as JSON",
        );
      await showMetrics(context);
    });
}

/** Prints what a collector of figures reads; nothing but that on stdout. */
async function showMetrics(context: Context): Promise<void> {
  const status = await daemonStatus(context.cache);
  if (status === undefined) throw noDaemon(context);
  process.stdout.write(exposition(status));
}

function noDaemon({ cache }: Context): BurrowError {
  return new BurrowError("BURROW_DAEMON", "no daemon runs", { context: { cache } });
}

/** A status for people; --json has every counter. */
function show(status: DaemonStatus): string {
  const { now, fetch, origins, lastFailure } = status;
  const state = now.isIdle ? "idle" : "fetching";
  const rows = [
    ["daemon", `pid ${status.pid}, up ${seconds(status.upMs)}, ${state}`],
    ["cache", status.cache],
    [
      "new",
      `${showBytes(fetch["blobBytes"] ?? 0)} in ${counted(fetch["blobs"] ?? 0, "file")} that it has put into the cache`,
    ],
    ["ready", counted(now.standbys, "standby server")],
    ...sharedRows(status.shared),
    ...directRows(status.direct),
    ["asks", `${fetch["asks"]}, ${fetch["failedAsks"]} of them failed`],
  ];
  for (const [origin, figures] of Object.entries(origins)) {
    rows.push(["fetched", `${showFetched(figures)} from ${origin}`]);
    // A daemon that was started before an upgrade knows of none.
    const { places = [] }: Partial<typeof figures> = figures;
    if (places.length > 1)
      for (const place of places) rows.push([`  ${stateOf(place)}`, showPlace(place)]);
  }
  if (lastFailure !== undefined)
    rows.push(["failed", `${seconds(Date.now() - lastFailure.atMs)} ago: ${lastFailure.error}`]);
  return table(rows);
}

function showFetched({ bytes, requests }: { bytes: number; requests: number }): string {
  return `${showBytes(bytes)} in ${counted(requests, "request")}`;
}

function stateOf({ state, restMs }: PlaceStatus): string {
  return restMs > 0 ? `${state} ${seconds(restMs)}` : state;
}

/** One of several places where an origin lies. */
function showPlace(place: PlaceStatus): string {
  const failures = place.transient + place.permanent + place.mismatches;
  const why = place.why === "" ? "" : `: ${place.why}`;
  const failed = failures === 0 ? "" : `, ${failures} failed${why}`;
  return `${showFetched(place)} from ${place.isTier ? "the tier " : ""}${place.name}${failed}`;
}

function seconds(ms: number): string {
  return `${Math.max(0, Math.round(ms / 1000))} s`;
}
