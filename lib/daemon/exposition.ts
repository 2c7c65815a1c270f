// The daemon's figures in the text format of Prometheus, made of its STATUS. A metric is a row of the table below; docs/metrics.md says
// what each means. Pure. Control plane.

/** How many origins have series of their own; stages may lie anywhere. */
const ORIGINS_MAX = 64;
const OTHER = "(other)";

export const EXPOSITION_TYPE = "text/plain; version=0.0.4; charset=utf-8";

interface Sample {
  readonly labels?: Readonly<Record<string, string>>;
  readonly value: number;
}

interface Metric {
  /** With its unit; "_total" behind those that only grow. */
  readonly name: string;
  readonly type: "counter" | "gauge";
  readonly help: string;
  /** None where a STATUS has no such figure. */
  read(status: unknown): readonly Sample[];
}

/** Something in a STATUS by its names; undefined when it isn't there. */
function at(status: unknown, ...names: readonly string[]): unknown {
  let value = status;
  for (const name of names) {
    if (typeof value !== "object" || value === null) return undefined;
    value = (value as Record<string, unknown>)[name];
  }
  return value;
}

function sample(
  value: unknown,
  scale: number,
  labels?: Readonly<Record<string, string>>,
): Sample[] {
  if (typeof value === "boolean") return [{ value: Number(value), ...(labels && { labels }) }];
  if (typeof value !== "number") return [];
  return [{ value: value * scale, ...(labels && { labels }) }];
}

/** One figure. */
const one =
  (names: readonly string[], scale = 1): Metric["read"] =>
  (status) =>
    sample(at(status, ...names), scale);

/** Several figures with a label that tells them apart. */
const each =
  (
    label: string,
    figures: Readonly<Record<string, readonly string[]>>,
    scale = 1,
  ): Metric["read"] =>
  (status) =>
    Object.entries(figures).flatMap(([name, names]) =>
      sample(at(status, ...names), scale, { [label]: name }),
    );

/** The same figure of each member of a table of the STATUS, for `label` its name; with fixed labels beside it. */
function members(
  table: string,
  label: string,
  figures: Readonly<Record<string, Readonly<Record<string, string>>>>,
  scale = 1,
): Metric["read"] {
  return (status) => {
    const sums = new Map<string, Sample>();
    for (const [i, [name, fields]] of Object.entries(at(status, table) ?? {}).entries()) {
      const shown = i < ORIGINS_MAX ? plain(name) : OTHER;
      for (const [field, fixed] of Object.entries(figures)) {
        for (const { value } of sample(at(fields, field), scale)) {
          const labels = { [label]: shown, ...fixed };
          const key = JSON.stringify(labels);
          sums.set(key, { labels, value: value + (sums.get(key)?.value ?? 0) });
        }
      }
    }
    return [...sums.values()];
  };
}

