// Mounts of this node's for a view that is served outside a sandbox: those of a bundle, or new ones of one snapshot. Control plane.

import { existsSync } from "node:fs";
import { BurrowError } from "../base/error.ts";
import { ensureIndex, openCache } from "../cache/cache.ts";
import { ensureDaemon } from "../cache/client.ts";
import { isMountId, mountDirectory, readMount, type UpperSize } from "../gofer/mount.ts";
import { type Context, makeFolders } from "./context.ts";
import { isDigestOrFile } from "./digests.ts";
import { explainMount } from "./explain-mount.ts";
import { type ClaimedUpper, claimUpper } from "./kept-upper.ts";
import { Progress } from "./output.ts";
import { noSuchSource, resolveBase, sayDigest } from "./prepare.ts";
import { type QueryMounts, writeMounts } from "./query.ts";
import { noSuchDigest } from "./read-index.ts";

/** How a command says what it does. */
export interface Manner {
  quiet?: boolean;
  json?: boolean;
  /** Whether the view is to show where it comes from. */
  explain?: boolean;
}

/** Where changes go: to the empty view, and to this one, in memory or into the folder of --upper. */
export interface Uppers {
  readonly tmp: UpperSize;
  readonly root?: UpperSize;
  readonly folder?: string;
}

export interface ImportedView extends QueryMounts {
  /** The upper that was claimed: the caller's. */
  readonly kept?: ClaimedUpper;
}

/** The mounts that a bundle has made; undefined: the source is no id of any. */
export async function knownMount(
  { cache, state }: Context,
  id: string,
): Promise<{ root: string; tmp: string } | undefined> {
  if (!isMountId(id) || existsSync(id) || !existsSync(mountDirectory(state, id))) return undefined;
  const mount = readMount(state, id);
  if (mount.kind === "view" && mount.cache !== cache)
    throw new BurrowError("BURROW_USAGE", `the mount ${id} is of another cache, ${mount.cache}`);
  await ensureDaemon({ cache, state });
  return { root: mountDirectory(state, id), tmp: mountDirectory(state, `${id}-tmp`) };
}

/** Mounts of one snapshot, which is imported when the source is none. */
export async function importView(
  context: Context,
  id: string,
  text: string,
  { folder, ...uppers }: Uppers,
  options: Manner,
): Promise<ImportedView> {
  const progress = new Progress(options.quiet === true, options.json === true);
  if (!isDigestOrFile(text) && !existsSync(text)) {
    const what = `${text} is no digest and no file or directory here, and no mounts have that id`;
    throw noSuchSource(text, what);
  }
  makeFolders(context.state, `${context.state}/mounts`);
  const cache = openCache(context.cache);
  const source = await resolveBase(context, text, progress);
  try {
    await ensureIndex(cache, source.origin, source.snapshot);
  } catch (cause) {
    throw noSuchDigest(cause, source.snapshot, source.origin);
  }
  sayDigest(text, source, progress);
  progress.end();
  await ensureDaemon({ cache: context.cache, state: context.state });
  const kept = folder === undefined ? undefined : claimUpper(folder, [{ ...source, at: "/" }]);
  try {
    const root = kept === undefined ? {} : { root: { directory: kept.directory } };
    const mounts = writeMounts(context, id, source, [], { ...uppers, ...root });
    if (options.explain === true) await explainMount(context, id, progress);
    progress.end();
    return { ...mounts, ...(kept === undefined ? {} : { kept }) };
  } catch (error) {
    kept?.[Symbol.dispose]();
    throw error;
  }
}
