// Pins: snapshots whose blobs are never evicted. A pin is an empty file of the snapshot's name in pins/, so it is there or not at any
// kill. Control plane.

import fs from "node:fs";
import { type Digest, isDigest } from "../base/digest.ts";
import { BurrowError } from "../base/error.ts";
import { makeFolder } from "../store/folder.ts";
import { ioError } from "../store/node-error.ts";
import { heldWhole } from "./cache.ts";
import type { CacheDirectory } from "./directory.ts";

/** Snapshots pinned at once: each costs 8 bytes a blob in the daemon's memory. */
const PINS_MAX = 1_024;

/** What a daemon knows of pins. */
export interface Pinned {
  readonly snapshots: number;
  has(blob: Digest): boolean;
  /** Takes up what was pinned and unpinned since. Never rejects. */
  refresh(): Promise<void>;
}

export function pinsFolder(cache: CacheDirectory): string {
  return `${cache.root}/pins`;
}

/** Pinned snapshots, in order. */
export function listPins(cache: CacheDirectory): Digest[] {
  try {
    return fs.readdirSync(pinsFolder(cache)).filter(isDigest).sort();
  } catch {
    return [];
  }
}

/** Pins a snapshot whose index is in the cache; it lasts when this returns. BURROW_NOT_FOUND, BURROW_USAGE past PINS_MAX. */
export async function pin(cache: CacheDirectory, snapshot: Digest): Promise<void> {
  if ((await heldWhole(cache, "indexes", snapshot)) === undefined) {
    throw new BurrowError("BURROW_NOT_FOUND", "no such snapshot in the cache", {
      context: { snapshot, cache: cache.root },
    });
  }
  const pins = listPins(cache);
  if (pins.includes(snapshot)) return;
  if (pins.length >= PINS_MAX) {
    throw new BurrowError("BURROW_USAGE", `${PINS_MAX} snapshots are pinned already`);
  }
  const path = `${pinsFolder(cache)}/${snapshot}`;
  try {
    if (makeFolder(pinsFolder(cache), 0o755)) syncFolder(cache.root);
    fs.closeSync(fs.openSync(path, "a", 0o644));
    syncFolder(pinsFolder(cache));
  } catch (error) {
    throw ioError("can't pin a snapshot", path, error);
  }
}

/** Whether it was pinned. */
export function unpin(cache: CacheDirectory, snapshot: Digest): boolean {
  const path = `${pinsFolder(cache)}/${snapshot}`;
  if (!fs.existsSync(path)) return false;
  try {
    fs.unlinkSync(path);
    syncFolder(pinsFolder(cache));
  } catch (error) {
    throw ioError("can't unpin a snapshot", path, error);
  }
  return true;
}

function syncFolder(path: string): void {
  const fd = fs.openSync(path, fs.constants.O_RDONLY | fs.constants.O_DIRECTORY);
  try {
    fs.fsyncSync(fd);
  } finally {
    fs.closeSync(fd);
  }
}
