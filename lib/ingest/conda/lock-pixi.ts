// pixi.lock, versions 4 to 7: the packages of one environment and platform. rattler: crates/rattler_lock/src/parse/. Pure. Control plane.

import type { ExplicitPackage } from "./explicit.ts";
import { type LockedPackage, lockedList, lockedPackage, nameOfEntry } from "./lock-package.ts";
import { badLock, isMap, mapsOf, textsOf, type YamlMap } from "./yaml.ts";

const PLATFORM = "linux-64";
const DEFAULT_ENVIRONMENT = "default";
/**
 * Up to 5 a package's URL stands under "url", from 6 under "conda"; from 7 a platform may have a name of its own, and source packages
 * have a key of theirs. Nothing else that is read here differs.
 */
const VERSIONS: readonly unknown[] = [4, 5, 6, 7];

/** Whether a YAML file is a pixi.lock, of whatever version. */
export function isPixiLock(file: YamlMap): boolean {
  return "version" in file && isMap(file["environments"]);
}

/**
 * The packages of an environment on linux-64 in install order. BURROW_BAD_LOCK for another version, for pip and source packages among
 * them, and for a package without a hash; BURROW_NOT_FOUND for an environment that isn't there.
 */
export function parsePixiLock(
  file: YamlMap,
  where: string,
  environment: string = DEFAULT_ENVIRONMENT,
): ExplicitPackage[] {
  if (!VERSIONS.includes(file["version"])) {
    throw badLock(where, `its version is ${String(file["version"])}; 4 to 7 are read`);
  }
  const environments = file["environments"] as YamlMap;
  const found = Object.hasOwn(environments, environment) ? environments[environment] : undefined;
  if (!isMap(found)) {
    const names = Object.keys(environments).slice(0, 20).join(", ");
    throw badLock(where, `it has no environment "${environment}", but ${names}`);
  }
  const platforms = isMap(found["packages"]) ? found["packages"] : {};
  const chosen = mapsOf(platforms[platformName(file, platforms, where)]);
  if (chosen === undefined) {
    throw badLock(where, `its environment "${environment}" is not locked for ${PLATFORM}`);
  }
  const facts = factsByUrl(file["packages"], where);
  const packages: LockedPackage[] = [];
  for (const entry of chosen) {
    const url = entry["conda"];
    if (entry["conda_source"] !== undefined) {
      throw badLock(where, `${String(entry["conda_source"]).slice(0, 200)} is a source package`);
    }
    if (url === undefined) {
      const advice = 'lock without pip, and give its wheel to "burrow env create" beside the lock';
      throw badLock(where, `${nameOfEntry(entry)} is a pip package: ${advice}`);
    }
    const fact = typeof url === "string" ? (facts.get(url) ?? {}) : {};
    const { md5, sha256, size } = fact as { md5?: unknown; sha256?: unknown; size?: unknown };
    const depends = textsOf(fact["depends"]) ?? [];
    packages.push(lockedPackage(url, { md5, sha256, size }, depends, where));
  }
  if (packages.length === 0) throw badLock(where, `its environment "${environment}" is empty`);
  return lockedList(packages, where);
}

/** What an environment calls our platform: its own name, or the one name that the lock gives to it. */
function platformName(file: YamlMap, platforms: YamlMap, where: string): string {
  if (Object.hasOwn(platforms, PLATFORM)) return PLATFORM;
  const names = (mapsOf(file["platforms"]) ?? [])
    .filter(({ name, subdir }) => subdir === PLATFORM && typeof name === "string")
    .map(({ name }) => name as string)
    .filter((name) => Object.hasOwn(platforms, name));
  if (names.length > 1) {
    throw badLock(where, `it is locked for several kinds of ${PLATFORM}: ${names.join(", ")}`);
  }
  return names[0] ?? PLATFORM;
}

/** What the lock says of each conda package, by its URL. */
function factsByUrl(value: unknown, where: string): Map<string, YamlMap> {
  const entries = mapsOf(value);
  if (entries === undefined) throw badLock(where, "its packages are no list");
  const facts = new Map<string, YamlMap>();
  for (const entry of entries) {
    const url = entry["conda"] ?? (entry["kind"] === "conda" ? entry["url"] : undefined);
    if (typeof url === "string") facts.set(url, entry);
  }
  return facts;
}
