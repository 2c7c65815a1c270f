// Prepare: everything that must be true before a sandbox starts: snapshots named, their indexes in the cache, stages listed, the
// daemon up, mounts and bundle written. Shared by run and bundle. Control plane.

import { existsSync } from "node:fs";
import { join } from "node:path";
import type { Command } from "commander";
import { type Digest, parseDigest, showDigest } from "../base/digest.ts";
import { BurrowError } from "../base/error.ts";
import { showName } from "../base/name.ts";
import { ensureIndex, openCache } from "../cache/cache.ts";
import { ensureDaemon } from "../cache/client.ts";
import type { CacheDirectory } from "../cache/directory.ts";
import { cachePath } from "../cache/layout.ts";
import { mountDirectory, type UpperSize } from "../gofer/mount.ts";
import { rootEntry } from "../layer/entries.ts";
import { Index } from "../layer/index.ts";
import { type Start, startOf } from "../preload/start.ts";
import type { DeltaStore } from "../store/deltas.ts";
import { KnownBlobs } from "../store/known.ts";
import { objectPath, STORE_MARKER } from "../store/layout.ts";
import { NO_TENANT } from "../store/object-pin.ts";
import { writingStore } from "../store/open.ts";
import { commandDefaults, commandOf } from "./command-defaults.ts";
import { addCommonOptions, type Context, collect, makeFolders } from "./context.ts";
import { digitsOf, findDigest, isDigestOrFile, noStore } from "./digests.ts";
import { createEnvironment } from "./env.ts";
import { PREFIX_XATTR, readRoot } from "./env-root.ts";
import { EXPLAIN_HELP, EXPLAIN_OPTION, explainMount } from "./explain-mount.ts";
import { ensureFacts, type ImageFacts } from "./image-facts.ts";
import { type ClaimedUpper, claimUpper, type Place } from "./kept-upper.ts";
import { importSource, makeSnapshot } from "./layer.ts";
import type { QuerySpec } from "./oci-spec.ts";
import { Progress } from "./output.ts";
import { commandKey, type QueryMounts, removeMounts, type Source, writeMounts } from "./query.ts";
import { type QueryOptions, settingsOf } from "./query-settings.ts";
import { noSuchDigest } from "./read-index.ts";
import { importStageIndex } from "./stage.ts";

export function addQueryOptions(command: Command): Command {
  return addCommonOptions(command)
    .requiredOption(
      "--base <BASE>",
      "root file system: a snapshot's digest, or a directory, tar, .deb or image to import",
    )
    .option(
      "--env <ENV>",
      "conda environment: a snapshot's digest, or a lock or environment.yml to create it from",
    )
    .option(
      "--stage <NAME=SOURCE>",
      "serve a directory, an http(s) stage or a prefix on S3, read-only at /stage/NAME; repeatable",
      collect,
    )
    .option(
      "--bind <PATH=SOURCE[:rw]>",
      "pass a host directory or file through at PATH, read-only but with :rw; repeatable",
      collect,
    )
    .option(
      "-e, --set-env <NAME=VALUE>",
      "set a variable of the command's environment; repeatable",
      collect,
    )
    .option("--tmp-size <SIZE>", "quota of /tmp, e.g. 64M", "256M")
    .option(
      "--writable [SIZE]",
      "let the command write wherever its user may (root: --user 0): changes are its own, up to this quota (256M), and gone with it",
    )
    .option("--cwd <DIR>", "working directory (default: the image's, or /)")
    .option("--user <UID[:GID]>", "user of the command (default: the image's, or 65534:65534)")
    .option("--memory <SIZE>", "memory limit of the sandbox and its gofer (needs cgroups)")
    .option(
      "--tenant <NAME>",
      "whose stages they are: tenants share no files of stages in the cache ($BURROW_TENANT)",
    )
    .option(EXPLAIN_OPTION, EXPLAIN_HELP)
    .option("--quiet", "no progress");
}

