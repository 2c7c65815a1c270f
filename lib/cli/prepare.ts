// Prepare: everything that must be true before a sandbox starts: snapshots named, their indexes in the cache, stages listed, the
// daemon up, mounts and bundle written. Shared by run and bundle. Control plane.

import { existsSync, statSync } from "node:fs";
import { join, normalize } from "node:path";
import type { Command } from "commander";
import { type Digest, parseDigest, showDigest } from "../base/digest.ts";
import { BurrowError } from "../base/error.ts";
import { NAME_MAX_BYTES } from "../base/limits.ts";
import { showName } from "../base/name.ts";
import { ensureIndex, openCache } from "../cache/cache.ts";
import { ensureDaemon } from "../cache/client.ts";
import type { CacheDirectory } from "../cache/directory.ts";
import { cachePath } from "../cache/layout.ts";
import { mountDirectory, type UpperSize } from "../gofer/mount.ts";
import { rootEntry } from "../layer/entries.ts";
import { Index } from "../layer/index.ts";
import type { DeltaStore } from "../store/deltas.ts";
import { KnownBlobs } from "../store/known.ts";
import { objectPath, STORE_MARKER } from "../store/layout.ts";
import { checkTenant, NO_TENANT } from "../store/object-pin.ts";
import { refuseReadOnly, writingStore } from "../store/open.ts";
import { commandDefaults, commandOf } from "./command-defaults.ts";
import { addCommonOptions, asOrigin, type Context, makeFolders } from "./context.ts";
import { digitsOf, findDigest, isDigestOrFile, noStore } from "./digests.ts";
import { createEnvironment } from "./env.ts";
import { PREFIX_XATTR, readRoot } from "./env-root.ts";
import { EXPLAIN_HELP, EXPLAIN_OPTION, explainMount } from "./explain-mount.ts";
import { ensureFacts } from "./image-facts.ts";
import { type ClaimedUpper, claimUpper, type Place } from "./kept-upper.ts";
import { importSource, makeSnapshot } from "./layer.ts";
import type { Bind, QuerySpec } from "./oci-spec.ts";
import { Progress } from "./output.ts";
import {
  commandKey,
  inodesFor,
  parseSize,
  type QueryMounts,
  removeMounts,
  type Source,
  writeMounts,
} from "./query.ts";

import { noSuchDigest } from "./read-index.ts";
import { importStageIndex, isDirectory } from "./stage.ts";

/** What run and bundle take. */
export interface QueryOptions {
  base: string;
  env?: string;
  stage?: string[];
  bind?: string[];
  setEnv?: string[];
  tmpSize: string;
  writable?: string | true;
  upper?: string;
  cwd?: string;
  user?: string;
  memory?: string;
  /** The base may be an environment, for other sandboxes to mount. */
  takesVolume?: boolean;
  tenant?: string;
  explain?: boolean;
  quiet?: boolean;
  json?: boolean;
}

/** For options that may be given several times. */
export const collect = (value: string, all: string[] = []) => [...all, value];

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

