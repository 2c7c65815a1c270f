// Supervisor: the life of a daemon: lock, clean up after a killed one, listen, end when idle or told to. Control plane.

import fs from "node:fs";
import { setFlagsFromString } from "node:v8";
import { BurrowError, explain } from "../base/error.ts";
import { DIRECT_VIEWS_MAX } from "../base/limits.ts";
import { openCache } from "../cache/cache.ts";
import { daemonStatus, type SharedStatus } from "../cache/client.ts";
import type { Log } from "../cache/counters.ts";
import type { CacheDirectory } from "../cache/directory.ts";
import type { Disk } from "../cache/disk.ts";
import { Fetcher } from "../cache/fetcher.ts";
import { Keeper } from "../cache/keeper.ts";
import { socketPath } from "../cache/layout.ts";
import type { SnapshotSource } from "../gofer/mount.ts";
import { NO_MIRRORS, type OriginTable, readOrigins } from "../store/origins-file.ts";
import { renewCredentials } from "../store/s3-client.ts";
import { native } from "../sys/native.ts";
import { notOurs, takeListener } from "./activation.ts";
import { Ahead } from "./ahead.ts";
import type { DaemonConfig } from "./config.ts";
import { forStrangers, statusOf } from "./control.ts";
import { DirectMounts } from "./direct-mounts.ts";
import { exposition, unnamed } from "./exposition.ts";
import { Foresight } from "./foresight.ts";
import { LazyMount } from "./lazy-mount.ts";
import { takeLock, takeLockOver } from "./lock.ts";
import { boundedLog } from "./log.ts";
import { LoopDelay } from "./loop-delay.ts";
import { isOpenToAll, MetricsServer, parseMetricsAddress } from "./metrics-server.ts";
import { OwnPlace } from "./own-place.ts";
import { PinnedBlobs } from "./pinned.ts";
import { takePrecedence } from "./precedence.ts";
import { Prefetched } from "./prefetched.ts";
import { Profiles } from "./profiles.ts";
import { Server } from "./server.ts";
import { Sources } from "./sources.ts";
import { brokerOf, Standbys, standbysOf } from "./standbys.ts";
import { Tracing } from "./tracing.ts";
import { Views } from "./views.ts";

/** How often it looks whether it is idle or near its limit. */
const TICK_MS = 1_000;
const POOL_THREADS = 12;
/**
 * Of V8: how much the heap may grow until all of it is marked again. What comes from an origin counts as heap until it is written, ours is
 * some 10 MB, and left alone V8 marks it anew for every 6 MiB that are read: half of the main thread's time. What lies outside of the heap
 * has a bound of its own, 64 MB. docs/design/0013-off-the-loop.md.
 */
const HEAP_GROWTH = "--heap-growing-percent=900";

export interface Daemon {
  /** Resolves when it has ended, for whatever reason. */
  readonly ended: Promise<string>;
  /** Ends it; `ended` resolves with the reason. */
  stop(reason: string): void;
  /** Reads the file of origins again, and credentials; STATUS and the log say what came of it. */
  reload(): void;
  status(): unknown;
  /** Whether calls on the cache's disk hang. */
  readonly isDiskHung: boolean;
  /** Whether it serves a lazy mount, by its options or since it was left one. */
  readonly hasLazyMount: boolean;
}

/**
 * Starts a daemon in this process, on a socket that listens already or one that it makes. undefined when another one serves the cache
 * already, unless a socket was handed over: then that one is told to end. Throws when the cache can't be used.
 */
