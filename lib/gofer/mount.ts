// mount.json: what Burrow serves for a mount whose source is <state>/mounts/<id>. Written by the CLI, read by the gofer (trees)
// and the daemon (origins). docs/format/mount.md. Control plane.

import { readFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { type Digest, parseDigest } from "../base/digest.ts";
import { BurrowError } from "../base/error.ts";
import { GRAFTS_MAX } from "../base/limits.ts";
import { isCommandKey } from "../preload/profile.ts";
import { START_LIST_MAX, START_TEXT_MAX_CHARS, type Start } from "../preload/start.ts";

export const DEFAULT_STATE = "/var/lib/burrow";
export const DEFAULT_CACHE = "/var/cache/burrow";
export const MOUNT_FORMAT = 1;
/** Ids of mounts that a daemon makes for itself begin so: docs/design/0033-directfs.md. */
export const DIRECT_PREFIX = "direct-";

/** A snapshot and the store that it is fetched from: a directory's path, or an http(s) or s3 URL. */
export interface SnapshotSource {
  readonly snapshot: Digest;
  readonly origin: string;
}

export interface GraftSource extends SnapshotSource {
  /** Absolute path in the view, as people write it (UTF-8). */
  readonly at: string;
}

export interface ViewMount {
  readonly kind: "view";
  readonly cache: string;
  readonly base: SnapshotSource;
  readonly grafts: readonly GraftSource[];
  /** What tells starts of one command from others': 32 hex digits. For profiles (docs/design/0022-profiles.md). */
  readonly command?: string;
  /** What is known of the command, to foresee what it reads (docs/design/0024-foresight.md). */
  readonly start?: Start;
  /** Whose it is: views of several tenants share no direct mount. */
  readonly tenant?: string;
  /** What it asks for is no start's, and teaches nothing. */
  readonly profile?: "off";
  /** What a sandbox changes goes to a tmpfs of its own, or to a directory that is kept; without, the view is read-only. */
  readonly upper?: UpperSize | UpperDirectory;
}

export interface UpperDirectory {
  /** Absolute path; docs/format/upper.md. */
  readonly directory: string;
}

export interface UpperSize {
  readonly sizeBytes: number;
  readonly inodes: number;
}

export interface UpperMount extends UpperSize {
  readonly kind: "upper";
  /** Permissions of its root, e.g. 0o1777. */
  readonly mode: number;
}

export type Mount = ViewMount | UpperMount;

const ID = /^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$/;

/** Whether a string may be a mount id: a file name without surprises. */
export function isMountId(id: string): boolean {
  return ID.test(id) && !id.includes("..");
}

/** <state>/mounts/<id>: the source to put into a bundle. */
export function mountDirectory(state: string, id: string): string {
  return join(state, "mounts", id);
}

/** The id in a mount's source when it lies under <state>/mounts, else undefined: then it is a host path. */
export function mountIdOf(state: string, source: string): string | undefined {
  const folder = join(state, "mounts");
  if (!source.startsWith(`${folder}/`)) return undefined;
  const id = source.slice(folder.length + 1).replace(/\/+$/, "");
  return isMountId(id) ? id : undefined;
}

/** Reads and checks <state>/mounts/<id>/mount.json. BURROW_NOT_FOUND, BURROW_USAGE. */
export function readMount(state: string, id: string): Mount {
  const path = mountPath(state, id);
  try {
    return mountOf(readFileSync(path, "utf8"), path);
  } catch (cause) {
    throw cause instanceof BurrowError ? cause : noMount(id, path, cause);
  }
}

/** The same on another thread. */
export async function readMountLater(state: string, id: string): Promise<Mount> {
  const path = mountPath(state, id);
  try {
    return mountOf(await readFile(path, "utf8"), path);
  } catch (cause) {
    throw cause instanceof BurrowError ? cause : noMount(id, path, cause);
  }
}

function mountPath(state: string, id: string): string {
  return join(mountDirectory(state, id), "mount.json");
}

function noMount(id: string, path: string, cause: unknown): BurrowError {
  return new BurrowError("BURROW_NOT_FOUND", `no mount ${id}: can't read ${path}`, { cause });
}

function mountOf(text: string, path: string): Mount {
  try {
    return checkMount(JSON.parse(text) as unknown);
  } catch (cause) {
    throw new BurrowError("BURROW_USAGE", `${path} is no valid mount description`, { cause });
  }
}

/** The Mount in parsed JSON. Throws Error saying which field is wrong. */
function checkMount(value: unknown): Mount {
  const fields = record(value, "the file");
  if (fields["format"] !== MOUNT_FORMAT) {
    throw new Error(`format is ${String(fields["format"])}; this program reads ${MOUNT_FORMAT}`);
  }
  if (fields["kind"] === "upper") {
    return {
      kind: "upper",
      ...upperSize(fields, ""),
      mode: count(fields["mode"], "mode") & 0o7777,
    };
  }
  if (fields["kind"] !== "view") throw new Error(`unknown kind ${String(fields["kind"])}`);
  const grafts = fields["grafts"] ?? [];
  if (!Array.isArray(grafts) || grafts.length > GRAFTS_MAX) throw new Error("grafts is no list");
  return {
    kind: "view",
    cache: text(fields["cache"], "cache"),
    ...(fields["command"] === undefined ? {} : { command: commandKey(fields["command"]) }),
    ...(fields["start"] === undefined ? {} : { start: start(fields["start"]) }),
    base: source(fields["base"], "base"),
    ...(fields["tenant"] === undefined ? {} : { tenant: text(fields["tenant"], "tenant") }),
    ...(fields["profile"] === "off" ? { profile: "off" } : {}),
    ...(fields["upper"] === undefined
      ? {}
      : { upper: viewUpper(record(fields["upper"], "upper")) }),
    grafts: grafts.map((graft: unknown, i) => {
      const at = text(record(graft, `grafts[${i}]`)["at"], `grafts[${i}].at`);
      if (!at.startsWith("/")) throw new Error(`grafts[${i}].at is no absolute path: ${at}`);
      return { ...source(graft, `grafts[${i}]`), at };
    }),
  };
}

function commandKey(value: unknown): string {
  const key = text(value, "command");
  if (!isCommandKey(key)) throw new Error("command is no key of 32 hex digits");
  return key;
}

function start(value: unknown): Start {
  const fields = record(value, "start");
  const short = (each: unknown, where: string) => {
    const found = text(each, `start.${where}`);
    if (found.length > START_TEXT_MAX_CHARS) throw new Error(`start.${where} is too long`);
    return found;
  };
  const texts = (name: string) => {
    const list = fields[name];
    if (!Array.isArray(list) || list.length > START_LIST_MAX)
      throw new Error(`start.${name} is no list`);
    return list.map((each: unknown, i) => short(each, `${name}[${i}]`));
  };
  return {
    program: short(fields["program"], "program"),
    path: texts("path"),
    cwd: short(fields["cwd"], "cwd"),
    ...(fields["script"] === undefined ? {} : { script: short(fields["script"], "script") }),
    imports: texts("imports"),
  };
}

function viewUpper(fields: Record<string, unknown>): UpperSize | UpperDirectory {
  if (fields["directory"] === undefined) return upperSize(fields, "upper.");
  const directory = text(fields["directory"], "upper.directory");
  if (!directory.startsWith("/")) throw new Error("upper.directory is no absolute path");
  return { directory };
}

function upperSize(fields: Record<string, unknown>, where: string): UpperSize {
  return {
    sizeBytes: count(fields["sizeBytes"], `${where}sizeBytes`),
    inodes: count(fields["inodes"], `${where}inodes`),
  };
}

function source(value: unknown, where: string): SnapshotSource {
  const fields = record(value, where);
  const snapshot = parseDigest(text(fields["snapshot"], `${where}.snapshot`));
  if (snapshot === undefined) throw new Error(`${where}.snapshot is no digest`);
  return { snapshot, origin: text(fields["origin"], `${where}.origin`) };
}

function record(value: unknown, where: string): Record<string, unknown> {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new Error(`${where} is no object`);
  }
  return value as Record<string, unknown>;
}

function text(value: unknown, where: string): string {
  if (typeof value !== "string" || value === "") throw new Error(`${where} is no text`);
  return value;
}

function count(value: unknown, where: string): number {
  if (!Number.isSafeInteger(value) || (value as number) < 0)
    throw new Error(`${where} is no count`);
  return value as number;
}
