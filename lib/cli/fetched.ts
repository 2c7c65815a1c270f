// What the daemon did while a sandbox ran, by its STATUS before and after: requests and bytes for the figures, and why reads failed,
// since the sandbox itself hears of EIO alone. Control plane.

import { BurrowError, type ErrorCode } from "../base/error.ts";
import { type DaemonStatus, daemonStatus } from "../cache/client.ts";
import { Count } from "../serve/counters.ts";
import type { Context } from "./context.ts";
import { counted } from "./output.ts";

export interface Fetched {
  readonly requests: number;
  readonly bytes: number;
  /** Asks that failed since the daemon started: for want of space, by wrong bytes, by deadline. */
  readonly noSpace: number;
  readonly mismatches: number;
  readonly timeouts: number;
  /** For objects of a stage that are others by now. */
  readonly stale: number;
  /** The last of them that the mount asked for. */
  readonly lastFailure?: DaemonStatus["lastFailure"];
}

const NOTHING: Fetched = {
  requests: 0,
  bytes: 0,
  noSpace: 0,
  mismatches: 0,
  timeouts: 0,
  stale: 0,
};

/** What the daemon has done since it started, and why an ask of that mount failed. A daemon that doesn't say is no reason to fail a run. */
export async function fetchedSoFar(cache: string, mountId: string): Promise<Fetched> {
  const status = await daemonStatus(cache).catch(() => undefined);
  if (status === undefined) return NOTHING;
  const lastFailure = status.failures?.[mountId];
  const meters = Object.values(status.origins);
  return {
    ...NOTHING,
    ...status.fetch,
    ...(lastFailure === undefined ? {} : { lastFailure }),
    requests: meters.reduce((sum, meter) => sum + meter.requests, 0),
    bytes: meters.reduce((sum, meter) => sum + meter.bytes, 0),
  };
}

/** What came between two looks: all of the second when it is less, another daemon's. */
export function fetchedBetween(before: Fetched, after: Fetched): Fetched {
  const isOther = after.requests < before.requests || after.bytes < before.bytes;
  const { lastFailure } = after;
  const isNew = lastFailure !== undefined && lastFailure.atMs !== before.lastFailure?.atMs;
  const since = (key: Exclude<keyof Fetched, "lastFailure">) =>
    Math.max(0, after[key] - (isOther ? 0 : before[key]));
  return {
    requests: since("requests"),
    bytes: since("bytes"),
    noSpace: since("noSpace"),
    mismatches: since("mismatches"),
    timeouts: since("timeouts"),
    stale: since("stale"),
    ...(isNew ? { lastFailure } : {}),
  };
}

/** Why an ask failed, where it is the store's or this node's own fault; whatever else it was, the bytes can't be had from the origin. */
const OTHER_REASONS = {
  BURROW_CORRUPT: "the store or stage is damaged",
  BURROW_DIGEST_MISMATCH: "bytes came that aren't what their digest says",
  BURROW_IO: "this node can't keep them",
  BURROW_ORIGIN: "the store or stage can't be reached or lacks them",
} as const;

/** The code for a failure that the daemon told of. */
export function codeOfFailure(failure: DaemonStatus["lastFailure"]): keyof typeof OTHER_REASONS {
  const code = failure?.code ?? "";
  return code in OTHER_REASONS ? (code as keyof typeof OTHER_REASONS) : "BURROW_ORIGIN";
}

/** How many reads the gofer answered with EIO or ESTALE because the bytes couldn't be had. */
export function failedReads(counters: Float64Array): number {
  return (counters[Count.failedFetches] ?? 0) + (counters[Count.parkedTimeouts] ?? 0);
}

/** How many reads failed, why, what to do, and what the daemon says of the last. */
export function readFailure(count: number, fetched: Fetched, context: Context): BurrowError {
  const reasons: [ErrorCode, string][] = [];
  if (fetched.noSpace > 0)
    reasons.push([
      "BURROW_NO_SPACE",
      `the disk of the cache ${context.cache} is full: free some space`,
    ]);
  if (fetched.mismatches > 0)
    reasons.push(["BURROW_DIGEST_MISMATCH", "bytes came that aren't what their digest says"]);
  if (fetched.timeouts > 0) reasons.push(["BURROW_TIMEOUT", "the store was too slow"]);
  if (fetched.stale > 0)
    reasons.push([
      "BURROW_STALE",
      "objects of a stage were replaced or removed since it was listed",
    ]);
  const { lastFailure } = fetched;
  const other = codeOfFailure(lastFailure);
  if (reasons.length === 0) reasons.push([other, OTHER_REASONS[other]]);
  const errno = fetched.stale > 0 ? "ESTALE or EIO" : "EIO";
  const why = reasons.map(([, text]) => text).join("; ");
  const what = counted(count, "read");
  const failed = `${what} in the sandbox failed with ${errno}, for bytes of ${context.store} or a stage: ${why}`;
  const last = lastFailure === undefined ? "" : `; the last: ${lastFailure.error}`;
  return new BurrowError(reasons[0]![0], `${failed}${last}`);
}