export async function startDaemon(
  config: DaemonConfig,
  log: Log,
  listener?: number,
): Promise<Daemon | undefined> {
  const cache = openCache(config.cache);
  const lock = listener === undefined ? takeLock(config.cache) : await takeLockOver(config.cache);
  if (lock === undefined) return undefined;
  let daemon: RunningDaemon | undefined;
  try {
    const hasSuspects = cache.startUp(config.suspect);
    const views = new Views();
    const tracing = new Tracing();
    const fetcher = fetcherOf(config, cache, log, tracing);
    const readerOf = (origin: string) => fetcher.origins.get(origin).reader;
    const sources = new Sources(cache, config.state, readerOf);
    const open = async (of: SnapshotSource) => {
      using deadline = fetcher.deadlineOf(of.origin);
      return await sources.open(of, deadline.signal);
    };
    const context = { cache, fetcher, open, log };
    const lazy = await LazyMount.tryMount(context, config.lazyMount);
    const { background } = config;
    const prefetched = new Prefetched({
      figuresOf: (id) => views.figuresOf(id),
      brought: (...piece) => tracing.brought(...piece),
    });
    const ahead = new Ahead({ ...context, prefetched });
    const profiles = config.profiles ? new Profiles({ ...context, ahead, background }) : undefined;
    const foresight = config.foresight
      ? new Foresight({ ...context, ahead, background })
      : undefined;
    const starts = { ahead, profiles, foresight };
    const figures = { views, prefetched, tracing };
    const parts = { config, cache, lock, log, fetcher, sources, lazy, ...starts, figures };
    daemon = new RunningDaemon(parts);
    await daemon.listen(listener);
    log("started", { cache: config.cache, pid: process.pid, hasSuspects: hasSuspects ? 1 : 0 });
    return daemon;
  } catch (error) {
    // It may listen already: a daemon without the lock would live beside the next one.
    if (daemon === undefined) fs.closeSync(lock);
    else daemon.stop("failed");
    if (error instanceof BurrowError) throw error;
    throw new BurrowError("BURROW_DAEMON", "the daemon can't start", {
      cause: error,
      context: { cache: config.cache },
    });
  }
}

/** Runs a daemon until it ends or is told to by SIGTERM or SIGINT: the body of `burrow daemon start`. SIGHUP reloads it. Exit code. */
export async function runDaemon(config: DaemonConfig, log: Log): Promise<number> {
  process.umask(0o022);
  // For what Node.js does with files by itself, of which six may be the cache disk's (lib/cache/disk.ts). libuv asks when the first is wanted.
  process.env["UV_THREADPOOL_SIZE"] ??= String(POOL_THREADS);
  setFlagsFromString(HEAP_GROWTH);
  const listener = takeListener();
  closeInherited();
  // Before anything is started: workers are to be as everybody's threads.
  if (config.precedence) takePrecedence();
  const bounded = boundedLog(log);
  let told: string | undefined;
  let daemon: Daemon | undefined;
  for (const signal of ["SIGTERM", "SIGINT"] as const) {
    // From the start and for good: neither one that comes early nor one that comes again may end it without cleaning up.
    process.on(signal, () => {
      told ??= signal;
      daemon?.stop(signal);
    });
  }
  let isStale = false;
  process.on("SIGHUP", () => {
    isStale = daemon === undefined;
    daemon?.reload();
  });
  // It may have come since its terminal is gone, to which nothing can be written.
  process.stderr.on("error", () => undefined);
  // Node.js would open a debugger.
  process.on("SIGUSR1", () => undefined);
  daemon = await startDaemon(config, bounded, listener);
  if (daemon === undefined) {
    log("already running", { cache: config.cache, note: "its own options hold" });
    return 0;
  }
  if (told !== undefined) daemon.stop(told);
  if (isStale) daemon.reload();
  log("ended", { reason: await daemon.ended });
  // A thread may wait for a disk, and would be waited for.
  if (daemon.isDiskHung) native.exitNow(0);
  // A thread may wait for a lazy mount that was left to the next daemon.
  if (daemon.hasLazyMount) process.exit(0);
  return 0;
}

/**
 * Closes what the starter left open without meaning to: a lock or a pipe of its own would be held by us and by every server that we
 * start. What Node.js opens is closed on exec, such things aren't. man proc_pid_fdinfo(5).
 */
function closeInherited(): void {
  const O_CLOEXEC = 0o2000000;
  for (const name of fs.readdirSync("/proc/self/fdinfo")) {
    const fd = Number(name);
    if (fd <= 2) continue;
    try {
      const text = fs.readFileSync(`/proc/self/fdinfo/${name}`, "latin1");
      const flags = Number.parseInt(/^flags:\s*([0-7]+)/m.exec(text)?.[1] ?? "", 8);
      if ((flags & O_CLOEXEC) === 0) fs.closeSync(fd);
    } catch {
      // The directory's own.
    }
  }
}

function fetcherOf(
  config: DaemonConfig,
  cache: CacheDirectory,
  log: Log,
  tracing: Tracing,
): Fetcher {
  const { headerMs, stallMs, deadlineMs, askMaxMs, requests, background, memoryBytes } = config;
  const origins = tableOf(config);
  const limits = { headerMs, stallMs, deadlineMs, askMaxMs, requests };
  const onRequest = tracing.requested.bind(tracing);
  return new Fetcher(cache, { ...limits, origins, background, memoryBytes, log, onRequest });
}

