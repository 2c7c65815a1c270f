// burrow store check: store verify, and whether all that is referred to is there, and what nothing refers to. Reads only. Control plane.

import type { Command } from "commander";
import { plan } from "../store/gc.ts";
import { addListedOptions, type Context, contextOf } from "./context.ts";
import { listedStore } from "./digests.ts";
import { counted, ExitCode, Progress, type ProgressLine, print, showBytes } from "./output.ts";
import { type Fault, showFault } from "./store-faults.ts";
import { surveyPorts } from "./store-roots.ts";
import { verifyStore } from "./store-verify.ts";

const HELP = `
Nothing is changed. What is wrong is named with its reason: what is referred to and missing, what
can't be read, what is not what its name says. What nothing refers to is no fault: commands at work
have written it, or "burrow store gc" will remove it.

Examples:
  burrow store check --store /srv/store
  burrow store check --no-content --json`;

export function addStoreCheck(store: Command): void {
  addListedOptions(store.command("check"))
    .description("read all of a store: is it there, right, and referred to? exits 1 when it is not")
    .option("--no-content", "look at what refers to what and at lengths alone, and read no packs")
    .addHelpText("after", HELP)
    .action(async (options: { content: boolean; store?: string }) => {
      const context = contextOf(options);
      const progress = new Progress(false, context.isJson);
      const checked = await checkStore(context, options.content, progress);
      progress.end();
      print(context.isJson, checked, textOf(checked));
      if (checked.faults.length > 0) process.exitCode = ExitCode.failed;
    });
}

export interface Checked {
  /** undefined when content was not looked at. */
  readonly content?: { readonly indexes: number; readonly blobs: number; readonly packs: number };
  readonly referenced: { readonly objects: number; readonly bytes: number };
  readonly unreferenced: { readonly objects: number; readonly bytes: number };
  readonly faults: readonly Fault[];
  /** What is wrong with what nothing refers to: no fault. */
  readonly unneeded: readonly Fault[];
}

async function checkStore(
  context: Context,
  withContent: boolean,
  progress: ProgressLine,
): Promise<Checked> {
  const store = await listedStore(context);
  const how = { keepMs: 0, isAll: false, isRepacking: false };
  const onProgress = (text: string) => progress.update(text);
  const ports = surveyPorts(context);
  // Nothing is removed by it, so this machine's time will do.
  const planned = await plan(store, ports, { ...how, onProgress }, Date.now());
  const faults = new Map<string, Fault>(planned.faults.map((fault) => [fault.what, fault]));
  const all = { referenced: planned.kept, unreferenced: planned.freed };
  if (!withContent) return { ...all, faults: [...faults.values()], unneeded: [] };
  const { indexes, blobs, packs, ...found } = await verifyStore(context, progress);
  const isNeeded = ({ what }: Fault) => !planned.unreferenced.has(what);
  for (const fault of found.faults.filter(isNeeded)) faults.set(fault.what, fault);
  const unneeded = [...found.unneeded, ...found.faults.filter((fault) => !isNeeded(fault))];
  return { content: { indexes, blobs, packs }, ...all, faults: [...faults.values()], unneeded };
}

function textOf({ content, referenced, unreferenced, faults, unneeded }: Checked): string {
  const show = ({ objects, bytes }: Checked["referenced"]) =>
    `${counted(objects, "object")}, ${showBytes(bytes)}`;
  const read =
    content === undefined
      ? []
      : [`indexes ${content.indexes}, files ${content.blobs}, packs ${content.packs}`];
  return [
    ...read,
    `referred to: ${show(referenced)}`,
    `not referred to: ${show(unreferenced)}${unneeded.length === 0 ? "" : `, ${unneeded.length} of them damaged`}`,
    `faults ${faults.length}`,
    ...faults.map(showFault),
  ].join("\n");
}