export interface Prepared {
  readonly mounts: QueryMounts;
  /** Snapshots of the view, the base first, and the paths that they are seen at. */
  readonly snapshots: readonly Digest[];
  readonly places: readonly string[];
  /** The upper that the caller gave, to be given back when the sandbox has ended. */
  readonly kept?: ClaimedUpper;
  /** The bundle's facts. Of no command: the base's own, which is BURROW_USAGE where it has none. */
  spec(command: readonly string[], isTerminal: boolean): QuerySpec;
}

/** Of a text that names nothing here, `what`: BURROW_USAGE. */
export function noSuchSource(text: string, what: string): BurrowError {
  const advice = /^(https?|s3):/.test(text) ? ": download it first" : "";
  return new BurrowError("BURROW_USAGE", `${what}${advice}`);
}

/** The base: a digest is looked for in the store; anything else is imported. With `held`, the store under a lease, it is there until its end. */
export async function resolveBase(
  context: Context,
  base: string,
  progress: Progress,
  held?: DeltaStore,
): Promise<Source> {
  if (isDigestOrFile(base)) {
    const snapshot = await findDigest(context, base);
    if (held !== undefined && !(await held.has(objectPath("locators", snapshot)))) {
      const what = `the base ${showDigest(snapshot)} is not there, or being collected: import it again`;
      throw new BurrowError("BURROW_NOT_FOUND", what, { context: { store: context.store } });
    }
    return { snapshot, origin: context.store };
  }
  if (!existsSync(base))
    throw noSuchSource(
      base,
      `--base ${base} is no digest (or 6 and more digits of one) and no file or directory here`,
    );
  const importInto = async (store: DeltaStore) => {
    const known = await KnownBlobs.load(store);
    return makeSnapshot(store, known, [await importSource(store, known, base, progress)]);
  };
  const snapshot =
    held === undefined
      ? await writingStore(context.store, "import of a base", importInto)
      : await importInto(held);
  return { snapshot, origin: context.store };
}

/** Tells the digest of what was named by a file, a directory or a few digits: by that it is found next time. */
export function sayDigest(text: string, { snapshot }: Source, progress: Progress): void {
  const digest = showDigest(snapshot);
  if (!digest.endsWith(text)) progress.line(`${text}: ${digest}`);
}

/** The environment's snapshot, its prefix and its variables: a lock is made into one first. Its index is in the cache then. */
export async function resolveEnv(
  context: Context,
  cache: CacheDirectory,
  env: string,
  progress: Progress,
): Promise<Source & { at: string; variables: Readonly<Record<string, string>> }> {
  const snapshot = isDigestOrFile(env)
    ? await findDigest(context, env)
    : (await createEnvironment(context, env, {}, progress)).snapshot;
  const source = { snapshot, origin: context.store };
  const { prefix, variables } = readRoot(new Index(await ensureSnapshot(cache, source)), snapshot);
  if (variables !== undefined) return { ...source, at: prefix, variables };
  // They are in its document, for which no digest vouches: whoever writes to the store could say LD_PRELOAD.
  const said = showDigest(snapshot).slice(0, 19);
  const advice = `run "burrow env compile ${said}" again, and take the snapshot that it prints`;
  progress.line(
    `${said} was compiled by an earlier Burrow: it runs without its variables; ${advice}`,
  );
  return { ...source, at: prefix, variables: {} };
}

/** Has a snapshot's index in the cache: its bytes. */
async function ensureSnapshot(cache: CacheDirectory, source: Source): Promise<Buffer> {
  try {
    return await ensureIndex(cache, source.origin, source.snapshot);
  } catch (cause) {
    throw outOfReach(noSuchDigest(cause, source.snapshot, source.origin), source);
  }
}

/**
 * An environment in the place of a base has no system of its own to start a program with: BURROW_USAGE, but for who may want it as a
 * volume, who is told.
 */
function checkBase(
  index: Index,
  { base, takesVolume }: QueryOptions,
  onVolume: (what: string) => void,
): void {
  const prefix = rootEntry(index).xattrs?.get(PREFIX_XATTR);
  if (prefix === undefined) return;
  const what = `--base ${base} is a conda environment, seen at ${showName(prefix)}`;
  if (takesVolume !== true) {
    const advice = "give it to --env, and a root file system to --base";
    throw new BurrowError("BURROW_USAGE", `${what}: ${advice}`);
  }
  onVolume(what);
}