/** What the file of origins says now. BURROW_USAGE. */
function tableOf({ origins }: DaemonConfig): OriginTable {
  const path = origins === "" ? (process.env["BURROW_ORIGINS"] ?? "") : origins;
  return path === "" ? NO_MIRRORS : readOrigins(path);
}

interface Parts {
  readonly config: DaemonConfig;
  readonly cache: CacheDirectory;
  readonly lock: number;
  readonly log: Log;
  readonly fetcher: Fetcher;
  readonly sources: Sources;
  readonly lazy: LazyMount | undefined;
  readonly ahead: Ahead;
  readonly profiles: Profiles | undefined;
  readonly foresight: Foresight | undefined;
  readonly figures: {
    readonly views: Views;
    readonly prefetched: Prefetched;
    readonly tracing: Tracing;
  };
}

class RunningDaemon implements Daemon {
  readonly ended: Promise<string>;
  readonly #config: DaemonConfig;
  readonly #place: OwnPlace;
  readonly #log: Log;
  readonly #fetcher: Fetcher;
  readonly #keeper: Keeper;
  readonly #lazy: LazyMount | undefined;
  readonly #ahead: Ahead;
  readonly #profiles: Profiles | undefined;
  readonly #foresight: Foresight | undefined;
  readonly #prefetched: Prefetched;
  readonly #disk: Disk;
  readonly #server: Server;
  readonly #standbys: Standbys;
  readonly #broker: Standbys;
  readonly #direct: DirectMounts;
  readonly #views: Views;
  readonly #loop = new LoopDelay();
  readonly #metrics: MetricsServer | undefined;
  readonly #startedMs = performance.now();
  /** Since its start; and what was wrong with the last file that was refused, until one isn't. */
  #reloads = { done: 0, refused: 0, why: "" };
  #timer: NodeJS.Timeout | undefined;
  #idleSinceMs = performance.now();
  #isEnding = false;
  #resolveEnded: (reason: string) => void = () => undefined;

