// noarch: python: where a package that fits every Python lands for one of them, and the programs made of its entry points.
// Facts from conda (conda/core/path_actions.py, conda/gateways/disk/create.py). Pure. Control plane.

import { BurrowError } from "../../base/error.ts";
import { checkName, nameOf } from "../../base/name.ts";
import { badPackage } from "./errors.ts";
import { SHEBANG_MAX_BYTES } from "./prefix.ts";

/** The Python that noarch packages are laid out for. */
export interface PythonTarget {
  /** Major and minor: "3.11". */
  readonly version: string;
  /** Latin1 path below the prefix. */
  readonly sitePackages: string;
}

export interface EntryPoint {
  /** Latin1 path below the prefix. */
  readonly path: string;
  readonly content: Buffer;
}

const SITE_PACKAGES = "site-packages/";
const PYTHON_SCRIPTS = "python-scripts/";
const DOTTED = /^[\p{L}_][\p{L}\p{N}_]*(\.[\p{L}_][\p{L}\p{N}_]*)*$/u;
const VERSION = /^(\d+)\.(\d+)(?:$|[.a-z+_-])/;

/** The target for a version such as "3.11" or "3.11.2"; BURROW_USAGE when it is none. */
export function pythonTarget(version: string, sitePackages?: string): PythonTarget {
  const match = VERSION.exec(version);
  if (match === null) {
    throw new BurrowError("BURROW_USAGE", `"${version}" is no version of Python; say 3.11`);
  }
  const short = `${match[1]}.${match[2]}`;
  return { version: short, sitePackages: sitePackages ?? `lib/python${short}/site-packages` };
}

/** Where a path of a noarch: python package goes. */
export function noarchPath(path: string, python: PythonTarget): string {
  if (path.startsWith(SITE_PACKAGES)) {
    return `${python.sitePackages}/${path.slice(SITE_PACKAGES.length)}`;
  }
  if (path.startsWith(PYTHON_SCRIPTS)) return `bin/${path.slice(PYTHON_SCRIPTS.length)}`;
  return path;
}

/** The program of an entry point "NAME = MODULE:FUNCTION". BURROW_BAD_PACKAGE for what is none or leaves bin/. */
export function entryPoint(
  definition: string,
  prefix: string,
  python: PythonTarget,
  packageName: string,
): EntryPoint {
  const colon = definition.lastIndexOf(":");
  const equals = definition.lastIndexOf("=", colon);
  const name = definition.slice(0, Math.max(0, equals)).trim();
  const module = definition.slice(equals + 1, Math.max(0, colon)).trim();
  const call = definition.slice(colon + 1).trim();
  const isSound = equals > 0 && DOTTED.test(module) && DOTTED.test(call);
  if (!isSound || checkName(nameOf(name)) < 0 || /[\0-\x1f\x7f]/.test(name)) {
    throw badPackage(packageName, "an entry point is not allowed", definition);
  }
  const imported = call.split(".", 1)[0]!;
  // conda-build takes such a suffix off too: the program's name in its own messages is NAME.
  const text = `${shebang(`${prefix}/bin/python${python.version}`)}# -*- coding: utf-8 -*-
import re
import sys

from ${module} import ${imported}

if __name__ == '__main__':
    sys.argv[0] = re.sub(r'(-script\\.pyw?|\\.exe)?$', '', sys.argv[0])
    sys.exit(${call}())
`;
  return { path: `bin/${nameOf(name)}`, content: Buffer.from(text) };
}

/** A kernel's shebang, or, when the program's path is too long or has a blank, one that shell and Python both read. */
function shebang(program: string): string {
  const line = `#!${program}\n`;
  if (Buffer.byteLength(line) <= SHEBANG_MAX_BYTES && !line.includes(" ")) return line;
  return `#!/bin/sh\n'''exec' "${quoted(program)}" "$0" "$@" #'''\n`;
}

/**
 * What stands between double quotes for a shell, inside a string of three single quotes for Python, and means the path to the
 * shell and nothing to Python, which warns of a backslash that it doesn't know. conda leaves these characters as they are.
 */
function quoted(path: string): string {
  return path
    .replace(/["\\]/g, "\\$&")
    .replace(/[$`]/g, (char) => `"'${char}'"`)
    .replace(/'(?=')/g, `'""`);
}
