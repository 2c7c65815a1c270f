// Virtual packages: what conda tells a solver of the machine, as records that no archive stands behind. Detected on this machine
// and overridden by CONDA_OVERRIDE_*, so that a solve can be repeated elsewhere. docs/conda.md. Control plane.

import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { release } from "node:os";
import { BurrowError } from "../../base/error.ts";

export interface VirtualPackage {
  readonly name: string;
  readonly version: string;
  readonly build: string;
}

const VERSION = /^\d[0-9A-Za-z._!+-]*$/;
const ARCHITECTURE = /^[A-Za-z0-9_]+$/;
const GETCONF_MS = 5_000;

/**
 * Flags of /proc/cpuinfo that each level of x86-64 adds to the one before.
 * x86-64 psABI, "Micro-Architecture Levels"; the kernel calls lzcnt "abm" and SSE3 "pni".
 */
const LEVELS: readonly (readonly [string, readonly string[]])[] = [
  ["x86_64_v2", ["cx16", "lahf_lm", "popcnt", "sse4_1", "sse4_2", "ssse3", "pni"]],
  ["x86_64_v3", ["avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "xsave"]],
  ["x86_64_v4", ["avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"]],
];

/** What this machine and `env` say: sorted by name. BURROW_USAGE for an override that is no version. */
export function virtualPackages(env: NodeJS.ProcessEnv = process.env): VirtualPackage[] {
  const packages: VirtualPackage[] = [{ name: "__unix", version: "0", build: "0" }];
  const add = (name: string, version: string | undefined) => {
    if (version !== undefined) packages.push({ name, version, build: "0" });
  };
  add("__linux", overridden(env, "LINUX", VERSION, linuxVersion));
  add("__glibc", overridden(env, "GLIBC", VERSION, glibcVersion));
  add(
    "__cuda",
    overridden(env, "CUDA", VERSION, () => undefined),
  );
  const build = overridden(env, "ARCHSPEC", ARCHITECTURE, () => levelOf(cpuFlags()));
  if (build !== undefined) packages.push({ name: "__archspec", version: "1", build });
  return packages.sort((left, right) => (left.name < right.name ? -1 : 1));
}

/** "__glibc 2.36, …" for people. */
export function showVirtual(packages: readonly VirtualPackage[]): string {
  return packages
    .map(({ name, version, build }) => `${name} ${name === "__archspec" ? build : version}`)
    .join(", ");
}

/** As conda: an override that is set and empty takes the package away. */
function overridden(
  env: NodeJS.ProcessEnv,
  key: string,
  pattern: RegExp,
  detect: () => string | undefined,
): string | undefined {
  const variable = `CONDA_OVERRIDE_${key}`;
  const value = env[variable];
  if (value === undefined) return detect();
  if (value === "") return undefined;
  if (pattern.test(value)) return value;
  const wanted = pattern === VERSION ? "version" : "microarchitecture";
  throw new BurrowError("BURROW_USAGE", `${variable}="${value}" is no ${wanted}`);
}

/** The kernel's version up to its third number, as conda cuts it. */
function linuxVersion(): string | undefined {
  return /^\d+(\.\d+){0,2}/.exec(release())?.[0];
}

function glibcVersion(): string | undefined {
  const options = { encoding: "utf8", timeout: GETCONF_MS } as const;
  const { stdout } = spawnSync("getconf", ["GNU_LIBC_VERSION"], options);
  return /^glibc (\d+(\.\d+)+)/.exec(stdout ?? "")?.[1];
}

function cpuFlags(): string {
  try {
    return /^flags\s*:(.*)$/m.exec(readFileSync("/proc/cpuinfo", "utf8"))?.[1] ?? "";
  } catch {
    return "";
  }
}

/** The highest level of x86-64 that a processor with these flags has. */
export function levelOf(flags: string): string {
  const has = new Set(flags.trim().split(/\s+/));
  let level = "x86_64";
  for (const [name, needed] of LEVELS) {
    if (!needed.every((flag) => has.has(flag))) break;
    level = name;
  }
  return level;
}