/** An origin without what may be secret: users, passwords, queries. What are the same then are summed up. */
function plain(name: string): string {
  return name.replace(/^(\w+:\/\/)[^/@]*@/, "$1").replace(/[?#].*$/s, "");
}

const counter = (name: string, help: string, read: Metric["read"]): Metric => {
  return { name: `burrow_${name}_total`, type: "counter", help, read };
};
const gauge = (name: string, help: string, read: Metric["read"]): Metric => {
  return { name: `burrow_${name}`, type: "gauge", help, read };
};
const ofOrigin = (field: string, scale = 1) => members("origins", "origin", { [field]: {} }, scale);
const ofView = (field: string, scale = 1) => members("views", "view", { [field]: {} }, scale);

const METRICS: readonly Metric[] = [
  gauge("daemon_uptime_seconds", "Since the daemon's start", one(["upMs"], 1e-3)),
  gauge("daemon_connections", "Gofers and tools that are connected", one(["now", "connections"])),
  gauge("daemon_standbys", "Servers that wait for a sandbox", one(["now", "standbys"])),
  gauge("shared_servers", "Servers that sandboxes share", one(["shared", "servers"])),
  gauge("shared_sandboxes", "Sandboxes that they serve", one(["shared", "sandboxes"])),
  counter("shared_placed", "Sandboxes that got such a server", one(["shared", "placed"])),
  counter("shared_refused", "Those turned away", one(["shared", "refused"])),
  gauge("direct_mounts", "Views that are mounts of the kernel's", one(["direct", "views"])),
  gauge("direct_mounts_limit", "How many there may be", one(["direct", "most"])),
  gauge("direct_sandboxes", "Sandboxes that have one", one(["direct", "users"])),
  counter("direct_made", "Mounts that were begun", one(["direct", "made"])),
  counter("direct_shared", "Sandboxes that found theirs there", one(["direct", "shared"])),
  counter("direct_refused", "Those that there was no place for", one(["direct", "refused"])),
  counter("direct_restarts", "Servers after one that was killed", one(["direct", "restarts"])),
  gauge("daemon_idle", "Whether nothing is being fetched", one(["now", "isIdle"])),
  gauge("partial_files", "Large files that are here in part", one(["now", "partials"])),
  counter("asks", "Asks for files that gofers did not find whole", one(["fetch", "asks"])),
  counter("failed_asks", "Asks answered with an error", one(["fetch", "failedAsks"])),
  counter(
    "hits",
    "Asks answered by a tier of this node",
    each("tier", { disk: ["fetch", "hits"] }),
  ),
  counter("deadlines", "Asks that were not answered in time", one(["fetch", "timeouts"])),
  counter("no_space", "Asks that failed for want of space", one(["fetch", "noSpace"])),
  counter("stale_asks", "Asks for objects that were replaced", one(["fetch", "stale"])),
  counter("fetched_blobs", "Files completed in the cache", one(["fetch", "blobs"])),
  counter(
    "fetched_neighbours",
    "Files of these that came along with another",
    one(["fetch", "neighbours"]),
  ),
  counter("fetched_content_bytes", "Content of these files", one(["fetch", "blobBytes"])),
  counter("fetched_blocks", "Blocks of large files put into the cache", one(["fetch", "blocks"])),
  counter(
    "content_mismatches",
    "Pieces that came and were not what their digest says",
    one(["fetch", "mismatches"]),
  ),
  counter(
    "heals",
    "Cached files whose seal was broken or suspect, by what they were found to be",
    each("found", { right: ["fetch", "resealed"], wrong: ["fetch", "dropped"] }),
  ),
  counter(
    "locators_refreshed",
    "Locators read anew because packs were elsewhere",
    one(["fetch", "refreshed"]),
  ),
  gauge("cache_used_bytes", "What the cache takes of its disk", one(["room", "usedBytes"])),
  gauge("cache_limit_bytes", "What it may take; 0: no limit", one(["room", "limitBytes"])),
  gauge(
    "cache_disk_inodes",
    "Inodes of the cache's disk; 0: it needs none",
    one(["room", "inodes"]),
  ),
  gauge("cache_disk_inodes_free", "Those that are free", one(["room", "freeInodes"])),
  counter("evicted_files", "Files evicted from the cache", one(["room", "evicted"])),
  counter("evicted_bytes", "What they took of the disk", one(["room", "evictedBytes"])),
  gauge("disk_demoted", "Whether the disk takes no writes", one(["room", "isDiskDemoted"])),
  counter("disk_demotions", "How often that came", one(["room", "demotions"])),
  gauge(
    "memory_tier_used_bytes",
    "What is kept in memory for want of a disk",
    one(["room", "memory", "usedBytes"]),
  ),
  counter("profile_starts", "Starts that had files fetched ahead", one(["profiles", "starts"])),
  counter("profile_asks", "Files and blocks fetched ahead of them", one(["profiles", "asks"])),
  counter("profile_failed_asks", "Those that could not be had", one(["profiles", "failedAsks"])),
  counter("profile_requests", "Ranges of packs fetched for them", one(["profiles", "requests"])),
  counter("profile_bytes", "Bytes of these ranges", one(["profiles", "bytes"])),
  counter("profile_learned", "Starts that taught something new", one(["profiles", "learned"])),
  counter("foresight_starts", "Starts that were foreseen", one(["foresight", "starts"])),
  counter("foresight_asks", "Files and blocks fetched ahead of them", one(["foresight", "asks"])),
  counter("foresight_failed_asks", "Those not to be had", one(["foresight", "failedAsks"])),
  counter("foresight_requests", "Ranges of packs fetched for them", one(["foresight", "requests"])),
  counter("foresight_bytes", "Bytes of these ranges", one(["foresight", "bytes"])),
  counter(
    "prefetched_bytes",
    "Content that was brought before it was asked for",
    one(["prefetch", "prefetchedBytes"]),
  ),
  counter("prefetched_used_bytes", "What of that was used since", one(["prefetch", "usedBytes"])),
  counter("first_reads", "Files and ranges when first read", one(["prefetch", "touches"])),
  counter("first_reads_local", "Those that were here by then", one(["prefetch", "localTouches"])),
  gauge("lazy_files", "Files of the lazy mount that may be asked for", one(["lazy", "known"])),
  counter("lazy_reads", "Reads of the lazy mount", one(["lazy", "reads"])),
  counter("lazy_failed_reads", "Those answered with an error", one(["lazy", "failedReads"])),
  counter("lazy_read_bytes", "What they read", one(["lazy", "readBytes"])),
  counter("origin_requests", "Requests to an origin, retries too", ofOrigin("requests")),
  counter("origin_bytes", "Bytes that came of objects", ofOrigin("bytes")),
  counter(
    "origin_failures",
    "Requests that failed, by what may be done about it",
    members("origins", "origin", {
      notFound: { class: "not_found" },
      permanent: { class: "permanent" },
      transient: { class: "transient" },
    }),
  ),
  counter("origin_retries", "Requests made again after a failure", ofOrigin("retries")),
  counter("origin_hedges", "Requests made beside one that took long", ofOrigin("hedges")),
  gauge(
    "origin_in_flight",
    "Requests under way",
    members("queues", "origin", { demand: { kind: "demand" }, background: { kind: "background" } }),
  ),
  gauge(
    "origin_queued",
    "Requests that wait for their turn",
    members("queues", "origin", {
      demandQueued: { kind: "demand" },
      backgroundQueued: { kind: "background" },
    }),
  ),
  gauge(
    "origin_intake_bytes",
    "Bytes that were asked for and aren't written yet",
    members("queues", "origin", { intakeBytes: {} }),
  ),
  counter("view_asks", "Asks by view", ofView("asks")),
  counter("view_failed_asks", "Asks by view, answered with an error", ofView("failedAsks")),
  counter("view_fetched_bytes", "Content asked for that was not here", ofView("fetchedBytes")),
  counter(
    "view_prefetched_bytes",
    "Content brought for a view before it asked",
    ofView("prefetchedBytes"),
  ),
  counter("view_prefetched_used_bytes", "What of that was used since", ofView("usedBytes")),
  counter("view_first_reads", "Files and ranges when they were first read", ofView("touches")),
  counter("view_first_reads_local", "Those of them that were here", ofView("localTouches")),
  counter("view_blocked_seconds", "Time from asks to answers", ofView("blockedMs", 1e-3)),
  gauge(
    "event_loop_delay_seconds",
    "How late the daemon comes to its timers, over the last minute",
    each(
      "quantile",
      { "0.5": ["loop", "p50Ms"], "0.99": ["loop", "p99Ms"], "1": ["loop", "maxMs"] },
      1e-3,
    ),
  ),
  gauge(
    "event_loop_held_seconds",
    "What of that the daemon computed, at most",
    each("quantile", { "0.99": ["loop", "heldP99Ms"], "1": ["loop", "heldMaxMs"] }, 1e-3),
  ),
  gauge(
    "event_loop_queued_seconds",
    "What of that it stood in line for a CPU, at most",
    each("quantile", { "0.99": ["loop", "queuedP99Ms"], "1": ["loop", "queuedMaxMs"] }, 1e-3),
  ),
  gauge("daemon_resident_bytes", "Memory of the daemon", one(["process", "residentBytes"])),
  counter("daemon_cpu_seconds", "CPU time of the daemon", one(["process", "cpuMs"], 1e-3)),
];

/** All metrics, in their order. */
export const METRIC_NAMES: readonly string[] = METRICS.map(({ name }) => name);

/** The exposition of a STATUS: version 0.0.4 of the text format. */
export function exposition(status: unknown): string {
  const lines: string[] = [];
  for (const { name, type, help, read } of METRICS) {
    const samples = read(status);
    if (samples.length === 0) continue;
    lines.push(`# HELP ${name} ${help}`, `# TYPE ${name} ${type}`);
    for (const { labels = {}, value } of samples) {
      const pairs = Object.entries(labels).map(([key, text]) => `${key}="${escaped(text)}"`);
      lines.push(`${name}${pairs.length === 0 ? "" : `{${pairs.join(",")}}`} ${value}`);
    }
  }
  return lines.map((line) => `${line}\n`).join("");
}

/** A status without names of origins and views: what is counted by them is summed up. */
export function unnamed(status: Readonly<Record<string, unknown>>): Record<string, unknown> {
  const out: Record<string, unknown> = { ...status };
  for (const table of ["origins", "queues", "views"]) {
    const members = Object.values(at(status, table) ?? {});
    // Each has a key of its own, and all of them are shown as one name: see plain().
    out[table] = Object.fromEntries(members.map((value, i) => [`${OTHER}#${i}`, value]));
  }
  return out;
}

function escaped(text: string): string {
  return text.replaceAll("\\", "\\\\").replaceAll("\n", "\\n").replaceAll('"', '\\"');
}
