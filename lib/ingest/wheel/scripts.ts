// Programs of a wheel: those made of its entry points, and the shebangs of those that it brings. The text is that of distlib as pip
// has it (pip 23.2: _vendor/distlib/scripts.py, _internal/operations/install/wheel.py). Pure. Control plane.

import { checkName, nameOf } from "../../base/name.ts";
import { badPackage } from "../conda/errors.ts";
import { SHEBANG_MAX_BYTES } from "../conda/prefix.ts";

export interface Script {
  readonly name: string;
  readonly content: Buffer;
}

/** Name of a program -> "module:function". */
export type EntryPoints = ReadonlyMap<string, string>;

const GROUPS = new Set(["console_scripts", "gui_scripts"]);
/** distlib's ENTRY_RE, of a value: module, function, and extras that nothing here depends on. */
const VALUE =
  /^([\p{L}_][\p{L}\p{N}_]*(?:\.[\p{L}_][\p{L}\p{N}_]*)*)\s*:\s*([\p{L}_][\p{L}\p{N}_]*(?:\.[\p{L}_][\p{L}\p{N}_]*)*)\s*(?:\[[^\]]*\])?$/u;

/** The programs that entry_points.txt asks for. BURROW_BAD_PACKAGE for a name or value that makes no program in bin/. */
export function parseEntryPoints(text: string, wheel: string, file: string): EntryPoints {
  const points = new Map<string, string>();
  let group = "";
  for (const raw of text.split(/\r\n|\n|\r/)) {
    const line = raw.trim();
    if (line === "" || line.startsWith("#") || line.startsWith(";")) continue;
    if (line.startsWith("[") && line.endsWith("]")) {
      group = line.slice(1, -1).trim();
      continue;
    }
    if (!GROUPS.has(group)) continue;
    const equals = line.indexOf("=");
    const name = line.slice(0, Math.max(0, equals)).trim();
    const value = line.slice(equals + 1).trim();
    const isName = checkName(nameOf(name)) === 0 && !/[\0-\x1f\x7f]/.test(name);
    if (!isName || !VALUE.test(value)) {
      throw badPackage(wheel, `an entry point is not allowed: ${JSON.stringify(line)}`, file);
    }
    points.set(name, value);
  }
  return points;
}

/** The programs to write for them: pip's own have the Python's version in place of the builder's. */
export function entryPointScripts(
  points: EntryPoints,
  executable: string,
  version: string,
): Script[] {
  const wanted = new Map(points);
  const [major] = version.split(".");
  for (const [name, old, names] of [
    ["pip", /^pip(\d+(\.\d+)?)?$/, ["pip", `pip${major}`, `pip${version}`]],
    ["easy_install", /^easy_install(-\d+\.\d+)?$/, ["easy_install", `easy_install-${version}`]],
  ] as const) {
    const value = points.get(name);
    if (value === undefined) continue;
    for (const each of points.keys()) if (old.test(each)) wanted.delete(each);
    for (const each of names) wanted.set(each, value);
  }
  return [...wanted].map(([name, value]) => ({ name, content: scriptOf(value, executable) }));
}

function scriptOf(value: string, executable: string): Buffer {
  const [, module, call] = VALUE.exec(value)!;
  const text = `${shebang(executable)}# -*- coding: utf-8 -*-
import re
import sys
from ${module} import ${call!.split(".", 1)[0]}
if __name__ == '__main__':
    sys.argv[0] = re.sub(r'(-script\\.pyw|\\.exe)?$', '', sys.argv[0])
    sys.exit(${call}())
`;
  return Buffer.from(text);
}

/** distlib's _build_shebang: a line that sh and Python both read where a kernel can't take the path. */
function shebang(executable: string): string {
  const isSimple =
    !executable.includes(" ") && Buffer.byteLength(executable) + 3 <= SHEBANG_MAX_BYTES;
  if (isSimple) return `#!${executable}\n`;
  const quoted = executable.includes(" ") ? `"${executable}"` : executable;
  return `#!/bin/sh\n'''exec' ${quoted} "$0" "$@"\n' '''\n`;
}

/** A script of .data/scripts with `#!python` made the environment's own; undefined when it stays as it is. */
export function fixedScript(content: Buffer, executable: string): Buffer | undefined {
  if (!content.subarray(0, 8).equals(Buffer.from("#!python"))) return undefined;
  const newline = content.indexOf(0x0a);
  const rest = newline < 0 ? Buffer.alloc(0) : content.subarray(newline + 1);
  return Buffer.concat([Buffer.from(`#!${executable}\n`), rest]);
}

/** Whether a script is what another installer made of an entry point: pip leaves these out. */
export function isWrapper(name: string, points: EntryPoints): boolean {
  const lower = name.toLowerCase();
  const suffix = [".exe", "-script.py", ".pya"].find((each) => lower.endsWith(each));
  return points.has(suffix === undefined ? name : name.slice(0, -suffix.length));
}
