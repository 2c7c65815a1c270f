// V9fsMachine: a user-mode Linux in which `burrow serve` serves and Linux's own 9P client mounts. test/suite/v9fs-guest.sh is what runs in
// it. Test support.

import fs from "node:fs";
import path from "node:path";
import type { Diod } from "./diod.ts";
import { bootUml, ROOT } from "./uml.ts";

/** Of a boot and all that is done in it: some 2 minutes on an idle machine. */
const BOOT_MAX_MS = 1_200_000;

export interface GuestWork {
  /** What is served. */
  readonly tree: string;
  /** Of Python, run from the mount. */
  readonly program: string;
  /** Values of the mount's cache=. */
  readonly caches: readonly string[];
  /** How fio is run; "": not. */
  readonly fio: string;
  /** diod, to be compared with; undefined: not. */
  readonly diod?: Diod;
}

/** Boots, and gives the lines that it said, in order, and all its output. `folder`: the test's own. */
export async function bootV9fs(
  uml: string,
  folder: string,
  work: GuestWork,
): Promise<{ lines: string[]; output: string }> {
  const given = path.join(folder, "given");
  const values = {
    root: uml,
    tree: work.tree,
    program: work.program,
    caches: work.caches.join(" "),
    fio: work.fio,
    diod: work.diod?.program ?? "",
    diodLibraries: work.diod?.libraries ?? "",
    burrow: `${process.execPath} --no-warnings ${path.join(ROOT, "dist/burrow.cjs")}`,
    writer: path.join(ROOT, "test/suite/v9fs-writer.py"),
    turns: path.join(ROOT, "test/suite/v9fs-turns.py"),
  };
  const text = Object.entries(values).map(([name, value]) => `${name}='${value}'\n`);
  fs.writeFileSync(given, text.join(""));
  const output = await bootUml({
    uml,
    folder,
    given,
    memory: "1400M",
    script: "v9fs-guest.sh",
    maxMs: BOOT_MAX_MS,
  });
  const lines = output
    .split(/\r?\n/)
    .flatMap((line) => (line.startsWith("@@ ") ? [line.slice(3)] : []));
  return { lines, output };
}
