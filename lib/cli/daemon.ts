// burrow daemon start | stop | status. Control plane.

import type { Command } from "commander";
import { BurrowError } from "../base/error.ts";
import { type DaemonStatus, daemonStatus, stopDaemon } from "../cache/client.ts";
import { DAEMON_DEFAULTS, daemonConfig } from "../daemon/config.ts";
import { logToStderr } from "../daemon/log.ts";
import { runDaemon } from "../daemon/supervisor.ts";
import { addCommonOptions, type Context, contextOf, makeFolders } from "./context.ts";
import { counted, print, showBytes, table } from "./output.ts";
import { parseSeconds, parseSize } from "./query.ts";

interface StartOptions {
  idle: string;
  limit?: string;
  background: boolean;
  suspect?: boolean;
  standbys?: string;
  lazyMount?: boolean;
  json?: boolean;
}

const EXAMPLES = `
One daemon serves one cache directory. It is started by whoever needs it and ends when it is idle; under a service
manager use --idle 0. SIGTERM and SIGINT end it at once; sandboxes wait and ask the next one. It logs JSON lines to stderr.

Example:
  burrow daemon start --cache /var/cache/burrow --idle 0`;

/** A few: each is a process of some 60 MiB. BURROW_USAGE. */
function parseStandbys(text: string | undefined): number {
  if (text === undefined) return DAEMON_DEFAULTS.standbys;
  if (/^\d{1,2}$/.test(text)) return Number(text);
  throw new BurrowError("BURROW_USAGE", `--standbys: "${text}" is no number from 0 to 99`);
}

/** Options of a daemon that is asked for beside one that runs would not hold. BURROW_DAEMON. */
async function refuseSecond({ cache }: Context, command: Command): Promise<void> {
  const own = ["idle", "limit", "background", "standbys", "suspect"];
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
    .option("--limit <SIZE>", "evict the oldest files past this size (default: no limit)")
    .option("--no-background", "fetch only the blocks of large files that are asked for")
    .option("--standbys <N>", "servers to keep ready for the next sandboxes (default: 1, for root)")
    .option(
      "--lazy-mount",
      "let sandboxes map large files while they are fetched (root, /dev/fuse)",
    )
    .option("--suspect", "verify every cached file again before it is used")
    .addHelpText("after", EXAMPLES)
    .action(async (options: StartOptions, command: Command) => {
      const context = contextOf(options);
      await refuseSecond(context, command);
      makeFolders(context.state);
      const config = daemonConfig({
        cache: context.cache,
        state: context.state,
        idleMs: parseSeconds(options.idle, "--idle"),
        limitBytes: options.limit === undefined ? 0 : parseSize(options.limit, "--limit"),
        background: options.background,
        suspect: options.suspect === true,
        standbys: parseStandbys(options.standbys),
        lazyMount: options.lazyMount === true,
      });
      process.exitCode = await runDaemon(config, logToStderr);
    });
  addCommonOptions(daemon.command("stop"))
    .description("end the daemon of the cache, if one runs")
    .addHelpText("after", "\nExample:\n  burrow daemon stop --cache /var/cache/burrow")
    .action(async (options) => {
      const context = contextOf(options);
      const wasUp = await stopDaemon(context.cache);
      print(context.isJson, { stopped: wasUp }, wasUp ? "stopped" : "none runs");
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
    ["asks", `${fetch["asks"]}, ${fetch["failedAsks"]} of them failed`],
  ];
  for (const [origin, { requests, bytes }] of Object.entries(origins))
    rows.push(["fetched", `${showBytes(bytes)} in ${counted(requests, "request")} from ${origin}`]);
  if (lastFailure !== undefined)
    rows.push(["failed", `${seconds(Date.now() - lastFailure.atMs)} ago: ${lastFailure.error}`]);
  return table(rows);
}

function seconds(ms: number): string {
  return `${Math.max(0, Math.round(ms / 1000))} s`;
}
