// What a wheel's file name says: project, version, and the Pythons and platforms that it is for. Facts from the binary distribution
// format (PEP 427) and compatibility tags (PEP 425, 600). Pure. Control plane.

import { BurrowError } from "../../base/error.ts";
import { badPackage } from "../conda/errors.ts";
import type { PythonTarget } from "../conda/noarch.ts";

export interface WheelName {
  /** As the file name has it. */
  readonly project: string;
  readonly version: string;
  readonly pythons: readonly string[];
  readonly abis: readonly string[];
  readonly platforms: readonly string[];
}

/** PEP 427 "File name convention": a build number starts with a digit. */
const NAME =
  /^([\p{L}\p{N}_.]+)-([\p{L}\p{N}_.!+]+)(?:-\d[^-]*)?-([\w.]+)-([\w.]+)-([\w.]+)\.whl$/u;
const GLIBC = /^(linux|manylinux1|manylinux2010|manylinux2014|manylinux_2_\d+)_x86_64$/;

/** The parts of a wheel's file name; BURROW_BAD_PACKAGE when it has not that form. */
export function wheelName(fileName: string): WheelName {
  const match = NAME.exec(fileName);
  if (match === null) throw badPackage(fileName, "its name is no wheel's");
  const [, project, version, pythons, abis, platforms] = match as unknown as string[];
  return {
    project: project!,
    version: version!,
    pythons: pythons!.split("."),
    abis: abis!.split("."),
    platforms: platforms!.split("."),
  };
}

/** A project's name for comparison: PEP 503 "Normalized Names". */
export function normalName(project: string): string {
  return project.replace(/[-_.]+/g, "-").toLowerCase();
}

/**
 * Throws BURROW_UNSUPPORTED unless one of the wheel's tags is for this CPython on x86-64 Linux with glibc. Which glibc the base has
 * isn't known here: a manylinux tag of any version passes.
 */
export function checkTags(fileName: string, name: WheelName, python: PythonTarget): void {
  const refuse = (why: string) => {
    throw new BurrowError("BURROW_UNSUPPORTED", why, { context: { package: fileName } });
  };
  const { pythons, abis, platforms } = name;
  if (!platforms.some((platform) => platform === "any" || GLIBC.test(platform))) {
    refuse(`it is for ${platforms.join(", ")}, not for x86-64 Linux with glibc`);
  }
  const isFor = pythons.some((tag) => abis.some((abi) => fits(tag, abi, python)));
  if (isFor) return;
  const tags = `${pythons.join(".")}-${abis.join(".")}`;
  refuse(`it is for ${tags}, not for CPython ${python.version}; --python names another`);
}

/** Whether a Python and ABI tag fit, as pip's packaging.tags has them for CPython. */
function fits(tag: string, abi: string, { version }: PythonTarget): boolean {
  const match = /^(py|cp)(\d)(\d*)$/.exec(tag);
  const [major, minor] = version.split(".").map(Number) as [number, number];
  if (match === null || Number(match[2]) !== major) return false;
  const tagMinor = match[3] === "" ? undefined : Number(match[3]);
  if (match[1] === "py") return abi === "none" && (tagMinor ?? 0) <= minor;
  if (abi === "abi3") return major === 3 && (tagMinor ?? 0) >= 2 && (tagMinor ?? 0) <= minor;
  if (abi === "none" && tagMinor === undefined) return true;
  // PEP 3149: until 3.7 the ABI ended in m.
  const own = `cp${major}${minor}${major === 3 && minor < 8 ? "m" : ""}`;
  return tagMinor === minor && (abi === "none" || abi === own);
}
