// What the daemon counts while it fetches; they only ever grow. STATUS shows them by these names. Control plane.

import { BurrowError, explain } from "../base/error.ts";

export interface FetchCounters {
  /** Asks answered, and those answered with an errno. */
  asks: number;
  failedAsks: number;
  /** Asks for blobs that were whole on this node already. */
  hits: number;
  /** Blobs completed and sealed, those of them that were only neighbours of what was asked, and their bytes. */
  blobs: number;
  neighbours: number;
  blobBytes: number;
  /** Blocks of large blobs verified and written. */
  blocks: number;
  /** Content from an origin that was not what its digest says. */
  mismatches: number;
  /** Files whose seal was broken or suspect: found right and sealed again, or found wrong and dropped. */
  resealed: number;
  dropped: number;
  /** Locators read anew because one led nowhere. */
  refreshed: number;
  noSpace: number;
  /** Asks for an object of a bucket that was replaced or removed since its stage was listed. */
  stale: number;
  timeouts: number;
}

export function newFetchCounters(): FetchCounters {
  return {
    asks: 0,
    failedAsks: 0,
    hits: 0,
    blobs: 0,
    neighbours: 0,
    blobBytes: 0,
    blocks: 0,
    mismatches: 0,
    resealed: 0,
    dropped: 0,
    refreshed: 0,
    noSpace: 0,
    stale: 0,
    timeouts: 0,
  };
}

/** One line of the daemon's log: an event and facts that name package, blob, pack and origin. */
export type Log = (event: string, facts: Readonly<Record<string, string | number>>) => void;

/** Why an ask was answered with an errno: when, ms by the clock of this node, and the code of docs/errors.md, if it has one. */
export interface AskFailure {
  readonly atMs: number;
  readonly error: string;
  readonly code?: string;
}

export function failureOf(error: unknown): AskFailure {
  const code = error instanceof BurrowError ? { code: error.code } : {};
  return { atMs: Date.now(), error: explain(error), ...code };
}
