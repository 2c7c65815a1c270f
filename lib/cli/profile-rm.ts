// burrow profile rm: forgets what starts of a snapshot read, on this node, and in its store what "profile push" put there. Control plane.

import { existsSync, rmSync } from "node:fs";
import type { Command } from "commander";
import { type Digest, showDigest } from "../base/digest.ts";
import { openCache } from "../cache/cache.ts";
import { objectPath } from "../store/layout.ts";
import { openOrigin, refuseReadOnly, writingStore } from "../store/open.ts";
import { inParallel } from "../store/parallel.ts";
import { type Backend, classOf } from "../store/store.ts";
import { addCommonOptions, type Context, contextOf } from "./context.ts";
import { findDigest } from "./digests.ts";
import { type Environment, readEnvironment } from "./environment.ts";
import { counted, Progress, print } from "./output.ts";
import { layersOf } from "./package-profiles.ts";

const HELP = `
What the store has of it stays there, unless --pushed is given: then what lies beside the snapshot
goes, too, and what lies beside each package of an environment, whoever taught it. It is a hint:
environments that are created later of these packages begin without it.

Examples:
  burrow profile rm sha256:…
  burrow profile rm --pushed --dry-run sha256:…`;

/** Objects that are looked for at once. */
const PARALLEL = 8;

interface RemoveOptions {
  json?: boolean;
  pushed?: boolean;
  dryRun?: boolean;
}

/** Adds the command to "profile". */
export function addProfileRemove(profile: Command): void {
  addCommonOptions(profile.command("rm"))
    .description("forget what this node has learned")
    .argument("<snapshot...>", "their digests, or the first digits of these")
    .option("--pushed", 'in the store, too: what "burrow profile push" put there')
    .option("--dry-run", "say what would go, and remove nothing")
    .addHelpText("after", HELP)
    .action(async (texts: string[], options: RemoveOptions) => {
      await remove(contextOf(options), texts, options);
    });
}

async function remove(
  context: Context,
  texts: readonly string[],
  { pushed: isPushed = false, dryRun = false }: RemoveOptions,
): Promise<void> {
  if (isPushed && !dryRun) refuseReadOnly(context.store);
  const digests: Digest[] = [];
  for (const text of texts) digests.push(await findDigest(context, text));
  const pushed = isPushed ? await removePushed(context, digests, dryRun) : [];
  const cache = openCache(context.cache);
  const removed = digests.filter((digest) => existsSync(cache.path("profiles", digest)));
  if (!dryRun)
    for (const digest of removed) rmSync(cache.path("profiles", digest), { force: true });
  const progress = new Progress(false, context.isJson);
  for (const digest of digests)
    if (!removed.includes(digest) && !pushed.includes(digest))
      progress.line(`nothing was learned of ${showDigest(digest)}`);
  const packages = pushed.filter((digest) => !digests.includes(digest)).length;
  const verb = dryRun ? "would forget" : "has forgotten";
  if (packages > 0)
    progress.line(`the store ${verb} what starts read of ${counted(packages, "package")}, too`);
  const gone = digests.filter((digest) => removed.includes(digest) || pushed.includes(digest));
  const result = {
    ...(dryRun ? { dryRun } : {}),
    removed: removed.map(showDigest),
    ...(isPushed ? { pushed: pushed.map(showDigest) } : {}),
  };
  if (context.isJson || gone.length > 0)
    print(context.isJson, result, gone.map(showDigest).join("\n"));
}

/** Removes from the store, if it isn't for show, what it has learned of snapshots and of the packages they are made of: of which. */
async function removePushed(
  context: Context,
  digests: readonly Digest[],
  isDry: boolean,
): Promise<Digest[]> {
  if (isDry) return await pushedOf(openOrigin(context.store), digests);
  return await writingStore(context.store, "profile rm", async (store) => {
    const pushed = await pushedOf(store, digests);
    for (const digest of pushed) await store.remove(objectPath("profiles", digest));
    return pushed;
  });
}

/** Snapshots, and layers of those that are environments, of which a store has learned something. */
async function pushedOf(store: Backend, digests: readonly Digest[]): Promise<Digest[]> {
  const all = new Set(digests);
  for (const digest of digests) {
    const environment = await environmentOf(store, digest);
    if (environment !== undefined) for (const layer of layersOf(environment)) all.add(layer);
  }
  const known = new Set<Digest>();
  await inParallel([...all], PARALLEL, async (digest) => {
    if (await store.has(objectPath("profiles", digest))) known.add(digest);
  });
  return [...all].filter((digest) => known.has(digest));
}

/** Undefined of a base, or what is no longer there. */
export async function environmentOf(
  store: Backend,
  digest: Digest,
): Promise<Environment | undefined> {
  try {
    return await readEnvironment(store, digest);
  } catch (error) {
    if (classOf(error) === "notFound") return undefined;
    throw error;
  }
}