/** What the image that a base was made of says; undefined when it was made of none. */
async function factsOf(cache: CacheDirectory, source: Source, index: Index) {
  try {
    return await ensureFacts(cache, source.origin, source.snapshot, index);
  } catch (cause) {
    throw outOfReach(cause, source);
  }
}

/** What can't be had of a store that doesn't answer: said with what would have helped. Any other error as it is. */
function outOfReach(cause: unknown, { snapshot, origin }: Source): unknown {
  const isAway = cause instanceof BurrowError && /^BURROW_(ORIGIN|TIMEOUT)$/.test(cause.code);
  if (!isAway) return cause;
  const shown = showDigest(snapshot);
  const advice = `once it answers, burrow preload ${shown} brings all of it to this node`;
  return new BurrowError(
    cause.code,
    `${shown} is not on this node, and its store gives none: ${advice}`,
    {
      class: cause.class,
      cause,
      context: { store: origin },
    },
  );
}

/** What can be told of a query before anything is made for it. BURROW_USAGE; BURROW_NOT_FOUND where there is no store to find a digest in. */
export async function checkQuery(context: Context, options: QueryOptions): Promise<void> {
  settingsOf(options, context);
  const { store, cache } = context;
  const isFolder = store.startsWith("/");
  if (!isFolder || existsSync(join(store, STORE_MARKER))) return;
  for (const text of [options.base, options.env ?? options.base]) {
    if (!isDigestOrFile(text)) continue;
    digitsOf(text);
    const digest = parseDigest(text);
    if (digest === undefined || !existsSync(cachePath(cache, "indexes", digest)))
      throw noStore(context);
  }
}

/** What a view is made of, and all that can be known before a sandbox is there for it. The indexes are in the cache. */
export interface ResolvedView {
  /** The base first. */
  readonly places: readonly Place[];
  readonly facts: ImageFacts | undefined;
  readonly env?: { readonly at: string; readonly variables: Readonly<Record<string, string>> };
}

/** The base, its index in the cache, and what the image says that it was made of. */
async function resolveRoot(
  context: Context,
  cache: CacheDirectory,
  options: QueryOptions,
  progress: Progress,
  onVolume: (what: string) => void,
): Promise<{ source: Source; facts: ImageFacts | undefined }> {
  const source = await resolveBase(context, options.base, progress);
  sayDigest(options.base, source, progress);
  const index = new Index(await ensureSnapshot(cache, source));
  checkBase(index, options, onVolume);
  return { source, facts: await factsOf(cache, source, index) };
}

/** Both, at once where what the environment names was made before: each costs round trips. The base's failure is told first. */
async function bothOf<Base, Env>(
  of: { readonly base: () => Promise<Base>; readonly env: () => Promise<Env> },
  isAtOnce: boolean,
): Promise<{ base: Base; env: Env }> {
  if (!isAtOnce) return { base: await of.base(), env: await of.env() };
  // Nothing goes on behind a failure: both have ended when it is told.
  const [base, env] = await Promise.allSettled([of.base(), of.env()]);
  if (base.status === "rejected") throw base.reason;
  if (env.status === "rejected") throw env.reason;
  return { base: base.value, env: env.value };
}

/** Finds, makes or imports what the options name, and has a daemon up for it. `onVolume`: see checkBase. */
export async function resolveView(
  context: Context,
  options: QueryOptions,
  progress: Progress,
  onVolume: (what: string) => void = () => {},
): Promise<ResolvedView> {
  const { stages, tenant } = settingsOf(options, context);
  makeFolders(context.state, join(context.state, "mounts"));
  const cache = openCache(context.cache);
  const resolving = {
    base: () => resolveRoot(context, cache, options, progress, onVolume),
    env: async () =>
      options.env === undefined
        ? undefined
        : await resolveEnv(context, cache, options.env, progress),
  };
  const { base, env } = await bothOf(resolving, isDigestOrFile(options.env ?? ""));
  const { facts } = base;
  const grafts: Place[] = env === undefined ? [] : [env];
  for (const [name, origin] of stages) {
    const snapshot = await importStageIndex(cache, origin, progress, tenant);
    grafts.push({ snapshot, origin, at: `/stage/${name}` });
  }
  progress.end();
  await ensureDaemon({ cache: context.cache, state: context.state });
  return {
    places: [{ ...base.source, at: "/" }, ...grafts],
    facts,
    ...(env === undefined ? {} : { env }),
  };
}

