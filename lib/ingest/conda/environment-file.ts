// environment.yml: the channels and specs that conda env create reads. Pure. Control plane.

import { badLock, isMap, textsOf, type YamlMap } from "./yaml.ts";

export interface EnvironmentFile {
  /** As written, in their order. */
  readonly channels: readonly string[];
  readonly specs: readonly string[];
  /** What is in the file and has no effect, for people. */
  readonly warnings: readonly string[];
}

const PLATFORM = "linux-64";
const KNOWN: ReadonlySet<string> = new Set([
  "name",
  "channels",
  "dependencies",
  "platforms",
  "prefix",
]);

/** Whether a YAML file is an environment.yml. */
export function isEnvironmentFile(file: YamlMap): boolean {
  return "dependencies" in file;
}

/** Reads an environment.yml. BURROW_BAD_LOCK for a pip section, and for whatever is no list of specs. */
export function parseEnvironmentFile(file: YamlMap, where: string): EnvironmentFile {
  const channels = textsOf(file["channels"] ?? []);
  if (channels === undefined) throw badLock(where, "its channels are no list of names and URLs");
  const platforms = textsOf(file["platforms"] ?? [PLATFORM]);
  if (!platforms?.includes(PLATFORM)) throw badLock(where, `it is not for ${PLATFORM}`);
  const list = file["dependencies"];
  if (!Array.isArray(list)) throw badLock(where, "its dependencies are no list");
  const specs: string[] = [];
  for (const entry of list as readonly unknown[]) {
    if (typeof entry === "string") specs.push(entry);
    else if (isMap(entry) && "pip" in entry) {
      const advice =
        'take it out; name conda packages in their place, or give wheels to "burrow env create" beside the file';
      throw badLock(where, `it has a pip section, and pip's packages are not solved: ${advice}`);
    } else throw badLock(where, "a dependency is no spec, as in numpy>=1.24");
  }
  if (specs.length === 0) throw badLock(where, "it has no dependencies");
  const warnings = Object.keys(file)
    .filter((key) => !KNOWN.has(key))
    .map((key) =>
      key === "variables"
        ? "its variables are not kept: give them to the sandbox with -e NAME=VALUE"
        : `"${key.slice(0, 40)}" has no effect`,
    );
  return { channels, specs, warnings };
}
