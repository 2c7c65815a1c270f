// burrow store gc: removes from a store what nothing refers to, beside any number of writers. Control plane.

import type { Command } from "commander";
import { BurrowError } from "../base/error.ts";
import { type Collected, type CollectOptions, collect, KEEP_MS, plan } from "../store/gc.ts";
import { addListedOptions, asOrigin, type Context, contextOf } from "./context.ts";
import { listedStore } from "./digests.ts";
import { counted, ExitCode, Progress, print, showBytes } from "./output.ts";
import { orderIn } from "./pack-order.ts";
import { surveyPorts } from "./store-roots.ts";

const HELP = `
Kept are environments with their layers, as long as "burrow env ls" has them; every other snapshot,
which may be a base; layers that were imported by hand; what is pinned; what a mount of this node
uses; and what is younger than --keep-within. Everything else goes: layers of packages that no
environment has, leftovers of commands that were killed. With --all bases and layers stay only if
they are pinned, in use, or named by an environment.

Other commands may write to the store meanwhile, from here and from elsewhere. What they may rely on
stays until they have ended and a later gc finds that they did not use it. Packs that are mostly
garbage are written anew; the old ones go when --keep-within is over. Ages are by the store's clock.
Exits 1 when an object can't be read or removed; the others are collected all the same.

Examples:
  burrow store gc --dry-run
  burrow store gc s3://bucket/store --keep-within 7d`;

interface GcOptions {
  dryRun?: boolean;
  keepWithin?: string;
  all?: boolean;
  repack: boolean;
  quiet?: boolean;
  store?: string;
}

export function addStoreGc(store: Command): void {
  addListedOptions(store.command("gc"))
    .description("remove what nothing refers to; exits 1 when an object can't be read or removed")
    .argument("[store]", "the store, as --store takes it")
    .option("--dry-run", "say what would be done, and write nothing")
    .option("--keep-within <DURATION>", "keep what is younger: 12h, 7d, …", "24h")
    .option("--all", "remove bases and imported layers too that nothing names or pins")
    .option("--no-repack", "leave packs as they are that are mostly garbage")
    .option("--quiet", "no progress")
    .addHelpText("after", HELP)
    .action(async (origin: string | undefined, options: GcOptions) => {
      const given = contextOf(options);
      const context = origin === undefined ? given : { ...given, store: asOrigin(origin) };
      await gc(context, options);
    });
}

async function gc(context: Context, options: GcOptions): Promise<void> {
  const keepMs =
    options.keepWithin === undefined ? KEEP_MS : parseDuration(options.keepWithin, "--keep-within");
  const progress = new Progress(options.quiet === true, context.isJson);
  const store = await listedStore(context);
  const ports = surveyPorts(context);
  const how: CollectOptions = {
    keepMs,
    isAll: options.all === true,
    isRepacking: options.repack,
    orderOf: (digests) => orderIn(store, digests),
    onProgress: (text) => progress.update(text),
  };
  progress.begin(`collecting ${context.store}`);
  const isDry = options.dryRun === true;
  const done = isDry ? await plan(store, ports, how, Date.now()) : await collect(store, ports, how);
  progress.end();
  print(context.isJson, { dryRun: isDry, ...done }, textOf(done, isDry));
  if (done.faults.length > 0) process.exitCode = ExitCode.failed;
}

const UNITS_MS = { s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000, w: 604_800_000 };

/** A duration in ms: "90s", "12h", "7d". BURROW_USAGE. */
function parseDuration(text: string, option: string): number {
  const match = /^(\d{1,9})([smhdw])$/.exec(text);
  if (match === null && text !== "0") {
    const what = `"${text}" is no duration: say 0, or a number and s, m, h, d or w`;
    throw new BurrowError("BURROW_USAGE", `${option}: ${what}`);
  }
  return match === null ? 0 : Number(match[1]) * UNITS_MS[match[2] as keyof typeof UNITS_MS];
}

function textOf(
  { kept, freed, later, repacked, writers, faults }: Collected,
  isDry: boolean,
): string {
  const show = ({ objects, bytes }: Collected["kept"]) =>
    `${counted(objects, "object")}, ${showBytes(bytes)}`;
  const lines = [`kept ${show(kept)}`, `${isDry ? "would free" : "freed"} ${show(freed)}`];
  if (later.objects > 0) lines.push(`to be freed later ${show(later)}`);
  if (repacked.packs > 0) {
    const [from, to] = [showBytes(repacked.oldBytes), showBytes(repacked.newBytes)];
    const most = isDry ? "at most " : "";
    lines.push(
      `${isDry ? "would repack" : "repacked"} ${counted(repacked.packs, "pack")}, ${from} to ${most}${to}`,
    );
  }
  if (writers.length > 0) {
    const who = `${counted(writers.length, "writer")} at work (${[...new Set(writers)].join(", ")})`;
    lines.push(`${who}: what they may rely on stays until they have ended`);
  }
  for (const { what, why } of faults) lines.push(`${what}: ${why}`);
  return lines.join("\n");
}