/** The two sides of an option's first "=", which `shape` names for who forgot it. */
function pair(text: string, option: string, shape: string): [string, string] {
  const at = text.indexOf("=");
  if (at > 0) return [text.slice(0, at), text.slice(at + 1)];
  throw new BurrowError("BURROW_USAGE", `${option}: "${text}" is not ${shape}`);
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
    throw noSuchSource(base, `--base ${base} is no digest and no file or directory here`);
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

/** The environment's snapshot, its prefix and its variables: a lock is made into one first. Its index is in the cache then. */
async function resolveEnv(
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

/** What the options say of the query, checked before anything is read or written. */
function settingsOf(options: QueryOptions, { store }: Context) {
  const sizeBytes = parseSize(options.tmpSize, "--tmp-size");
  const memory =
    options.memory === undefined ? {} : { memoryBytes: parseSize(options.memory, "--memory") };
  const { base, env } = options;
  if (env !== undefined && !isDigestOrFile(env) && !existsSync(env))
    throw new BurrowError("BURROW_USAGE", `--env ${env} is no digest (sha256:…) and no lock file`);
  if ([base, env ?? base].some((text) => !isDigestOrFile(text))) refuseReadOnly(store);
  const { cwd } = options;
  if (cwd !== undefined && !cwd.startsWith("/"))
    throw new BurrowError("BURROW_USAGE", `--cwd: ${cwd} is no absolute path`);
  return {
    uppers: { tmp: { sizeBytes, inodes: inodesFor(sizeBytes) }, ...rootUpper(options) },
    given: {
      ...(options.user === undefined ? {} : parseUser(options.user)),
      ...(cwd === undefined ? {} : { cwd }),
    },
    memory,
    variables: Object.fromEntries(
      (options.setEnv ?? []).map((text) => pair(text, "--set-env", "NAME=VALUE")),
    ),
    binds: Object.fromEntries((options.bind ?? []).map((text) => bindOf(text))),
    stages: stagesOf(options.stage ?? []),
    tenant: tenantOf(options.tenant),
  };
}

function rootUpper({ writable, upper }: QueryOptions): { root?: UpperSize } {
  if (writable !== undefined && upper !== undefined)
    throw new BurrowError("BURROW_USAGE", "--writable and --upper: changes go to one of them");
  if (writable === undefined) return {};
  const sizeBytes = parseSize(writable === true ? "256M" : writable, "--writable");
  return { root: { sizeBytes, inodes: inodesFor(sizeBytes) } };
}

/** An empty one is as good as none. */
export function tenantOf(option: string | undefined): string {
  const text = option || process.env["BURROW_TENANT"] || NO_TENANT;
  return text === NO_TENANT ? text : checkTenant(text);
}

/** Stages by name. */
function stagesOf(texts: readonly string[]): Map<string, string> {
  const stages = new Map<string, string>();
  for (const text of texts) {
    const [name, source] = pair(text, "--stage", "NAME=SOURCE");
    const refuse = (why: string) => new BurrowError("BURROW_USAGE", `--stage: ${why}`);
    if (/[/\0]/.test(name) || name === "." || name === "..") throw refuse(`"${name}" is no name`);
    if (Buffer.byteLength(name) > NAME_MAX_BYTES)
      throw refuse(`"${name}" is longer than ${NAME_MAX_BYTES} bytes`);
    if (stages.has(name)) throw refuse(`there are two of the name ${name}`);
    if (source === "") throw refuse(`"${text}" names no source`);
    const origin = asOrigin(source);
    if (origin.startsWith("/") && !existsSync(origin)) throw refuse(`${source} does not exist`);
    if (origin.startsWith("/") && !isDirectory(origin)) throw refuse(`${source} is no directory`);
    stages.set(name, origin);
  }
  return stages;
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

export async function prepare(
  context: Context,
  id: string,
  options: QueryOptions,
  words: readonly string[] = [],
): Promise<Prepared> {
  const progress = new Progress(options.quiet === true, options.json === true);
  const { uppers, variables, stages, tenant, memory, given, binds } = settingsOf(options, context);
  makeFolders(context.state, join(context.state, "mounts"));
  const cache = openCache(context.cache);
  const base = await resolveBase(context, options.base, progress);
  const index = new Index(await ensureSnapshot(cache, base));
  checkBase(index, options, (volume) => {
    const mount = mountDirectory(context.state, id);
    progress.line(
      `${volume}: a volume, to be mounted from ${mount}; nothing can start in it alone`,
    );
  });
  const facts = await factsOf(cache, base, index);
  const env =
    options.env === undefined ? undefined : await resolveEnv(context, cache, options.env, progress);
  const defaults = commandDefaults(facts, env?.at, options.user !== undefined);
  const activated = env?.variables ?? {};
  const grafts: (Source & { at: string })[] = env === undefined ? [] : [env];
  for (const [name, origin] of stages) {
    const snapshot = await importStageIndex(cache, origin, progress, tenant);
    grafts.push({ snapshot, origin, at: `/stage/${name}` });
  }
  progress.end();
  await ensureDaemon({ cache: context.cache, state: context.state });
  const places = [{ ...base, at: "/" }, ...grafts];
  const kept = options.upper === undefined ? undefined : claimUpper(options.upper, places);
  const isWritable = kept !== undefined || uppers.root !== undefined;
  const { mounts } = writeQuery(context, id, places, uppers, kept, commandKey(words));
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
      env: { ...defaults.env, ...activated, ...variables },
      isTerminal,
      hostname: "burrow",
      root: mounts.root,
      tmp: mounts.tmp,
      ...(isWritable ? { isRootWritable: true } : {}),
    }),
  };
}

/** Writes the mounts; an upper that was claimed for them is given back when that fails. */
function writeQuery(
  context: Context,
  id: string,
  [base, ...grafts]: readonly Place[],
  uppers: { tmp: UpperSize; root?: UpperSize },
  kept: ClaimedUpper | undefined,
  command: string,
): { mounts: QueryMounts } {
  const start = command === "" ? {} : { command };
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

/** Of a source whose own name ends like that, the last ":rw" or ":ro" counts. */
function bindOf(text: string): [string, Bind] {
  const [path, rest] = pair(text, "--bind", "PATH=SOURCE[:rw]");
  const isReadOnly = !rest.endsWith(":rw");
  const source = isReadOnly && !rest.endsWith(":ro") ? rest : rest.slice(0, -3);
  if (!path.startsWith("/"))
    throw new BurrowError("BURROW_USAGE", `--bind: ${path} is no absolute path`);
  // A mount over the root is seen by nobody who started below it.
  if (normalize(path) === "/")
    throw new BurrowError("BURROW_USAGE", `--bind: "${path}" is the root, which --base gives`);
  if (source === "") throw new BurrowError("BURROW_USAGE", `--bind: "${text}" names no source`);
  if (!existsSync(source))
    throw new BurrowError("BURROW_USAGE", `--bind: ${source} does not exist`);
  if (!statSync(source).isDirectory() && !statSync(source).isFile()) {
    throw new BurrowError("BURROW_USAGE", `--bind: ${source} is no directory or file`);
  }
  return [path, { source: asOrigin(source), isReadOnly }];
}

/** 2^32 - 1 is no id: it means "leave it as it is". */
const ID_MAX = 2 ** 32 - 2;

function parseUser(text: string): { uid: number; gid: number } {
  const match = /^(\d{1,10})(?::(\d{1,10}))?$/.exec(text);
  const [uid, gid] = [Number(match?.[1]), Number(match?.[2] ?? match?.[1])];
  if (match && uid <= ID_MAX && gid <= ID_MAX) return { uid, gid };
  throw new BurrowError(
    "BURROW_USAGE",
    `--user: "${text}" is no UID[:GID]: say numbers; root is 0`,
  );
}
