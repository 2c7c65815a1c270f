// One package as locks in YAML list it, whatever their format: its URL or path, its hashes, what it needs. Control plane.

import { PATH_MAX_BYTES } from "../../base/limits.ts";
import { ARCHIVE_SUFFIX, distOf, nameOfArchive } from "./dist.ts";
import { type ExplicitPackage, pathOf } from "./explicit.ts";
import { installOrder } from "./install-order.ts";
import { badLock, type YamlMap } from "./yaml.ts";

export interface LockedPackage {
  /** Lower case. */
  readonly name: string;
  readonly depends: readonly string[];
  readonly item: Omit<ExplicitPackage, "line">;
}

/** What a lock says of a package's hashes and size. */
export interface LockedHashes {
  readonly md5: unknown;
  readonly sha256: unknown;
  readonly size?: unknown;
}

const HEX = { md5: /^[0-9a-f]{32}$/i, sha256: /^[0-9a-f]{64}$/i } as const;

/** A package of a lock. BURROW_BAD_LOCK, naming it, when it is no archive or no hash is given. */
export function lockedPackage(
  url: unknown,
  hashes: LockedHashes,
  depends: readonly string[],
  where: string,
): LockedPackage {
  if (typeof url !== "string" || url.length > PATH_MAX_BYTES) {
    throw badLock(where, "a package has no URL");
  }
  const archive = nameOfArchive(url);
  const refuse = (why: string): never => {
    // The archive's name and not its URL: that may hold a token.
    throw badLock(where, `${archive.slice(0, 200)}: ${why}`);
  };
  if (!ARCHIVE_SUFFIX.test(archive)) refuse("it is no .conda or .tar.bz2 (a source package?)");
  const dist = distOf(archive) ?? refuse("its name has no version and build");
  const known: { md5?: string; sha256?: string } = {};
  for (const kind of ["md5", "sha256"] as const) {
    const value = hashes[kind];
    if (value === undefined || value === null) continue;
    if (typeof value !== "string" || !HEX[kind].test(value)) refuse(`its ${kind} is none`);
    known[kind] = (value as string).toLowerCase();
  }
  if (known.md5 === undefined && known.sha256 === undefined) refuse("it has no md5 or sha256");
  const size = Number.isSafeInteger(hashes.size) ? { size: hashes.size as number } : {};
  const name = dist.name.toLowerCase();
  return {
    name,
    depends,
    item: { url, ...pathOf(url, refuse), ...known, ...size, dist: { ...dist, name } },
  };
}

/** Locked packages as a list to import, in install order. BURROW_BAD_LOCK for a name with two archives. */
export function lockedList(packages: readonly LockedPackage[], where: string): ExplicitPackage[] {
  const byName = new Map<string, LockedPackage>();
  for (const one of packages) {
    const other = byName.get(one.name);
    // conda-lock lists a package once for each of its categories.
    if (other !== undefined && other.item.url !== one.item.url) {
      throw badLock(where, `${one.name} comes twice, as two archives`);
    }
    byName.set(one.name, one);
  }
  return installOrder([...byName.values()]).map(({ item }, i) => ({ ...item, line: i + 1 }));
}

/** The name of a package that is no conda package, for an error. */
export function nameOfEntry(entry: YamlMap): string {
  const text = entry["name"] ?? entry["pypi"] ?? entry["url"];
  return typeof text === "string" ? nameOfArchive(text).slice(0, 200) : "a package";
}