  constructor(parts: Parts) {
    const { config, cache, lock, log, fetcher, sources, lazy } = parts;
    const { ahead, profiles, foresight } = parts;
    const { views, prefetched, tracing } = parts.figures;
    this.#config = config;
    this.#log = log;
    this.#fetcher = fetcher;
    this.#lazy = lazy;
    this.#ahead = ahead;
    this.#profiles = profiles;
    this.#foresight = foresight;
    this.#prefetched = prefetched;
    this.#views = views;
    this.#disk = cache.disk;
    this.#keeper = new Keeper(cache, fetcher, new PinnedBlobs(cache), config.limitBytes);
    const status = (isOwn: boolean) => (isOwn ? this.status() : forStrangers(this.status()));
    const { deadlineMs, silentMs } = config;
    const { cache: path, state } = config;
    this.#direct = new DirectMounts({ cache: path, state, most: DIRECT_VIEWS_MAX, log });
    this.#server = new Server({
      fetcher,
      direct: this.#direct,
      lazy,
      sources,
      views,
      profiles,
      foresight,
      prefetched,
      tracing,
      deadlineMs,
      silentMs,
      log,
      status,
      look: () => this.#keeper.look(),
    });
    const listenAt = (where: string) => this.#server.listen({ path: where });
    this.#place = new OwnPlace(cache, lock, listenAt, log);
    this.#metrics = config.metrics === "" ? undefined : this.#metricsServer();
    this.#standbys = new Standbys(standbysOf(config.cache, config.standbys), log);
    this.#broker = new Standbys(brokerOf(config.cache, config.shared), log);
    this.ended = new Promise((resolve) => {
      this.#resolveEnded = resolve;
    });
  }

  #metricsServer(): MetricsServer {
    const { metrics, metricsNames } = this.#config;
    const address = parseMetricsAddress(metrics);
    const isNamed = metricsNames || !isOpenToAll(address);
    return new MetricsServer(address, () =>
      exposition(isNamed ? this.status() : unnamed(this.status())),
    );
  }

  async listen(listener: number | undefined): Promise<void> {
    await this.#metrics?.listen();
    if (listener === undefined) {
      await this.#place.listen();
    } else {
      await this.#server.listen({ fd: listener });
      await this.#checkListener();
    }
    const tickMs = Math.max(10, Math.min(TICK_MS, this.#config.idleMs / 4 || TICK_MS));
    this.#timer = setInterval(() => this.#tick(), tickMs);
    this.#standbys.start();
    this.#broker.start(); // in a folder of theirs
    void this.#direct.start();
    void this.#keeper.start();
  }

  /** Whether who connects to the cache's socket comes to us. Throws BURROW_DAEMON, also when that can't be told. */
  async #checkListener(): Promise<void> {
    const { cache } = this.#config;
    const ask = () => daemonStatus(cache);
    // All that waited for a daemon are served first: on a slow machine that takes longer than an answer may. To end for it would have them
    // wait for the next one, which has as many before it.
    const found = await ask().catch(ask).catch(ask);
    if (found?.pid !== process.pid) throw notOurs(`is not ${socketPath(cache)}`);
  }

  status(): Record<string, unknown> {
    const { connections } = this.#server;
    const { waiting } = this.#standbys;
    const now = { connections, standbys: waiting };
    const direct = this.#direct.figures;
    const more = { views: this.#views, loop: this.#loop };
    const status = statusOf(this.#config, this.#startedMs, this.#fetcher, this.#keeper, now, more);
    return {
      ...status,
      reloads: this.#reloads,
      ...(this.#profiles === undefined
        ? {}
        : { profiles: this.#profiles.figures, prefetch: this.#prefetched.figures }),
      ...(this.#foresight === undefined ? {} : { foresight: this.#foresight.figures }),
      ...(this.#lazy === undefined ? {} : { lazy: this.#lazy.status() }),
      ...(direct === undefined ? {} : { direct }),
      ...(this.#config.shared === 0 ? {} : { shared: this.#sharedFigures }),
    };
  }

  /** Without a broker nobody shares. */
  get #sharedFigures(): SharedStatus {
    const none = { servers: 0, sandboxes: 0, placed: 0, refused: 0 };
    return { most: this.#config.shared, ...(this.#broker.shared ?? none) };
  }

  get isDiskHung(): boolean {
    return this.#disk.hanging > 0;
  }

  get hasLazyMount(): boolean {
    return this.#lazy !== undefined;
  }

  reload(): void {
    if (this.#isEnding) return;
    const { done, refused } = this.#reloads;
    try {
      const table = tableOf(this.#config);
      this.#fetcher.origins.reload(table);
      renewCredentials();
      this.#reloads = { done: done + 1, refused, why: "" };
      this.#log("reloaded", { origins: table.size });
    } catch (error) {
      const why = explain(error);
      this.#reloads = { done, refused: refused + 1, why };
      this.#log("reload refused", { error: why, note: "what was there before holds" });
    }
  }

  stop(reason: string): void {
    if (this.#isEnding) return;
    this.#isEnding = true;
    clearInterval(this.#timer);
    // Before reads under way fail: who is there to wait waits for the next daemon.
    if (this.#server.gofers > 0) this.#lazy?.leave();
    this.#ahead.stop();
    this.#profiles?.stop();
    this.#fetcher.close();
    this.#keeper.stop();
    this.#metrics?.close();
    this.#loop.stop();
    this.#broker.stop();
    this.#standbys.stop();
    this.#direct.stop();
    this.#place.leave();
    void Promise.all([this.#server.close(), this.#lazy?.close()]).then(() => {
      this.#place.close();
      this.#resolveEnded(reason);
    });
  }

  #tick(): void {
    if (this.#server.connections > 0 || !this.#fetcher.isIdle)
      this.#idleSinceMs = performance.now();
    const idleMs = performance.now() - this.#idleSinceMs;
    if (this.#config.idleMs > 0 && idleMs >= this.#config.idleMs) this.stop("idle");
    else void this.#keepRoom();
  }

  async #keepRoom(): Promise<void> {
    const standing = await this.#place.look();
    if (standing === "lost") return this.stop("another daemon has the cache");
    if (standing === "restored") void this.#keeper.look();
    const before = this.#keeper.facts.evicted;
    await this.#keeper.tick();
    const { evicted, usedBytes } = this.#keeper.facts;
    if (evicted > before) this.#log("evicted", { files: evicted - before, usedBytes });
  }
}
