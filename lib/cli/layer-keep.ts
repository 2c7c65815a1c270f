// burrow layer keep: what sandboxes changed of a view, as a layer, and the snapshot with it. Control plane.

import { join } from "node:path";
import type { Command } from "commander";
import { type Digest, showDigest } from "../base/digest.ts";
import { BurrowError } from "../base/error.ts";
import { showName } from "../base/name.ts";
import { ensureIndex, openCache } from "../cache/cache.ts";
import { Mailbox } from "../cache/mailbox.ts";
import { buildView, openUpperDirectory } from "../gofer/trees.ts";
import { EntryTree } from "../ingest/entry-tree.ts";
import { entriesOf } from "../layer/entries.ts";
import type { LayerEntry } from "../layer/entry.ts";
import { IndexKind } from "../layer/format.ts";
import { Index } from "../layer/index.ts";
import { mergeIndexes } from "../layer/merge.ts";
import { writeIndex } from "../layer/writer.ts";
import type { DeltaStore } from "../store/deltas.ts";
import { KnownBlobs } from "../store/known.ts";
import { writingStore } from "../store/open.ts";
import { openPackWriter, type PackWriter } from "../store/pack-writer.ts";
import { OverlayTree } from "../tree/overlay.ts";
import { addCommonOptions, type Context, contextOf } from "./context.ts";
import { readEnvironment, writeEnvironment } from "./environment.ts";
import { changedPlaces, openKept, type Place } from "./kept-upper.ts";
import { KeptWalk, walkFailure } from "./kept-walk.ts";
import { counted, Progress, print } from "./output.ts";
import { sweepRuns } from "./runs.ts";

interface KeepOptions {
  at: string;
  quiet?: boolean;
}

const EXAMPLES = `
The layer holds what differs from the snapshot at that path; the snapshot that is printed has both.
The folder stays as it is. Where else in the view something was changed is said.

Examples:
  burrow run --base sha256:… --env sha256:… --upper /srv/changes --user 0 -- pip install --no-index /stage/wheels/own.whl
  burrow layer keep /srv/changes --at /opt/env`;

export function addLayerKeep(layer: Command): void {
  addCommonOptions(layer.command("keep"))
    .argument("<dir>", "a folder that --upper of burrow run or mount was given")
    .description("make a layer and a snapshot of what sandboxes changed")
    .option("--at <PATH>", "of which of the view's snapshots, by where it is seen", "/")
    .option("--quiet", "no progress")
    .addHelpText("after", EXAMPLES)
    .action(async (dir: string, options: KeepOptions & { json?: boolean }) => {
      await keep(contextOf(options), dir, options);
    });
}

async function keep(context: Context, dir: string, options: KeepOptions): Promise<void> {
  const progress = new Progress(options.quiet === true, context.isJson);
  // A run that was killed leaves its sandbox, which would go on changing what is read here.
  await sweepRuns(context);
  using upper = openKept(dir);
  const { places } = upper;
  const number = places.findIndex(({ at }) => at === options.at);
  if (number < 0) {
    const known = places.map(({ at }) => at).join(", ");
    throw new BurrowError("BURROW_USAGE", `--at ${options.at}: the view has snapshots at ${known}`);
  }
  if (places[number]!.origin !== context.store) {
    const { origin } = places[number]!;
    const what = `what is seen at ${options.at} is of ${origin}, and not of the store`;
    throw new BurrowError("BURROW_UNSUPPORTED", `${what}: a layer over it can't be kept`);
  }
  const made = await writingStore(context.store, "layer keep", (store) =>
    keepIn(context, store, upper.directory, places, number, progress),
  );
  progress.end();
  const { snapshot, layer, changes } = made;
  progress.line(`${counted(changes, "change")} at ${options.at}`);
  for (const { at, origin } of changedPlaces(upper.directory, places)) {
    const advice = origin === context.store ? `: --at ${at} keeps that` : "";
    if (at !== options.at) progress.line(`without what was changed at ${at}${advice}`);
  }
  const shown = { layer: showDigest(layer), snapshot: showDigest(snapshot), changes };
  print(context.isJson, shown, shown.snapshot);
}

