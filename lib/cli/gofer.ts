// burrow gofer ls | upgrade: the servers of the sandboxes that run on this node. Control plane.

import type { Command } from "commander";
import { BurrowError } from "../base/error.ts";
import { readServers } from "../gofer/server-list.ts";
import { addCommonOptions, type Context, contextOf } from "./context.ts";
import { counted, ExitCode, Progress, print, report, table } from "./output.ts";
import { findStubs, type Outcome, type Stub, upgradeStub } from "./stubs.ts";

/** A server starts in some 50 ms; it has a loaded machine's time, and the 5 s that the stub gives the old one to leave. */
const PATIENCE_MS = 60_000;

interface Upgrade {
  readonly pid: number;
  readonly bundle: string;
  /** left: not asked, since one before it failed. */
  readonly outcome: Outcome | "left";
}

const LS_HELP = `
One line a sandbox: the pid of its stub (what runsc started as its gofer), how many servers it has
had, who serves it now, its bundle. "?" stands for a stub of an older build, which doesn't say.
Served by "own" it has a server to itself; else by the pid of one that it shares with other
sandboxes of a tenant, whose name follows.

Example:
  burrow gofer ls --json`;

const UPGRADE_HELP = `
Each sandbox goes on, with what it has open: the program that is installed now gets ready beside its
server and takes over between two requests. A server that hangs is replaced likewise, after 5 s. One
sandbox after the other; after one whose new server fails to start, the others are left as they are,
and so is that one. Exits 1 then.

Examples:
  burrow gofer upgrade 4711
  burrow gofer upgrade`;

export function addGofer(program: Command): void {
  const gofer = program.command("gofer").description("the servers of sandboxes that run here");
  addCommonOptions(gofer.command("ls"))
    .description("list the sandboxes of this state by their gofers")
    .addHelpText("after", LS_HELP)
    .action((options) => {
      const context = contextOf(options);
      const servers = readServers(context.cache);
      const stubs = findStubs(context.state).map(({ pid, served, bundle }) => {
        const server = servers.find((each) => each.stubs.includes(pid));
        const shared = server === undefined ? null : { pid: server.pid, tenant: server.tenant };
        return { pid, served: served ?? null, shared, bundle };
      });
      const rows = stubs.map(({ pid, served, shared, bundle }) => {
        const by = shared === null ? "own" : `${shared.pid} ${shared.tenant}`;
        return [`${pid}`, `${served ?? "?"}`, by, bundle];
      });
      const text = table([["PID", "SERVERS", "SERVED BY", "BUNDLE"], ...rows]);
      print(context.isJson, stubs, rows.length === 0 ? "none runs" : text);
    });
  addCommonOptions(gofer.command("upgrade [pid...]"))
    .description("have the installed program take over in running sandboxes (default: in all)")
    .addHelpText("after", UPGRADE_HELP)
    .action(async (pids: string[], options) => {
      const context = contextOf(options);
      const upgrades = await upgradeAll(chosen(context, pids), context);
      const count = (outcome: Upgrade["outcome"]) =>
        upgrades.filter((each) => each.outcome === outcome).length;
      const said = (["upgraded", "ended", "failed", "left"] as const)
        .filter((outcome) => count(outcome) > 0)
        .map((outcome) => `${count(outcome)} ${outcome}`);
      print(context.isJson, upgrades, said.length === 0 ? "none runs" : said.join(", "));
      if (count("failed") > 0) process.exitCode = ExitCode.failed;
    });
}

/** All stubs of this state, or those of the pids. BURROW_USAGE for words that are no pid, BURROW_NOT_FOUND. */
function chosen({ state }: Context, pids: readonly string[]): Stub[] {
  const odd = pids.find((pid) => !/^\d{1,10}$/.test(pid));
  if (odd !== undefined) throw new BurrowError("BURROW_USAGE", `${odd} is no pid: burrow gofer ls`);
  const stubs = findStubs(state);
  if (pids.length === 0) return stubs;
  return [...new Set(pids)].map((pid) => {
    const stub = stubs.find((each) => each.pid === Number(pid));
    if (stub !== undefined) return stub;
    const what = `pid ${pid} is no gofer of a sandbox with this --state: burrow gofer ls`;
    throw new BurrowError("BURROW_NOT_FOUND", what, { context: { state } });
  });
}

/** One after the other, to the first that fails: a program that can't serve one sandbox is not tried on all. */
async function upgradeAll(stubs: readonly Stub[], context: Context): Promise<Upgrade[]> {
  const progress = new Progress(false, context.isJson);
  const upgrades: Upgrade[] = [];
  let hasFailed = false;
  for (const [i, stub] of stubs.entries()) {
    const { pid, bundle } = stub;
    progress.update(`${i} of ${counted(stubs.length, "sandbox", "sandboxes")}`);
    const outcome = hasFailed ? "left" : await upgradeStub(stub, PATIENCE_MS);
    upgrades.push({ pid, bundle, outcome });
    if (outcome !== "failed") continue;
    hasFailed = true;
    progress.end();
    report(failureOf(stub), context.isJson);
  }
  progress.end();
  return upgrades;
}

function failureOf({ pid, served, bundle }: Stub): BurrowError {
  const context = { pid, bundle };
  const old = "its stub is of an older build and knows no upgrade; the sandbox must be run anew";
  const refused = `the new server did not start, and the one of before serves on; the log of the gofer says why`;
  return new BurrowError("BURROW_START", served === undefined ? old : refused, { context });
}
