// The API for programs that embed Burrow: `import { run, view } from "burrow"`. Words of programs in place of a command line's; the work
// is the command line's own. docs/api.md. Control plane.

import { existsSync } from "node:fs";
import type { Readable, Writable } from "node:stream";
import { showDigest } from "../base/digest.ts";
import { BurrowError } from "../base/error.ts";
import { ensureDaemon } from "../cache/client.ts";
import { cachePath } from "../cache/layout.ts";
import { checkCommand } from "../cli/command-defaults.ts";
import { type Context, contextOf } from "../cli/context.ts";
import { knowOriginsOf } from "../cli/known-origins.ts";
import { Progress } from "../cli/output.ts";
import { checkQuery, mountView, type ResolvedView, resolveView } from "../cli/prepare.ts";
import { checkTimeout } from "../cli/query.ts";
import type { QueryOptions } from "../cli/query-settings.ts";
import { runQuery } from "../cli/run-query.ts";
import type { RunStats } from "../cli/run-stats.ts";
import { NO_WATCH, withRun } from "../cli/runs.ts";
import { START_MS } from "../cli/sandbox.ts";
import { directFlags, sharingTenant } from "../cli/sharing.ts";
import { Collected } from "./collected.ts";

export type { BurrowErrorOptions, ErrorClass, ErrorCode } from "../base/error.ts";
export type { RunStats, Sharing } from "../cli/run-stats.ts";
export { BurrowError };

/** Where this node keeps things; each falls back to its variable and then to the command line's default. */
export interface Places {
  /** Directory of mounts and runs. $BURROW_STATE; /var/lib/burrow. */
  readonly state?: string;
  /** The node's cache directory. $BURROW_CACHE; /var/cache/burrow. */
  readonly cache?: string;
  /** Where snapshots come from: a directory, or an http(s) or s3 URL. $BURROW_STORE; STATE/store. */
  readonly store?: string;
}

/** What a sandbox is to see. */
export interface ViewOptions extends Places {
  /** Root file system: a snapshot's digest, or a directory, tar, .deb or image to import into the store. */
  readonly base: string;
  /** Conda environment: a snapshot's digest, or a lock or environment.yml to create it from. */
  readonly env?: string;
  /** Read-only files at /stage/NAME: a directory, an http(s) stage or a prefix on S3 by name. They are listed now, and stay as listed. */
  readonly stages?: Readonly<Record<string, string>>;
  /** Whose stages they are: tenants share no files of stages in the cache. $BURROW_TENANT. */
  readonly tenant?: string;
  /** Aborted, view() fails with its reason, at the latest when the step at work is done. */
  readonly signal?: AbortSignal;
}

/** A tree that sandboxes may be started over, any number, one after the other or at once. It holds nothing open. */
export interface View {
  /** The snapshots it is made of, the base first. */
  readonly snapshots: readonly {
    /** "sha256:…". */
    readonly digest: string;
    /** The path in the sandbox that it is seen at. */
    readonly at: string;
  }[];
}

/** A directory or file of the host that is passed through. */
export interface Bind {
  /** Its path on the host. */
  readonly source: string;
  /** Whether the sandbox may write to it; false when missing. */
  readonly isWritable?: boolean;
}

/** How a command is run. Nothing of it outlives the run but what `upper` and writable binds name. */
export interface RunOptions {
  /** Variables of the command, over those of image and environment. */
  readonly env?: Readonly<Record<string, string>>;
  /** Working directory; the image's, or /. */
  readonly cwd?: string;
  /** Whose the command is; the image's when missing, or 65534 for both. */
  readonly user?: {
    /** A number: the sandbox's passwd isn't asked. */
    readonly uid: number;
    /** `uid` when missing. */
    readonly gid?: number;
  };
  /** Quota of /tmp in bytes, from 4096; 256 MiB when missing. */
  readonly tmpBytes?: number;
  /** Lets the command write wherever its user may, up to so many bytes; its changes go with it. */
  readonly writableBytes?: number;
  /** Lets it write, and keeps its changes in this directory for the next run over the same view. */
  readonly upper?: string;
  /** By absolute path in the sandbox. */
  readonly binds?: Readonly<Record<string, Bind>>;
  /** Lets it share a warm server with other sandboxes of the view's tenant, where the daemon keeps some. $BURROW_SHARED=1. */
  readonly isShared?: boolean;
  /**
   * Has it work on the view as a mount of the kernel's, without asking a gofer (docs/directfs.md): on what it can't write, without binds,
   * under a runsc of 2023 or later. Where that can't be, run() fails.
   */
  readonly isDirect?: boolean;
  /** Memory limit of sandbox and gofer in bytes; needs cgroups. */
  readonly memoryBytes?: number;
  /** runsc's network; none when missing. */
  readonly network?: "none" | "sandbox" | "host";
  /** runsc's platform; its own default when missing. */
  readonly platform?: "systrap" | "ptrace" | "kvm";
  /** Further global flags for runsc. */
  readonly runscFlags?: readonly string[];
  /** How long the sandbox may take until it asks for its first file, over 0 and up to 24 days; 60,000 when missing. */
  readonly startTimeoutMs?: number;
  /** The command's stdin; nothing when missing. */
  readonly stdin?: Readable;
  /** Where its output goes, which is ended with the command; missing, it is collected for the result. */
  readonly stdout?: Writable;
  /** The same for what the command and runsc complain of. */
  readonly stderr?: Writable;
  /** How much is collected of each before the run is ended with BURROW_CAPTURE; 16 MiB when missing. */
  readonly outputMaxBytes?: number;
  /** Aborted, it ends the sandbox at once, and run() fails with its reason. */
  readonly signal?: AbortSignal;
}

