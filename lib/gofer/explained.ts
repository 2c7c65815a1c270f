// explain.json beside a mount.json: what is known of a view whose mount is explained to who uses it: whose its files are, and the files
// of /.burrow. Written by the CLI, read before the first request. docs/format/mount.md. Control plane.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { BurrowError } from "../base/error.ts";
import { nameOf } from "../base/name.ts";
import { counters, showCounters } from "../serve/counters.ts";
import { Explanation, type FileOwners } from "../tree/explanation.ts";
import { type InfoFile, InfoTree } from "../tree/info.ts";
import type { SnapshotTree } from "../tree/snapshot.ts";
import type { Graft } from "../tree/view.ts";
import { mountDirectory } from "./mount.ts";

export const EXPLAIN_FILE = "explain.json";
export const EXPLAIN_FORMAT = 1;
/** Where the server's own files are seen. */
const INFO_PATH = "/.burrow";
/** More than counters ever take as text; clients are told a size before they read. */
const COUNTERS_BYTES = 4096;

/** Of one snapshot: owners, and for stretches of its inodes in order how many are whose: 1 + its number, 0 nobody's. */
export interface StoredOwners {
  readonly owners: readonly { readonly title: string; readonly layer: string }[];
  readonly runs: readonly number[];
}

export interface StoredExplanation {
  readonly format: typeof EXPLAIN_FORMAT;
  /** Shown as it is. */
  readonly manifest: unknown;
  /** By the number of the snapshot in the view; null of what isn't made of known layers. */
  readonly snapshots: readonly (StoredOwners | null)[];
}

/** The explanation of a mount; undefined where there is none. BURROW_USAGE for one that can't be read. */
export function readExplanation(state: string, id: string): StoredExplanation | undefined {
  const path = join(mountDirectory(state, id), EXPLAIN_FILE);
  try {
    const value = JSON.parse(readFileSync(path, "utf8")) as StoredExplanation;
    if (value.format !== EXPLAIN_FORMAT || !Array.isArray(value.snapshots))
      throw new Error(`format is ${String(value.format)}; this program reads ${EXPLAIN_FORMAT}`);
    return value;
  } catch (cause) {
    if (cause instanceof Error && "code" in cause && cause.code === "ENOENT") return undefined;
    throw new BurrowError("BURROW_USAGE", `${path} is no explanation of a mount`, { cause });
  }
}

/** What a view of these snapshots, by their numbers, is built with. */
export function explanationOf(
  stored: StoredExplanation,
  snapshots: readonly SnapshotTree[],
): { readonly explanation: Explanation; readonly info: Graft } {
  const owners = new Map<SnapshotTree, FileOwners>();
  for (const [number, tree] of snapshots.entries()) {
    const known = stored.snapshots[number];
    if (known) owners.set(tree, { owners: known.owners, byIno: expand(known.runs) });
  }
  const manifest = Buffer.from(`${JSON.stringify(stored.manifest, null, 2)}\n`);
  const files: InfoFile[] = [
    { name: nameOf("counters.json"), sizeBytes: COUNTERS_BYTES, render: renderCounters },
    { name: nameOf("manifest.json"), sizeBytes: manifest.length, render: () => manifest },
  ];
  const madeSec = Math.floor(Date.now() / 1000);
  const info = new InfoTree(snapshots.length, files, madeSec);
  return { explanation: new Explanation(owners), info: { at: INFO_PATH, tree: info } };
}

/** Inodes are counted from 1. */
function expand(runs: readonly number[]): Uint16Array {
  let count = 0;
  for (let i = 0; i < runs.length; i += 2) count += runs[i]!;
  const byIno = new Uint16Array(1 + count);
  let ino = 1;
  for (let i = 0; i < runs.length; i += 2) {
    byIno.fill(runs[i + 1]!, ino, ino + runs[i]!);
    ino += runs[i]!;
  }
  return byIno;
}

/** This server's counters as JSON, with blanks up to the size that was promised. */
function renderCounters(): Uint8Array {
  const text = JSON.stringify(showCounters(counters), null, 2);
  return Buffer.from(`${text.slice(0, COUNTERS_BYTES - 1).padEnd(COUNTERS_BYTES - 1)}\n`);
}
