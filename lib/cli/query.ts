// Query: from what a user names (environment, base, stages) to mounts of this node: their snapshots' indexes in the cache, a view
// and an upper in the state directory. Shared by run and bundle. Control plane.

import { createHash, randomBytes } from "node:crypto";
import { existsSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { type Digest, showDigest } from "../base/digest.ts";
import { BurrowError } from "../base/error.ts";
import {
  MOUNT_FORMAT,
  mountDirectory,
  type UpperDirectory,
  type UpperSize,
} from "../gofer/mount.ts";
import type { Start } from "../preload/start.ts";
import { makeFolder } from "../store/folder.ts";
import { NO_TENANT } from "../store/object-pin.ts";
import type { Context } from "./context.ts";
import { writeText } from "./output.ts";

/** A snapshot and where it is fetched from. */
export interface Source {
  readonly snapshot: Digest;
  readonly origin: string;
}

export interface QueryMounts {
  readonly id: string;
  /** Sources for a bundle: the view for "/", the upper for "/tmp". */
  readonly root: string;
  readonly tmp: string;
}

/**
 * What tells a tenant's starts of a command from others', for profiles: 32 hex digits; "" of no command. What one tenant's sandboxes teach
 * is so no measure of what another's need.
 */
export function commandKey(words: readonly string[], tenant: string): string {
  if (words.length === 0) return "";
  // No command begins with an empty word.
  const all = tenant === NO_TENANT ? words : ["", tenant, ...words];
  return createHash("sha256").update(all.join("\0")).digest("hex").slice(0, 32);
}

/** An id that nobody else has: sortable by time, so that leftovers can be told. */
export function newRunId(): string {
  return `q${Date.now().toString(36)}-${randomBytes(4).toString("hex")}`;
}

/** Writes the mounts of a query: each appears whole or not at all. */
export function writeMounts(
  context: Context,
  id: string,
  base: Source,
  grafts: readonly (Source & { at: string })[],
  uppers: { tmp: UpperSize; root?: UpperSize | UpperDirectory },
  start: {
    readonly command?: string;
    readonly start?: Start;
    readonly profile?: "off";
    readonly tenant?: string;
  } = {},
): QueryMounts {
  for (const each of [id, `${id}-tmp`]) {
    if (!existsSync(mountDirectory(context.state, each))) continue;
    throw new BurrowError(
      "BURROW_USAGE",
      `there is a mount ${each}; end it: burrow bundle-rm ${id}`,
    );
  }
  const described = (source: Source) => ({
    snapshot: showDigest(source.snapshot),
    origin: source.origin,
  });
  const root = writeMount(context.state, id, {
    format: MOUNT_FORMAT,
    kind: "view",
    cache: context.cache,
    ...start,
    base: described(base),
    grafts: grafts.map((graft) => ({ at: graft.at, ...described(graft) })),
    ...(uppers.root === undefined ? {} : { upper: uppers.root }),
  });
  const tmp = writeMount(context.state, `${id}-tmp`, {
    format: MOUNT_FORMAT,
    kind: "upper",
    ...uppers.tmp,
    mode: 0o1777,
  });
  return { id, root, tmp };
}

/** Writes one mount; the source to put into a bundle. */
export function writeMount(state: string, id: string, description: unknown): string {
  const folder = mountDirectory(state, id);
  const aside = asideOf(state, id);
  makeFolder(aside, 0o755);
  writeText(join(aside, "mount.json"), `${JSON.stringify(description, null, 2)}\n`);
  renameSync(aside, folder);
  return folder;
}

/** Where a mount is written before it has its name. */
function asideOf(state: string, id: string): string {
  return join(state, "mounts", `.${id}.new`);
}

/** Removes the mounts of a query, half-written ones too: whether there were any. */
export function removeMounts(context: Context, id: string): boolean {
  const ids = [id, `${id}-tmp`];
  const folders = ids.map((each) => mountDirectory(context.state, each));
  const wereThere = folders.some((folder) => existsSync(folder));
  for (const folder of [...folders, ...ids.map((each) => asideOf(context.state, each))])
    rmSync(folder, { recursive: true, force: true });
  return wereThere;
}

const SIZE = /^(\d+(?:\.\d+)?)([KMGT]?)(?:i?B)?$/i;

/** "64M" in bytes: powers of 1024, as tmpfs takes them. BURROW_USAGE. */
export function parseSize(text: string, option: string): number {
  const match = SIZE.exec(text);
  const bytes = match
    ? Number(match[1]) * 1024 ** " KMGT".indexOf((match[2] || " ").toUpperCase())
    : 0;
  if (!match || !Number.isSafeInteger(Math.floor(bytes)) || bytes < 4096) {
    throw new BurrowError(
      "BURROW_USAGE",
      `${option}: "${text}" is no size; say e.g. 64M, at least 4K`,
    );
  }
  return Math.floor(bytes);
}

/** Seconds as milliseconds. BURROW_USAGE. */
export function parseSeconds(text: string, option: string): number {
  if (/^\d{1,9}(\.\d+)?$/.test(text)) return Math.round(Number(text) * 1000);
  throw new BurrowError("BURROW_USAGE", `${option}: "${text}" is no number of seconds`);
}

/** Node.js counts no further than 24 days. */
const TIMER_MAX_MS = 24 * 86_400_000;

/** How long something may take at most, in ms. BURROW_USAGE for 0 and past 24 days, too. */
export function parseTimeout(text: string, option: string): number {
  return checkTimeout(parseSeconds(text, option), option, text);
}

/** The same of ms, which messages call `text`. */
export function checkTimeout(ms: number, option: string, text: string): number {
  if (ms > 0 && ms <= TIMER_MAX_MS) return ms;
  throw new BurrowError("BURROW_USAGE", `${option}: ${text} is not over 0 and up to 24 days`);
}

/** Inodes that go with a size: one per 16 KiB, as Linux's tmpfs reckons about one per page; at least 1,024. */
export function inodesFor(sizeBytes: number): number {
  return Math.max(1024, Math.floor(sizeBytes / (16 * 1024)));
}