/** What came of a command that was started. */
export interface RunResult {
  /** The command's own; 128 + n when signal n ended it. */
  readonly exitCode: number;
  /** What was collected, as UTF-8; "" when a stream was given. */
  readonly stdout: string;
  /** The same of what the command and runsc complained of. */
  readonly stderr: string;
  /** What the run took. */
  readonly stats: RunStats;
  /** Why reads failed with EIO or ESTALE in the sandbox, if some did: what the command made of it is in its exit code. */
  readonly readFailure?: BurrowError;
  /** What people should know, such as that the kernel killed it for want of memory. */
  readonly notes: readonly string[];
}

const OUTPUT_MAX_BYTES = 16 * 1024 * 1024;

interface Made {
  readonly context: Context;
  readonly options: QueryOptions;
  readonly resolved: ResolvedView;
}

/** What is behind the views that view() gave. */
const made = new WeakMap<View, Made>();

/**
 * Names what a sandbox is to see, and makes it ready: imports and creates what isn't in the store, brings the indexes of its snapshots
 * to the cache, lists its stages, and starts the node's daemon when none runs. No file's content is fetched. Fails with a BurrowError,
 * whose message names things as `burrow run` does.
 */
export async function view(options: ViewOptions): Promise<View> {
  const { signal, stages = {}, base, env, tenant } = options;
  signal?.throwIfAborted();
  const context = contextOf({ ...placesOf(options), json: false });
  const query: QueryOptions = {
    base,
    ...(env === undefined ? {} : { env }),
    ...(tenant === undefined ? {} : { tenant }),
    stage: Object.entries(stages).map(([name, source]) => joined(name, source, "stages")),
    tmpSize: "256M",
    quiet: true,
  };
  await checkQuery(context, query);
  await knowOriginsOf(context.cache);
  signal?.throwIfAborted();
  const resolved = await resolveView(context, query, silent());
  signal?.throwIfAborted();
  const snapshots = resolved.places.map(({ snapshot, at }) => ({
    digest: showDigest(snapshot),
    at,
  }));
  const result: View = Object.freeze({ snapshots: Object.freeze(snapshots) });
  made.set(result, { context, options: query, resolved });
  return result;
}

/**
 * Runs a command over a view in a sandbox of its own, to its end; without words, the image's own command. Fails with BURROW_START when
 * the command could not be started (`context.exitCode` is what `burrow run` would end with), with the reason of `signal` when that was
 * aborted, with BURROW_CAPTURE when it printed more than is collected. Signals of this process are left alone; a sandbox dies with it.
 */
