// burrow store repack: has what the starts of an environment read lie together in packs, beside any number of writers
// (docs/design/0027-learned-starts.md). Control plane.

import { existsSync, readFileSync } from "node:fs";
import type { Command } from "commander";
import { type Digest, showDigest } from "../base/digest.ts";
import { BurrowError } from "../base/error.ts";
import { openCache } from "../cache/cache.ts";
import type { Index } from "../layer/index.ts";
import { ANY_COMMAND, Profile, type ProfileAsk } from "../preload/profile.ts";
import type { DeltaStore } from "../store/deltas.ts";
import { type LaidOut, layOut, type Ranges } from "../store/lay-out.ts";
import { addListedOptions, type Context, contextOf } from "./context.ts";
import { findDigest, listedStore } from "./digests.ts";
import { counted, ExitCode, Progress, print, showBytes } from "./output.ts";
import { orderIn, PackOrder } from "./pack-order.ts";
import { profileIn } from "./package-profiles.ts";
import { named, readProfile } from "./profile-paths.ts";
import { readIndex } from "./read-index.ts";
import { surveyPorts } from "./store-roots.ts";

const HELP = `
A store's packs have files in the order of their packages. This writes the packs of a snapshot anew:
first what its starts read, package by package in the order of its use, then all else. A start then
fetches few long ranges. What it reads is what this node and the store have learned ("burrow
profile"), or what the paths in --profile name, as "burrow profile show" prints them.

All layers and snapshots that lead into these packs are led to the new ones. The old ones stay for
nodes that look there yet, until "burrow store gc" removes them a day later: meanwhile they take
their room twice. A snapshot that lies together already is left as it is. Exits 1 when something
can't be read, or a writer is at work that would be in the way.

Examples:
  burrow store repack sha256:…
  burrow store repack --profile profile.txt sha256:… --store s3://bucket/store`;

interface RepackCommandOptions {
  json?: boolean;
  profile?: string;
  quiet?: boolean;
}

export function addStoreRepack(store: Command): void {
  addListedOptions(store.command("repack"))
    .description("have what a snapshot's starts read lie together")
    .argument("<snapshot>", "its digest, or the first digits of it")
    .option(
      "--profile <FILE>",
      "what to lay together: paths, one a line, in the order of their use",
    )
    .option("--quiet", "no progress")
    .addHelpText("after", HELP)
    .action(async (text: string, options: RepackCommandOptions) => {
      await repack(contextOf(options), text, options);
    });
}

async function repack(
  context: Context,
  text: string,
  options: RepackCommandOptions,
): Promise<void> {
  const progress = new Progress(options.quiet === true, context.isJson);
  const store = await listedStore(context);
  const snapshot = await findDigest(context, text);
  const index = await readIndex(store, snapshot);
  const asks =
    options.profile === undefined
      ? await learned(context, store, snapshot)
      : await asksNamed(index, options.profile);
  const order = new PackOrder();
  order.add(index, asks);
  progress.begin(`laying out ${showDigest(snapshot).slice(0, 19)}`);
  const done = await layOut(store, surveyPorts(context), snapshot, order.of, {
    orderOf: (digests) => orderIn(store, digests),
    onProgress: (what) => progress.update(what),
  });
  progress.end();
  print(context.isJson, { snapshot: showDigest(snapshot), ...done }, textOf(done));
  if (!done.isDone || done.faults.length > 0) process.exitCode = ExitCode.failed;
}

/** What this node knows, then what the store does. BURROW_NOT_FOUND of nothing. */
async function learned(
  context: Context,
  store: DeltaStore,
  snapshot: Digest,
): Promise<ProfileAsk[]> {
  const path = openCache(context.cache).path("profiles", snapshot);
  const own = existsSync(path) ? Profile.decode(readFileSync(path), snapshot) : undefined;
  const shared = await profileIn(store, snapshot);
  const all = [own, shared].flatMap((profile) => [
    ...(profile?.asks(ANY_COMMAND) ?? []),
    ...(profile?.packages.flatMap(({ asks }) => asks) ?? []),
  ]);
  if (all.length > 0) return all;
  const what = `nothing was learned of ${showDigest(snapshot)}: run something in it, or give --profile`;
  throw new BurrowError("BURROW_NOT_FOUND", what, { context: { store: context.store } });
}

async function asksNamed(index: Index, file: string): Promise<ProfileAsk[]> {
  const { rows } = named(index, await readProfile(file));
  if (rows.size === 0) throw new BurrowError("BURROW_NOT_FOUND", `${file} names nothing of it`);
  return [...rows].map((row) => ({ row, first: 0, count: 0 }));
}

function textOf({ before, after, repacked, isDone, faults }: LaidOut): string {
  const show = ({ count, bytes }: Ranges) => `${counted(count, "range")}, ${showBytes(bytes)}`;
  const lines: string[] = [];
  if (!isDone && faults.length > 0) lines.push("not laid together: something failed");
  else if (!isDone)
    lines.push("nothing was written: a writer is at work; try again when it has ended");
  else if (repacked.packs === 0) lines.push(`lies together already: ${show(before)}`);
  else {
    const [from, to] = [showBytes(repacked.oldBytes), showBytes(repacked.newBytes)];
    lines.push(`a start reads ${show(after)}; it was ${show(before)}`);
    lines.push(`repacked ${counted(repacked.packs, "pack")}, ${from} to ${to}`);
  }
  for (const { what, why } of faults) lines.push(`${what}: ${why}`);
  return lines.join("\n");
}
