// conda-lock's unified lock files, version 1: the packages of one platform. conda-lock/lockfile/v1/models.py. Pure. Control plane.

import type { ExplicitPackage } from "./explicit.ts";
import { type LockedPackage, lockedList, lockedPackage, nameOfEntry } from "./lock-package.ts";
import { badLock, isMap, mapsOf, type YamlMap } from "./yaml.ts";

const PLATFORM = "linux-64";
/** What `conda-lock install` takes unless told otherwise. */
const CATEGORIES: ReadonlySet<unknown> = new Set(["main", "dev"]);

/** Whether a YAML file is a conda-lock file, of whatever version. */
export function isCondaLock(file: YamlMap): boolean {
  return Array.isArray(file["package"]) && isMap(file["metadata"]);
}

/**
 * The packages of linux-64 in install order, of the categories main and dev. BURROW_BAD_LOCK for another version or platform, for pip
 * packages among them, and for a package without a hash.
 */
export function parseCondaLock(file: YamlMap, where: string): ExplicitPackage[] {
  if (file["version"] !== 1) {
    throw badLock(where, `its version is ${String(file["version"])}; version 1 is read`);
  }
  const entries = mapsOf(file["package"]);
  if (entries === undefined) throw badLock(where, "its packages are no list");
  const packages: LockedPackage[] = [];
  for (const entry of entries) {
    const category = entry["category"] ?? "main";
    if (entry["platform"] !== PLATFORM || !CATEGORIES.has(category)) continue;
    if (entry["manager"] !== "conda") {
      const advice = 'lock without pip, and give its wheel to "burrow env create" beside the lock';
      throw badLock(where, `${nameOfEntry(entry)} is a pip package: ${advice}`);
    }
    const hash = isMap(entry["hash"]) ? entry["hash"] : {};
    const depends = isMap(entry["dependencies"]) ? Object.keys(entry["dependencies"]) : [];
    const hashes = { md5: hash["md5"], sha256: hash["sha256"] };
    packages.push(lockedPackage(entry["url"], hashes, depends, where));
  }
  if (packages.length === 0) throw badLock(where, `it has no packages for ${PLATFORM}`);
  return lockedList(packages, where);
}