export async function run(
  view: View,
  command: readonly string[],
  options: RunOptions = {},
): Promise<RunResult> {
  const { signal } = options;
  signal?.throwIfAborted();
  const behind = made.get(view);
  if (behind === undefined)
    throw new BurrowError("BURROW_USAGE", "run(): that is no view that view() gave");
  const { context } = behind;
  const query = { ...behind.options, ...queryOf(options) };
  await checkCommand(command, query.base);
  await checkQuery(context, query);
  const asked = mannerOf(command, options, query);
  const resolved = await refreshed(behind);
  const abort = new AbortController();
  const onAbort = () => abort.abort();
  signal?.addEventListener("abort", onAbort);
  const maxBytes = options.outputMaxBytes ?? OUTPUT_MAX_BYTES;
  const stdout = new Collected(maxBytes, onAbort);
  const stderr = new Collected(maxBytes, onAbort);
  try {
    return await withRun(
      context,
      async (run) => {
        const prepared = await mountView(context, run.id, resolved, query, command, silent());
        using _kept = prepared.kept;
        signal?.throwIfAborted();
        const manner = {
          ...asked,
          stdout: options.stdout ?? stdout,
          stderr: options.stderr ?? stderr,
          abort: abort.signal,
        };
        const ended = await runQuery(context, run, prepared, manner, NO_WATCH);
        signal?.throwIfAborted();
        for (const collected of [stdout, stderr]) collected.check();
        if (ended.failure !== undefined) throw said(ended.failure, stderr.text());
        const { exitCode, notes, readFailure } = ended;
        return {
          exitCode,
          stdout: stdout.text(),
          stderr: stderr.text(),
          stats: ended.stats!,
          notes,
          ...(readFailure === undefined ? {} : { readFailure }),
        };
      },
      NO_WATCH,
    );
  } finally {
    signal?.removeEventListener("abort", onAbort);
  }
}

function placesOf({ state, cache, store }: Places) {
  return {
    ...(state === undefined ? {} : { state }),
    ...(cache === undefined ? {} : { cache }),
    ...(store === undefined ? {} : { store }),
  };
}

function silent(): Progress {
  return new Progress(true, false);
}

/** The command line's "NAME=VALUE", whose name ends at its first "=". */
function joined(name: string, value: string, field: string): string {
  if (name !== "" && !name.includes("=")) return `${name}=${value}`;
  throw new BurrowError("BURROW_USAGE", `${field}: "${name}" is no name`);
}

function queryOf(options: RunOptions): Partial<QueryOptions> {
  const { env = {}, binds = {}, cwd, user, upper } = options;
  const { tmpBytes, writableBytes, memoryBytes } = options;
  return {
    setEnv: Object.entries(env).map(([name, value]) => joined(name, value, "env")),
    bind: Object.entries(binds).map(([path, { source, isWritable }]) =>
      joined(path, `${source}:${isWritable === true ? "rw" : "ro"}`, "binds"),
    ),
    ...(tmpBytes === undefined ? {} : { tmpSize: String(tmpBytes) }),
    ...(writableBytes === undefined ? {} : { writable: String(writableBytes) }),
    ...(upper === undefined ? {} : { upper }),
    ...(cwd === undefined ? {} : { cwd }),
    ...(user === undefined ? {} : { user: `${user.uid}:${user.gid ?? user.uid}` }),
    ...(memoryBytes === undefined ? {} : { memory: String(memoryBytes) }),
  };
}

function mannerOf(command: readonly string[], options: RunOptions, query: QueryOptions) {
  const { startTimeoutMs = START_MS, isShared = false, isDirect = false } = options;
  return {
    command,
    isTerminal: false,
    network: options.network ?? "none",
    platform: options.platform,
    runscFlags: [...directFlags(isDirect, query, isShared), ...(options.runscFlags ?? [])],
    memory: query.memory,
    tenant: sharingTenant(isShared, query.tenant),
    startMs: checkTimeout(startTimeoutMs, "startTimeoutMs", `${startTimeoutMs} ms`),
    isMeasured: true,
    stdin: options.stdin,
    keepsSignals: true,
  };
}

/** What a view is made of, here once more: a cache with a limit may have let go of an index meanwhile, and a daemon of its life. */
async function refreshed({ context, options, resolved }: Made): Promise<ResolvedView> {
  const { cache, state } = context;
  const isHere = resolved.places.every(({ snapshot }) =>
    existsSync(cachePath(cache, "indexes", snapshot)),
  );
  if (isHere) {
    await ensureDaemon({ cache, state });
    return resolved;
  }
  const again = await resolveView(context, options, silent());
  const isSame = again.places.every(({ snapshot }, i) => resolved.places[i]?.snapshot === snapshot);
  if (isSame) return again;
  const what = "the view is not on this node any more, and what it was made of has changed";
  throw new BurrowError("BURROW_STALE", `${what}: call view() again`);
}

/** A failed start with what runsc said of it. */
function said(failure: BurrowError, stderr: string): BurrowError {
  const text = stderr.trim();
  if (text === "") return failure;
  const { code, message, context } = failure;
  const cause = new Error(text, failure.cause === undefined ? {} : { cause: failure.cause });
  return new BurrowError(code, message, { class: failure.class, context, cause });
}
