// noarch: python packages are laid out for the Python of their environment, and get their entry points as scripts. Pure.
// conda: core/path_actions.py (get_python_noarch_target_path, entry points), gateways/disk/create.py. Control plane.

import type { EntryPoint } from "./metadata.ts";
import { shortenShebang } from "./prefix.ts";

/** Where a noarch: python package's path goes, for Python "3.11". */
export function noarchPath(path: string, pythonVersion: string): string {
  if (path.startsWith("site-packages/")) return `lib/python${pythonVersion}/${path}`;
  if (path.startsWith("python-scripts/")) return `bin/${path.slice("python-scripts/".length)}`;
  return path;
}

/** The script of an entry point, as conda writes it. Mode 0755. */
export function entryPointScript(entry: EntryPoint, prefix: string, pythonVersion: string): Buffer {
  const [imported = ""] = entry.attribute.split(".");
  const text = `#!${prefix}/bin/python${pythonVersion}
# -*- coding: utf-8 -*-
import re
import sys

from ${entry.module} import ${imported}

if __name__ == '__main__':
    sys.argv[0] = re.sub(r'(-script\\.pyw?|\\.exe)?$', '', sys.argv[0])
    sys.exit(${entry.attribute}())
`;
  return shortenShebang(Buffer.from(text), prefix);
}