async function keepIn(
  context: Context,
  store: DeltaStore,
  directory: string,
  places: readonly Place[],
  number: number,
  progress: Progress,
): Promise<{ snapshot: Digest; layer: Digest; changes: number }> {
  const cache = openCache(context.cache);
  for (const { origin, snapshot } of places) await ensureIndex(cache, origin, snapshot);
  const [base, ...grafts] = places as [Place, ...Place[]];
  const mailbox = new Mailbox(join(context.cache, "daemon.sock"), "kept");
  const { tree: view, indexes } = buildView(
    { cache: context.cache, base, grafts },
    mailbox,
    `of ${directory}`,
  );
  const tree = OverlayTree.open(view, openUpperDirectory(directory), {
    inodes: Number.POSITIVE_INFINITY,
  });
  if (typeof tree === "number") throw walkFailure(directory, "", tree);
  try {
    const known = await KnownBlobs.load(store);
    const writer = await openPackWriter(store, { known });
    const mounts = grafts.map(({ at }) => at).filter((at) => at !== places[number]!.at);
    const index = indexes[number]!;
    const old = new Map<string, LayerEntry>();
    for (const entry of entriesOf(index)) old.set(entry.path, entry);
    const own = new Set(old.keys());
    const walk = new KeptWalk(tree, indexes, writer, directory, new Set(mounts), own);
    const { at } = places[number]!;
    const { entries, changes } = await changesOf(walk, at, old, progress);
    for (const entry of entries) checkContent(entry, walk, writer, places, number);
    const bytes = writeIndex(IndexKind.layer, entries);
    const { digest: layer } = await writer.finish(bytes);
    const merged = mergeIndexes([index, new Index(bytes)]);
    const second = await openPackWriter(store, { known });
    const from = places[number]!.snapshot;
    const { digest: snapshot } = await second.writeSnapshot(merged, [from, layer]);
    await noteKept(store, from, layer, snapshot);
    return { snapshot, layer, changes };
  } finally {
    tree.dispose();
  }
}

/** Of an environment the list of packages goes on to what was made of it. */
async function noteKept(
  store: DeltaStore,
  from: Digest,
  layer: Digest,
  snapshot: Digest,
): Promise<void> {
  const environment = await readEnvironment(store, from).catch((error: unknown) => {
    if (error instanceof BurrowError && error.code === "BURROW_NOT_FOUND") return undefined;
    throw error;
  });
  if (environment === undefined || snapshot === from) return;
  const kept = [...(environment.kept ?? []), { from: showDigest(from), layer: showDigest(layer) }];
  await writeEnvironment(store, snapshot, { ...environment, kept });
}

/** The entries that turn a snapshot, whose own are taken out of `old`, into what is seen at `at`. */
async function changesOf(
  walk: KeptWalk,
  at: string,
  old: Map<string, LayerEntry>,
  progress: Progress,
): Promise<{ entries: LayerEntry[]; changes: number }> {
  const seen: LayerEntry[] = [];
  const linked = new Set<string>();
  const changed = new Set<LayerEntry>();
  for await (const entry of walk.entries(at)) {
    const before = old.get(entry.path);
    old.delete(entry.path);
    seen.push(entry);
    if (before !== undefined && keyOf(before) === keyOf(entry)) continue;
    changed.add(entry);
    if (entry.type === "file" && entry.linkGroup !== undefined) linked.add(entry.linkGroup);
    progress.update(counted(changed.size, "change"));
  }
  const layer = new EntryTree();
  for (const entry of seen) {
    // All names of a file that got or lost one, or they would be several files.
    const isLinked = entry.type === "file" && linked.has(entry.linkGroup ?? "");
    const refusal = changed.has(entry) || isLinked ? layer.add(entry) : undefined;
    if (refusal === undefined) continue;
    throw new BurrowError("BURROW_IO", `${showName(entry.path)}: ${refusal.why}`);
  }
  const gone = [...old.values()].filter(({ path }) => !walk.isMount(at, path));
  for (const { path, mode, uid, gid, mtimeSec, mtimeNs } of gone) {
    layer.add({ path, mode, uid, gid, mtimeSec, mtimeNs, type: "whiteout" });
  }
  return { entries: [...layer.entries()], changes: changed.size + gone.length };
}

/**
 * Has the layer name content that is the snapshot's. Throws BURROW_UNSUPPORTED for what was moved there from another snapshot whose
 * content isn't in the store, as of a stage.
 */
function checkContent(
  entry: LayerEntry,
  walk: KeptWalk,
  writer: PackWriter,
  places: readonly Place[],
  number: number,
): void {
  const origin = walk.originOf(entry);
  if (entry.type !== "file" || origin === undefined) return;
  if (writer.reuse(entry.blob) || origin === number) return;
  const what = `${showName(entry.path)} was moved there from ${places[origin]!.at}`;
  const advice = "copy it in the sandbox (cp) in place of moving it";
  throw new BurrowError(
    "BURROW_UNSUPPORTED",
    `${what}, and its content isn't in the store: ${advice}`,
  );
}

/** All that two entries of one path are compared by. */
function keyOf(entry: LayerEntry): string {
  const { mode, uid, gid, mtimeSec, mtimeNs, type } = entry;
  const own =
    entry.type === "file" ? entry.blob.digest : entry.type === "symlink" ? entry.target : "";
  const xattrs = [...(entry.xattrs ?? [])].map(([name, value]) => `${name}=${value}`).sort();
  const plain = entry.type === "symlink" ? "" : mode.toString(8);
  return [type, plain, uid, gid, mtimeSec, mtimeNs, own, ...xattrs].join("\0");
}