/** Writes the mounts of a resolved view under an id. */
export async function mountView(
  context: Context,
  id: string,
  { places, facts, env }: ResolvedView,
  options: QueryOptions,
  words: readonly string[],
  progress: Progress,
): Promise<Prepared> {
  const { uppers, variables, memory, given, binds, tenant } = settingsOf(options, context);
  const defaults = commandDefaults(facts, env?.at, options.user !== undefined);
  const activated = env?.variables ?? {};
  const kept = options.upper === undefined ? undefined : claimUpper(options.upper, places);
  const isWritable = kept !== undefined || uppers.root !== undefined;
  const variablesOfIt = { ...defaults.env, ...activated, ...variables };
  const { cwd } = { ...defaults, ...given };
  const start = startOf(
    words.length > 0 ? words : (defaults.command ?? []),
    variablesOfIt,
    cwd ?? "/",
  );
  const told = { command: commandKey(words, tenant), start, tenant };
  const { mounts } = writeQuery(context, id, places, uppers, kept, told);
  if (options.explain === true) await explained(context, id, kept, progress);
  return {
    mounts,
    ...(kept === undefined ? {} : { kept }),
    snapshots: places.map(({ snapshot }) => snapshot),
    places: places.map(({ at }) => at),
    spec: (command, isTerminal) => ({
      ...defaults,
      ...given,
      ...memory,
      binds,
      command: commandOf(command, defaults),
      env: variablesOfIt,
      isTerminal,
      hostname: "burrow",
      root: mounts.root,
      tmp: mounts.tmp,
      ...(isWritable ? { isRootWritable: true } : {}),
    }),
  };
}

export async function prepare(
  context: Context,
  id: string,
  options: QueryOptions,
  words: readonly string[] = [],
): Promise<Prepared> {
  const progress = new Progress(options.quiet === true, options.json === true);
  const resolved = await resolveView(context, options, progress, (volume) => {
    const mount = mountDirectory(context.state, id);
    progress.line(
      `${volume}: a volume, to be mounted from ${mount}; nothing can start in it alone`,
    );
  });
  return await mountView(context, id, resolved, options, words, progress);
}

/** What the daemon is told of a view by its mount. */
interface Told {
  readonly command: string;
  readonly start: Start | undefined;
  readonly tenant: string;
}

/** Writes the mounts; an upper that was claimed for them is given back when that fails. */
function writeQuery(
  context: Context,
  id: string,
  [base, ...grafts]: readonly Place[],
  uppers: { tmp: UpperSize; root?: UpperSize },
  kept: ClaimedUpper | undefined,
  { command, start: known, tenant }: Told,
): { mounts: QueryMounts } {
  const start = {
    ...(command === "" ? {} : { command }),
    ...(known === undefined ? {} : { start: known }),
    ...(tenant === NO_TENANT ? {} : { tenant }),
  };
  const root = kept === undefined ? {} : { root: { directory: kept.directory } };
  try {
    return { mounts: writeMounts(context, id, base!, grafts, { ...uppers, ...root }, start) };
  } catch (error) {
    kept?.[Symbol.dispose]();
    throw error;
  }
}

/** Has the mounts of a query explain themselves; they and what was claimed for them are given back when that fails. */
async function explained(
  context: Context,
  id: string,
  kept: ClaimedUpper | undefined,
  progress: Progress,
): Promise<void> {
  try {
    await explainMount(context, id, progress);
  } catch (error) {
    removeMounts(context, id);
    kept?.[Symbol.dispose]();
    throw error;
  }
}
