// What a daemon is told, and what it takes when it is not. Control plane.

import { BurrowError } from "../base/error.ts";
import { ASK_MAX_MS } from "../base/limits.ts";

export interface DaemonConfig {
  /** The cache directory; one daemon each. */
  readonly cache: string;
  /** Where mounts/<id>/mount.json is found. */
  readonly state: string;
  /** Ends after this long without connections and work; 0: never (under a service manager). */
  readonly idleMs: number;
  /** An ask is given up when its origin has sent nothing for so long: below the gofer's own deadline of 30 s. */
  readonly deadlineMs: number;
  /** An ask is given up after so long whatever comes. */
  readonly askMaxMs: number;
  /** The file that says where else origins lie, docs/origins.md; "": what $BURROW_ORIGINS names. */
  readonly origins: string;
  /** Requests to one origin at once. */
  readonly requests: number;
  /** What the cache may take of its disk, bytes; 0: no limit. docs/cache.md. */
  readonly limitBytes: number;
  /** What may be kept in memory while the disk can't take it, bytes; 0: nothing. */
  readonly memoryBytes: number;
  /** Complete large blobs in the background. */
  readonly background: boolean;
  /** Learn what starts wait for, and fetch it ahead of the next ones. */
  readonly profiles: boolean;
  /** Whether what starts read is foreseen by their files. */
  readonly foresight: boolean;
  /** Have the loop run before sandboxes, where that is allowed. */
  readonly precedence: boolean;
  /** Mount large blobs that are on their way, for gofers to donate. */
  readonly lazyMount: boolean;
  /** Where figures are served over HTTP, as parseMetricsAddress takes it; "": nowhere. */
  readonly metrics: string;
  /** Whether they name origins and views over TCP, too, where any user of this machine can ask. */
  readonly metricsNames: boolean;
  /** Servers that wait for stubs at a time. */
  readonly standbys: number;
  /** Sandboxes of one tenant that a server serves at most, of those that ask to share one; 0: each has its own. */
  readonly shared: number;
  /** Verify every blob anew, whatever the boot file says. */
  readonly suspect: boolean;
  /** Deadlines of the HTTP backend. */
  readonly headerMs: number;
  readonly stallMs: number;
  /** How long a peer on the socket that named no mount may say nothing. */
  readonly silentMs: number;
}

export const DAEMON_DEFAULTS: DaemonConfig = {
  cache: "/var/cache/burrow",
  state: "/var/lib/burrow",
  idleMs: 60_000,
  deadlineMs: 25_000,
  askMaxMs: ASK_MAX_MS,
  origins: "",
  requests: 8,
  limitBytes: 0,
  memoryBytes: 256 * 1024 * 1024,
  background: true,
  profiles: true,
  foresight: true,
  precedence: true,
  lazyMount: false,
  metrics: "",
  metricsNames: false,
  standbys: 1,
  shared: 0,
  suspect: false,
  headerMs: 10_000,
  stallMs: 5_000,
  silentMs: 10_000,
};

const COUNTS = [
  "idleMs",
  "deadlineMs",
  "askMaxMs",
  "requests",
  "limitBytes",
  "memoryBytes",
  "standbys",
  "shared",
  "headerMs",
  "stallMs",
  "silentMs",
] as const;

/** The defaults with what is given. Throws BURROW_USAGE for what can't be. */
export function daemonConfig(given: Partial<DaemonConfig>): DaemonConfig {
  const config = { ...DAEMON_DEFAULTS, ...given };
  for (const key of COUNTS) {
    if (Number.isSafeInteger(config[key]) && config[key] >= 0) continue;
    throw new BurrowError("BURROW_USAGE", `${key} must be a whole number`, {
      context: { [key]: config[key] },
    });
  }
  for (const key of ["cache", "state"] as const) {
    if (config[key].startsWith("/")) continue;
    throw new BurrowError("BURROW_USAGE", `${key} must be an absolute path`, {
      context: { [key]: config[key] },
    });
  }
  return config;
}
